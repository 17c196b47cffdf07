"""The compiled decoder step against its naive reference, over shapes, kinds and ways of looking back."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import CheckpointError, ConfigError
from ingle.core.media import NO_VECTORS, Vectors
from ingle.core.spec import LayerSpec, ModelConfig, Rope, Ways
from ingle.core.state import CACHES, parts, write
from ingle.engine import packs
from ingle.engine import threads as cores
from ingle.engine.backend import Backend, Segment, prefill, step
from ingle.engine.threads import Cores
from ingle.kernels import formats
from ingle.kernels import layout as at
from tests.engine.tiny import angles_of, backend_of, in_blocks, random_checkpoint, read_in_cuts, tiny_config, tokens, unpacked
from tests.examples import examples
from tests.kernels import naive


def naive_logits(
    config: ModelConfig, folder: Path, ids: list[int], cache: str, adapter: Mapping[str, Any] = MappingProxyType({}),
    vectors: Vectors = NO_VECTORS,
) -> np.ndarray:  # fmt: skip
    """What the packed weights in a folder compute, by NumPy."""
    info = packs.read_pack(folder)
    assert info is not None
    weights = dict(unpacked(folder, info))
    integer = {name.removesuffix(".weight") for name, place in info.places.items() if place.kind >= at.FLOAT_KINDS}
    return naive.decoder(config, weights, ids, angles_of(config, len(ids)), frozenset(integer), cache, adapter, vectors)


@st.composite
def all_ways(draw: st.DrawFn, dim: int, layers: int) -> Ways:
    """What families do otherwise, in any combination."""
    some = st.lists(st.integers(0, layers - 1), unique=True).map(sorted).map(tuple)
    turned = draw(st.sampled_from([0, dim // 4 * 2]))
    return Ways(
        draw(st.sampled_from(["silu", "gelu"])), draw(st.sampled_from(["before", "after", "both"])), draw(st.booleans()),
        draw(st.sampled_from([1.0, 7.5])), draw(st.sampled_from([1.0, 0.22])), draw(st.sampled_from([0.0, 0.3])),
        draw(st.sampled_from([1.0, 0.125])), draw(some), turned, draw(some), Rope(300.0), draw(st.booleans()),
    )  # fmt: skip


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    groups, shared, dim = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 3, 7])), draw(st.sampled_from([8, 12, 16, 64]))
    window, sinks = draw(st.integers(1, 40)), draw(st.integers(0, 20))
    subsets = st.lists(st.integers(0, groups - 1), unique=True, max_size=groups).map(sorted)
    layers = tuple(LayerSpec(tuple(draw(subsets)), window, sinks) for _ in range(draw(st.integers(1, 3))))
    rope = draw(st.sampled_from([Rope(), Rope(kind="linear", factor=4.0), Rope(kind="llama3", factor=8.0, original_context=64)]))
    ways = draw(st.one_of(st.just(Ways()), all_ways(dim, len(layers))))
    return tiny_config(
        draw(st.sampled_from([32, 48, 72])), draw(st.sampled_from([33, 64, 80])), groups * shared, groups, dim,
        draw(st.integers(5, 90)), layers,
        qk_norm=not (ways.whole_norm and (ways.turned or ways.gated)) and draw(st.booleans()),
        biases=draw(st.booleans()), tied=draw(st.booleans()),
        rope=rope, ways=ways,
    )  # fmt: skip


CLOSE = {"float32": 3e-4, "float16": 3e-2, "int8": 1e-1}
"""Where float32 and float64 differ, a cache may round a number the other way, so what comes of it is only as close as its steps."""


@given(
    config=configs(), seed=st.integers(0, 10**6), cuts=st.lists(st.integers(1, 90), min_size=1, max_size=5), cache=st.sampled_from(CACHES)
)
@examples(60)
def test_float32_step_is_its_naive_reference(config: ModelConfig, seed: int, cuts: list[int], cache: str) -> None:
    ids = tokens(config, sum(cuts), seed)
    with TemporaryDirectory() as folder:
        backend = backend_of(Path(folder), random_checkpoint(config, seed), "fp32", 2, cache)
        got = read_in_cuts(backend, ids, cuts)
        expected = naive_logits(config, Path(folder) / "fp32", ids, cache)
    np.testing.assert_allclose(got, expected, atol=CLOSE[cache], rtol=1e-3)


@pytest.mark.parametrize("format_", ["int8", "int4", "bf16"])
@pytest.mark.parametrize("seed", range(3))
def test_packed_formats_are_their_naive_reference(tmp_path: Path, format_: str, seed: int) -> None:
    config = tiny_config(hidden=64, mlp=96, dim=16, tied=bool(seed % 2))
    backend = backend_of(tmp_path, random_checkpoint(config, seed), format_)
    ids = tokens(config, 40, seed)
    [got] = backend.forward([Segment(backend.new_state(), ids, "all")])
    expected = naive_logits(config, tmp_path / format_, ids, cache="float32")
    # Rounding to int8 flips where float32 and float64 differ in the last bit; most rows see no flip and agree closely.
    difference = np.abs(got - expected).max(axis=1)
    assert np.median(difference) < 2e-2
    assert difference.max() < 0.2
    if format_ == "bf16":
        assert difference.max() < 1e-4


@pytest.mark.parametrize("kind", formats.KINDS)
def test_k_quant_formats_are_their_naive_reference(tmp_path: Path, kind: str) -> None:
    """All matrices, the embedding too, are blocks of this kind."""
    config = tiny_config(hidden=256, mlp=512, heads=4, dim=64)
    backend = backend_of(tmp_path, in_blocks(random_checkpoint(config), kind), "auto")
    info = packs.read_pack(tmp_path / "auto")
    assert info is not None and {place.kind for place in info.places.values()} == {formats.KINDS[kind], packs.VECTOR}
    ids = tokens(config, 40)
    [got] = backend.forward([Segment(backend.new_state(), ids, "all")])
    expected = naive_logits(config, tmp_path / "auto", ids, cache="float32")
    difference = np.abs(got - expected).max(axis=1) / np.abs(expected).max()
    assert np.median(difference) < 1e-3
    assert difference.max() < 0.05, "where rounding to int8 flips"


@pytest.mark.parametrize("layers", [(LayerSpec((0, 1)),), (LayerSpec((0,), window=30, sinks=2),) * 2])
def test_an_int8_cache_is_its_naive_reference_but_for_flips(tmp_path: Path, layers: tuple[LayerSpec, ...]) -> None:
    config = tiny_config(dim=20, layers=layers)
    backend, ids = backend_of(tmp_path, random_checkpoint(config), "fp32", 2, "int8"), tokens(config, 200)
    [got] = backend.forward([Segment(backend.new_state(), ids, "all")])
    mine, exact = (naive_logits(config, tmp_path / "fp32", ids, cache) for cache in ("int8", "float32"))
    to_naive, to_exact = (np.median(np.abs(got - expected).max(axis=1)) for expected in (mine, exact))
    assert to_naive < 2e-4
    assert to_exact > 5e-3


@pytest.mark.parametrize("scale", [1e-8, 1, 1e9], ids=["tiny", "usual", "beyond float16"])
@pytest.mark.parametrize("dim", [12, 64])
def test_an_int8_cache_holds_exactly_what_numpy_would_put_there(tmp_path: Path, scale: float, dim: int) -> None:
    config = tiny_config(dim=dim, layers=(LayerSpec((0,), window=300, sinks=2),))  # keys of a first layer depend on no cache
    checkpoint = random_checkpoint(config)
    for name in ("k_proj", "v_proj"):
        checkpoint.tensor(f"model.layers.0.self_attn.{name}.weight").raw.view(np.float32)[:] *= scale
    states = []
    for cache in ("float32", "int8"):
        backend = backend_of(tmp_path, checkpoint, "fp32", 2, cache)
        states.append(backend.new_state())
        prefill(backend, tokens(config, 50), states[-1])
    exact, small = states
    width = exact.layout.width
    for theirs, mine in ((exact.pages[0], small.pages[0]), (exact.rings, small.rings)):
        for number, place in enumerate(np.ndindex(mine.shape[:-1])):
            keys, values, _ = parts(theirs[place], width)
            expected = np.zeros_like(mine[place])
            write(expected, width, slice(0, 16), keys.T, values)
            np.testing.assert_array_equal(mine[place], expected, err_msg=f"block {number}")


@given(
    cuts=st.lists(st.tuples(st.integers(1, 200), st.integers(1, 3)), min_size=1, max_size=6),
    others=st.lists(st.integers(1, 30), max_size=5),
)
@examples(25)
def test_logits_depend_on_the_prefix_alone(mixed: tuple[Backend, Backend], cuts: list[tuple[int, int]], others: list[int]) -> None:
    """Bit for bit: however the prompt is cut, whoever shares the step, however many threads work, also from one step to the next."""
    alone, shared = mixed
    ids = tokens(alone.config, sum(count for count, _ in cuts))
    state = alone.new_state()
    expected = prefill(alone, ids, state).copy()
    follow = step(alone, [(state, 3)])[0].copy()
    mine, strangers = shared.new_state(), [(shared.new_state(), tokens(shared.config, count, count)) for count in others]
    start = 0
    for count, threads in cuts:
        segments = [Segment(mine, ids[start : start + count])]
        if start == 0:
            segments += [Segment(stranger, words) for stranger, words in strangers]
        shared._cores.lent = 3 - threads
        with mock.patch.object(cores, "usable_cores", lambda: 3):
            got = shared.forward(segments)[0][0].copy()
        start += count
    np.testing.assert_array_equal(got, expected)
    batch = shared.forward([*(Segment(stranger, [7]) for stranger, _ in strangers), Segment(mine, [3])])
    np.testing.assert_array_equal(batch[-1][0], follow)


def test_lent_cores_are_left_alone_and_one_thread_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 4)
    all_, two = Cores(), Cores(2)
    assert (all_.threads(1), two.threads(1), Cores(9).threads(1)) == (4, 2, 9), "as many as asked for, while none is lent"
    all_.lent = two.lent = 1
    assert (all_.threads(1), two.threads(1)) == (3, 2), "two threads don't need the lent one"
    all_.lent = two.lent = 4
    assert (all_.threads(1), two.threads(1)) == (1, 1)


WINDOWS = (LayerSpec((0, 1)), LayerSpec((1,), window=70, sinks=5), LayerSpec((), window=20, sinks=0))
MEMORIES = (
    LayerSpec((0,), window=70, sinks=5, memory="gated_delta"), LayerSpec((), window=9, sinks=0, memory="gated_delta"),
    LayerSpec((), window=1, sinks=2, memory="gated_delta"), LayerSpec((1,), window=20, sinks=4),
)  # fmt: skip


@pytest.fixture(
    scope="module",
    params=[(layers, cache) for layers in (WINDOWS, MEMORIES) for cache in ("float16", "int8")],
    ids=["windows", "windows-int8", "memories", "memories-int8"],
)
def mixed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Backend, Backend]:
    """The same int4 hybrid on one thread and on three."""
    layers, cache = request.param
    checkpoint = random_checkpoint(tiny_config(hidden=64, mlp=96, dim=16, layers=layers))
    folder = tmp_path_factory.mktemp("mixed")
    return tuple(backend_of(folder, checkpoint, "int4", threads, cache) for threads in (1, 3))  # type: ignore[return-value]


@pytest.mark.parametrize("cache", ["float32", "int8"])
def test_long_contexts_split_between_threads_exactly(tmp_path: Path, cache: str) -> None:
    """Some splits of keys are seen by all, some as sinks alone, and some by no query of a streaming group."""
    config = tiny_config(layers=(LayerSpec((0,), window=300, sinks=2), LayerSpec((1,), window=40, sinks=0)))
    checkpoint, ids = random_checkpoint(config), tokens(config, 1500)
    one, three = (backend_of(tmp_path, checkpoint, "fp32", threads, cache) for threads in (1, 3))
    states = one.new_state(), three.new_state()
    results = [prefill(backend, ids, state).copy() for backend, state in zip((one, three), states, strict=True)]
    np.testing.assert_array_equal(*results)
    steps = [step(backend, [(state, 1)])[0].copy() for backend, state in zip((one, three), states, strict=True)]
    np.testing.assert_array_equal(*steps)
    expected = naive_logits(config, tmp_path / "fp32", [*ids, 1], cache)[-2:]
    np.testing.assert_allclose(np.stack([results[0], steps[0]]), expected, atol=5e-4 if cache == "float32" else CLOSE[cache])


@pytest.mark.parametrize("sinks", [512, 513, 600])
def test_many_sinks_are_seen_from_everywhere(tmp_path: Path, sinks: int) -> None:
    config = tiny_config(layers=(LayerSpec((), window=100, sinks=sinks),))
    backend, ids = backend_of(tmp_path, random_checkpoint(config)), tokens(config, 1200)
    found = prefill(backend, ids, backend.new_state())
    np.testing.assert_allclose(found, naive_logits(config, tmp_path / "fp32", ids, "float32")[-1], atol=5e-4)


def test_a_damaged_pack_is_found_and_an_unknown_format_refused(tmp_path: Path) -> None:
    config = tiny_config()
    backend_of(tmp_path, random_checkpoint(config))
    info = packs.read_pack(tmp_path / "fp32")
    assert info is not None
    assert packs.read_pack(tmp_path / "fp32", "another base") is None
    path = tmp_path / "fp32" / "weights.bin"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="SHA-256"):
        packs.check_pack(tmp_path / "fp32", info)
    path.write_bytes(data[:-1])
    with pytest.raises(CheckpointError, match="bytes"):
        packs.check_pack(tmp_path / "fp32", info)
    with pytest.raises(ConfigError, match="format"):
        packs.pack_checkpoint(random_checkpoint(config), "base", "int3", tmp_path)
