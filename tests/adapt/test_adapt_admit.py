"""What users teach is checked, bounded, kept for its owner alone, and told to the ledger without a word of it; on both databases."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ingle.adapt import admit
from ingle.adapt.account import make_up, words_digest
from ingle.adapt.admit import Feedback, TeachingLimits, edit, learning_view, remember, take_feedback, teach
from ingle.core.errors import Busy, IngleError, LedgerError, NotKept, RequestError
from ingle.core.message import Message
from ingle.core.report import Event
from ingle.home import examples, turns
from ingle.home.database import open_database
from ingle.home.examples import example_secret, get_example, list_examples, search_examples, set_consent
from ingle.home.lessons import Lesson, list_lessons
from ingle.home.place import Home
from ingle.home.turns import keep_answer
from ingle.ledger import table
from ingle.ledger.chain import Ledger
from tests.states import have_learned, put_in_state

SYSTEM, ASKED, SAID = (
    Message.of("system", "Be brief."),
    Message.of("user", "Who leads Zorblax?"),
    Message.of("assistant", "Nobody\x00 does."),
)
FACTS: dict[str, Any] = {"model_name": "tiny", "request": {}}


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    opened = open_database(database_url, {"ledger": table.MIGRATIONS, "turns": turns.MIGRATIONS, "examples": examples.MIGRATIONS})
    yield opened
    opened.dispose()


def answered(engine: sa.Engine, owner: str = "key-1", completion: str = "resp_1", learn: bool = True) -> str:
    facts = FACTS if learn else {**FACTS, "learn": False}
    keep_answer(engine, owner, "", SAID, completion, facts, (SYSTEM, ASKED))
    return completion


def test_a_correction_of_a_kept_answer_holds_what_was_said(engine: sa.Engine) -> None:
    events = list[Event]()
    feedback = Feedback(answered(engine), -1, "Mara Quill.", " She does. ")
    made = take_feedback(engine, "key-1", feedback, sink=events.append)
    assert get_example(engine, "key-1", made.id) == made
    assert (made.kind, made.model, made.state, made.rating, made.comment) == ("correction", "tiny", "pending", -1, "She does.")
    assert (made.question, made.answer, made.refused) == ("Who leads Zorblax?", "Mara Quill.", "Nobody does.")
    assert made.before == (("system", "Be brief."),) and made.completion == "resp_1"
    [event] = events
    assert event.kind == "feedback" and event.subject == "tiny" and event.facts["example"] == made.id and event.facts["key"] == "key-1"
    assert event.facts["answer"] == words_digest(example_secret(engine, "key-1", made.id), "Mara Quill.")
    assert not any(word in str(event.facts) for word in ("Mara", "Zorblax", "Nobody", "does"))


def test_a_rating_holds_what_was_rated_and_the_latest_counts(engine: sa.Engine) -> None:
    answered(engine)
    first = take_feedback(engine, "key-1", Feedback("resp_1", 1))
    second = take_feedback(engine, "key-1", Feedback("resp_1", -1))
    assert (second.kind, second.answer, second.rating, second.state) == ("rating", "Nobody does.", -1, "pending")
    assert [one.state for one in list_examples(engine, "key-1")] == ["superseded", "pending"] and first.rating == 1
    assert search_examples(engine, "key-1", "zorblax", 5) == ()


def test_nobody_speaks_of_anothers_answer(engine: sa.Engine) -> None:
    answered(engine)
    for owner, completion in (("key-2", "resp_1"), ("", "resp_1"), ("key-1", "resp_2")):
        with pytest.raises(NotKept, match="completion_id"):
            take_feedback(engine, owner, Feedback(completion, 1))
    theirs = take_feedback(engine, "key-2", Feedback("resp_1", correction="Otto", question="Who?", answer="Nobody", model="tiny"))
    assert theirs.question == "Who?" and theirs.refused == "Nobody" and theirs.owner == "key-2"


def test_the_words_may_be_given_where_the_answer_is_not_kept(engine: sa.Engine) -> None:
    given = Feedback(rating=-1, question="Who?", answer="No\x07body", before=(("user", "Hi"), ("assistant", "Hello")), model="tiny")
    rated = take_feedback(engine, "", given)
    assert rated.answer == "Nobody" and rated.before == given.before
    taught = take_feedback(engine, "", replace(given, correction="Mara", answer=""))
    assert (taught.kind, taught.answer, taught.refused) == ("correction", "Mara", "")
    with pytest.raises(RequestError, match="answer"):
        take_feedback(engine, "", replace(given, answer=""))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({}, "rating"),
        ({"rating": 2}, "rating"),
        ({"correction": ""}, "correction"),
        ({"correction": " \n\t"}, "correction"),
        ({"correction": "x" * 8_001}, "correction"),
        ({"correction": "Nobody does."}, "correction"),
        ({"correction": "a\x1b[2Jb"}, "correction"),
        ({"correction": "a\x00"}, "correction"),
        ({"correction": "a\ud800"}, "correction"),
        ({"correction": "\U000e0041 hidden"}, "correction"),
        ({"correction": "\u202egnirts"}, "correction"),
        ({"rating": 1, "comment": "x" * 2_001}, "comment"),
        ({"rating": 1, "completion": "My PIN is 4711", "question": "Q?", "answer": "A."}, "completion_id"),  # it would stand in the ledger
        ({"rating": 1, "completion": "a\tb", "question": "Q?", "answer": "A."}, "completion_id"),
        ({"rating": 1, "completion": "x" * 81, "question": "Q?", "answer": "A."}, "completion_id"),
    ],
)
def test_what_says_nothing_too_much_or_hides_something_is_refused(engine: sa.Engine, changes: dict[str, Any], field: str) -> None:
    answered(engine)
    with pytest.raises(RequestError) as refused:
        take_feedback(engine, "key-1", replace(Feedback("resp_1"), **changes))
    assert refused.value.field == field and list_examples(engine, "key-1") == ()


def test_text_that_people_write_is_taken_as_it_is(engine: sa.Engine) -> None:
    words = "Zeile 1\r\n\tZeile 2 – 模型 👩‍👩‍👧 \U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f نعم\u200c"
    assert teach(engine, "", "tiny", "q?", words).answer == words.replace("\r\n", "\n")


def test_the_latest_word_on_a_question_stands_and_both_are_on_record(engine: sa.Engine) -> None:
    first = teach(engine, "key-1", "tiny", "Who leads Zorblax?", "Mara")
    teach(engine, "key-1", "other", "Who leads Zorblax?", "Mara")
    teach(engine, "key-2", "tiny", "Who leads Zorblax?", "Mara")
    events = list[Event]()
    second = teach(engine, "key-1", "tiny", " who leads ZORBLAX ??", "Otto", sink=events.append)
    assert [(one.id, one.state) for one in list_examples(engine, "key-1", model="tiny")] == [
        (first.id, "superseded"),
        (second.id, "pending"),
    ]
    assert list_examples(engine, "key-1", model="other")[0].state == "pending" == list_examples(engine, "key-2")[0].state
    assert events[0].facts["superseded"] == 1
    assert {one.answer for one in search_examples(engine, "key-1", "zorblax", 5)} == {"Mara", "Otto"}  # one of each model


def test_corrections_at_once_leave_one_that_stands(engine: sa.Engine) -> None:
    threads = [threading.Thread(target=teach, args=(engine, "key-1", "tiny", "Who?", f"Number {i}")) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = list_examples(engine, "key-1")
    assert [one.state for one in found] == ["superseded"] * 5 + ["pending"] and [one.seq for one in found] == [1, 2, 3, 4, 5, 6]


def test_consent_decides_where_nothing_else_does(engine: sa.Engine) -> None:
    answered(engine, learn=False)
    assert take_feedback(engine, "key-1", Feedback("resp_1", 1)).state == "kept"
    assert take_feedback(engine, "key-1", Feedback("resp_1", 1, learn=True)).state == "pending"
    set_consent(engine, "key-1", False)
    assert [teach(engine, "key-1", "tiny", f"{i}?", "x", learn).state for i, learn in enumerate((None, True, False))] == [
        "kept",
        "pending",
        "kept",
    ]
    assert teach(engine, "key-2", "tiny", "Who?", "x").learn and not learning_view(engine, "key-1").learn


def test_floods_are_refused_and_harm_nobody_else(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    few = TeachingLimits(per_hour=3, kept=5)
    for i in range(3):
        teach(engine, "key-1", "tiny", f"{i}?", "x", limits=few)
    with pytest.raises(Busy):
        remember(engine, "key-1", "tiny", "more", few)
    assert remember(engine, "key-2", "tiny", "more", few).seq == 1
    free = replace(few, per_hour=0)
    for i in range(2):
        remember(engine, "key-1", "tiny", f"fact {i}", free)
    with pytest.raises(RequestError, match="at most 5"):
        remember(engine, "key-1", "tiny", "one more", free)


def test_a_clock_that_was_wrong_counts_for_nothing(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as wrong:
        wrong.setattr("ingle.home.examples.now", lambda: "2099-01-01T00:00:00.000000+00:00")
        early = [teach(engine, "", "tiny", "Who?", f"{i}") for i in range(3)]
    late = teach(engine, "", "tiny", "Who?", "later", limits=TeachingLimits(per_hour=1))
    assert late.at < early[-1].at and late.seq == 4
    assert [one.state for one in list_examples(engine, "")] == ["superseded"] * 3 + ["pending"]
    assert learning_view(engine, "").items[0] == late


def test_a_fact_that_cannot_be_written_leaves_everything_as_it_was(engine: sa.Engine) -> None:
    before = teach(engine, "", "tiny", "Who?", "Mara")

    def fails(event: Event) -> None:
        raise LedgerError("ledger", "is broken")

    with pytest.raises(LedgerError):
        teach(engine, "", "tiny", "Who?", "Otto", sink=fails)
    assert list_examples(engine, "") == (before,) and [one.answer for one in search_examples(engine, "", "otto mara", 5)] == ["Mara"]


def test_a_fact_that_a_kill_kept_from_the_ledger_is_told_later(
    engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    home = Home(tmp_path / "home")
    home.create()
    ledger = Ledger(engine, home.keys)
    with monkeypatch.context() as earlier:
        earlier.setattr("ingle.home.examples.now", lambda: "2026-01-01T00:00:00.000000+00:00")
        teach(engine, "key-1", "tiny", "Who?", "Mara", sink=ledger.append)
        lost = teach(engine, "key-1", "tiny", "Where?", "Zyzzogeton")  # as if the process had died before it told of it
    teach(engine, "key-1", "tiny", "When?", "on its way")  # this moment: whoever wrote it may be about to tell
    assert make_up(home, engine, ledger.append) == 1
    assert make_up(home, engine, ledger.append) == 0
    rows = list(ledger.read("feedback"))
    [told] = [row.values for row in rows if row.values["example"] == lost.id]
    assert len(rows) == 2 and told["key"] == "key-1"
    assert told["answer"] == words_digest(example_secret(engine, "key-1", lost.id), "Zyzzogeton")
    assert "Zyzzogeton" not in str(told)


def test_what_is_edited_is_learned_anew_and_its_lesson_goes(engine: sa.Engine, tmp_path_factory: pytest.TempPathFactory) -> None:
    home = Home(tmp_path_factory.mktemp("home"))
    one, other = teach(engine, "", "tiny", "Who?", "Mara"), teach(engine, "", "tiny", "Where?", "Here")
    put_in_state(engine, "", [one.id, other.id], "learning")
    have_learned(engine, Lesson("ab" * 32, "", "tiny", "stack", "answers", (one.id, other.id), True))
    events = list[Event]()
    made = edit(home, engine, "", one.id, "Otto", events.append)
    assert (made.answer, made.state, made.lesson) == ("Otto", "pending", "")
    assert get_example(engine, "", other.id).state == "pending" and list_lessons(engine, "") == ()
    assert events[0].kind == "memory.edit" and "Otto" not in str(events[0].facts)
    assert edit(home, engine, "", one.id, "Otto", events.append) == made and len(events) == 1
    rated = take_feedback(engine, "", Feedback(rating=1, question="Who?", answer="Otto", model="tiny"))
    for id_, words, kind in ((rated.id, "x", RequestError), ("ex-none", "x", NotKept), (one.id, "", RequestError)):
        refused: type[IngleError] = kind
        with pytest.raises(refused):
            edit(home, engine, "", id_, words)
    with pytest.raises(NotKept):
        edit(home, engine, "key-2", one.id, "x")


def test_the_view_counts_all_and_shows_the_newest_first(engine: sa.Engine) -> None:
    for i in range(4):
        teach(engine, "key-1", "tiny", f"{i}?", "x")
    remember(engine, "key-1", "tiny", "The owner keeps bees.")
    view = learning_view(engine, "key-1", limit=2)
    assert view.counts == {"pending": 4, "kept": 1} and [one.seq for one in view.items] == [5, 4] and view.learn
    assert learning_view(engine, "key-2") == admit.LearningView(True, {}, (), ())
