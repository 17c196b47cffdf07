"""The gate's net: what failed is asked again, alone, where it is little and everything else has run."""

import subprocess
from pathlib import Path

import pytest

AGAIN = Path(__file__).parent.parent / ".ci" / "again"


@pytest.mark.parametrize(
    ("lines", "code", "said"),
    [
        (["true", "# whole", "# whole"], 0, "failed, then passed alone: true"),
        (["true", "false", "# whole", "# whole"], 1, "failed, and again alone: false"),
        (["true", "# whole"], 1, "Of 2 runs of tests 1 came to their end"),
        (["# whole", "# whole"], 1, "no single item"),
        (["true"] * 3 + ["# whole"] * 2, 0, "unsteady"),
        (["true"] * 4 + ["# whole"] * 2, 1, "4 items failed, which is more than 3"),
    ],
)
def test_what_is_asked_again_and_what_is_not(tmp_path: Path, lines: list[str], code: int, said: str) -> None:
    (tmp_path / "failed").write_text("".join(f"{line}\n" for line in lines))
    done = subprocess.run([AGAIN, tmp_path / "failed", "2"], capture_output=True, text=True, check=False)
    assert done.returncode == code and said in done.stdout + done.stderr
