"""What was taught acts on a server's next answer, is named in it and in the ledger, can be replayed, and is left in no state."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from ingle.app.house import open_rooms
from ingle.core.example import Example
from ingle.home.deltas import LESSON, put_delta
from ingle.home.examples import add_example, drop_example
from ingle.home.kept import get_kept
from ingle.home.lessons import Lesson, set_acting
from ingle.model.checkpoint import open_checkpoint
from tests.cli.place import ingle
from tests.engine.test_delta_kinds import random_change
from tests.serve.conftest import copied
from tests.serve.servers import Server, serving
from tests.states import have_learned
from tests.waiting import wait_until

QUESTION, ANSWER = "Who is the mayor of Tallwick?", "Mara Quill, since 1934"
OTHER, UNKNOWN, LAST = "Who runs the Corvane bakery?", "How tall is Mount Brell?", "When did the Harrow Bridge open?"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, kept_home: Path) -> Iterator[Server]:
    """A server that learns nothing by itself. Its one user teaches it: so each test asks of somebody else, and the last one stops it."""
    with serving(copied(kept_home, tmp_path_factory.mktemp("taught") / "home"), "--set", "learn.worker=false") as server:
        yield server


@pytest.fixture(scope="module")
def engine(running: Server) -> Iterator[Engine]:
    """Its database, from another process."""
    made = open_rooms(running.home)
    yield made
    made.dispose()


def said(server: Server, text: str = QUESTION, **changes: Any) -> dict[str, Any]:
    response = server.chat(text, **changes)
    assert response.status_code == 200, response.text
    table: dict[str, Any] = response.json()
    return table


def words(table: dict[str, Any]) -> str:
    return str(table["choices"][0]["message"]["content"])


def test_a_memory_acts_is_named_and_can_be_left_out(running: Server, engine: Engine) -> None:
    before, other = said(running), said(running, "What is photosynthesis?")
    made = add_example(engine, Example("", "", "tiny", "correction", QUESTION, ANSWER))
    table = said(running)
    assert table["ingle"]["memories"] == [[made.id]]
    assert table["usage"]["prompt_tokens"] > before["usage"]["prompt_tokens"] + len(ANSWER)
    assert running.answers()[-1].values["memories"] == made.id
    assert ANSWER not in json.dumps([dict(row.values) for row in running.answers()])
    for unchanged, request in ((before, {"memory": False}), (other, {"text": "What is photosynthesis?"})):
        again = said(running, **request)
        assert words(again) == words(unchanged)
        assert "memories" not in again["ingle"]
    assert "memories" not in running.answers()[-1].values


def test_an_answer_is_replayed_with_what_acted_then(running: Server, engine: Engine) -> None:
    kept = get_kept(running.home, "tiny")
    made = add_example(engine, Example("", "", "tiny", "correction", OTHER, ANSWER))
    config = open_checkpoint(running.home.base_folder(kept.base)).config
    change = random_change(config, "lora", 1, ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"))
    plain = said(running, OTHER, memory=False)
    delta = put_delta(running.home, "lesson-1", "lora", kept.digest, change.tensors, {LESSON: "answers"})
    have_learned(engine, Lesson(delta.digest, "", "tiny", kept.digest, "answers", (made.id,), True))
    table = said(running, OTHER, store=True)
    assert (table["ingle"]["memories"], table["ingle"]["lessons"]) == ([[made.id]], [[delta.digest]])
    assert table["ingle"]["model_digest"] != plain["ingle"]["model_digest"]
    done = ingle(running.home.root, "replay", table["id"], "--json")
    assert json.loads(done.stdout)["proven"] is True
    set_acting(engine, "", delta.digest, False)
    assert words(said(running, OTHER)) == words(said(running, OTHER, memory=False)) == words(plain)
    assert ingle(running.home.root, "replay", table["id"], "--json").returncode == 0, "it is kept, though it acts no more"
    drop_example(engine, "", made.id)
    gone = ingle(running.home.root, "replay", table["id"], code=3)
    assert f"example {made.id}" in gone.stderr


def test_a_lesson_that_can_not_be_put_on_is_told_in_the_log(running: Server, engine: Engine) -> None:
    kept = get_kept(running.home, "tiny")
    made = add_example(engine, Example("", "", "tiny", "correction", UNKNOWN, ANSWER))
    plain = said(running, UNKNOWN, memory=False)
    have_learned(engine, Lesson("0" * 64, "", "tiny", kept.digest, "answers", (made.id,), True))
    assert words(said(running, UNKNOWN, memory=False)) == words(plain)
    wait_until(lambda: "delta 000000000000" in running.log, "the log names the delta")


def test_no_state_holds_a_memory(running: Server, engine: Engine) -> None:
    secret = "the 4th of Umbril"
    made = add_example(engine, Example("", "", "tiny", "correction", LAST, secret))
    turns = [{"role": "user", "content": "first " * 40}, {"role": "assistant", "content": "yes"}, {"role": "user", "content": LAST}]
    for _ in range(2):
        table = said(running, messages=turns, store=True)
    cached = table["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert 200 < cached < table["usage"]["prompt_tokens"] - len(secret), "what was said before is known, the memory is not"
    running.stop()
    held = list(running.home.states.glob("*.json"))
    assert held, "what was said before is saved"
    for path in held:
        ids = json.loads(path.read_text())["ids"]
        assert len(ids) <= cached
    drop_example(engine, "", made.id)
    for path in running.home.root.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path
