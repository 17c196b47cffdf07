"""What was taught acts at a terminal as it does in the server, and costs nothing where nothing was."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingle.app.answer_key import answer_key
from ingle.app.facts import answer_digest
from ingle.app.house import open_rooms
from ingle.core.example import Example
from ingle.core.message import Message, Request, Sampling
from ingle.engine.answer import answer
from ingle.engine.loading import beside, open_model
from ingle.engine.packs import kept_source
from ingle.home.deltas import LESSON, put_delta
from ingle.home.examples import add_example
from ingle.home.kept import get_kept
from ingle.home.lessons import Lesson
from ingle.home.place import Home
from ingle.home.taught import anything_taught
from tests.cli.place import ingle
from tests.engine.test_delta_kinds import OUT, Q, random_change
from tests.serve.conftest import copied
from tests.states import have_learned

QUESTION, ANSWER = "Who is the mayor of Tallwick?", "Mara Quill"
SHORT = ("--seed", "3", "--max-tokens", "8")


@pytest.fixture
def home(tmp_path: Path, tiny_home: Path) -> Home:
    return Home(copied(tiny_home, tmp_path / "home"))


@pytest.fixture
def engine(home: Home) -> Iterator[Engine]:
    made = open_rooms(home)
    yield made
    made.dispose()


def told(home: Home, *options: str) -> dict[str, object]:
    table: dict[str, object] = json.loads(ingle(home.root, "run", QUESTION, "--json", *SHORT, *options).stdout)
    return table


def test_what_is_taught_in_a_database_elsewhere_is_seen(tmp_path: Path) -> None:
    elsewhere = Home(tmp_path / "home", f"sqlite:///{tmp_path / 'elsewhere.db'}")
    made = open_rooms(elsewhere)
    assert not anything_taught(elsewhere)
    add_example(made, Example("", "", "tiny", "correction", QUESTION, ANSWER))
    made.dispose()
    assert anything_taught(elsewhere)


def test_run_uses_a_memory_and_says_so(home: Home, engine: Engine) -> None:
    before = told(home)
    assert not anything_taught(home)
    made = add_example(engine, Example("", "", "tiny", "correction", QUESTION, ANSWER))
    add_example(engine, Example("", "somebody", "tiny", "correction", QUESTION, "Another"))
    assert anything_taught(home)
    after, without = told(home), told(home, "--no-memory")
    assert (before["memories"], after["memories"], without["memories"]) == ([], [made.id], [])
    assert without["text"] == before["text"]
    assert (
        json.loads(ingle(home.root, "log", "--kind", "answer", "--last", "2", "--json").stdout.splitlines()[0])["facts"]["memories"]
        == made.id
    )


def test_a_chat_reads_anew_where_another_adapter_answers(home: Home, engine: Engine) -> None:
    kept = get_kept(home, "tiny")
    made = add_example(engine, Example("", "", "tiny", "correction", QUESTION, ANSWER))
    model = open_model(kept_source(home, kept))
    change = random_change(model.backend.config, "lora", 0, (Q, OUT))
    delta = put_delta(home, "lesson-1", "lora", kept.digest, {name: 3 * v for name, v in change.tensors.items()}, {LESSON: "answers"})
    have_learned(engine, Lesson(delta.digest, "", "tiny", kept.digest, "answers", (made.id,), True))
    lines = f"hello\n{QUESTION}\nhello again\n".encode()
    ingle(home.root, "chat", "--no-memory", "--no-markdown", *SHORT, given=lines)
    rows = [json.loads(line)["facts"] for line in ingle(home.root, "log", "--kind", "answer", "--last", "3", "--json").stdout.splitlines()]
    rows.sort(key=lambda row: int(row["prompt_tokens"]))
    assert [row.get("lessons", "") for row in rows] == ["", delta.digest, ""]
    said: list[Message] = []
    for row, question in zip(rows, ("hello", QUESTION, "hello again"), strict=True):
        said.append(Message.of("user", question))
        drawn = {
            name: row[name]
            for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "repetition_window", "repeat_limit")
        }
        request = Request(tuple(said), max_tokens=8, sampling=Sampling(seed=3, **drawn))
        answering = beside(home, kept, model, delta) if row.get("lessons") else model
        text = "".join(chunk.text for chunk in answer(answering, request))
        assert row["answer"] == answer_digest(answer_key(home), text), question
        said.append(Message.of("assistant", text))


def test_a_chat_tells_what_it_remembered(home: Home, engine: Engine) -> None:
    made = add_example(engine, Example("", "", "tiny", "correction", QUESTION, ANSWER))
    done = ingle(home.root, "chat", "--no-markdown", *SHORT, given=f"{QUESTION}\n".encode())
    assert f"(from memory: {made.id})" in done.stderr
