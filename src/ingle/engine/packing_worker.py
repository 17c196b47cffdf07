"""Pack weights in another process, so that a server keeps answering.

Packing holds Python's lock for tens of milliseconds at a time, and each thread of a decoder step needs that lock to begin: in one process
every token would wait. The request goes to the worker's standard input; an error comes back on its standard output.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from ingle.core.config import from_table, to_table
from ingle.core.errors import IngleError, KernelError, fault_of, raised
from ingle.engine.packs import kept_source, warm
from ingle.home.kept import Kept
from ingle.home.place import Home

_NICE = 10
"""Niceness: the worker gives way to computing programs."""
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def warm_apart(home: Home, kept: Kept, format_: str, cache: str) -> None:
    """Do `source.warm` for a kept model in another process. Raises what that raises, KernelError if the process fails in another way."""
    job = {"home": str(home.root), "kept": to_table(kept), "format": format_, "cache": cache}
    command = [sys.executable, "-P", "-m", "ingle.engine.packing_worker"]
    process = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, check=False, env={**os.environ, **_ONE_THREAD})
    if process.returncode:
        last = (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        raise KernelError(f"model {kept.name}", "must be packed before it can answer", last[:500], "Try again; see the server's log.")
    fault = json.loads(process.stdout)
    if fault is not None:
        raise raised(fault)


def _main() -> None:
    if os.name == "posix":
        os.nice(_NICE)
    job = json.load(sys.stdin)
    fault: dict[str, str] | None = None
    try:
        warm(kept_source(Home(Path(job["home"])), from_table(Kept, job["kept"])), job["format"], job["cache"])
    except IngleError as error:
        fault = fault_of(error)
    print(json.dumps(fault))


if __name__ == "__main__":
    _main()
