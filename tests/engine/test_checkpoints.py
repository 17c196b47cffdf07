"""Prompts of models with recurrent memories: what was edited or asked again is read from the nearest kept state, and to the same end."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import KernelError
from ingle.core.message import Request
from ingle.core.spec import LayerSpec
from ingle.engine.answer import Session, answer
from ingle.engine.backend import prefill
from ingle.engine.decoding import CHECKPOINT_TOKENS, WORTH_KEEPING, Checkpoints
from ingle.engine.job import Capacity
from ingle.engine.language_model import LanguageModel
from ingle.engine.prefix_cache import PrefixCache, SavedStates
from ingle.engine.scheduler import Scheduler
from tests.engine.test_answer import byte_tokenizer, chat, whole
from tests.engine.test_scheduler import FREE, submit
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config

LAYERS = (LayerSpec((0,), window=24, sinks=3, memory="gated_delta"), LayerSpec((), window=0, memory="gated_delta"), LayerSpec((0, 1)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    config = tiny_config(vocab=260, context=4000, layers=LAYERS)
    return LanguageModel("tiny", backend_of(tmp_path_factory.mktemp("m"), random_checkpoint(config)), byte_tokenizer())


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    made = Scheduler(Capacity(), PrefixCache(1 << 30))
    yield made
    made.close()


def long(*texts: str, most: int = 4) -> Request:
    return chat(*texts, max_tokens=most, sampling=FREE)


def cached(chunks: list) -> int:  # type: ignore[type-arg]
    return chunks[-1].usage.cached_tokens


def text(length: int, seed: int) -> str:
    return "".join(chr(97 + i) for i in np.random.default_rng(seed).integers(0, 26, length))


@given(start=st.integers(0, 3000), more=st.integers(1, 3000), common=st.integers(0, 7000))
def test_no_more_is_read_again_than_was_promised(start: int, more: int, common: int) -> None:
    prompt = start + more
    way, length, kept = Checkpoints(start, prompt, True), start, [start]
    spared = Checkpoints(start, prompt, True).within(common)
    while length < prompt:
        length = min(length + 256, prompt, way.next or prompt)
        if way.due(length):
            kept.append(length)
    assert all(WORTH_KEEPING <= b - a <= CHECKPOINT_TOKENS for a, b in pairwise(kept))
    assert prompt - 1 - kept[-1] < WORTH_KEEPING
    assert spared == max((place for place in kept if place <= common), default=0)
    idle = Checkpoints(start, prompt, False)
    assert (idle.next, idle.within(common)) == (None, common)


def test_an_edited_prompt_is_read_from_the_checkpoint_before_the_change(scheduler: Scheduler, model: LanguageModel) -> None:
    first, second = text(1500, 1), text(1500, 1)[:1200] + text(600, 2)
    assert cached(submit(scheduler, model, long(first))[1].all()) == 0
    for request, known in ((long(second), 1024), (long(first[:700]), 512), (long(first[:400]), 0)):
        chunks = submit(scheduler, model, request)[1].all()
        assert cached(chunks) == known
        assert [c.tokens for c in chunks] == [c.tokens for c in answer(model, request)]
    assert cached(submit(scheduler, model, long(first), owner="somebody else")[1].all()) == 0


def test_asking_again_reads_one_token_and_going_on_only_what_is_new(scheduler: Scheduler, model: LanguageModel) -> None:
    request = long(text(900, 3), most=90)
    once = submit(scheduler, model, request)[1].all()
    again = submit(scheduler, model, request)[1].all()
    prompt = len(model.encode(request))
    assert (cached(once), cached(again)) == (0, prompt - 1)
    assert whole(once) == whole(again) == whole(list(answer(model, request)))
    other = submit(scheduler, model, replace(request, sampling=replace(FREE, seed=8)))[1].all()
    assert cached(other) == prompt - 1 and whole(other) != whole(once)
    # A prompt that goes on after the answer's own tokens is read from where the answer ended.
    ids = [*model.encode(request), *(t for c in once for t in c.tokens)]
    assert scheduler.cache.known("", model.digest, [*ids, 5]) == len(ids) - 1  # the last token was never read
    assert scheduler.cache.known("", model.digest, [*ids[: prompt + 50], 5]) == prompt - 1


def test_equal_prompts_at_the_same_time_are_read_once(scheduler: Scheduler, model: LanguageModel) -> None:
    request = long("the same for all " * 50)
    heard = [submit(scheduler, model, request, owner="ann")[1] for _ in range(5)]
    read = [chunks[-1].usage.prompt_tokens - chunks[-1].usage.cached_tokens for h in heard if (chunks := h.all()) and chunks[-1].usage]
    assert sorted(read) == [1, 1, 1, 1, len(model.encode(request))]


def test_checkpoints_keep_within_the_budget(model: LanguageModel) -> None:
    one = model.backend.state_bytes(2100)
    scheduler = Scheduler(Capacity(state_bytes=3 * one), PrefixCache(1 << 40))
    requests = [long(text(2000, seed)) for seed in range(3)]
    for request in requests:
        chunks = submit(scheduler, model, request)[1].all()
        assert whole(chunks) == whole(list(answer(model, request)))
    assert scheduler.cache.nbytes <= scheduler.capacity.state_bytes and scheduler.cache.evicted
    assert scheduler.cache.known("", model.digest, model.encode(requests[-1]))
    scheduler.close()


def test_after_a_restart_a_kept_conversation_goes_on_at_once(model: LanguageModel, tmp_path: Path) -> None:
    first, prompt = text(900, 4), long(text(900, 4))
    saved = SavedStates(tmp_path, 1 << 30)
    scheduler = Scheduler(Capacity(), PrefixCache(1 << 30), saved=saved)
    chunks = submit(scheduler, model, prompt, keep="conversation")[1].all()
    scheduler.close()
    assert len([*tmp_path.glob("*.json")]) == 1
    again = SavedStates(tmp_path, 1 << 30)
    again.open()
    ids = model.encode(prompt)
    assert again.find("", model.digest, ids) is None, "it can't go back to the prompt"
    ids += [t for c in chunks for t in c.tokens]
    found = again.find("", model.digest, [*ids, 7])
    assert found is not None and found[0] == len(ids) - 1
    state = again.load(found[1], model.backend)
    np.testing.assert_array_equal(
        prefill(model.backend, [ids[-1], 7], state), prefill(model.backend, [*ids, 7], model.backend.new_state())
    )  # fmt: skip
    scheduler = Scheduler(Capacity(), PrefixCache(1 << 30), saved=again)
    edited = long(first[:800] + "!")
    chunks = submit(scheduler, model, edited, keep="conversation")[1].all()
    assert cached(chunks) == 0 and whole(chunks) == whole(list(answer(model, edited)))
    scheduler.forget("", "conversation")
    scheduler.close()
    assert not [*tmp_path.iterdir()] and not [*scheduler.cache], "checkpoints go with what they were made of"


def test_a_broken_memory_ends_one_answer(scheduler: Scheduler, model: LanguageModel) -> None:
    request, good = long(text(100, 5), most=30), long(text(100, 6), most=60)
    ids, state = model.encode(request), model.backend.new_state()
    prefill(model.backend, ids[:-1], state)
    state.memories[:] = np.inf
    scheduler.cache.put("bad", model.digest, ids[:-1], state)
    heard = [submit(scheduler, model, one, owner=owner)[1] for one, owner in ((good, "ann"), (request, "bad"), (good, "bob"))]
    with pytest.raises(KernelError, match="recurrent memory"):
        heard[1].all()
    answers = [mine.all() for mine in (heard[0], heard[2])]
    assert [whole(chunks) for chunks in answers] == [whole(list(answer(model, good)))] * 2


def test_a_session_goes_back_to_what_it_kept(model: LanguageModel) -> None:
    session, first = Session(model.backend.new_state()), text(1300, 7)
    once = list(answer(model, long(first, most=100), session))
    turns = (first, whole(once), "and then?")

    def asked(request: Request) -> int:
        chunks = list(answer(model, request, session))
        assert [c.tokens for c in chunks] == [c.tokens for c in answer(model, request)]
        assert session.state.length == len(session.ids)
        return cached(chunks)

    prompt = len(model.encode(long(first)))
    ended = len(session.ids)
    assert asked(long(*turns)) in (ended, prompt - 1)  # bytes of a broken character come back as other tokens
    assert asked(long(*turns)) >= prompt - 1  # again
    assert asked(long(first, most=100)) == prompt - 1  # the turn before, again
    assert asked(long(first[:1200] + "?" + first[1200:])) == 1024
    assert asked(long(first[:300])) == 0
    assert session.earlier.nbytes <= session.earlier.budget_bytes


def test_a_session_that_was_broken_off_within_a_step_reads_again(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    session, forward = Session(model.backend.new_state()), type(model.backend).forward
    turns = (text(60, 7), whole(list(answer(model, long(text(60, 7)), session))))
    assert session.state.length > 60

    def interrupted(*given: Any) -> Any:
        forward(*given)
        for segment in given[1]:
            segment.state.length -= len(segment.ids)  # as where Python is interrupted before it is written down
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(model.backend), "forward", interrupted)
        list(answer(model, long(*turns, text(90, 8)), session))
    assert session.ids == [] and session.state.length == 0
    asked = long(*turns, text(90, 8) + "?")
    assert [c.tokens for c in answer(model, asked, session)] == [c.tokens for c in answer(model, asked)]


def test_an_answer_without_a_session_keeps_nothing(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "keep", lambda *_: pytest.fail("nobody will come back"))
    assert list(answer(model, long(text(700, 8))))[-1].finish == "length"
