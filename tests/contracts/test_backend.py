"""The backend's contract, in each number type of keys and values, with and without virtual tokens."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingle.core.errors import CannotRewind, CheckpointError, ContextError, DeltaError, RequestError
from ingle.core.media import NO_VECTORS, vector_id
from ingle.core.spec import LayerSpec
from ingle.core.state import STEP_TOKENS
from ingle.engine.backend import Backend, Segment, prefill, step
from ingle.kernels.layout import EMBEDDING
from ingle.kernels.rows import embed
from tests.engine.tiny import backend_of, random_checkpoint, read_in_cuts, tiny_config, tokens

LAYERS = {
    "transformer": (LayerSpec((0, 1)),) * 2,
    "hybrid": (LayerSpec((0,), window=24, sinks=3), LayerSpec((0, 1)), LayerSpec((), window=9, sinks=1)),
    "memories": (
        LayerSpec((0,), 24, 3, "gated_delta"), LayerSpec((0, 1)), LayerSpec((), 9, 0, "gated_delta"), LayerSpec((1,), 0, 0, "gated_delta"),
    ),
}  # fmt: skip
CONTEXT = 600
VIRTUAL = 21


def cpu(folder: Path, checkpoint: Any) -> Backend:
    return backend_of(folder, checkpoint)


def cpu_int8(folder: Path, checkpoint: Any) -> Backend:
    return backend_of(folder, checkpoint, cache="int8")


def prefixed(inner: Callable[[Path, Any], Any]) -> Callable[[Path, Any], Backend]:
    """The same with virtual tokens before every text, in a model whose context is longer by them."""

    def made(folder: Path, checkpoint: Any) -> Backend:
        config = replace(checkpoint.config, context_length=checkpoint.config.context_length + VIRTUAL)
        keys, values = np.random.default_rng(7).standard_normal((2, len(config.layers), config.num_kv_heads, VIRTUAL, config.head_dim))
        return inner(folder, replace(checkpoint, config=config)).beginning_with(keys, values, "delta")

    return made


MADE = {"cpu": cpu, "cpu-int8": cpu_int8, "cpu-prefixed": prefixed(cpu), "cpu-int8-prefixed": prefixed(cpu_int8)}


@pytest.fixture(params=MADE.values(), ids=MADE)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Backend]:
    def make(kind: str) -> Backend:
        if kind == "memories" and request.param.__name__ == "made":
            pytest.skip("virtual tokens can't stand before a memory")
        made: Backend = request.param(tmp_path, random_checkpoint(tiny_config(layers=LAYERS[kind], context=CONTEXT)))
        return made

    return make


KINDS = pytest.mark.parametrize("kind", LAYERS)


@KINDS
def test_pytorch_computes_the_same(tmp_path: Path, kind: str) -> None:
    import torch

    from ingle.model.module import load_module

    checkpoint = random_checkpoint(tiny_config(layers=LAYERS[kind], context=CONTEXT))
    ids = tokens(checkpoint.config, 300)
    with torch.no_grad():
        expected = load_module(checkpoint)(torch.tensor([ids]))[0].numpy()
    np.testing.assert_allclose(read_in_cuts(backend_of(tmp_path, checkpoint), ids, [100] * 3), expected, atol=2e-4)


@KINDS
def test_one_by_one_is_all_at_once(make: Callable[[str], Backend], kind: str) -> None:
    backend = make(kind)
    ids = tokens(backend.config, 60)
    [together] = backend.forward([Segment(backend.new_state(), ids, "all")])
    together, state = together.copy(), backend.new_state()
    for i, token in enumerate(ids):
        np.testing.assert_allclose(step(backend, [(state, token)])[0], together[i], atol=1e-4)


@KINDS
def test_a_batch_is_its_sequences(make: Callable[[str], Backend], kind: str) -> None:
    backend = make(kind)
    prompts = [tokens(backend.config, count, count) for count in (1, 17, 64, 130)]
    states = [backend.new_state() for _ in prompts]
    together = [rows[-1].copy() for rows in backend.forward([Segment(s, p) for s, p in zip(states, prompts, strict=True)])]
    after = [row.copy() for row in step(backend, [(state, 5) for state in states])]
    for prompt, first, second in zip(prompts, together, after, strict=True):
        state = backend.new_state()
        np.testing.assert_allclose(prefill(backend, prompt, state), first, atol=1e-4)
        np.testing.assert_allclose(step(backend, [(state, 5)])[0], second, atol=1e-4)


@KINDS
def test_a_fork_goes_its_own_way(make: Callable[[str], Backend], kind: str) -> None:
    backend = make(kind)
    state = backend.new_state()
    prefill(backend, tokens(backend.config, 70), state)
    fork = state.fork()
    expected = step(backend, [(state, 1)])[0].copy()
    for token in (2, 3, 4):
        step(backend, [(fork, token)])
    other = state.fork()
    np.testing.assert_array_equal(step(backend, [(other, 9)])[0].copy(), step(backend, [(state, 9)])[0])
    assert (state.length, fork.length) == (72, 73)
    assert state.nbytes > 0
    again = backend.new_state()
    prefill(backend, tokens(backend.config, 70), again)
    np.testing.assert_allclose(step(backend, [(again, 1)])[0], expected, atol=1e-4)


def test_virtual_tokens_cannot_stand_before_memories(tmp_path: Path) -> None:
    with pytest.raises(DeltaError, match="before a model with recurrent memories"):
        prefixed(cpu)(tmp_path, random_checkpoint(tiny_config(layers=LAYERS["memories"], context=CONTEXT)))


@KINDS
def test_rewinding_is_never_having_read(make: Callable[[str], Backend], kind: str) -> None:
    backend = make(kind)
    ids = tokens(backend.config, 400)
    state = backend.new_state()
    prefill(backend, ids[:200], state)
    fork = state.fork()
    expected = backend.forward([Segment(state, ids[200:210], "all")])[0].copy()
    if kind == "memories":
        with pytest.raises(CannotRewind):
            state.rewind(200)
        state = fork
    state.rewind(200)
    assert state.length == 200
    np.testing.assert_allclose(backend.forward([Segment(state, ids[200:210], "all")])[0], expected, atol=1e-4)
    if kind != "transformer":
        prefill(backend, ids[210:], state)
        with pytest.raises(CannotRewind):
            state.rewind(30)
    state.rewind(0)
    first = step(backend, [(backend.new_state(), ids[0])])[0].copy()
    np.testing.assert_allclose(step(backend, [(state, ids[0])])[0], first, atol=1e-4)


@KINDS
def test_what_was_taken_back_was_never_read(make: Callable[[str], Backend], kind: str) -> None:
    backend = make(kind)
    ids, others = tokens(backend.config, 260), tokens(backend.config, 16, 5)
    state, mark = backend.new_state(), None
    prefill(backend, ids[:200], state)
    fork = state.fork()
    for at, right in ((200, 3), (210, 0), (220, 16), (245, 7)):
        backend.forward([Segment(state, ids[state.length : at])]) if state.length < at else None
        mark = state.rollback_point(mark)
        backend.forward([Segment(state, [*ids[at : at + 1 + right], *others[right:]])])
        state.rollback(at + 1 + right, mark)
        assert state.length in ((at + 1 + right, at) if kind == "memories" else (at + 1 + right,))
    for one in (state, fork):
        prefill(backend, ids[one.length : 255], one)
    np.testing.assert_allclose(step(backend, [(state, 1)])[0].copy(), step(backend, [(fork, 1)])[0], atol=0)


def test_what_cannot_be_read_leaves_every_state_alone(make: Callable[[str], Backend]) -> None:
    backend = make("transformer")
    good, full = backend.new_state(), backend.new_state()
    prefill(backend, tokens(backend.config, CONTEXT), full)
    for segment, error in (
        (Segment(full, [1]), ContextError),
        (Segment(backend.new_state(), [backend.config.vocab_size]), RequestError),
        (Segment(backend.new_state(), [-1]), RequestError),
        (Segment(backend.new_state(), []), RequestError),
        (Segment(backend.new_state(), [1] * (STEP_TOKENS + 1)), RequestError),
    ):
        with pytest.raises(error):
            backend.forward([Segment(good, [1, 2]), segment])
        assert good.length == 0


def test_logits_as_wanted(make: Callable[[str], Backend]) -> None:
    backend = make("transformer")
    rows = [len(r) for r in backend.forward([Segment(backend.new_state(), [1, 2, 3], kind) for kind in ("none", "last", "all")])]  # type: ignore[arg-type]
    assert rows == [0, 1, 3]


def test_prefill_tells_its_progress(make: Callable[[str], Backend]) -> None:
    backend, seen = make("transformer"), []
    prefill(backend, tokens(backend.config, 520), backend.new_state(), lambda done, of: seen.append((done, of)))
    assert seen == [(256, 520), (512, 520), (520, 520)]


@KINDS
def test_a_state_comes_back_from_disk_as_it_was(make: Callable[[str], Backend], kind: str, tmp_path: Path) -> None:
    backend, path = make(kind), tmp_path / "a.state"
    ids = tokens(backend.config, 200)
    state = backend.new_state()
    prefill(backend, ids[:150], state)
    backend.save_state(state, path)
    loaded = backend.load_state(path)
    assert (loaded.length, loaded.earliest_rewind, loaded.nbytes > 0) == (150, state.earliest_rewind, True)
    np.testing.assert_array_equal(prefill(backend, ids[150:], loaded), prefill(backend, ids[150:], state))
    data = path.read_bytes()
    for broken in (data[: len(data) // 2], b"", data.replace(backend.digest.encode(), b"x" * len(backend.digest))):
        path.write_bytes(broken)
        with pytest.raises(CheckpointError):
            backend.load_state(path)


@KINDS
def test_forks_share_memory_and_say_so(make: Callable[[str], Backend], kind: str) -> None:
    backend = make(kind)
    state = backend.new_state()
    prefill(backend, tokens(backend.config, 300), state)
    fork = state.fork()
    mine, both = dict(state.pieces()), dict([*state.pieces(), *fork.pieces()])
    assert sum(mine.values()) == state.nbytes
    assert sum(both.values()) < state.nbytes + fork.nbytes
    assert backend.state_bytes(300) >= state.nbytes * (kind == "transformer")


def test_a_step_is_the_same_through_the_runner(make: Callable[[str], Backend]) -> None:
    backend = make("transformer")
    ids = tokens(backend.config, 30)
    [expected] = backend.forward([Segment(backend.new_state(), ids, "all")])
    expected, state = expected.copy(), backend.new_state()
    [got] = backend.runner.forward([Segment(state, ids, "all")])
    np.testing.assert_array_equal(got, expected)
    assert state.length == 30


def embedded(backend: Backend, token: int) -> np.ndarray[Any, Any]:
    """The row of a model's own embedding, as the backend reads it."""
    row = np.zeros(-(-backend.config.hidden_size // 32) * 32, np.float32)
    embed(int(backend.runner._records[EMBEDDING]), token, row.ctypes.data, backend.config.hidden_size)
    return row[: backend.config.hidden_size]


@KINDS
def test_a_vector_that_is_a_word_s_row_is_that_word(make: Callable[[str], Backend], kind: str) -> None:
    backend = make(kind)
    ids, size = tokens(backend.config, 300), backend.config.vocab_size
    places = [0, 1, 5, 6, 7, 40, 130, 299]
    seen = [vector_id(size, "audio", "an encoder", "a picture", i) if i in places else id_ for i, id_ in enumerate(ids)]
    vectors = {seen[i]: embedded(backend, ids[i]) for i in places}
    state, state_with = backend.new_state(), backend.new_state()
    for start in range(0, 300, 100):
        [expected] = backend.forward([Segment(state, ids[start : start + 100], "all")])
        expected = expected.copy()
        [got] = backend.forward([Segment(state_with, seen[start : start + 100], "all", vectors=vectors)])
        np.testing.assert_array_equal(got, expected)
    # What comes after reads the same, wherever the state went meanwhile.
    np.testing.assert_array_equal(step(backend, [(state_with.fork(), 3)])[0].copy(), step(backend, [(state, 3)])[0])


def test_sequences_with_and_without_vectors_share_a_step(make: Callable[[str], Backend]) -> None:
    backend = make("transformer")
    size, draw = backend.config.vocab_size, np.random.default_rng(3)
    one, two = ({size + i: draw.standard_normal(backend.config.hidden_size).astype(np.float32) for i in range(2)} for _ in range(2))
    prompts = [([1, size, size + 1, 4], one), ([5, 6, 7], NO_VECTORS), ([size + 1, 2, size], two)]
    segments = [Segment(backend.new_state(), ids, vectors=vectors) for ids, vectors in prompts]
    together = [rows[-1].copy() for rows in backend.forward(segments)]
    for (ids, vectors), got in zip(prompts, together, strict=True):
        [rows] = backend.forward([Segment(backend.new_state(), ids, vectors=vectors)])
        np.testing.assert_allclose(rows[-1], got, atol=1e-5)


def test_vectors_that_cannot_be_read_are_refused(make: Callable[[str], Backend]) -> None:
    backend = make("transformer")
    size, good = backend.config.vocab_size, np.ones(backend.config.hidden_size, np.float32)
    for row in (good[:-1], good.astype(np.float64), np.full_like(good, np.nan), np.full_like(good, np.inf)):
        state = backend.new_state()
        with pytest.raises(RequestError):
            backend.forward([Segment(state, [1, size], vectors={size: row})])
        assert state.length == 0
    with pytest.raises(RequestError):
        backend.forward([Segment(backend.new_state(), [size + 1], vectors={size: good})])


def test_a_state_of_another_model_is_refused(make: Callable[[str], Backend], tmp_path: Path) -> None:
    backend, path = make("transformer"), tmp_path / "a.state"
    state = backend.new_state()
    prefill(backend, tokens(backend.config, 10), state)
    backend.save_state(state, path, "a model with an adapter")
    with pytest.raises(CheckpointError):
        backend.load_state(path)
    assert backend.load_state(path, "a model with an adapter").length == 10
