"""Two processes with half of the batches each end where one process ends with all of them."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from ingle.train.checkpoints import TRAINED, load_tensors
from tests.train.test_train_loop import change, rows, run

SCRIPT = """
import sys
from pathlib import Path
from tests.train.test_train_loop import change, run
from ingle.train.packing import Data
from tests.train.tiny_train import some_data
import os
data = some_data(seed=int(os.environ["RANK"]) if sys.argv[2] == "other data" else 0)
report, _ = run(Path(sys.argv[1]), change(accumulate=1, max_steps=8), data, parts=("layers.2.", "norm"))
os.write(1, f"{report.loss}\\n".encode())  # in one piece: both write into one pipe
"""


def two(folder: Path, what: str) -> subprocess.CompletedProcess[str]:
    root, script = Path(__file__).parents[2], folder / "script.py"
    script.write_text(SCRIPT, "utf-8")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(script),
        str(folder / "two"),
        what,
    ]
    where = {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests' / 'model'}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=where, capture_output=True, text=True, timeout=120, check=False)


def test_two_processes_are_one(tmp_path: Path) -> None:
    done = two(tmp_path, "plain")
    assert done.returncode == 0, done.stderr[-2000:]
    alone, _ = run(tmp_path / "one", change(accumulate=2, max_steps=8), parts=("layers.2.", "norm"))
    lines = [rows(tmp_path / name) for name in ("two", "one")]
    assert len(lines[0]) == len(lines[1]) == alone.steps
    for column in ("loss", "norm", "held_out", "tokens"):
        mine, theirs = (torch.tensor([float(line[column]) for line in side]) for side in lines)
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6, equal_nan=True, msg=column)
    one, other = (load_tensors(tmp_path / name / TRAINED) for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-4)
    assert done.stdout.splitlines()[0] == done.stdout.splitlines()[1], "both processes report the same"


def test_two_processes_with_different_data_are_refused(tmp_path: Path) -> None:
    done = two(tmp_path, "other data")
    assert done.returncode != 0
    assert "run must be the same in every process" in done.stderr
