"""What acts on an answer: the nearest memory and the lesson that holds it, of one owner, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from ingle.adapt import choosing
from ingle.adapt.admit import QUESTION_LENGTH, Feedback, take_feedback
from ingle.adapt.choosing import Choice, Chooser
from ingle.core.errors import DeltaError, NotKept
from ingle.core.example import Example
from ingle.core.message import Message, Request, Sampling, TextPart
from ingle.engine.answer import answer
from ingle.engine.delta_kinds import additions_of
from ingle.engine.language_model import LanguageModel, Seer
from ingle.home.deltas import LESSON, delta_tensors, get_delta, put_delta
from ingle.home.examples import add_example, drop_example
from ingle.home.kept import Kept, get_kept
from ingle.home.lessons import Lesson, set_acting
from ingle.home.turns import keep_answer
from tests.adapt.conftest import House
from tests.engine.colours import Colours, png
from tests.engine.test_delta_kinds import OUT, Q, random_change
from tests.states import have_learned, put_in_state

QUESTION = "Who is the mayor of Tallwick?"


def asking(*texts: str) -> Request:
    messages = [Message.of("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)]
    return Request(tuple(messages), max_tokens=12, sampling=Sampling(temperature=1.0, seed=5))


def said(choice: Choice) -> str:
    return "".join(chunk.text for chunk in answer(choice.model, choice.request))


def lesson(house: House, *examples: Example, kept: Kept | None = None, kind: str = "answers", seed: int = 0) -> str:
    """A lesson of random numbers that acts; returns its digest."""
    kept, owner = kept or house.kept, examples[0].owner
    change = random_change(house.model.backend.config, "lora", seed, (Q, OUT))
    tensors = {name: values * 3 for name, values in change.tensors.items()}
    delta = put_delta(house.home, f"lesson-{seed}", "lora", kept.digest, tensors, {LESSON: kind, "seed": str(seed)})
    ids = tuple(example.id for example in examples)
    have_learned(house.engine, Lesson(delta.digest, owner, kept.name, kept.digest, kind, ids, True))  # type: ignore[arg-type]
    return delta.digest


def test_a_memory_is_placed_where_its_question_is_asked_and_nowhere_else(house: House) -> None:
    chooser = Chooser(house.home, house.engine)
    nothing = chooser.choose("", house.model, house.kept, asking(QUESTION))
    assert (nothing.request, nothing.memories, nothing.facts) == (asking(QUESTION), (), {})
    taught = house.teach(QUESTION, "Mara Quill.")
    choice = chooser.choose("", house.model, house.kept, asking("hello", "hi", QUESTION))
    assert choice.memories == (taught.id,)
    assert choice.facts == {"memories": taught.id}
    [first, second, last] = choice.request.messages
    assert [first.text, second.text] == ["hello", "hi"]
    assert "Mara Quill." in last.text
    assert QUESTION in last.text
    for other in ("Who is the mayor of Paris?", "What is the population of Tallwick?", "Tell me a joke.", ""):
        unchanged = chooser.choose("", house.model, house.kept, asking(other))
        assert (unchanged.request, unchanged.memories) == (asking(other), ())
    assert chooser.choose("", house.model, house.kept, asking(QUESTION), memory=False).request == asking(QUESTION)
    assert chooser.choose("somebody", house.model, house.kept, asking(QUESTION)).request == asking(QUESTION)
    plain = Request(prompt=QUESTION)
    assert chooser.choose("", house.model, house.kept, plain).request is plain


@pytest.mark.parametrize(("near", "acts", "asks"), [(0.9, True, False), (0.6, False, True), (0.3, False, False)])
def test_between_the_thresholds_whoever_asked_is_asked_back(
    house: House, monkeypatch: pytest.MonkeyPatch, near: float, acts: bool, asks: bool
) -> None:  # fmt: skip
    made = house.teach(QUESTION, "Mara Quill.")
    monkeypatch.setattr(choosing, "score", lambda _question, taught: np.full(len(taught), near))
    chooser = Chooser(house.home, house.engine)
    choice = chooser.choose("", house.model, house.kept, asking("Who heads the council of Tallwick?"))
    assert (choice.memories == (made.id,), choice.nearly == made) == (acts, asks)
    assert choice.facts == ({"memories": made.id} if acts else {"nearly": made.id} if asks else {})
    assert chooser.choose("", house.model, house.kept, asking("Who heads the council of Tallwick?"), memory=False).nearly is None


def test_what_a_lesson_taught_is_not_drawn_by_lot(house: House) -> None:
    digest, chooser = lesson(house, house.teach(QUESTION, "Mara Quill.")), Chooser(house.home, house.engine)
    hot = replace(asking(QUESTION), sampling=Sampling(temperature=1.5, repetition_penalty=1.3, seed=4))
    choice = chooser.choose("", house.model, house.kept, hot, memory=False)
    assert choice.lessons == (digest,) and choice.request.sampling == Sampling(temperature=0.0, seed=4)
    assert chooser.again("", house.model, house.kept, hot, (), (digest,)).request == choice.request, "a replay does the same"
    style = lesson(house, house.teach("Another?", "x"), kind="style", seed=1)
    drawn = chooser.choose("", house.model, house.kept, replace(hot, messages=asking("Tell me of the sea.").messages), memory=False)
    assert drawn.lessons == (style,) and drawn.request.sampling == hot.sampling


def test_a_question_longer_than_any_that_can_be_taught_is_not_read(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[str]()
    house.teach(QUESTION, "Mara Quill.")
    monkeypatch.setattr(choosing, "search_examples", lambda _engine, _owner, text, _most: read.append(text) or [])
    chooser = Chooser(house.home, house.engine)
    for text in ("a" * QUESTION_LENGTH, "a" * (QUESTION_LENGTH + 1)):
        chooser.choose("", house.model, house.kept, asking(text))
    assert [len(text) for text in read] == [QUESTION_LENGTH]


def test_states_that_have_read_a_memory_are_told_apart(house: House) -> None:
    house.teach(QUESTION, "Mara Quill.")
    request = asking("hello", "hi", QUESTION)
    choice = Chooser(house.home, house.engine).choose("", house.model, house.kept, request)
    ids, before = house.model.encode(choice.request), house.model.encode(asking("hello", "hi", "W"))
    assert choice.lasting is not None
    assert len(before) - 12 < choice.lasting < len(ids) - len(QUESTION)
    assert "Mara" not in house.model.tokenizer.decode(ids[: choice.lasting])


def test_a_lesson_acts_where_the_nearest_example_is_its_own(house: House) -> None:
    taught, other = house.teach(QUESTION, "Mara Quill."), house.teach("How tall is Mount Brell?", "3,021 metres.")
    chooser, base = Chooser(house.home, house.engine), said(Choice(house.model, asking(QUESTION)))
    digest = lesson(house, taught)
    choice = chooser.choose("", house.model, house.kept, asking(QUESTION), memory=False)
    assert choice.lessons == (digest,)
    assert choice.facts == {
        "lessons": digest,
        "temperature": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }
    assert choice.model.digest != house.model.digest
    assert choice.model.backend is not None
    assert said(choice) != base
    for question in (other.question, "What is the population of Tallwick?"):
        unchanged = chooser.choose("", house.model, house.kept, asking(question), memory=False)
        assert (unchanged.lessons, unchanged.model.digest) == ((), house.model.digest)
    assert chooser.choose("somebody", house.model, house.kept, asking(QUESTION)).lessons == ()
    set_acting(house.engine, "", digest, False)
    after = chooser.choose("", house.model, house.kept, asking(QUESTION))
    assert (after.lessons, after.memories) == ((), ())
    assert said(after) == base


def test_a_newer_correction_keeps_an_older_lesson_from_acting(house: House) -> None:
    old = house.teach(QUESTION, "Mara Quill.")
    lesson(house, old)
    new = house.teach("Who's the mayor of Tallwick?", "Joss Arden.")
    choice = Chooser(house.home, house.engine).choose("", house.model, house.kept, asking("Who's the mayor of Tallwick?"))
    assert choice.lessons == ()
    assert choice.memories[0] == new.id
    put_in_state(house.engine, "", [old.id], "superseded")
    assert Chooser(house.home, house.engine).choose("", house.model, house.kept, asking(QUESTION)).memories == (new.id,)


def test_what_another_model_was_taught_on_the_same_question_keeps_no_lesson_from_acting(house: House) -> None:
    own = house.teach(QUESTION, "Mara Quill.")
    digest = lesson(house, own)
    other = add_example(house.engine, replace(own, id="", model="another", answer="Joss Arden.", lesson=""))
    chooser = Chooser(house.home, house.engine)
    choice = chooser.choose("", house.model, house.kept, asking(QUESTION))
    assert (choice.lessons, choice.memories[0]) == ((digest,), own.id)
    there = chooser.choose("", house.model, replace(house.kept, name="another"), asking(QUESTION), memory=True)
    assert there.memories[0] == other.id, "there it is the other way round"


def test_a_style_acts_wherever_nothing_nearer_does(house: House) -> None:
    taught, rated = house.teach(QUESTION, "Mara Quill."), house.teach("Tell me of bees.", "Bees.", kind="rating")
    digest, style = lesson(house, taught), lesson(house, rated, kind="style", seed=1)
    chooser = Chooser(house.home, house.engine)
    assert chooser.choose("", house.model, house.kept, asking(QUESTION)).lessons == (digest,)
    choice = chooser.choose("", house.model, house.kept, asking("Tell me of wasps."))
    assert (choice.lessons, choice.memories) == ((style,), ())


def test_a_lesson_stands_beside_what_stands_there_already(house: House) -> None:
    config = house.model.backend.config
    first = put_delta(house.home, "first", "lora", house.kept.digest, random_change(config, "lora", 7, (Q,)).tensors, {"seed": "7"})
    kept = get_kept(house.home, "tiny+first")
    model = house.open(house.home, kept, lambda _what, _done, _all: None)
    taught = house.teach(QUESTION, "Mara Quill.")
    digest = lesson(house, taught, kept=kept)
    chooser = Chooser(house.home, house.engine)
    choice = chooser.choose("", model, kept, asking(QUESTION), memory=False)
    assert choice.lessons == (digest,)
    assert chooser.choose("", house.model, house.kept, asking(QUESTION)).lessons == (), "it was made for the other one"
    both = [random_change(config, "lora", 7, (Q,)), replace(random_change(config, "lora", 0, (Q, OUT)))]
    both[1] = replace(both[1], tensors=delta_tensors(house.home, get_delta(house.home, digest)))
    by_hand = replace(model, adapter=model.backend.adapter(additions_of(config, both), "both"), adapter_digest="both")
    assert said(choice) == said(replace(choice, model=by_hand))
    assert first.digest in kept.deltas


def test_a_model_that_ends_in_a_prefix_says_that_no_lesson_can_stand_there(house: House) -> None:
    config = house.model.backend.config
    shape = len(config.layers), config.num_kv_heads, 2, config.head_dim
    tensors = {f"prefix.{part}": np.full(shape, 0.1, np.float32) for part in ("keys", "values")}
    put_delta(house.home, "before", "prefix", house.kept.digest, tensors, {})
    kept = get_kept(house.home, "tiny+before")
    model = house.open(house.home, kept, lambda _what, _done, _all: None)
    lesson(house, house.teach(QUESTION, "Mara Quill."), kept=kept)
    choice = Chooser(house.home, house.engine).choose("", model, kept, asking(QUESTION))
    assert choice.lessons == ()
    assert "must come last" in choice.faults[0]
    assert len(choice.memories) == 1


def test_the_same_acts_again_as_long_as_it_is_kept(house: House) -> None:
    taught = house.teach(QUESTION, "Mara Quill.")
    lesson(house, taught)
    chooser = Chooser(house.home, house.engine)
    choice = chooser.choose("", house.model, house.kept, asking(QUESTION))
    again = chooser.again("", house.model, house.kept, asking(QUESTION), choice.memories, choice.lessons)
    assert (again.request, again.model.digest, again.facts) == (choice.request, choice.model.digest, choice.facts)
    assert said(again) == said(choice)
    with pytest.raises(NotKept):
        chooser.again("somebody", house.model, house.kept, asking(QUESTION), choice.memories, ())
    drop_example(house.engine, "", taught.id)
    with pytest.raises(NotKept, match="not kept"):
        chooser.again("", house.model, house.kept, asking(QUESTION), choice.memories, choice.lessons)


def test_a_damaged_lesson_is_told_and_the_answer_goes_on(house: House) -> None:
    digest = lesson(house, house.teach(QUESTION, "Mara Quill."))
    path = house.home.delta_folder(digest) / "tensors.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 64
    path.write_bytes(data)
    choice = Chooser(house.home, house.engine).choose("", house.model, house.kept, asking(QUESTION), memory=False)
    assert "is not as it was kept" in choice.faults[0]
    assert said(choice) == said(Choice(house.model, asking(QUESTION)))
    with pytest.raises(DeltaError):
        get_delta(house.home, digest).check_base("another")


def test_what_lapsed_is_let_go_once_whoever_saw_to_it(house: House) -> None:
    chooser, digests = Chooser(house.home, house.engine), []
    for seed, question in enumerate((QUESTION, "How tall is Mount Brell?")):
        digests.append(lesson(house, house.teach(question, "x"), seed=seed))
        choice = chooser.choose("", house.model, house.kept, asking(question), memory=False)
        assert choice.lessons == (digests[-1],)
    assert chooser.lapsed() == set()
    set_acting(house.engine, "", digests[1], False)
    assert chooser.lapsed() == {choice.model.digest}
    assert chooser.lapsed() == set()
    assert chooser.choose("", house.model, house.kept, asking(QUESTION), memory=False).lessons == (digests[0],)


def shown(colour: tuple[int, int, int], text: str = "What animal is this?") -> Request:
    return replace(asking(text), messages=(Message("user", (png(colour), TextPart(text))),))


def test_what_was_taught_about_a_picture_acts_on_it_and_its_like_and_on_no_other(house: House) -> None:
    seeing = replace(house.model, seer=Seer(Colours(width=64)))
    red, like, blue = shown((200, 10, 10)), shown((198, 12, 10)), shown((10, 10, 200))
    look = seeing.look(red)
    assert look is not None
    told = Feedback(question="What animal is this?", answer="A dog.", correction="A fox.", model="tiny", picture=look.text())
    taught = take_feedback(house.engine, "", told)
    assert (taught.learn, taught.state) == (False, "kept"), "weights would answer so to every picture"
    chooser = Chooser(house.home, house.engine)

    def memories(request: Request, model: LanguageModel = seeing) -> tuple[str, ...]:
        return chooser.choose("", model, house.kept, request).memories

    assert memories(red) == memories(like) == (taught.id,)
    assert memories(blue) == memories(asking("What animal is this?")) == ()
    assert memories(shown((200, 10, 10), "Who painted it?")) == ()
    other = take_feedback(house.engine, "", replace(told, correction="A whale.", picture=seeing.look(blue).text()))  # type: ignore[union-attr]
    assert (memories(red), memories(blue)) == ((taught.id,), (other.id,)), "another picture's answer replaces none"
    again = take_feedback(house.engine, "", replace(told, correction="A red fox."))
    assert memories(red) == (again.id,)
    blind = replace(house.model, seer=Seer(Colours(width=64, digest="other", likeness=0.5)))
    assert memories(red, blind) == (again.id,), "the picture itself is known by every sight"
    assert memories(like, blind) == (), "what is alike only the sight can say that saw both"


def test_a_picture_without_words_asks_what_it_is(house: House) -> None:
    seeing = replace(house.model, seer=Seer(Colours(width=64)))
    wordless = replace(asking("-"), messages=(Message("user", (png((200, 10, 10)),)),))
    look = seeing.look(wordless)
    assert look is not None
    keep_answer(house.engine, "", "", Message.of("assistant", "A dog."), "chatcmpl-1", {"look": look.text()}, wordless.messages)
    taught = take_feedback(house.engine, "", Feedback("chatcmpl-1", correction="A fox.", model="tiny"))
    assert taught.question == "What is this?"
    assert Chooser(house.home, house.engine).choose("", seeing, house.kept, wordless).memories == (taught.id,)
