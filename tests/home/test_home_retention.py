"""Words go when they are older than the owner keeps them, and nothing younger goes with them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from ingle.core.message import Message
from ingle.core.report import Event
from ingle.home.conversations import create_conversation, list_conversations
from ingle.home.database import open_database
from ingle.home.retention import Swept, sweep_old
from ingle.home.turns import MIGRATIONS, find_completion, keep_answer

NOW = datetime.now(UTC)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    opened = open_database(database_url, {"turns": MIGRATIONS})
    yield opened
    opened.dispose()


def answered(engine: Engine, completion: str, parent: str = "", owner: str = "", conversation: str = "") -> str:
    question = [Message.of("user", f"{completion}?")]
    return keep_answer(engine, owner, parent, Message.of("assistant", completion), completion, {}, question, conversation)


def test_old_words_go_and_leave_a_fact_without_them(engine: Engine) -> None:
    facts, states = list[Event](), list[tuple[str, str]]()
    conversation = create_conversation(engine, "a").id
    answered(engine, "c1", owner="a", conversation=conversation)
    first = answered(engine, "c2", owner="b")
    answered(engine, "c3", first, "b")
    later = NOW + timedelta(days=31)
    assert sweep_old(engine, 0, facts.append, now=later) == Swept(0, 0)
    assert sweep_old(engine, 32, facts.append, now=later) == Swept(0, 0) and not facts
    swept = sweep_old(engine, 30, facts.append, lambda owner, label: states.append((owner, label)), later)
    assert swept == Swept(1, 2)
    assert not list_conversations(engine, "a") and all(find_completion(engine, "b", one) is None for one in ("c2", "c3"))
    assert [(one.kind, dict(one.facts)) for one in facts] == [("retention", {"days": 30, "conversations": 1, "answers": 2})]
    assert set(states) == {("a", conversation), ("b", "c3"), ("b", "c2")}
    assert sweep_old(engine, 30, facts.append, now=later) == Swept(0, 0) and len(facts) == 1


def test_what_somebody_went_on_from_stays_with_it(engine: Engine) -> None:
    import sqlalchemy as sa

    first = answered(engine, "old")
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE turns SET at = :at"), {"at": (NOW - timedelta(days=90)).isoformat()})
    answered(engine, "new", first)
    assert sweep_old(engine, 30, lambda _event: None) == Swept(0, 0)
    assert find_completion(engine, "", "old") and find_completion(engine, "", "new")
