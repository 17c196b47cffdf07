"""The files of a delta's origin: those that its command names and that are still there, and nothing else."""

from pathlib import Path

import pytest

from ingle.tuning.tune import files_of


def test_files_that_still_stand_where_the_command_named_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "our data").mkdir()
    for name in ("a.jsonl", "our data/b.jsonl", "secret.txt"):
        (tmp_path / name).write_text("x")
    monkeypatch.chdir(tmp_path)
    command = f"ingle make tune smollm2 a.jsonl '{tmp_path}/our data/b.jsonl' gone.jsonl --out secret.txt a.jsonl"
    found = files_of({"command": command, "data": "a.jsonl, b.jsonl, gone.jsonl"})
    assert found == [Path("a.jsonl"), tmp_path / "our data" / "b.jsonl"]


@pytest.mark.parametrize("origin", [{}, {"command": "it's", "data": "s"}, {"command": "a b", "data": ""}, {"data": "a.jsonl"}])
def test_an_origin_that_names_none(origin: dict[str, str]) -> None:
    assert files_of(origin) == []
