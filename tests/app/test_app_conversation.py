"""A conversation that is kept and one that is not are the same to whoever talks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingle.app.answering import Keep
from ingle.app.conversation import OpenConversation, StoredConversation, TemporaryConversation, stand, title_of
from ingle.app.house import open_rooms
from ingle.core.errors import NotKept
from ingle.core.message import Message
from ingle.home.conversations import create_conversation, delete_conversation
from ingle.home.place import Home


@pytest.fixture(params=["stored", "temporary"])
def conversation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenConversation]:
    engine = open_rooms(Home(tmp_path))
    kept = StoredConversation(engine, "anna", create_conversation(engine, "anna").id)
    yield kept if request.param == "stored" else TemporaryConversation("anna")
    engine.dispose()


def shown(conversation: OpenConversation) -> list[tuple[str, int, int]]:
    """Of each turn its words, its place and the number of those beside it."""
    return [(said.turn.message.text, said.place, len(said.beside)) for said in conversation.path()]  # type: ignore[arg-type]


def test_branches(conversation: OpenConversation) -> None:
    def talk() -> tuple[str, str]:
        one = conversation.ask(Message.of("user", "one"), "")
        conversation.answered(one, Message.of("assistant", "a"), "c1", {"seed": 1})
        stand(conversation, one, deep=False)
        assert [said.turn.message.text for said in conversation.path()] == ["one"]
        conversation.answered(one, Message.of("assistant", "b"), "c2", {"seed": 2})
        first, second = conversation.following(one)
        two = conversation.ask(Message.of("user", "two"), second)
        conversation.answered(two, Message.of("assistant", "c"), "c3", {})
        return one, first

    one, first = talk()
    assert shown(conversation) == [("one", 0, 1), ("b", 1, 2), ("two", 0, 1), ("c", 0, 1)]
    stand(conversation, first)
    assert shown(conversation) == [("one", 0, 1), ("a", 0, 2)]
    stand(conversation, one)
    assert shown(conversation) == [("one", 0, 1), ("b", 1, 2), ("two", 0, 1), ("c", 0, 1)], "on to the end of the newest branch"
    conversation.ask(Message.of("user", "another"), "")
    assert shown(conversation) == [("another", 1, 2)]
    assert [message.text for message in conversation.said(first)] == ["one", "a"]
    with pytest.raises(NotKept):
        stand(conversation, "nowhere")


def test_what_the_service_keeps(conversation: OpenConversation) -> None:
    assert conversation.key[0] == "anna"
    assert conversation.keep("turn") == (None if isinstance(conversation, TemporaryConversation) else Keep(conversation.key[1], "turn"))


def test_a_conversation_that_was_deleted(tmp_path: Path) -> None:
    engine = open_rooms(Home(tmp_path))
    made = create_conversation(engine, "")
    delete_conversation(engine, "", made.id)
    with pytest.raises(NotKept):
        StoredConversation(engine, "", made.id).path()
    engine.dispose()


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Why does bread rise?", "Why does bread rise?"),
        ("  Two\n\nlines ", "Two lines"),
        ("Write a Python function that counts the words of a text.", "Write a Python function that counts the words of …"),
        ("x" * 100, "x" * 48 + " …"),
        ("Tell me this: " + "word " * 30, "Tell me this: word word word word word word word …"),
    ],
)
def test_a_title_is_made_of_the_first_words(text: str, title: str) -> None:
    assert title_of(text) == title
