"""Undo and forget, bit for bit: the model before is the model after."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ingle.adapt.account import words_digest
from ingle.adapt.admit import edit
from ingle.adapt.forget import OWED, forget, holding, pay
from ingle.adapt.undo import _called, redo, undo
from ingle.app.house import open_rooms
from ingle.core.errors import HomeError, NotKept, RequestError
from ingle.core.example import Example, State
from ingle.core.message import Message, ToolCall
from ingle.engine.loading import Opener
from ingle.engine.prefix_cache import FORGOTTEN
from ingle.engine.threads import Cores
from ingle.home.conversations import create_conversation, get_conversation
from ingle.home.deltas import MANIFEST, get_delta
from ingle.home.examples import add_example, example_secret, get_example, list_examples
from ingle.home.lessons import list_lessons
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.home.quoting import seeker
from ingle.home.turns import find_text, keep, keep_answer
from ingle.learn.learner import consolidate
from ingle.ledger.chain import Ledger
from tests.adapt.conftest import House
from tests.learn.lessons import ANSWERS, QUESTIONS, acting, facts, learn, learner, lenient, logits, stray, taught_bytes
from tests.states import put_in_state


@pytest.fixture
def school_house(house: House) -> House:
    """A house whose gate lets tiny models pass."""
    lenient(house)
    return house


@pytest.fixture
def twin(tmp_path: Path, tiny_folder: Path) -> Iterator[House]:
    """Another house with the same model."""
    home = Home(tmp_path / "twin")
    pull(home, str(tiny_folder), lambda _folder: None, "tiny")
    engine = open_rooms(home)
    made = House(home, engine, Opener("fp32", Cores(1)))
    lenient(made)
    yield made
    engine.dispose()


def sink(house: House):  # type: ignore[no-untyped-def]
    return Ledger(house.engine, house.home.keys).append


def test_after_an_undo_every_logit_is_what_it_was_and_after_a_redo_what_it_became(school_house: House) -> None:
    house = school_house
    for question, answer in zip(QUESTIONS[:2], ANSWERS[:2], strict=True):
        house.teach(question, answer)
    learn(house)
    before = [logits(house, question) for question in QUESTIONS]
    last = house.teach(QUESTIONS[2], ANSWERS[2])
    learn(house)
    taught = logits(house, QUESTIONS[2])
    assert not (taught == before[2]).all()
    assert [one.id for one in undo(house.home, house.engine, "", 1, sink(house)).examples] == [last.id]
    assert all((logits(house, question) == old).all() for question, old in zip(QUESTIONS, before, strict=True))
    assert get_example(house.engine, "", last.id).state == "undone"
    assert learn(house).outcomes == (), "what was undone is not learned again"
    redo(house.home, house.engine, "", last.id[:8], sink(house))
    assert (logits(house, QUESTIONS[2]) == taught).all()
    assert [len(facts(house, kind)) for kind in ("undo", "redo")] == [1, 1]


def test_undoing_a_second_thought_brings_the_first_one_back(school_house: House) -> None:
    house = school_house
    first = house.teach(QUESTIONS[0], ANSWERS[0])
    learn(house)
    before = logits(house, QUESTIONS[0])
    second = add_example(house.engine, replace(first, id="", answer="Otto Lund.", state="pending"), supersede=[first.id])
    learn(house)
    assert acting(house) == [(second.id,)]
    undone = undo(house.home, house.engine, "", second.id)
    assert undone.back == (first.id,)
    assert acting(house) == [(first.id,)] and get_example(house.engine, "", first.id).state == "learned"
    assert (logits(house, QUESTIONS[0]) == before).all()


def test_what_is_only_remembered_is_undone_by_its_id_and_counts_again(school_house: House) -> None:
    house = school_house
    states: tuple[tuple[bool, State], ...] = ((True, "pending"), (True, "refused"), (False, "kept"))
    for question, (learn_it, state) in zip(QUESTIONS, states, strict=False):
        earlier = house.teach(question, ANSWERS[1], state="superseded")
        made = add_example(house.engine, Example("", "", "tiny", "correction", question, ANSWERS[0], learn=learn_it, state=state))
        undone = undo(house.home, house.engine, "", made.id, sink(house))
        assert [one.id for one in undone.examples] == [made.id] and undone.back == (earlier.id,)
        assert get_example(house.engine, "", made.id).state == "undone"
        redo(house.home, house.engine, "", made.id, sink(house))
        assert get_example(house.engine, "", made.id).state == ("pending" if learn_it else "kept")
        assert get_example(house.engine, "", earlier.id).state == "superseded"
    assert [one.id for one in undo(house.home, house.engine, "").examples] == [made.id], "what only waits is taken back too"


def test_undo_goes_back_step_by_step_and_says_when_there_is_nothing(school_house: House) -> None:
    house = school_house
    taught = [house.teach(question, answer) for question, answer in zip(QUESTIONS, ANSWERS, strict=True)]
    learn(house)
    assert len(undo(house.home, house.engine, "", 2).examples) == 2
    assert acting(house) == [(taught[0].id,)]
    with pytest.raises(NotKept, match="learned"):
        undo(house.home, house.engine, "", taught[1].id)
    with pytest.raises(NotKept, match="learned"):
        undo(house.home, house.engine, "somebody", taught[0].id)
    digest = get_example(house.engine, "", taught[0].id).lesson
    undo(house.home, house.engine, "", digest[:12])
    with pytest.raises(NotKept, match="There is nothing to undo"):
        undo(house.home, house.engine, "")
    assert acting(house) == []


def test_a_lesson_that_learned_from_several_is_as_if_it_had_never_seen_the_forgotten_one(school_house: House, twin: House) -> None:
    """The heart of forgetting: tensors and logits are those of a twin that was never taught it."""
    house = school_house
    taught = [house.teach(question, answer) for question, answer in zip(QUESTIONS, ANSWERS, strict=True)]
    for one in (taught[0], taught[2]):
        add_example(twin.engine, replace(one, state="pending"))
    for each in (house, twin):
        learn(each)
        consolidate(learner(each))
    [never] = list_lessons(twin.engine, "")
    [all_three] = list_lessons(house.engine, "")
    gone = forget(house.home, house.engine, "", taught[1].id, sink(house))
    assert (gone.lessons, gone.again, gone.scrubbed) == (1, 2, True)
    assert not house.home.delta_folder(all_three.digest).exists()
    [lesson] = learn(house).lessons
    assert lesson.examples == never.examples == (taught[0].id, taught[2].id)
    assert taught_bytes(house, lesson.digest) == taught_bytes(twin, never.digest)
    assert all((logits(house, question) == logits(twin, question)).all() for question in QUESTIONS)


def test_an_undo_within_a_lesson_of_several_learns_the_others_again(school_house: House, twin: House) -> None:
    house = school_house
    taught = [house.teach(question, answer) for question, answer in zip(QUESTIONS, ANSWERS, strict=True)]
    for one in taught[:2]:
        add_example(twin.engine, replace(one, state="pending"))
    for each in (house, twin):
        learn(each)
        consolidate(learner(each))
    assert undo(house.home, house.engine, "").again == 2
    [lesson], [never] = learn(house).lessons, list_lessons(twin.engine, "")
    assert taught_bytes(house, lesson.digest) == taught_bytes(twin, never.digest)
    assert get_example(house.engine, "", taught[2].id).state == "undone" and not stray(house)


def test_forgotten_words_are_in_no_file_of_the_home(school_house: House) -> None:
    house = school_house
    word = "Quillwortfeather"
    taught = house.teach(QUESTIONS[0], f"{word}.", "key-1")
    other = house.teach(QUESTIONS[1], ANSWERS[1], "key-1")
    learn(house)
    house.home.states.mkdir()
    for name, owner in (("mine", "key-1"), ("theirs", "key-2")):
        (house.home.states / f"{name}.json").write_text(f'{{"owner": "{owner}"}}')
        (house.home.states / f"{name}.state").write_bytes(word.encode() if owner == "key-1" else b"")
    kept = keep_answer(
        house.engine, "key-1", "", Message.of("assistant", f"It is {word}."), "chatcmpl-1", None, (Message.of("user", "Who?"),)
    )
    keep(house.engine, "key-2", (Message.of("user", f"{word}?"),))
    gone = forget(house.home, house.engine, "key-1", taught.id, sink(house))
    assert [turn.id for turn in gone.turns] == [kept] and gone.dropped == 0, "what was said is the user's own to delete"
    assert {path.name for path in house.home.states.iterdir() if path.suffix != FORGOTTEN} == {"theirs.json", "theirs.state"}
    assert [one.id for one in list_examples(house.engine, "key-1")] == [other.id]
    again = house.teach(QUESTIONS[0], f"{word}.", "key-1")
    told: list[str] = []
    gone = forget(house.home, house.engine, "key-1", again.id, turns_too=True, forget_states=told.append)
    assert (gone.dropped, gone.turns, told) == (2, (), ["key-1"])
    assert find_text(house.engine, "key-2", [word])
    for turn in find_text(house.engine, "key-2", [word]):
        from ingle.home.turns import drop

        drop(house.engine, "key-2", turn.id)
    house.engine.dispose()
    holding = [path for path in house.home.root.rglob("*") if path.is_file() and word.lower().encode() in path.read_bytes().lower()]
    assert not holding
    with pytest.raises(NotKept):
        forget(house.home, house.engine, "key-1", taught.id)


def test_long_words_are_forgotten_with_the_messages_that_hold_them(school_house: House) -> None:
    """More than SQLite looks for with LIKE."""
    house = school_house
    pasted = 'A "line" of 100 % with _ in it.\n' * 3000
    taught = house.teach(pasted, "It says nothing.", kind="rating")
    keep(house.engine, "", (Message.of("user", f"Read this: {pasted.upper()}"),))
    keep(house.engine, "", (Message.of("user", "Read that."),))
    assert len(holding(house.engine, "", taught)) == 1
    gone = forget(house.home, house.engine, "", taught.id, turns_too=True)
    assert (gone.dropped, holding(house.engine, "", taught)) == (1, ())


def test_words_are_found_in_whatever_was_kept_with_them(school_house: House) -> None:
    """Other line ends, what nobody sees, what a tool was called with, the system prompt of an answer, that of a conversation."""
    house = school_house
    taught = house.teach("Quillwort\nfeather", "It says nothing.", kind="rating")
    said = [Message.of("user", text) for text in ("A quillwort\r\nfeather.", "Quill\ufeffwort\nfeather", "Quillwort\nfeathers")]
    kept = [keep(house.engine, "", (one,)) for one in said]
    called = Message("assistant", (), (ToolCall("call-1", "look", "Quillwort\nfeather"),))
    kept.append(keep(house.engine, "", (called,)))
    told = {"request": {"system": ["You know of a quillwort\nfeather."]}}
    kept.append(keep_answer(house.engine, "", "", Message.of("assistant", "Yes."), "chatcmpl-7", told))
    talk = create_conversation(house.engine, "", settings={"system": "Quillwort\r\nfeather!"})
    create_conversation(house.engine, "", settings={"system": "Something else."})
    create_conversation(house.engine, "key-2", settings={"system": "Quillwort\nfeather"})
    gone = forget(house.home, house.engine, "", taught.id)
    assert {turn.id for turn in gone.turns} == {*kept} - {kept[2]}
    assert gone.prompts == (talk.id,)


def test_only_its_owner_can_forget_or_undo_it(school_house: House) -> None:
    house = school_house
    taught = house.teach(QUESTIONS[0], ANSWERS[0], "key-1")
    with pytest.raises(NotKept):
        forget(house.home, house.engine, "key-2", taught.id)
    assert get_example(house.engine, "key-1", taught.id) == taught


def test_what_a_killed_forgetting_left_is_made_up_for(school_house: House) -> None:
    """Killed right after the rows went: files, states and the fact are still to come."""
    house = school_house
    taught = house.teach(QUESTIONS[0], ANSWERS[0])
    learn(house)
    [lesson] = list_lessons(house.engine, "")

    def killed(_event: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forget(house.home, house.engine, "", taught.id, killed)
    assert (house.home.root / OWED).exists()
    learn(house)
    assert not (house.home.root / OWED).exists()
    assert [fact["example"] for fact in facts(house, "forget")] == [taught.id]
    assert not house.home.delta_folder(lesson.digest).exists()
    assert pay(house.home, house.engine, sink(house)) and len(facts(house, "forget")) == 1


def test_forgetting_again_after_a_kill_finishes_it(school_house: House) -> None:
    """Where no learner runs, the owner's own second attempt is what finishes: it said that there is no such example, and left the words."""
    house = school_house
    taught = house.teach(QUESTIONS[0], ANSWERS[0])

    def killed(_event: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forget(house.home, house.engine, "", taught.id, killed)
    with pytest.raises(NotKept):
        get_example(house.engine, "", taught.id)
    gone = forget(house.home, house.engine, "", taught.id, sink(house))
    assert (gone.id, gone.model, gone.scrubbed) == (taught.id, "tiny", True)
    assert [fact["example"] for fact in facts(house, "forget")] == [taught.id]
    assert not (house.home.root / OWED).exists()
    with pytest.raises(NotKept):
        forget(house.home, house.engine, "", taught.id, sink(house))


def test_what_was_superseded_long_ago_stays_so_when_something_newer_stands(school_house: House) -> None:
    house = school_house
    first, second, third = (house.teach(QUESTIONS[0], answer) for answer in ANSWERS)
    for one in (first, second):
        put_in_state(house.engine, "", [one.id], "superseded")
    learn(house)
    assert undo(house.home, house.engine, "", third.id).back == (second.id,)
    assert [one.state for one in list_examples(house.engine, "")] == ["superseded", "pending", "undone"]


def test_what_can_not_be_accounted_for_is_not_done(school_house: House) -> None:
    house = school_house
    taught = house.teach(QUESTIONS[0], ANSWERS[0])
    learn(house)

    def full(_event: object) -> None:
        raise HomeError("ledger", "the disk is full")

    for act in (
        lambda: undo(house.home, house.engine, "", 1, full),
        lambda: edit(house.home, house.engine, "", taught.id, "Somebody else.", full),
    ):
        with pytest.raises(HomeError):
            act()
        assert acting(house) == [(taught.id,)]
        assert get_example(house.engine, "", taught.id).answer == ANSWERS[0]
    edit(house.home, house.engine, "", taught.id, "Somebody else.", sink(house))
    [fact] = facts(house, "memory.edit")
    secret = example_secret(house.engine, "", taught.id)
    assert fact["answer"] == words_digest(secret, "Somebody else."), "of the words and the secret that stand there now"
    undone = house.teach(QUESTIONS[1], ANSWERS[1])
    learn(house)
    undo(house.home, house.engine, "", undone.id, sink(house))
    with pytest.raises(HomeError):
        redo(house.home, house.engine, "", undone.id, full)
    assert get_example(house.engine, "", undone.id).state == "undone"


def test_a_number_beyond_what_was_learned_and_digits_that_several_lessons_begin_with(school_house: House) -> None:
    house = school_house
    for question, answer in zip(QUESTIONS, ANSWERS, strict=True):
        house.teach(question, answer)
    learn(house)
    with pytest.raises(NotKept, match="Only 3 can be undone"):
        undo(house.home, house.engine, "", 4471)
    with pytest.raises(NotKept, match="Several lessons"):
        _called("zz", [replace(one, lesson=f"zz{i}") for i, one in enumerate(list_examples(house.engine, ""))])
    assert len(acting(house)) == 3


def test_forgetting_a_second_thought_brings_the_first_one_back(school_house: House) -> None:
    house = school_house
    first = house.teach(QUESTIONS[0], ANSWERS[0])
    second = add_example(house.engine, replace(first, id="", answer="Otto Lund."), supersede=[first.id])
    learn(house)
    forget(house.home, house.engine, "", second.id, sink(house))
    assert get_example(house.engine, "", first.id).state == "pending"
    learn(house)
    assert acting(house) == [(first.id,)]
    undo(house.home, house.engine, "", first.id)
    third = house.teach(QUESTIONS[0], "Nobody.")
    with pytest.raises(NotKept, match="a newer answer now"):
        redo(house.home, house.engine, "", first.id)
    assert get_example(house.engine, "", third.id).state == "pending"


def test_what_was_taught_twice_is_forgotten_at_once(school_house: House) -> None:
    house, word = school_house, "Quillwortfeather"
    first = house.teach(QUESTIONS[0], ANSWERS[0])
    learn(house)
    same = add_example(house.engine, replace(first, id="", answer=f"{word}."), supersede=[first.id])
    learn(house)
    again = add_example(house.engine, replace(same, id="", question=QUESTIONS[0].upper(), answer=f"{word}"), supersede=[same.id])
    elsewhere = add_example(house.engine, replace(same, id="", model="other", state="kept"))
    gone = forget(house.home, house.engine, "", again.id, sink(house))
    assert (gone.same, gone.back) == ((same.id,), (first.id,))
    assert {one.id: one.state for one in list_examples(house.engine, "")} == {first.id: "learned", elsewhere.id: "kept"}
    forget(house.home, house.engine, "", elsewhere.id, sink(house))
    told = {fact["example"] for fact in facts(house, "forget")}
    assert {same.id, again.id} < told and not stray(house)
    house.engine.dispose()
    assert not [path for path in house.home.root.rglob("*") if path.is_file() and word.lower().encode() in path.read_bytes().lower()]


def test_undoing_a_repeated_answer_goes_back_to_the_one_before_both(school_house: House) -> None:
    house = school_house
    first = house.teach(QUESTIONS[0], ANSWERS[0])
    same = add_example(house.engine, replace(first, id="", answer="Otto Lund."), supersede=[first.id])
    again = add_example(house.engine, replace(first, id="", answer="Otto Lund"), supersede=[same.id])
    learn(house)
    assert undo(house.home, house.engine, "", again.id).back == (first.id,)


def test_an_undo_that_was_a_slip_is_taken_back(school_house: House) -> None:
    house = school_house
    first = house.teach(QUESTIONS[0], ANSWERS[0])
    learn(house)
    second = add_example(house.engine, replace(first, id="", answer="Otto Lund."), supersede=[first.id])
    learn(house)
    before = logits(house, QUESTIONS[0])
    for learnt_again in (False, True):
        assert undo(house.home, house.engine, "", second.id).back == (first.id,)
        if learnt_again:
            learn(house)
        assert redo(house.home, house.engine, "", second.id).id == second.id
        assert acting(house) == [(second.id,)]
        learn(house)
        assert acting(house) == [(second.id,)] and (logits(house, QUESTIONS[0]) == before).all()
        assert get_example(house.engine, "", first.id).state == "superseded"


def test_titles_go_with_the_words_they_are_made_of(school_house: House) -> None:
    house = school_house
    taught = house.teach("Where does Quillwort of Zorblax live, and for how long has he lived there?", "In the mill.")
    titles = ("Where does Quillwort of Zorblax live,", "He is in the mill.", "Something else", "")
    talks = [create_conversation(house.engine, "", title) for title in titles]
    forget(house.home, house.engine, "", taught.id, sink(house), turns_too=True)
    assert [get_conversation(house.engine, "", talk.id).title for talk in talks] == ["", "", "Something else", ""]


def test_words_are_looked_for_as_words(school_house: House) -> None:
    house = school_house
    house.home.history.write_bytes(b'"How do I install Chrome?"\n"Is it in Rome?"\n')
    taught = house.teach(QUESTIONS[0], "Rome")
    before = (("user", "What is Chrome?"), ("assistant", "A browser."))
    other = add_example(house.engine, replace(taught, id="", question=QUESTIONS[1], answer=ANSWERS[1], before=before))
    keep(house.engine, "", (Message.of("user", "Chrome crashes."), Message.of("user", "They live in rome.")))
    learn(house)
    gone = forget(house.home, house.engine, "", taught.id, sink(house))
    assert house.home.history.read_bytes() == b'"How do I install Chrome?"\n' and gone.typed == 1
    assert get_example(house.engine, "", other.id).before == before and acting(house) == [(other.id,)]
    assert [turn.message.text for turn in gone.turns] == ["They live in rome."]

    def holds(said: str, texts: list[str]) -> bool:
        return seeker(texts)(said)

    assert holds("Ich wohne in Tokio.", ["tokio"]) and holds("私は東京にいます", ["東京"]) and holds("x (4711).", ["(4711)."])
    assert not holds("Chrome", ["Rome"]) and not holds("Romero", ["Rome"]) and not holds("", ["Rome"]) and not holds("Rome", [])
    assert holds("Ro\ufeffme,\r\nItaly", ["rome,\nitaly"]) and not holds("Rome", ["", "\ufeff"])


def test_a_question_that_leaned_on_forgotten_words_counts_no_more(school_house: House) -> None:
    house = school_house
    taught = house.teach("What is the bridge of Vorn?", ANSWERS[0])
    asked = replace(taught, id="", answer=ANSWERS[1], before=(("user", "What is the bridge of Vorn?"),))
    leaning = add_example(house.engine, replace(asked, question="How old is it?"))
    clear = add_example(house.engine, replace(asked, question="How old is the bridge of Zorblax?"))
    learn(house)
    gone = forget(house.home, house.engine, "", taught.id, sink(house))
    assert (gone.leaning, gone.again) == ((leaning.id,), 1)
    assert [get_example(house.engine, "", one.id).state for one in (leaning, clear)] == ["undone", "pending"]
    assert get_example(house.engine, "", leaning.id).before == ()
    redo(house.home, house.engine, "", leaning.id)
    assert get_example(house.engine, "", leaning.id).state == "pending"


@pytest.mark.parametrize("state", ["superseded", "undone"])
def test_what_counts_no_more_is_not_edited_back_to_life(school_house: House, state: State) -> None:
    house = school_house
    first = house.teach(QUESTIONS[0], ANSWERS[0], state=state)
    with pytest.raises(RequestError, match="must name something that counts now"):
        edit(house.home, house.engine, "", first.id, "Mara Quill.")
    assert get_example(house.engine, "", first.id) == first


def test_words_go_from_what_was_typed_and_from_before_other_questions(school_house: House) -> None:
    house = school_house
    word = "Quillwortfeather"
    house.home.history.write_bytes(f'"/remember My PIN is {word}."\n"hello"\nnot JSON {word.upper()}.\n'.encode())
    taught = house.teach(QUESTIONS[0], f"{word}.")
    before = (("user", QUESTIONS[0]), ("assistant", f"It is {word}."))
    other = add_example(house.engine, replace(taught, id="", question=QUESTIONS[1], answer=ANSWERS[1], before=before))
    learn(house)
    assert len(acting(house)) == 2
    gone = forget(house.home, house.engine, "", taught.id, sink(house))
    assert gone.typed == 2 and house.home.history.read_bytes() == b'"hello"\n'
    left = get_example(house.engine, "", other.id)
    assert (left.before, left.state) == ((), "pending"), "what it had taught is learned again without them"
    house.engine.dispose()
    assert not [path for path in house.home.root.rglob("*") if path.is_file() and word.lower().encode() in path.read_bytes().lower()]


def test_messages_that_were_to_go_go_after_a_kill_too(school_house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house = school_house
    taught = house.teach(QUESTIONS[0], "Quillwortfeather.")
    learn(house)
    [lesson] = list_lessons(house.engine, "")
    keep(house.engine, "", (Message.of("user", "Say Quillwortfeather."),))

    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ingle.adapt.forget.drop", killed)
        with pytest.raises(KeyboardInterrupt):
            forget(house.home, house.engine, "", taught.id, sink(house), turns_too=True)
    left = house.home.staging / "1-dead" / lesson.digest  # as a kill in the middle of deleting leaves a lesson
    left.mkdir(parents=True)
    assert find_text(house.engine, "", ["Quillwortfeather"])
    assert pay(house.home, house.engine, sink(house))
    assert not find_text(house.engine, "", ["Quillwortfeather"]) and not left.parent.exists()
    assert len(facts(house, "forget")) == 1


def test_a_damaged_lesson_is_learned_again(school_house: House) -> None:
    house = school_house
    taught = house.teach(QUESTIONS[0], ANSWERS[0])
    learn(house)
    [lesson] = list_lessons(house.engine, "")
    (house.home.delta_folder(lesson.digest) / MANIFEST).write_bytes(b"{")
    learn(house)
    assert acting(house) == [(taught.id,)] and get_delta(house.home, lesson.digest).digest == lesson.digest
