"""Explanations lie beside their turns: their owner's alone, gone with the turn, and with what they quote."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from ingle.core.errors import NotKept, RequestError
from ingle.core.message import Message
from ingle.home.conversations import create_conversation, delete_conversation
from ingle.home.database import open_database
from ingle.home.explanations import drop_explanations, get_explanation, keep_explanation
from ingle.home.quoting import seeker
from ingle.home.turns import MIGRATIONS, drop, keep_answer

BODY = {"id": "why-1", "says": ["It leaned on “Mara”."], "causes": [{"cause": {"id": "ex-1", "text": "Mara Quill"}, "nats": 1.5}]}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    opened = open_database(database_url, {"turns": MIGRATIONS})
    yield opened
    opened.dispose()


def answered(engine: Engine, owner: str = "", completion: str = "c1", conversation: str = "") -> str:
    return keep_answer(engine, owner, "", Message.of("assistant", "Mara."), completion, {}, [Message.of("user", "Who?")], conversation)


def test_it_is_given_again_and_a_later_one_takes_its_place(engine: Engine) -> None:
    turn = answered(engine)
    keep_explanation(engine, "", turn, "why-1", BODY)
    assert get_explanation(engine, "", "why-1") == BODY
    keep_explanation(engine, "", turn, "why-1", {**BODY, "says": []})
    assert get_explanation(engine, "", "why-1") == {**BODY, "says": []}


def test_it_is_its_owners_alone(engine: Engine) -> None:
    keep_explanation(engine, "a", answered(engine, "a"), "why-1", BODY)
    with pytest.raises(NotKept):
        get_explanation(engine, "b", "why-1")
    assert drop_explanations(engine, "b", lambda _text: True) == 0
    with pytest.raises(NotKept):
        keep_explanation(engine, "b", answered(engine, "a"), "why-2", BODY)


def test_it_goes_with_its_turn_and_with_its_conversation(engine: Engine) -> None:
    turn = answered(engine)
    keep_explanation(engine, "", turn, "why-1", BODY)
    drop(engine, "", turn)
    conversation = create_conversation(engine, "")
    keep_explanation(engine, "", answered(engine, "", "c2", conversation.id), "why-2", BODY)
    delete_conversation(engine, "", conversation.id)
    for id_ in ("why-1", "why-2"):
        with pytest.raises(NotKept):
            get_explanation(engine, "", id_)
    with pytest.raises(NotKept):
        keep_explanation(engine, "", turn, "why-1", BODY)


def test_it_goes_with_what_it_quotes(engine: Engine) -> None:
    turn = answered(engine)
    for number in range(2):
        keep_explanation(engine, "", turn, f"why-{number}", {**BODY, "says": [f"word{number}"]})
    assert drop_explanations(engine, "", seeker(["word1"])) == 1
    assert get_explanation(engine, "", "why-0")["says"] == ["word0"]
    with pytest.raises(NotKept):
        get_explanation(engine, "", "why-1")
    assert drop_explanations(engine, "", lambda text: text == "ex-1") == 1


def test_what_can_not_be_stored_is_refused(engine: Engine) -> None:
    with pytest.raises(RequestError):
        keep_explanation(engine, "", answered(engine), "why-1", {"nats": float("nan")})
