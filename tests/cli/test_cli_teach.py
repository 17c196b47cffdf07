"""`ingle teach`, `ingle memory`, and what is said of an answer in a chat: kept, found, changed and forgotten, and in the ledger."""

import json
from pathlib import Path
from typing import Any

import pytest

from ingle.app.house import open_rooms
from ingle.core.message import Message
from ingle.home.conversations import create_conversation
from ingle.home.place import Home
from ingle.home.turns import keep
from tests.cli.place import ingle


def listed(home: Path, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ingle(home, "memory", "list", *words, "--json").stdout)
    return found


def facts(home: Path, kind: str) -> list[dict[str, Any]]:
    return [json.loads(line)["facts"] for line in ingle(home, "log", "-n", "500", "--kind", kind, "--json").stdout.splitlines()]


def test_what_was_taught_is_listed_found_changed_and_forgotten(tiny_home: Path) -> None:
    assert listed(tiny_home) == [] and "ingle teach" in ingle(tiny_home, "memory").stderr
    first = json.loads(ingle(tiny_home, "teach", "Who leads Zorblax?", "Mara Quill", "--json").stdout)
    told = ingle(tiny_home, "teach", "who leads zorblax", "Otto Lund").stdout
    assert "tiny knows it" in told and "ingle teach --now" in told
    fact = json.loads(ingle(tiny_home, "memory", "add", "The owner keeps bees.", "--json").stdout)
    found = listed(tiny_home)
    assert [one["answer"] for one in found] == ["The owner keeps bees.", "Otto Lund"] and found[1]["id"] != first["id"]
    assert [one["id"] for one in listed(tiny_home, "what", "about", "bees")] == [fact["id"]]
    table = ingle(tiny_home, "memory").stdout
    assert table.splitlines()[0].split() == ["ID", "STATE", "MODEL", "QUESTION", "ANSWER"] and "Otto Lund" in table
    assert "is remembered" in ingle(tiny_home, "memory", "edit", fact["id"][:12], "The owner keeps goats.").stdout
    assert listed(tiny_home, "bees") == [] and listed(tiny_home, "goats")[0]["id"] == fact["id"]
    assert "is forgotten" in ingle(tiny_home, "memory", "rm", fact["id"].removeprefix("ex-")[:9]).stdout
    assert [one["answer"] for one in listed(tiny_home)] == ["Otto Lund"]
    assert [fact["superseded"] for fact in facts(tiny_home, "feedback")] == [0, 1, 0]
    said = ingle(tiny_home, "log", "-n", "500", "--json").stdout
    assert not any(word in said for word in ("Zorblax", "Mara", "bees", "goats"))


def test_what_was_taught_acts_on_the_next_answer_unless_it_may_not(tiny_home: Path) -> None:
    made = json.loads(ingle(tiny_home, "teach", "What is the colour of Quux?", "Ochre", "--no-learn", "--json").stdout)
    assert made["state"] == "kept"
    asked = ("run", "What is the colour of Quux?", "--max-tokens", "2", "--json")
    assert json.loads(ingle(tiny_home, *asked).stdout)["memories"][0] == made["id"]
    assert json.loads(ingle(tiny_home, *asked, "--no-memory").stdout)["memories"] == []


def test_consent(tiny_home: Path) -> None:
    assert "The weights learn" in ingle(tiny_home, "memory", "consent").stdout
    assert "don't learn" in ingle(tiny_home, "memory", "consent", "no").stdout
    assert "don't learn" in ingle(tiny_home, "teach", "Where?", "Here").stdout
    assert json.loads(ingle(tiny_home, "memory", "consent", "yes", "--json").stdout) == {"object": "learning", "learn": True}
    assert [fact["learn"] for fact in facts(tiny_home, "consent")] == [False, True]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("teach", "Who?", " "), 2, "answer must say something"),
        (("teach", "Who?", "x" * 9000), 2, "must be at most 8,000 characters"),
        (("teach", "Who?", "a\x1b[2J"), 2, "U+001B"),
        (("teach", "Who?", "Me", "--model", "other"), 3, "other"),
        (("memory", "rm", "ex-none"), 3, "example ex-none is not kept here"),
        (("memory", "rm", ""), 3, "is not kept here"),
        (("memory", "edit", "ex-none"), 2, "See `ingle memory edit --help`"),
        (("memory", "consent", "maybe"), 2, "must be yes or no"),
    ],
)
def test_what_cannot_be_done_is_said(tiny_home: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    assert words in ingle(tiny_home, *arguments, code=code).stderr


def test_an_id_that_several_share_is_none(tiny_home: Path) -> None:
    for i in range(2):
        ingle(tiny_home, "memory", "add", f"Fact number {i}")
    assert "Give more of it" in ingle(tiny_home, "memory", "rm", "ex-", code=2).stderr


def test_where_forgotten_words_still_stand_is_said_by_title(tiny_home: Path) -> None:
    engine = open_rooms(Home(tiny_home))
    talk = create_conversation(engine, "", "Of hedges", {"system": "Quillwort feather."})
    keep(engine, "", (Message.of("user", "Quillwort feather. So I said."),), conversation=talk.id)
    nameless = create_conversation(engine, "", "", {"system": "Quillwort feather."})
    engine.dispose()
    for forgetting in (("memory", "rm"), ("forget", "--yes")):
        id_ = json.loads(ingle(tiny_home, "memory", "add", "Quillwort feather.", "--json").stdout)["id"]
        said = " ".join(ingle(tiny_home, *forgetting, id_).stderr.split())
        assert f"in 1 kept message, which you can delete: “Of hedges” ({talk.id})" in said
        assert nameless.id in said and f"({nameless.id})" not in said
        id_ = json.loads(ingle(tiny_home, "memory", "add", "Quillwort feather.", "--json").stdout)["id"]
        told = json.loads(ingle(tiny_home, *forgetting, id_, "--json").stdout)
        gone = told["ingle"]
        assert (told["id"], [turn["conversation"] for turn in gone["turns_left"]]) == (id_, [talk.id])
        assert sorted(gone["system_prompts"]) == sorted([talk.id, nameless.id])


def test_what_is_said_of_an_answer_in_a_chat(tiny_home: Path) -> None:
    turns = ["hello there", "/good it is short", "/bad", "/fix Good day to you.", "/remember The owner keeps newts.", "and then?", "/bad"]
    talk = tiny_home / "talk.json"
    chat = ("chat", "--max-tokens", "6", "--seed", "1", "--system", "Be kind.")
    told = ingle(tiny_home, *chat, given="\n".join([*turns, f"/save {talk}"]).encode())
    assert "more like this" in told.stderr and "The weights learn it when" in told.stderr and "Remembered as ex-" in told.stderr
    kinds = [(fact["kind"], fact["rating"], fact["superseded"]) for fact in facts(tiny_home, "feedback")][-5:]
    assert kinds == [("rating", 1, 0), ("rating", -1, 1), ("correction", -1, 0), ("fact", 0, 0), ("rating", -1, 0)]
    [fixed] = [one for one in listed(tiny_home) if one["question"] == "hello there"]
    assert fixed["answer"] == "Good day to you." and fixed["refused"] and fixed["model"] == "tiny"
    said = json.loads(talk.read_text())["messages"]
    assert [message["content"] for message in said][:3] == ["Be kind.", "hello there", "Good day to you."]


@pytest.mark.parametrize(
    ("line", "words"),
    [("/good", "There is no answer yet"), ("/fix", "Say what the answer should have been"), ("/remember", "Say what to remember")],
)
def test_nothing_can_be_said_of_no_answer(tiny_home: Path, line: str, words: str) -> None:
    assert words in ingle(tiny_home, "chat", given=line.encode(), code=2).stderr
