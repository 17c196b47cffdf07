"""Virtual tokens before every text: as if they had been read, and as if they were not there."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingle.core.errors import ContextError
from ingle.core.message import Request
from ingle.core.spec import LayerSpec
from ingle.engine.answer import Session, answer
from ingle.engine.backend import Segment, prefill, step
from ingle.engine.job import Capacity
from ingle.engine.language_model import LanguageModel
from ingle.engine.prefix_cache import PrefixCache, SavedStates
from ingle.engine.scheduler import Scheduler
from ingle.engine.scoring import score
from ingle.model.checkpoint import Checkpoint
from ingle.model.module import load_module
from ingle.tuning.virtual import prompt_tensors
from tests.engine.test_adapter import random_additions
from tests.engine.test_answer import byte_tokenizer
from tests.engine.test_scheduler import FREE, chat, submit, whole
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config, tokens

LAYERS = {
    "transformer": (LayerSpec((0, 1)),) * 2,
    "hybrid": (LayerSpec((0,), window=24, sinks=3), LayerSpec((0, 1)), LayerSpec((), window=9, sinks=1)),
}
KINDS = pytest.mark.parametrize("kind", LAYERS)


def remembered(checkpoint: Checkpoint, ids: list[int]) -> tuple[Any, Any]:
    """Keys and values [layers, groups, n, D] of these tokens, by PyTorch."""
    module = load_module(checkpoint)
    made = prompt_tensors(module, module.model.embed_tokens.weight[ids])
    return made["prefix.keys"].numpy(), made["prefix.values"].numpy()


@KINDS
@pytest.mark.parametrize("count", [1, 16, 50, 130])
def test_it_is_as_if_the_virtual_tokens_had_been_read(tmp_path: Path, kind: str, count: int) -> None:
    checkpoint = random_checkpoint(tiny_config(layers=LAYERS[kind]))
    before, ids = tokens(checkpoint.config, count, 1), tokens(checkpoint.config, 100, 2)
    plain = backend_of(tmp_path, checkpoint)
    backend = plain.beginning_with(*remembered(checkpoint, before), "delta")
    expected = plain.forward([Segment(plain.new_state(), before + ids, "all")])[0].copy()
    [got] = backend.forward([Segment(backend.new_state(), ids, "all")])
    np.testing.assert_allclose(got, expected[count:], atol=2e-4)
    state = backend.new_state()
    for start, end in ((0, 30), (30, 31), (31, 90)):
        [rows] = backend.forward([Segment(state, ids[start:end], "all")])
        np.testing.assert_allclose(rows, expected[count + start : count + end], atol=2e-4)


@KINDS
def test_the_virtual_tokens_are_not_counted(tmp_path: Path, kind: str) -> None:
    config = tiny_config(layers=LAYERS[kind], context=100)
    plain = backend_of(tmp_path, random_checkpoint(config))
    backend = plain.beginning_with(*np.ones((2, len(config.layers), 2, 20, 12)), "delta")
    assert backend.config == replace(config, context_length=80)
    state = backend.new_state()
    assert (state.length, state.before, state.end) == (0, 20, 20)
    prefill(backend, tokens(config, 80), state)
    assert state.length == 80
    with pytest.raises(ContextError, match="context of 80"):
        backend.forward([Segment(state, [1])])
    first = backend.forward([Segment(backend.new_state(), [5])])[0].copy()
    state.rewind(0)
    assert state.length == 0
    np.testing.assert_array_equal(backend.forward([Segment(state, [5])])[0], first)
    assert backend.state_bytes(80) == plain.state_bytes(100)
    assert len({plain.digest, backend.digest, plain.beginning_with(*np.ones((2, len(config.layers), 2, 20, 12)), "other").digest}) == 3


def test_everybody_begins_after_the_same_virtual_tokens(tmp_path: Path) -> None:
    """A beginning is shared and never written to, however many go on from it."""
    plain = backend_of(tmp_path, random_checkpoint(tiny_config()))
    backend = plain.beginning_with(*np.random.default_rng(0).standard_normal((2, 2, 2, 70, 12)), "delta")
    expected = backend.forward([Segment(backend.new_state(), [1, 2, 3])])[0].copy()
    states = [backend.new_state() for _ in range(4)]
    for i, state in enumerate(states):
        backend.forward([Segment(state, tokens(backend.config, 60, i), "none")])
    np.testing.assert_array_equal(backend.forward([Segment(backend.new_state(), [1, 2, 3])])[0], expected)
    both = dict([*states[0].pieces(), *states[1].pieces()])
    assert sum(both.values()) < states[0].nbytes + states[1].nbytes, "their full pages are one"


@pytest.fixture
def models(tmp_path: Path) -> list[LanguageModel]:
    """The base, one with an adapter, two with prefixes, one with both: all on one backend."""
    plain = backend_of(tmp_path, random_checkpoint(tiny_config(vocab=260, context=500)))
    draw = np.random.default_rng(3)
    one, two = (plain.beginning_with(*draw.standard_normal((2, 2, 2, count, 12)), str(count)) for count in (5, 40))
    adapter = plain.adapter(random_additions(plain.config, 1), "a")
    made = [(plain, None, ""), (plain, adapter, "a"), (one, None, ""), (two, None, ""), (two, adapter, "a")]
    return [LanguageModel(f"tiny+{i}", backend, byte_tokenizer(), *rest) for i, (backend, *rest) in enumerate(made)]


def test_all_models_of_a_runner_share_steps_but_no_states(models: list[LanguageModel]) -> None:
    scheduler = Scheduler(Capacity(), PrefixCache(1 << 30))
    request = chat("the same question " * 8, max_tokens=40, sampling=FREE)
    try:
        for turn in range(2):
            before = scheduler.counts.steps
            heard = [submit(scheduler, model, request)[1] for model in models]
            texts = set()
            for model, chunks in zip(models, [mine.all() for mine in heard], strict=True):
                assert [c.tokens for c in chunks] == [c.tokens for c in answer(model, request)]
                usage = chunks[-1].usage
                assert usage and usage.model_digest == model.digest
                assert (usage.cached_tokens > 0) == (turn == 1), "the second time each goes on from its own"
                texts.add(whole(chunks))
            assert len(texts) == len(models)
            assert scheduler.counts.steps - before < 3 * 40, "they are written together"
    finally:
        scheduler.close()


def test_a_conversation_goes_on_from_what_it_has_read(models: list[LanguageModel]) -> None:
    model = models[3]
    session = Session(model.backend.new_state())
    for text in ("hello", "hello there", "help", "hello there again"):
        request = Request(prompt=text, max_tokens=9, sampling=FREE)
        got = [c.tokens for c in answer(model, request, session)]
        assert got == [c.tokens for c in answer(model, request)]
        assert session.state.length == len(session.ids)


def test_saved_states_are_those_of_one_model(models: list[LanguageModel], tmp_path: Path) -> None:
    request = chat("a question that is worth keeping " * 5, max_tokens=20, sampling=FREE)
    saved = SavedStates(tmp_path / "states", 1 << 30)
    saved.open()
    scheduler = Scheduler(Capacity(), PrefixCache(1 << 30), saved=saved)
    for model in models:
        submit(scheduler, model, request, keep=f"of {model.name}")[1].all()
    scheduler.close()
    again = SavedStates(tmp_path / "states", 1 << 30)
    again.open()
    scheduler = Scheduler(Capacity(), PrefixCache(1 << 30), saved=again)
    try:
        for model in models:
            chunks = submit(scheduler, model, request)[1].all()
            assert [c.tokens for c in chunks] == [c.tokens for c in answer(model, request)]
            assert chunks[-1].usage and chunks[-1].usage.cached_tokens > 100
    finally:
        scheduler.close()


def test_scoring_reads_after_the_virtual_tokens(models: list[LanguageModel]) -> None:
    backend = models[3].backend
    given, ending = tokens(backend.config, 40, 1), tokens(backend.config, 6, 2)
    shared = [([*given, i], [ending, ending[:2]]) for i in range(3)]
    for number, parts in score(backend, shared):
        [rows] = backend.forward([Segment(backend.new_state(), shared[number][0] + ending, "all")])
        logits = rows[len(given) :].astype(np.float64)
        expected = [logits[i, token] - np.log(np.exp(logits[i]).sum()) for i, token in enumerate(ending)]
        np.testing.assert_allclose(parts[0], expected, atol=1e-4)
    state = backend.new_state()
    for token in given:
        step(backend, [(state, token)])
    assert state.length == len(given)
