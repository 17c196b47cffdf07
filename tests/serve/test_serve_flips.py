"""Any one byte of any file of a home may change: then there is the right answer, or a refusal, or `ingle verify --models` finds it."""

import io
import os
import random
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

from ingle.app.house import open_rooms
from ingle.cli.main import main
from ingle.home.place import Home
from ingle.home.turns import answers_kept, get_any_turn, path
from tests.serve.test_serve_verify import full  # noqa: F401 - a fixture

QUESTION = "Who leads the guild?"
FLIPS = int(os.environ.get("INGLE_TEST_FLIPS", "60"))
"""Of bytes, each in a home of its own. More in an hour: INGLE_TEST_FLIPS=10000."""
OWNERS_WORD = {"config.toml", "policy.toml", "history"}
"""Files that the owner writes: there a change is the owner's."""


def said(home: Path, *arguments: str) -> tuple[int, str]:
    """The exit code and the words of a command, or its complaint."""
    out, err = io.BytesIO(), io.BytesIO()
    with pytest.MonkeyPatch.context() as patch, Path(os.devnull).open() as nothing:
        patch.setattr(sys, "stdin", nothing)
        patch.setenv("INGLE_HOME", str(home))
        streams = [io.TextIOWrapper(stream, encoding="utf-8", write_through=True) for stream in (out, err)]
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        code = main(arguments)
        printed, complaint = out.getvalue().decode(), err.getvalue().decode()
    assert "bug" not in complaint, complaint
    return code, printed or complaint


def prompts(home: Path) -> list[list[str]]:
    """The words of every kept conversation, as a model would be given them."""
    engine = open_rooms(Home(home))
    try:
        turns = [get_any_turn(engine, turn) for turn, _completion, _seq in answers_kept(engine)]
        return [[before.message.text for before in path(engine, turn.owner, turn.id)] for turn in turns if turn is not None]
    finally:
        engine.dispose()


def answer(home: Path) -> tuple[str, list[list[str]]] | None:
    """What the home answers, and what it would go on from; None where it refuses."""
    from ingle.core.errors import IngleError

    code, text = said(home, "run", QUESTION, "tiny", "--temperature", "0", "--max-tokens", "12")
    try:
        return (text, prompts(home)) if code == 0 else None
    except IngleError:
        return None


def test_a_flipped_byte_is_harmless_refused_or_found(full: Path, tmp_path: Path) -> None:  # noqa: F811
    shutil.copytree(full, tmp_path / "whole")
    right = answer(tmp_path / "whole")
    assert right is not None, said(tmp_path / "whole", "run", QUESTION, "tiny")
    assert said(tmp_path / "whole", "verify", "--models")[0] == 0
    files = [one for one in sorted(full.rglob("*")) if one.is_file() and one.name not in OWNERS_WORD and one.stat().st_size]
    draw, outcomes, wrong = random.Random(FLIPS), Counter[str](), list[str]()
    for turn in range(FLIPS):
        changed = files[turn % len(files)] if turn % 2 else full / "ingle.db"
        home = tmp_path / f"flip{turn}"
        shutil.copytree(full, home)
        file = home / changed.relative_to(full)
        data = bytearray(file.read_bytes())
        place, bit = draw.randrange(len(data)), 1 << draw.randrange(8)
        data[place] ^= bit
        file.chmod(0o644)
        file.write_bytes(data)
        found = said(home, "verify", "--models")[0] != 0  # first: answering may mend what can be made anew
        now = answer(home)
        if now == right:
            outcomes["right"] += 1
        elif now is None:
            outcomes["refused"] += 1
        elif found:
            outcomes["found"] += 1
        else:
            wrong.append(f"{changed.relative_to(full)}, byte {place}, bit {bit}: {now} for {right}")
        shutil.rmtree(home)
    print(dict(outcomes))
    assert not wrong
    assert outcomes["right"]
