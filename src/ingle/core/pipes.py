"""Messages between this process and a worker of its own: a line of JSON, and the bytes that it announces."""

import json
import subprocess
from contextlib import suppress
from typing import IO, Any

_MOST_LINE = 64 << 20


def write_message(stream: IO[bytes], header: dict[str, Any], data: bytes = b"") -> None:
    """Write a header with its bytes, and flush."""
    stream.write(json.dumps(header | {"bytes": len(data)}).encode() + b"\n" + data)
    stream.flush()


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """Return a header and the bytes that it announces. Raises EOFError where the other side has ended."""
    line = stream.readline(_MOST_LINE)
    if not line.endswith(b"\n"):
        raise EOFError
    header: dict[str, Any] = json.loads(line)
    size = int(header.get("bytes", 0))
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return header, data


def end_worker(process: "subprocess.Popen[bytes]") -> None:
    """Kill a worker, wait for its end, and close its pipes."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()
