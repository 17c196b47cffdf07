"""Dialogues about texts: what is asked, what is learnt of the answers, who gives them, and that each is given once."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ingle.core.errors import ConfigError, Interrupted
from ingle.core.message import Request, Sampling
from ingle.engine import loading
from ingle.engine.answer import answer
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.hybridize import hybrid_lessons
from ingle.hybridize.hybrid_lessons import FIRST, NEXT, Material, answers_of, make_dialogue, make_lessons, nobody_answers, text_tokens
from ingle.hybridize.hybrid_settings import LEAST_DIALOGUE, HybridLessonSettings, HybridSettings, SearchSettings
from ingle.hybridize.hybridizing import hybridize
from ingle.measure.data_sets import XSUM_ASK
from ingle.model.tokenizer import TokenizerFacts, make_facts
from ingle.train import making
from ingle.train.loop_settings import TrainSettings
from ingle.train.making import RunWatch
from tests.cli.place import write_model
from tests.model.tiny_tokenizers import byte_level, without_added
from tests.train.tiny_train import chat_tokenizer
from tests.tuning.place import admitting

LONG = TrainSettings(epochs=1, batch_tokens=600, precision="fp32")
SMALL = HybridSettings(
    retrieval=2, window=8, sinks=2, search=SearchSettings(documents=2, tokens=150, rounds=1, exchanges=0),
    lessons=HybridLessonSettings(
        kinds=("asked",), tokens=600, documents=2, long_kinds=("facts", "asked"), long_tokens=600, long_documents=2, held_out=1,
    ),
    mixers=LONG, logits=LONG, longer=LONG,
)  # fmt: skip


def saying(*answers: tuple[str, bool]) -> tuple[Callable[[Request], tuple[str, bool]], list[Request]]:
    """Somebody who gives these answers one after the other, and what was asked."""
    asked: list[Request] = []

    def ask(request: Request) -> tuple[str, bool]:
        asked.append(request)
        return answers[len(asked) - 1]

    return ask, asked


def test_answers_are_learnt_and_each_is_given_to_what_was_said() -> None:
    tokenizer = chat_tokenizer()
    ask, asked = saying(("It rains.", True), ("Rain.", True), ("Still", False))
    dialogue = make_dialogue(tokenizer, ask, "Leeds is wet.", 1000, random.Random(0))
    assert dialogue is not None
    assert [[message.role for message in one.messages] for one in asked] == [["user", "assistant"] * i + ["user"] for i in range(3)]
    first, second, third = (one.messages[-1].text for one in asked)
    assert first.replace("Leeds is wet.", "{text}") in FIRST and {second, third} < {*NEXT}
    assert [message.text for message in asked[2].messages[1::2]] == ["It rains.", "Rain."]
    assert len({one.sampling.seed for one in asked}) == 3 and {one.max_tokens for one in asked} == {62}
    runs = np.split(dialogue.ids[dialogue.answer], np.flatnonzero(np.diff(np.flatnonzero(dialogue.answer)) > 1) + 1)
    ends = [tokenizer.control["<|im_end|>"]]
    assert [run.tolist() for run in runs] == [
        tokenizer.encode("It rains.") + ends,
        tokenizer.encode("Rain.") + ends,
        tokenizer.encode("Still"),
    ]
    whole = tokenizer.decode(dialogue.ids.tolist())
    assert whole.index(first) < whole.index("It rains.") < whole.index(second) < whole.index(third) < whole.index("Still")


def test_a_talk_ends_with_what_was_cut_and_with_silence() -> None:
    for answers, count in (([("Cut", False)], 1), ([("One.", True), (" ", True)], 2), ([("One.", True), ("Cut", False)], 2)):
        ask, asked = saying(*answers)
        dialogue = make_dialogue(chat_tokenizer(), ask, "text", 1000, random.Random(0))
        assert dialogue is not None and len(asked) == count
    assert make_dialogue(chat_tokenizer(), nobody_answers, "text", 1000, random.Random(0)) is None


def test_a_talk_is_no_longer_than_it_may_be() -> None:
    ask, _ = saying(*[("word " * 20, True)] * 3)
    dialogue = make_dialogue(chat_tokenizer(), ask, "text " * 120, 512, random.Random(0))
    assert dialogue is not None and len(dialogue.ids) == len(dialogue.answer) == 512


def test_what_comes_behind_a_talk_hangs_on_no_answer() -> None:
    after = set()
    for answers in ([("Cut", False)], [("a", True), ("b", True), ("c", True)], [("", True)]):
        draw = random.Random(0)
        make_dialogue(chat_tokenizer(), saying(*answers)[0], "text", 1000, draw)
        after.add(draw.random())
    assert len(after) == 1


def test_a_model_without_a_template_is_asked_in_plain_text() -> None:
    tokenizer = make_facts(without_added(byte_level(), {"<|endoftext|>"}), TokenizerFacts("bytes", (0,)), "plain")
    ask, asked = saying(("It rains.", False))
    dialogue = make_dialogue(tokenizer, ask, "Leeds is wet.", 1000, random.Random(0))
    assert dialogue is not None and len(asked) == 1 and not asked[0].messages
    assert isinstance(asked[0].prompt, str) and "Leeds is wet." in asked[0].prompt
    assert tokenizer.decode(dialogue.ids[dialogue.answer].tolist()) == "It rains."


def test_no_suites_request_is_taught() -> None:
    own = XSUM_ASK.replace("{text}", "").strip()
    assert not [one for one in (*FIRST, *NEXT) if own in one or one.replace("{text}", "").strip() in own]
    assert all(one.count("{text}") == 1 for one in FIRST) and not [one for one in NEXT if "{" in one]


def test_talks_are_about_texts_of_one_source_from_their_beginning() -> None:
    tokenizer, draw = chat_tokenizer(), random.Random(0)
    sources = [[f"Mm {'m' * i}." for i in range(30)], [f"Zz {'z' * 40}."]]
    material = Material(tokenizer, sources, draw)
    passages = [material.passage(60) for _ in range(6)]
    assert [{*passage} <= {*"Mm .\n"} for passage in passages] == [True, False] * 3
    assert all(passage.startswith(("Mm", "Zz")) and 40 < len(tokenizer.encode(passage)) <= 66 for passage in passages)
    assert all(512 // 4 <= text_tokens(512, draw) < 512 * 2 // 3 for _ in range(200))


def test_another_text_is_taken_where_there_is_nothing_to_say(texts: list[list[str]]) -> None:
    given = iter([("", True), (" ", True), ("Now.", True), ("Then.", True), ("", True)])
    corpus = make_lessons(chat_tokenizer(), [(texts, 1)], 600, 0, ("asked",), lambda _: next(given))
    assert corpus.document(0).answer.any()
    with pytest.raises(ConfigError, match=r"asked. needs a model that answers.*Leave asked out"):
        make_lessons(chat_tokenizer(), [(texts, 1)], 600, 0, ("asked",))


def test_an_answer_is_given_once(tiny_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = get_kept(tiny_home, "tiny")
    request = Request(prompt="some text", max_tokens=9, sampling=Sampling(temperature=0.7, seed=3))
    text, ended = answers_of(tiny_home, kept)(request)
    model = open_model(kept_source(tiny_home, kept))
    *_, last = chunks = list(answer(model, request))
    assert (text, ended) == ("".join(chunk.text for chunk in chunks), last.finish == "stop") and text
    monkeypatch.setattr(hybrid_lessons, "open_model", lambda *_, **__: pytest.fail("it was asked again"))
    assert answers_of(tiny_home, kept)(request) == (text, ended)
    for other in (replace(request, prompt="some texts"), replace(request, sampling=Sampling(temperature=0.7, seed=4))):
        with pytest.raises(pytest.fail.Exception, match="again"):
            answers_of(tiny_home, kept)(other)


@pytest.fixture
def talking_home(some_home: Home, tmp_path: Path) -> Home:
    """A home whose model has room for a dialogue."""
    folder = write_model(tmp_path / "talking")
    table = json.loads((folder / "config.json").read_text("ascii"))
    (folder / "config.json").write_text(json.dumps(table | {"max_position_embeddings": 1024}), "ascii")
    pull(some_home, str(folder), lambda _: None, "talking")
    return some_home


def test_a_conversion_stopped_while_it_asks_goes_on(talking_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, asked, said = get_kept(talking_home, "talking"), making.MakingJob.check, list[tuple[str, int, int]]()
    stops = iter(range(100))

    def stop_soon(job: object, where: str) -> None:
        if "lessons were prepared" in where and next(stops) == 3:
            raise Interrupted("hybridize", "was interrupted", where)
        asked(job, where)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(making.MakingJob, "check", stop_soon)
        hybridize(talking_home, kept, "cut", SMALL, admitting(talking_home))
    opened: list[object] = []
    open_weights = loading._open_weights
    monkeypatch.setattr(loading, "_open_weights", lambda *given: opened.append(given) or open_weights(*given))
    cut = hybridize(talking_home, kept, "cut", SMALL, admitting(talking_home), RunWatch(lambda *piece: said.append(piece)))
    assert len(opened) == 1  # for the answers that were still to come
    assert [piece for piece in said if piece[0] == "preparing lessons"] == [("preparing lessons", i, 3) for i in (0, 1, 2, 3)] * 2
    whole = hybridize(talking_home, kept, "whole", SMALL, admitting(talking_home))
    assert len(opened) == 1 and dict(whole.delta.tensors) == dict(cut.delta.tensors)


def test_talks_need_room(some_home: Home) -> None:
    kept = get_kept(some_home, "tiny")
    with pytest.raises(ConfigError, match=rf"lessons.tokens must be at least {LEAST_DIALOGUE} for dialogues .asked."):
        hybridize(some_home, kept, "x", SMALL, admitting(some_home))
