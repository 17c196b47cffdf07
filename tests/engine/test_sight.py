"""Groups that lose their sight: the same weights under other layers, against the naive reference and PyTorch."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.config import from_table, to_table
from ingle.core.digest import digest_json
from ingle.core.errors import CheckpointError, ConfigError
from ingle.core.spec import LayerSpec, ModelConfig
from ingle.core.state import CACHES, StateLayout
from ingle.engine import packs
from ingle.engine.backend import Backend, Segment, prefill
from ingle.engine.delta_kinds import Change, merged, spec_tensors
from ingle.engine.language_model import LanguageModel
from ingle.engine.prefix_cache import PrefixCache
from ingle.engine.scoring import score
from ingle.engine.windowed import Group, remembering_groups, retrieval_groups, short_sighted, widest_reach, without_sight
from ingle.kernels import layout as at
from ingle.model.tensor import expected_shapes
from tests.engine.test_adapter import random_additions
from tests.engine.test_answer import byte_tokenizer
from tests.engine.test_cpu import CLOSE
from tests.engine.test_cpu_memory import configs
from tests.engine.tiny import angles_of, backend_of, random_checkpoint, tiny_config, tokens, unpacked
from tests.examples import examples
from tests.kernels import naive
from tests.kernels.naive import unpack_adapter

LAYERS = (
    LayerSpec((1,), 9, 3, "gated_delta"), LayerSpec((0, 1, 2)), LayerSpec((), 5, 0, "gated_delta"), LayerSpec((0, 2), 7, 1),
    LayerSpec((2,), 12, 2, "gated_delta"),
)  # fmt: skip


def config_of(layers: tuple[LayerSpec, ...] = LAYERS) -> ModelConfig:
    return tiny_config(heads=6, groups=3, layers=layers, qk_norm=True)


def model_of(folder: Path, config: ModelConfig, format_: str = "fp32", cache: str = "float32") -> LanguageModel:
    return LanguageModel("tiny", backend_of(folder, random_checkpoint(config), format_, cache=cache), byte_tokenizer())


def all_logits(backend: Backend, ids: list[int], adapter: object = None, cuts: int = 256) -> np.ndarray:
    state = backend.new_state()
    parts = [ids[start : start + cuts] for start in range(0, len(ids), cuts)]
    return np.concatenate([backend.forward([Segment(state, part, "all", adapter)])[0].copy() for part in parts])


def reduced(folder: Path, before: ModelConfig, after: ModelConfig) -> dict[str, np.ndarray]:
    """The pack's weights by name; memories that nobody has any more are cut out of their layers' tensors."""
    info = packs.read_pack(folder)
    assert info is not None
    weights = dict(unpacked(folder, info))
    for i, (had, has) in enumerate(zip(before.layers, after.layers, strict=True)):
        old, new = (list(spec.remembering(before.num_kv_heads)) for spec in (had, has))
        for name in [name for name in weights if name.startswith(f"model.layers.{i}.self_attn.memory.")]:
            pieces = np.split(weights[name], len(old))
            weights[name] = np.concatenate([pieces[old.index(group)] for group in new]) if new else weights[name][:0]
    return weights


def naive_without(folder: Path, before: ModelConfig, after: ModelConfig, ids: list[int], cache: str, adapter=None) -> np.ndarray:  # type: ignore[no-untyped-def]
    info = packs.read_pack(folder)
    assert info is not None
    integer = frozenset(name.removesuffix(".weight") for name, place in info.places.items() if place.kind >= at.FLOAT_KINDS)
    return naive.decoder(after, reduced(folder, before, after), ids, angles_of(after, len(ids)), integer, cache, adapter or {})


@st.composite
def cases(draw: st.DrawFn) -> tuple[ModelConfig, list[Group]]:
    """Hybrids and some of their groups that see beyond a window."""
    config = draw(configs().filter(lambda config: all(spec.window for spec in config.layers)))
    far = sorted({*retrieval_groups(config), *remembering_groups(config)})
    return config, draw(st.lists(st.sampled_from(far), unique=True, min_size=1)) if far else []


@given(case=cases(), seed=st.integers(0, 10**6), cuts=st.integers(1, 90), cache=st.sampled_from(CACHES))
@examples(40)
def test_groups_that_lose_their_sight_are_the_naive_reference(
    case: tuple[ModelConfig, list[Group]], seed: int, cuts: int, cache: str
) -> None:
    config, groups = case
    ids = tokens(config, 130, seed)
    with TemporaryDirectory() as folder:
        backend = backend_of(Path(folder), random_checkpoint(config, seed), "fp32", 2, cache)
        after = short_sighted(config, groups, (11, 2))
        got = all_logits(backend.seeing(after.layers), ids, cuts=cuts)
        expected = naive_without(Path(folder) / "fp32", config, after, ids, cache)
    np.testing.assert_allclose(got, expected, atol=CLOSE[cache], rtol=1e-3)


def test_pytorch_computes_the_same(tmp_path: Path) -> None:
    import torch

    from ingle.model.module import CausalLM

    config = config_of()
    off = [(0, 1), (0, 0), (1, 2), (2, 1), (4, 0)]
    after = short_sighted(config, off)
    assert [spec.forgetful for spec in after.layers] == [(0, 1), None, (1,), None, (0,)]
    backend, ids = backend_of(tmp_path, random_checkpoint(config)), tokens(config, 150)
    module = CausalLM(after)
    weights = {name: torch.from_numpy(values) for name, values in reduced(tmp_path / "fp32", config, after).items()}
    assert not module.load_state_dict(weights, strict=False).unexpected_keys
    got = all_logits(backend.seeing(after.layers), ids)
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.tensor([ids]))[0], got, atol=2e-4)


def test_switching_nothing_off_changes_no_bit(tmp_path: Path) -> None:
    for number, layers in enumerate((LAYERS, (LayerSpec((0, 1, 2)),) * 2)):
        backend = backend_of(tmp_path / str(number), random_checkpoint(config_of(layers)), "int4", cache="float16")
        again, ids = backend.seeing(backend.config.layers), tokens(backend.config, 200)
        assert again is not backend
        assert again.digest == backend.digest
        np.testing.assert_array_equal(all_logits(again, ids), all_logits(backend, ids))


def test_while_a_window_holds_the_text_no_bit_changes(tmp_path: Path) -> None:
    layers = tuple(replace(spec, window=40) if spec.window else spec for spec in LAYERS)
    model = model_of(tmp_path, config_of(layers), "int4", "float16")
    config, ids = model.backend.config, tokens(model.backend.config, 60)
    whole = all_logits(model.backend, ids)  # type: ignore[arg-type]
    for groups in (retrieval_groups(config), remembering_groups(config), [(0, 0), (4, 1)]):
        got = all_logits(without_sight(model, groups).backend, ids)  # type: ignore[arg-type]
        np.testing.assert_array_equal(got[:40], whole[:40])
        assert np.abs(got[50:] - whole[50:]).max() > 1e-3


def test_the_weights_lie_in_memory_once_and_few_memories_are_copied(tmp_path: Path) -> None:
    model = model_of(tmp_path, config_of())
    config, backend = model.backend.config, model.backend
    assert isinstance(backend, Backend)
    for groups, copies in ((retrieval_groups(config), 0), (remembering_groups(config), 0), ([(2, 1)], 9)):
        other = without_sight(model, groups).backend
        assert isinstance(other, Backend)
        assert other._weights is backend._weights
        assert len(other._copied) == copies


def test_adapters_act_as_before_even_those_that_come_later(tmp_path: Path) -> None:
    config = config_of()
    model = model_of(tmp_path, config)
    off = without_sight(model, [(0, 1), (2, 0)])  # made before there was any adapter
    additions, ids = random_additions(config, 1), tokens(config, 120)
    adapter = model.backend.adapter(additions, "a")
    adapted = replace(model, adapter=adapter, adapter_digest="a")
    later = without_sight(adapted, [(0, 1), (2, 0)])
    assert later.adapter is adapter
    assert len({model.digest, off.digest, adapted.digest, later.digest}) == 4
    got = all_logits(off.backend, ids, adapter)  # type: ignore[arg-type]
    np.testing.assert_array_equal(all_logits(later.backend, ids, adapter), got)  # type: ignore[arg-type]
    expected = naive_without(tmp_path / "fp32", config, off.backend.config, ids, "float32", unpack_adapter(config, additions))
    difference = np.abs(got - expected).max(axis=1)
    assert np.median(difference) < 4e-2  # rounding to int8 flips; see test_cpu
    plain = all_logits(off.backend, ids)  # type: ignore[arg-type]
    assert np.abs(got - plain).max() > 1e-2


def test_states_are_never_taken_for_the_whole_model_s(tmp_path: Path) -> None:
    model = model_of(tmp_path, config_of())
    off, ids = without_sight(model, retrieval_groups(model.backend.config)), tokens(model.backend.config, 50)
    assert off.digest != model.digest
    state = model.backend.new_state()
    prefill(model.backend, ids, state)
    cache = PrefixCache(1 << 30)
    cache.put("", model.digest, ids, state)
    assert cache.find("", model.digest, [*ids, 1]) is not None
    assert cache.find("", off.digest, [*ids, 1]) is None
    model.backend.save_state(state, tmp_path / "a.state")
    with pytest.raises(CheckpointError, match="another model"):
        off.backend.load_state(tmp_path / "a.state")
    layouts = {
        StateLayout.of(one).digest for one in (model.backend.config, off.backend.config, short_sighted(model.backend.config, [(2, 0)]))
    }
    assert len(layouts) == 3


def test_answers_of_both_can_be_scored_in_turn(tmp_path: Path) -> None:
    model = model_of(tmp_path, config_of())
    ids = tokens(model.backend.config, 90)
    tasks = [(ids[:count], (ids[count : count + 6],)) for count in (40, 60, 80)]
    off = without_sight(model, retrieval_groups(model.backend.config))
    alone = {name: dict(score(one.backend, tasks)) for name, one in (("whole", model), ("off", off))}
    for name, one in (("off", off), ("whole", model)):
        for number, [nats] in score(one.backend, tasks):
            np.testing.assert_array_equal(nats, alone[name][number][0])
    assert any(np.abs(alone["off"][number][0] - alone["whole"][number][0]).max() > 1e-3 for number in range(3))


def test_what_cannot_be_switched_off_says_so(tmp_path: Path) -> None:
    transformer = model_of(tmp_path / "t", config_of((LayerSpec((0, 1, 2)),) * 2))
    with pytest.raises(ConfigError, match="Layer 0 has no window"):
        without_sight(transformer, [(0, 1)])
    assert without_sight(transformer, [(0, 1)], (10, 2)).backend.config.layers[0] == LayerSpec((0, 2), 10, 2)
    hybrid = model_of(tmp_path / "h", config_of())
    for groups in ([(0, 9)], [(3, 1)], [(77, 0)]):
        with pytest.raises(ConfigError, match="must be some that see further than a window"):
            without_sight(hybrid, groups)
    recurrent = model_of(tmp_path / "r", config_of((LayerSpec((0,), memory="gated_delta"), LayerSpec((), 5, 0, "gated_delta"))))
    with pytest.raises(ConfigError, match="Layer 0 has no window"):
        without_sight(recurrent, [(0, 0)])
    keys, values = np.random.default_rng(0).standard_normal((2, 2, 3, 5, 12))
    prefixed = replace(transformer, backend=transformer.backend.beginning_with(keys, values, "delta"))
    with pytest.raises(ConfigError, match="reads nothing before a text"):
        without_sight(prefixed, [(0, 1)], (10, 2))
    with pytest.raises(ConfigError, match="must be of groups that have learnt one"):
        transformer.backend.seeing((LayerSpec((0,), 5, 0, "gated_delta"), LayerSpec((0, 1, 2))))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (lambda: LayerSpec((0,), 5, 0, "gated_delta", (0,)), "ascending streaming groups"),
        (lambda: LayerSpec((0,), 5, 0, "gated_delta", (2, 1)), "ascending streaming groups"),
        (lambda: LayerSpec((0,), 5, 0, "gated_delta", ()), "ascending streaming groups"),
        (lambda: LayerSpec((0,), 5, 0, "gated_delta", (1, 2)), "must leave a group"),
        (lambda: LayerSpec((0,), 5, 0, "none", (1,)), "must leave a group"),
        (lambda: LayerSpec((0,), 0, 0, "gated_delta", (1,)), "it would see nothing"),
    ],
)
def test_layers_that_cannot_be_are_refused(spec, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        config_of((spec(),))


def test_digests_of_models_that_are_kept_stay_what_they_were() -> None:
    """A model digest is that of its table, so a field that no kept model uses must not stand in it."""
    config = config_of()
    assert "forgetful" not in str(to_table(config))
    assert from_table(ModelConfig, to_table(config)) == config
    made = short_sighted(config, [(2, 0)])
    assert from_table(ModelConfig, to_table(made)) == made
    assert StateLayout.of(config).digest == digest_json(
        [4, [[list(s.retrieval), s.window, s.sinks, s.memory] for s in config.layers], 3, 12, "float16"]
    )


def test_the_widest_window_is_that_of_layers_that_have_none() -> None:
    assert widest_reach(config_of()) == (12, 2)
    assert short_sighted(config_of(), [(1, 1)]).layers[1] == LayerSpec((0, 2), 12, 2)
    assert widest_reach(config_of((LayerSpec((0, 1, 2)),))) is None


def test_a_hybrid_without_memories_is_its_transformer_with_windows(tmp_path: Path) -> None:
    layers = (LayerSpec((0,), 9, 3, "gated_delta"), LayerSpec((0, 1)), LayerSpec((), 9, 3, "gated_delta"))
    base = random_checkpoint(tiny_config(layers=(LayerSpec((0, 1)),) * 3))
    draw, shapes = np.random.default_rng(1), expected_shapes(base.config.with_layers(layers))
    memories = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items() if ".memory." in name}
    hybrid = merged(base, [Change("hybrid", "layers", memories | spec_tensors(layers, 2))])
    models = [LanguageModel(name, backend_of(tmp_path / name, one, "int4"), byte_tokenizer()) for name, one in (("t", base), ("h", hybrid))]
    ids = tokens(base.config, 150)
    without = without_sight(models[1], remembering_groups(hybrid.config)), without_sight(models[0], [(0, 1), (2, 0), (2, 1)], (9, 3))
    logits = [all_logits(one.backend, ids) for one in (*without, models[1])]  # type: ignore[arg-type]
    np.testing.assert_array_equal(logits[0], logits[1])
    assert np.abs(logits[0] - logits[2]).max() > 1e-2
