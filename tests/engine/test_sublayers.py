"""Other mixers than attention, and mixtures of experts, in the compiled step: against their naive reference, and their states."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import CannotRewind, ConfigError, DeltaError
from ingle.core.spec import DeltaRule, Experts, LayerSpec, ModelConfig, ShortConvolution, Ways
from ingle.core.state import CACHES, StateLayout
from ingle.engine import packs
from ingle.engine.backend import Backend, NotFinite, Segment, prefill, step
from ingle.engine.decoding import needs_checkpoints
from ingle.kernels import formats
from ingle.kernels import layout as at
from ingle.kernels.jit import SUBLAYER_KERNELS
from ingle.model.checkpoint import Checkpoint
from ingle.model.module import load_module
from ingle.model.tensor import Tensor
from tests.engine.test_adapter import random_additions
from tests.engine.test_cpu import CLOSE, naive_logits
from tests.engine.tiny import backend_of, in_blocks, random_checkpoint, read_in_cuts, tiny_config, tokens
from tests.examples import examples

CONVOLUTION, DELTA = LayerSpec((), mixer="convolution"), LayerSpec((), mixer="delta")
FULL = LayerSpec((0, 1))


def conv_config(hidden: int = 48, length: int = 3, bias: bool = False) -> ModelConfig:
    config = tiny_config(hidden)
    return replace(config, layers=(CONVOLUTION, FULL, CONVOLUTION), convolution=ShortConvolution(length, bias))


def delta_config(hidden: int = 48, heads: tuple[int, int] = (2, 4), tiled: bool = False, gated: bool = True) -> ModelConfig:
    config = tiny_config(hidden, qk_norm=True, ways=Ways(gated=gated, turned=4))
    return replace(config, layers=(DELTA, FULL, DELTA), delta=DeltaRule(*heads, 16, 4, tiled))


def experts_config(hidden: int = 48, width: int = 40, normed: bool = True, plain: tuple[int, ...] = (1,)) -> ModelConfig:
    config = tiny_config(hidden, layers=(FULL,) * 3)
    return replace(config, experts=Experts(7, 3, width, normed, plain))


EVERY = [conv_config(), delta_config(), experts_config()]
NAMES = ["convolution", "delta", "experts"]


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    """Any mixers and experts at once, and what families do otherwise."""
    kinds = draw(st.lists(st.sampled_from(["attention", "convolution", "delta"]), min_size=1, max_size=4))
    near = LayerSpec((0,), window=draw(st.integers(1, 30)), sinks=draw(st.integers(0, 5)))
    layers = tuple(draw(st.sampled_from([FULL, near])) if kind == "attention" else LayerSpec((), mixer=kind) for kind in kinds)
    norms = draw(st.sampled_from(["before", "after", "both"]))
    ways = Ways(draw(st.sampled_from(["silu", "gelu"])), norms, residual_scale=draw(st.sampled_from([1.0, 0.3])), gated=draw(st.booleans()))
    config = tiny_config(
        draw(st.sampled_from([32, 48, 80])), draw(st.sampled_from([33, 64])), dim=draw(st.sampled_from([12, 16])), ways=ways
    )
    keys, each = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    delta = DeltaRule(keys, keys * each, draw(st.sampled_from([16, 48])), draw(st.integers(2, 5)), draw(st.booleans()))
    experts = draw(st.none() | st.builds(Experts, st.integers(4, 20), st.integers(1, 4), st.sampled_from([8, 40]), st.booleans()))
    return replace(
        config, layers=layers, convolution=ShortConvolution(draw(st.integers(2, 6)), draw(st.booleans())), delta=delta, experts=experts
    )


@given(
    config=configs(), seed=st.integers(0, 10**6), cuts=st.lists(st.integers(1, 60), min_size=1, max_size=5), cache=st.sampled_from(CACHES)
)
@examples(60)
def test_a_step_is_its_naive_reference(config: ModelConfig, seed: int, cuts: list[int], cache: str) -> None:
    ids = tokens(config, sum(cuts), seed)
    with TemporaryDirectory() as folder:
        backend = backend_of(Path(folder), random_checkpoint(config, seed), "fp32", 2, cache)
        got = read_in_cuts(backend, ids, cuts)
        expected = naive_logits(config, Path(folder) / "fp32", ids, cache)
    difference = np.abs(got - expected).max(axis=1)
    if config.experts is None:
        assert difference.max() <= CLOSE[cache] * max(1.0, np.abs(expected).max())
    else:  # where two scores are as good as equal, the other expert may be chosen
        assert np.median(difference) <= CLOSE[cache] * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("config", EVERY, ids=NAMES)
@pytest.mark.parametrize("format_", ["int8", "int4", "bf16"])
def test_packed_formats_are_their_naive_reference(tmp_path: Path, config: ModelConfig, format_: str) -> None:
    backend = backend_of(tmp_path, random_checkpoint(config), format_)
    ids = tokens(config, 40)
    [got] = backend.forward([Segment(backend.new_state(), ids, "all")])
    difference = np.abs(got - naive_logits(config, tmp_path / format_, ids, "float32")).max(axis=1)
    assert np.median(difference) < 2e-2


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K"])
def test_experts_of_k_quants_are_their_naive_reference(tmp_path: Path, kind: str) -> None:
    config = replace(tiny_config(hidden=256, mlp=512, heads=4, dim=64), experts=Experts(5, 2, 256))
    checkpoint = in_blocks(random_checkpoint(config), kind)
    router = random_checkpoint(config).stored["model.layers.0.mlp.gate.weight"]
    stored = {
        name: replace(router, name=name) if name.endswith("mlp.gate.weight") else tensor for name, tensor in checkpoint.stored.items()
    }
    backend = backend_of(tmp_path, Checkpoint(config, checkpoint.files, stored), "auto")
    info = packs.read_pack(tmp_path / "auto")
    assert info is not None
    kinds = {info.places[f"model.layers.0.mlp.{name}.weight"].kind for name in ("experts.3.gate_proj", "gate")}
    assert kinds == {formats.KINDS[kind], at.F32}, "a router of float32 stays so"
    ids = tokens(config, 40)
    [got] = backend.forward([Segment(backend.new_state(), ids, "all")])
    expected = naive_logits(config, tmp_path / "auto", ids, "float32")
    assert np.median(np.abs(got - expected).max(axis=1)) < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("config", EVERY, ids=NAMES)
def test_strangers_in_a_step_change_no_bit(tmp_path: Path, config: ModelConfig) -> None:
    backend = backend_of(tmp_path, random_checkpoint(config), "int8", threads=2, cache="float16")
    ids = tokens(config, 50)
    expected = prefill(backend, ids, alone := backend.new_state()).copy()
    mine, others = backend.new_state(), [backend.new_state() for _ in range(3)]
    for start, stop in ((0, 1), (1, 20), (20, 50)):
        segments = [Segment(other, tokens(config, 5 + i, i)) for i, other in enumerate(others)]
        got = backend.forward([*segments[:2], Segment(mine, ids[start:stop]), *segments[2:]])[2]
    np.testing.assert_array_equal(got[0], expected)
    np.testing.assert_array_equal(mine.memories, alone.memories)


@pytest.mark.parametrize("config", EVERY[:2], ids=NAMES[:2])
def test_a_state_is_forked_saved_and_taken_back_exactly(tmp_path: Path, config: ModelConfig) -> None:
    backend = backend_of(tmp_path, random_checkpoint(config), "int8", cache="float16")
    assert needs_checkpoints(config) and backend.layout.memory_floats
    ids, more = tokens(config, 70), tokens(config, 9, 1)
    state = backend.new_state()
    prefill(backend, ids, state)
    expected = prefill(backend, more, state.fork()).copy()
    with pytest.raises(CannotRewind, match="nearest state"):
        state.rewind(60)
    backend.save_state(state, tmp_path / "state")
    np.testing.assert_array_equal(prefill(backend, more, backend.load_state(tmp_path / "state")), expected)
    point = state.rollback_point()
    backend.forward([Segment(state, tokens(config, 4, 2), "all")])
    state.rollback(72, point)
    assert state.length == 70, "back to the point itself"
    np.testing.assert_array_equal(prefill(backend, more, state), expected)
    state.rewind(0)
    prefill(backend, ids, state)
    np.testing.assert_array_equal(prefill(backend, more, state), expected)
    assert backend.state_bytes(70) == StateLayout.of(config).nbytes(70)


@pytest.mark.parametrize("config", EVERY, ids=NAMES)
def test_pytorch_reads_it_the_same(tmp_path: Path, config: ModelConfig) -> None:
    checkpoint, ids = random_checkpoint(config), tokens(config, 90)
    mine = backend_of(tmp_path, checkpoint)
    expected = mine.forward([Segment(mine.new_state(), ids, "all")])[0]
    with torch.no_grad():
        theirs = load_module(checkpoint)(torch.tensor([ids]))[0].numpy()
    np.testing.assert_allclose(theirs, expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["conv.conv", "linear_attn.conv1d"])
def test_what_is_no_number_is_said(tmp_path: Path, name: str) -> None:
    config = conv_config() if name == "conv.conv" else delta_config()
    checkpoint = random_checkpoint(config)
    checkpoint.stored[f"model.layers.0.{name}.weight"].raw.view(np.float32)[:] = np.inf
    backend = backend_of(tmp_path, checkpoint, "int8")
    with pytest.raises(NotFinite):
        backend.forward([Segment(backend.new_state(), tokens(config, 5))])


@pytest.mark.parametrize("config", EVERY, ids=NAMES)
def test_adapters_change_what_there_is(tmp_path: Path, config: ModelConfig) -> None:
    backend = backend_of(tmp_path, random_checkpoint(config), "int8")
    additions = random_additions(config, 4)
    assert not any(part in name for name in additions for part in ("experts", ".conv.", "linear_attn"))
    ids = tokens(config, 30)
    plain = prefill(backend, ids, backend.new_state()).copy()
    segment = Segment(backend.new_state(), ids, adapter=backend.adapter(additions, "a"))
    assert np.abs(backend.forward([segment])[0] - plain).max() > 1e-3
    missing = "model.layers.0.mlp.up_proj" if config.experts else "model.layers.0.self_attn.q_proj"
    some = next(iter(additions.values()))
    with pytest.raises(DeltaError, match="must name linears of this model"):
        backend.adapter({missing: some}, "b")


@pytest.mark.parametrize("config", EVERY, ids=NAMES)
def test_only_the_kernels_that_it_reaches_are_loaded(tmp_path: Path, config: ModelConfig) -> None:
    info = packs.pack_checkpoint(random_checkpoint(config), "base", "fp32", tmp_path / "pack")
    reached = SUBLAYER_KERNELS - packs.unreached(info, "float16")
    assert reached == {{"convolution": "short_convolution", "delta": "gated_delta", "experts": "mixture"}[NAMES[EVERY.index(config)]]}


def test_the_first_of_equal_experts_is_chosen(tmp_path: Path) -> None:
    config = experts_config(plain=())
    checkpoint = random_checkpoint(config)
    stored = dict(checkpoint.stored)
    for name, tensor in stored.items():
        if name.endswith("mlp.gate.weight"):
            stored[name] = Tensor(name, tensor.shape, "F32", np.zeros_like(tensor.raw))
    backend = backend_of(tmp_path, Checkpoint(config, checkpoint.files, stored))
    ids = tokens(config, 20)
    got = backend.forward([Segment(backend.new_state(), ids, "all")])[0]
    np.testing.assert_allclose(got, naive_logits(config, tmp_path / "fp32", ids, "float32"), atol=1e-3)


def test_decoding_goes_on_for_long(tmp_path: Path) -> None:
    """A step of one token each, many times, is what one step of all gives."""
    config = delta_config(heads=(1, 3), tiled=True)
    backend: Backend = backend_of(tmp_path, random_checkpoint(config), "int8", cache="float16")
    ids = tokens(config, 300)
    whole = prefill(backend, ids, backend.new_state()).copy()
    state = backend.new_state()
    for token in ids:
        [got] = step(backend, [(state, token)])
    np.testing.assert_array_equal(got, whole[-1] if whole.ndim == 2 else whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: replace(tiny_config(), layers=(CONVOLUTION, FULL)), "without convolution"),
        (lambda: replace(conv_config(), hidden_size=40), "multiple of 16"),
        (lambda: replace(conv_config(), layers=(replace(CONVOLUTION, window=4), FULL, FULL)), "no groups, window or memory"),
        (lambda: replace(conv_config(), layers=(replace(CONVOLUTION, mixer="fourier"), FULL, FULL)), "convolution or delta"),  # type: ignore[arg-type]
        (lambda: ShortConvolution(1), "between 2 and"),
        (lambda: DeltaRule(2, 3, 16, 4), "multiple of key_heads"),
        (lambda: DeltaRule(2, 4, 20, 4), "multiple of 16"),
        (lambda: DeltaRule(0, 4, 16, 4), "at least|between 1"),
        (lambda: Experts(4, 5, 8), "at most count"),
        (lambda: Experts(1 << 30, 1, 8), "between 1"),
        (lambda: replace(delta_config(), layers=(LayerSpec((), 4, 0, "gated_delta"), FULL, FULL)), "gated attention"),
        (lambda: conv_config().check_plain("pruned"), "can't be pruned.*convolution"),
        (lambda: experts_config().check_plain("pruned"), "can't be pruned.*experts"),
    ],
)  # fmt: skip
def test_what_no_layer_can_be_is_refused(change: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        change()  # type: ignore[operator]
