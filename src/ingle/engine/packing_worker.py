"""Packing weights in a process of its own, for a server that answers meanwhile.

Packing holds Python's lock for tens of milliseconds at a time, again and again, and a step of the decoder needs that lock to begin on each
of its threads: in one process every token waits. The other process is asked over standard input and tells an error on standard output.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ingle.core import errors
from ingle.core.config import from_table, to_table
from ingle.core.errors import IngleError, KernelError
from ingle.engine.source import kept_source, warm
from ingle.home.kept import Kept
from ingle.home.place import Home

_NICE = 10
"""It gives way to whoever computes, and takes what is left."""
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def warm_apart(home: Home, kept: Kept, format_: str, cache: str) -> None:
    """What `source.warm` does for a kept model. Raises what that raises, KernelError if the process fails in another way."""
    asked = {"home": str(home.root), "kept": to_table(kept), "format": format_, "cache": cache}
    command = [sys.executable, "-P", "-m", "ingle.engine.packing_worker"]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False, env={**os.environ, **_ONE_THREAD})
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise KernelError(f"model {kept.name}", "must be packed before it can answer", last[:500], "Try again; see the server's log.")
    fault = json.loads(done.stdout)
    if fault is not None:
        kind: type[IngleError] = getattr(errors, fault.pop("kind"))
        raise kind(**fault)


def _main() -> None:
    if os.name == "posix":
        os.nice(_NICE)
    asked = json.load(sys.stdin)
    fault: dict[str, Any] | None = None
    try:
        warm(kept_source(Home(Path(asked["home"])), from_table(Kept, asked["kept"])), asked["format"], asked["cache"])
    except IngleError as error:
        fault = {"kind": type(error).__name__, "field": error.field, "rule": error.rule, "got": error.got, "cure": error.cure}
    print(json.dumps(fault))


if __name__ == "__main__":
    _main()
