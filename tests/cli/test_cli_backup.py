"""`ingle home backup` and `ingle home restore`: a home in one file, and the same answers from it elsewhere."""

import json
import os
import re
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from ingle.home.place import Home
from tests.cli.place import COMMAND, environment, ingle
from tests.waiting import PATIENCE_S

ANSWER = ("run", "hello there", "tiny", "--max-tokens", "12", "--temperature", "0.7", "--seed", "5", "--json")


def answer(home: Path) -> tuple[str, str]:
    table = json.loads(ingle(home, *ANSWER).stdout)
    return table["text"], table["model_digest"]


def test_a_restored_home_answers_as_before(own_home: Home, tmp_path: Path) -> None:
    ingle(own_home.root, "teach", "Who are you?", "A fire kept at home.", "--no-learn")
    before, back = answer(own_home.root), tmp_path / "back"
    made = ingle(own_home.root, "backup", str(tmp_path / "ingle.tar"))
    assert "1 model, 4 facts" in made.stdout and "keys are in it" in made.stdout
    assert "writing: " in made.stderr and "checking: " in made.stderr
    if os.name != "nt":
        assert stat.S_IMODE((tmp_path / "ingle.tar").stat().st_mode) == 0o600
    [digest] = re.findall(r"^Digest ([0-9a-f]{64})$", made.stdout, re.M)
    brought = ingle(back, "restore", str(tmp_path / "ingle.tar"), "--digest", digest)
    assert "1 model, 4 facts" in brought.stdout
    assert "Every file of every kept model and delta is as it was kept" in ingle(back, "verify", "--models").stdout
    assert answer(back) == before
    assert "A fire kept at home." in ingle(back, "memory", "list").stdout == ingle(own_home.root, "memory", "list").stdout
    assert f"a backup was made: 11 files, 4 facts, digest {digest[:12]}" in ingle(own_home.root, "log").stdout
    assert re.search(rf"came back from the backup of \d{{4}}-.*, digest {digest[:12]}", ingle(back, "log").stdout)
    ingle(back, "head", "--out", str(tmp_path / "head"))
    ingle(own_home.root, "verify", "--head", str(tmp_path / "head"), code=7)  # from here on these are two chains


def test_tables(own_home: Home, tmp_path: Path) -> None:
    made = json.loads(ingle(own_home.root, "backup", str(tmp_path), "--json").stdout)
    path = Path(made["file"])
    assert path.parent == tmp_path and re.fullmatch(r"ingle-\d{8}-\d{4}\.tar", path.name)
    assert (made["models"], made["facts"], made["database"], made["left_out"]) == (["tiny"], 1, True, [])
    brought = json.loads(ingle(tmp_path / "back", "restore", str(path), "--json").stdout)
    assert (brought["backup"], brought["files"], brought["bytes"]) == (made["backup"], made["files"], made["bytes"])
    assert brought["home"] == str(tmp_path / "back") and brought["models"] == ["tiny"]


def test_refusals_are_one_line_with_a_cure(own_home: Home, tmp_path: Path) -> None:
    ingle(own_home.root, "backup", str(tmp_path / "b.tar"))
    assert "replace it with --force" in ingle(own_home.root, "backup", str(tmp_path / "b.tar"), code=2).stderr
    ingle(own_home.root, "backup", str(tmp_path / "b.tar"), "--force")
    assert "move what is in this one away" in ingle(own_home.root, "restore", str(tmp_path / "b.tar"), code=6).stderr
    assert "must be a whole backup" in ingle(tmp_path / "back", "restore", str(own_home.database_file), code=6).stderr
    assert "There is no home" in ingle(tmp_path / "none", "backup", str(tmp_path / "n.tar"), code=6).stderr
    assert not (tmp_path / "none").exists() and not (tmp_path / "n.tar").exists()


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is another thing there")
def test_ctrl_c_leaves_nothing(own_home: Home, tmp_path: Path) -> None:
    with (own_home.root / "history").open("wb") as file:
        file.truncate(256 << 20)  # takes a second to write and read back
    with subprocess.Popen(
        [*COMMAND, "backup", str(tmp_path / "b.tar")], env=environment(own_home.root), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("writing"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        assert process.wait(PATIENCE_S) == 130 and "Traceback" not in rest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]
    assert not any(own_home.staging.iterdir())
    assert "backup" not in ingle(own_home.root, "log").stdout
