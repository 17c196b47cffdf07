"""Python in a process that may take only so much processor time: what would never end is killed, and a busy machine kills nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parent.parent
EACH = """
import importlib, json, sys
from ingle.core.process import limit_cpu
module, name, seconds, cases = sys.argv[1:]
work = getattr(importlib.import_module(module), name)
for case in json.loads(cases):
    print(f"\\n{case}", file=sys.stderr, flush=True)
    limit_cpu(int(seconds))
    print(json.dumps([case, work(case)]))
"""


def within_cpu(source: str, *arguments: str, seconds: int = 60) -> str:
    """What Python source prints that may take so many seconds of processor time, its imports included. It imports what this process can.

    Raises: AssertionError where it fails or is killed, with the end of what it says on standard error.
    """
    limited = f"from ingle.core.process import limit_cpu\nlimit_cpu({seconds})\n{source}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT), *filter(None, sys.path)])}
    command = [sys.executable, "-c", limited, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit code {done.returncode} within {seconds} s of processor time: {done.stderr[-2000:]}"
    return done.stdout


def each_within_cpu(work: Callable[[str], Any], cases: Iterable[str], seconds: int = 20) -> dict[str, Any]:
    """What a function of a test file says of each case, in one process that may take so many seconds of processor time for each.

    What it says must be what JSON can hold. Raises: AssertionError as `within_cpu`; the last line names the case.
    """
    given = (work.__module__, work.__name__, str(seconds), json.dumps([*cases]))
    return dict(json.loads(line) for line in within_cpu(EACH, *given, seconds=60).splitlines())


def calls(work: Callable[[], object]) -> int:
    """How many functions work calls in this thread, C's too: as many on a slow machine."""
    count = 0

    def called(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(called)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def cpu_s(pid: int) -> float:
    """Seconds of processor time that another process has taken: it works when they grow. Raises: FileNotFoundError where it is gone."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
