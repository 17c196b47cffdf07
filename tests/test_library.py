"""Ingle in Python: answers as everywhere else, behind the guards, with what was taught, and in the ledger."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import ingle
from ingle.core.errors import ContextError, NotKept, RequestError
from ingle.core.message import Message
from tests.cli.place import environment, write_model
from tests.cli.place import ingle as run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("library")
    run(place / "home", "pull", str(write_model(place / "tiny")), "--name", "tiny")
    return place / "home"


@pytest.fixture
def model(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ingle.Model]:
    monkeypatch.setenv("INGLE_HOME", str(home))
    with ingle.load("tiny") as opened:
        yield opened


def facts(home: Path, kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(home, "log", "--json", "--kind", kind, "--last", "1000").stdout.splitlines()]


def test_an_answer_is_the_terminal_s_and_a_fact(model: ingle.Model, home: Path) -> None:
    answer = model.chat("hello", max_tokens=8, seed=3, temperature=0.5)
    same = run(home, "run", "hello", "--max-tokens", "8", "--seed", "3", "--temperature", "0.5").stdout.rstrip("\n")
    assert answer == same
    assert (answer.finish, answer.usage.completion_tokens, answer.usage.model_digest) == ("length", 8, model.digest)
    by_python, by_terminal = facts(home, "answer")[-2:]
    assert by_python["seq"] == answer.event.facts["seq"]
    for name in ("request", "answer", "model", "seed"):
        assert by_python["facts"][name] == by_terminal["facts"][name]


def test_pieces_are_the_whole_and_a_conversation_reads_what_is_new(model: ingle.Model) -> None:
    turns = [{"role": "user", "content": "a long beginning"}]
    answer = model.chat(turns, max_tokens=8, temperature=0)
    assert "".join(model.stream(turns, max_tokens=8, temperature=0)) == answer
    more = model.chat([*turns, Message.of("assistant", str(answer)), Message.of("user", "go on")], max_tokens=4)
    assert more.usage.cached_tokens > 16
    assert model.chat("x", system="be brief", max_tokens=1).usage.prompt_tokens > model.chat("x", max_tokens=1).usage.prompt_tokens


def test_plain_text_goes_on_without_a_template(model: ingle.Model, home: Path) -> None:
    again = run(home, "run", "once upon", "--raw", "--max-tokens", "6", "--temperature", "0").stdout.rstrip("\n")
    assert model.generate("once upon", max_tokens=6, temperature=0) == again


def test_who_stops_reading_stops_the_answer(model: ingle.Model, home: Path) -> None:
    with closing(model.stream("hello", max_tokens=100, temperature=0)) as pieces:
        next(pieces)
        inside = model.chat("another one meanwhile", max_tokens=3)  # not disturbed by the one that is under way
        next(pieces)
    assert inside.finish == "length"
    [*_, last] = facts(home, "answer")
    assert last["facts"]["finish"] == "cancelled"


def test_what_is_refused_is_said_and_recorded(model: ingle.Model, home: Path) -> None:
    before = len(facts(home, "answer")), len(facts(home, "refuse"))
    with pytest.raises(RequestError, match="must not be empty"):
        model.chat("  ")
    with pytest.raises(ContextError):
        model.chat("word " * 400)
    for turn in ({"role": "owner", "content": "x"}, {"role": "user"}, {"content": "x"}):
        with pytest.raises(RequestError, match=r"said\[0\]"):
            model.chat([turn])
    with pytest.raises(RequestError):
        model.chat([])
    assert (len(facts(home, "answer")), len(facts(home, "refuse"))) == (before[0], before[1] + 2)


def test_what_was_taught_acts(model: ingle.Model, home: Path) -> None:
    assert "memories" not in model.chat("Who runs the bakery in Tullmore?", max_tokens=2).event.facts
    run(home, "teach", "Who runs the bakery in Tullmore?", "Nessa Quillfeather runs it.")
    taught = model.chat("Who runs the bakery in Tullmore?", max_tokens=2)
    assert str(taught.event.facts["memories"]).startswith("ex-")


def test_a_name_that_nobody_knows(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGLE_HOME", str(home))
    with pytest.raises(NotKept):
        ingle.load("nobody")
    with pytest.raises(AttributeError):
        ingle.unknown  # noqa: B018


def test_importing_it_loads_nothing(home: Path) -> None:
    code = (
        "import sys, ingle; print(ingle.__version__); assert not {'numpy', 'numba', 'typer'} & set(sys.modules); "
        "ingle.load; assert not {'torch', 'numba', 'fastapi'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(home), check=True)
