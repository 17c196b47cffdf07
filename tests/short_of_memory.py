"""Commands in a process that may take only so much more memory than it has when it begins."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROGRAM = """
import importlib, sys
room, modules, sys.argv = int(sys.argv[1]), sys.argv[2].split(","), ["ingle", *sys.argv[3:]]
for module in modules:
    importlib.import_module(module)
from ingle.core.process import limit_memory
from ingle.cli.main import main
limit_memory(room << 20)
sys.exit(main())
"""


def run_short(home: Path, room_mb: int, modules: Sequence[str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `ingle …` where it may take `room_mb` more than these modules take."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "INGLE_HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(room_mb), ",".join(modules), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment, timeout=300)
