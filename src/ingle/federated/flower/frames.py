"""Frames between a process and its child, through a pipe: plain values and bytes beside them."""

import json
import struct
from collections.abc import Mapping
from typing import IO, Any

_SIZES = struct.Struct(">QQ")


def write_frame(pipe: IO[bytes], head: Mapping[str, Any], body: bytes = b"") -> None:
    """Write one frame. Raises OSError if nobody reads any more."""
    plain = json.dumps(head).encode()
    pipe.write(_SIZES.pack(len(plain), len(body)) + plain)
    pipe.write(body)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """Return the next frame; None at the end, also where it was cut."""
    sizes = pipe.read(_SIZES.size)
    if len(sizes) < _SIZES.size:
        return None
    head_bytes, body_bytes = _SIZES.unpack(sizes)
    plain, body = pipe.read(head_bytes), pipe.read(body_bytes)
    return (json.loads(plain), body) if len(plain) + len(body) == head_bytes + body_bytes else None
