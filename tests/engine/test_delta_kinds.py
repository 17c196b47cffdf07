"""What each kind of delta makes of the weights, against the formulas in plain NumPy, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ingle.core.errors import CheckpointError, DeltaError
from ingle.core.spec import ModelConfig
from ingle.engine.adapter import linear_shapes
from ingle.engine.delta_kinds import KINDS, MERGED, Array, Change, additions_of, merged, parted, virtual_of
from ingle.engine.packs import pack_checkpoint
from ingle.model.checkpoint import Checkpoint
from ingle.model.tensor import expected_shapes
from tests.engine.tiny import random_checkpoint, tiny_config, unpacked
from tests.kernels import naive

Q, K, OUT, DOWN = (f"model.layers.1.{name}" for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.down_proj"))


def values(checkpoint: Checkpoint, name: str) -> Array:
    return checkpoint.tensor(name).to_float32()


def random_change(config: ModelConfig, kind: str, seed: int = 0, linears: tuple[str, ...] = (Q, K, DOWN)) -> Change:
    draw = np.random.default_rng(seed)

    def drawn(*shape: int) -> Array:
        return (draw.standard_normal(shape) * 0.2).astype(np.float32)

    tensors: dict[str, Array] = {}
    for linear in linears:
        n, k = linear_shapes(config)[linear]
        rank = int(draw.integers(1, 6))
        if kind in ("lora", "dora"):
            tensors |= {f"{linear}.lora_A.weight": drawn(rank, k), f"{linear}.lora_B.weight": drawn(n, rank)}
        if kind == "dora":
            tensors[f"{linear}.lora_magnitude_vector"] = 1 + drawn(n)
        if kind == "ia3":
            tensors[f"{linear}.ia3_l"] = 1 + (drawn(1, k) if "down" in linear else drawn(n, 1))
        if kind == "bias":
            tensors[f"{linear}.bias"] = drawn(n)
        if kind == "full":
            tensors[f"{linear}.weight"] = drawn(n, k).astype(np.float16)
        if kind == "bottleneck":
            tensors |= {f"{linear}.adapter_down.weight": drawn(rank, n), f"{linear}.adapter_down.bias": drawn(rank)}
            tensors |= {f"{linear}.adapter_up.weight": drawn(n, rank), f"{linear}.adapter_up.bias": drawn(n)}
    if kind == "full":
        tensors["model.norm.weight"] = drawn(config.hidden_size).astype(np.float16)
    return Change(f"a {kind}", kind, tensors)


def by_lora(w: Array, b: Array, t: dict[str, Array]) -> tuple[Array, Array]:
    return w + t["lora_B.weight"] @ t["lora_A.weight"], b


def by_dora(w: Array, b: Array, t: dict[str, Array]) -> tuple[Array, Array]:
    moved = w + t["lora_B.weight"] @ t["lora_A.weight"]
    return np.stack([m * row / np.sqrt((row**2).sum()) for m, row in zip(t["lora_magnitude_vector"], moved, strict=True)]), b


def by_ia3(w: Array, b: Array, t: dict[str, Array]) -> tuple[Array, Array]:
    if t["ia3_l"].shape[0] == 1:
        return w @ np.diag(t["ia3_l"][0]), b
    return np.diag(t["ia3_l"][:, 0]) @ w, b * t["ia3_l"][:, 0]


def by_bias(w: Array, b: Array, t: dict[str, Array]) -> tuple[Array, Array]:
    return w, b + t["bias"]


def by_full(w: Array, b: Array, t: dict[str, Array]) -> tuple[Array, Array]:
    return w + t["weight"].astype(np.float64), b


FORMULAS: dict[str, Callable[[Array, Array, dict[str, Array]], tuple[Array, Array]]] = {
    "lora": by_lora, "dora": by_dora, "ia3": by_ia3, "bias": by_bias, "full": by_full,
}  # fmt: skip


def test_every_kind_that_merges_has_its_formula() -> None:
    assert {*FORMULAS, "layers", "mask", "quantised", "shape"} == set(MERGED)  # these have tests of their own
    assert set(MERGED) < set(KINDS)


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("biases", [True, False], ids=["biases", "plain"])
def test_a_kind_is_its_formula(kind: str, biases: bool) -> None:
    base = random_checkpoint(tiny_config(biases=biases))
    change = random_change(base.config, kind)
    made = merged(base, [change])
    for linear in (Q, K, DOWN):
        w = values(base, f"{linear}.weight").astype(np.float64)
        b = values(base, f"{linear}.bias").astype(np.float64) if biases else np.zeros(len(w))
        parts = {name.removeprefix(f"{linear}."): tensor for name, tensor in change.tensors.items() if name.startswith(linear)}
        weight, bias = FORMULAS[kind](w, b, parts)
        np.testing.assert_allclose(values(made, f"{linear}.weight"), weight, atol=1e-6, rtol=1e-5)
        if f"{linear}.bias" in made.names:
            np.testing.assert_allclose(values(made, f"{linear}.bias"), bias, atol=1e-6)
        else:
            assert not biases and kind != "bias"
    if kind == "full":
        expected = values(base, "model.norm.weight") + change.tensors["model.norm.weight"].astype(np.float32)
        np.testing.assert_array_equal(values(made, "model.norm.weight"), expected)
    untouched = [name for name in base.names if not name.startswith((Q, K, DOWN, "model.norm"))]
    assert untouched
    for name in untouched:
        assert made.tensor(name) is base.tensor(name), "what no change touches stays as it is stored"


@pytest.mark.parametrize(
    ("linears", "flags"),
    [((Q,), (True, False, False)), ((OUT,), (False, True, False)), ((DOWN,), (False, False, True)), ((K, OUT, DOWN), (True, True, True))],
)
def test_biases_where_the_base_has_none(linears: tuple[str, ...], flags: tuple[bool, ...]) -> None:
    base = random_checkpoint(tiny_config())
    change = random_change(base.config, "bias", linears=linears)
    made = merged(base, [change])
    assert (made.config.qkv_bias, made.config.output_bias, made.config.mlp_bias) == flags
    assert made.names == tuple(expected_shapes(made.config))
    biases = [name for name in made.names if name.endswith(".bias")]
    for name in biases:
        expected = change.tensors.get(name, np.zeros(expected_shapes(made.config)[name], np.float32))
        np.testing.assert_array_equal(values(made, name), expected)
    assert len(biases) == 2 * (3 * flags[0] + flags[1] + 3 * flags[2])
    assert base.config == tiny_config(), "the base stays what it was"


def test_changes_apply_in_their_order() -> None:
    base = random_checkpoint(tiny_config())
    kinds = ("bias", "lora", "full", "ia3", "dora", "bias", "ia3")
    changes = [random_change(base.config, kind, seed) for seed, kind in enumerate(kinds)]
    at_once, one_by_one = merged(base, changes), base
    for change in changes:
        one_by_one = merged(one_by_one, [change])
    other_way = merged(base, changes[::-1])
    assert at_once.config == one_by_one.config
    for name in at_once.names:
        np.testing.assert_array_equal(values(at_once, name), values(one_by_one, name))
    assert np.abs(values(at_once, f"{Q}.weight") - values(other_way, f"{Q}.weight")).max() > 0.01


def test_a_later_change_may_name_a_bias_that_an_earlier_one_made() -> None:
    base = random_checkpoint(tiny_config())
    first = random_change(base.config, "bias", linears=(Q,))
    second = Change("second", "full", {f"{K}.bias": np.full(24, 0.5, np.float16)})
    made = merged(base, [first, second])
    np.testing.assert_array_equal(values(made, f"{K}.bias"), np.full(24, 0.5, np.float32))
    with pytest.raises(DeltaError, match="must name a parameter"):
        merged(base, [second])


def test_it_is_packed_as_it_is(tmp_path: Path) -> None:
    base = random_checkpoint(tiny_config())
    made = merged(base, [random_change(base.config, kind) for kind in ("lora", "bias", "ia3")])
    info = pack_checkpoint(made, "stack", "fp32", tmp_path)
    for name, packed in unpacked(tmp_path, info):
        np.testing.assert_array_equal(packed, values(made, name))


def test_without_changes_it_is_the_base() -> None:
    base = random_checkpoint(tiny_config())
    assert merged(base, []) is base
    with pytest.raises(CheckpointError):
        merged(base, [random_change(base.config, "lora")]).tensor("model.nothing.weight")


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ("", (0, 0)), ("lora", (0, 1)), ("lora lora", (0, 2)), ("full lora lora", (1, 2)), ("lora dora", (2, 0)), ("bottleneck", (0, 1)),
        ("lora bottleneck", (1, 1)), ("prefix", (0, 0)), ("lora prompt", (0, 1)), ("full lora prefix", (1, 1)), ("bias", (1, 0)),
        ("lora full bottleneck prefix", (2, 1)), ("lora ia3 lora", (2, 1)),
    ],
)  # fmt: skip
def test_how_a_stack_is_served(kinds: str, expected: tuple[int, int]) -> None:
    assert parted("tiny", kinds.split()) == expected


@pytest.mark.parametrize("kinds", ["bottleneck lora", "prefix lora", "prompt prefix", "bottleneck bottleneck", "prefix bottleneck"])
def test_what_cannot_be_merged_comes_last(kinds: str) -> None:
    with pytest.raises(DeltaError, match="not the last"):
        parted("tiny", kinds.split())


def test_low_rank_additions_side_by_side_are_their_sum() -> None:
    base = random_checkpoint(tiny_config())
    changes = [random_change(base.config, "lora", seed, linears) for seed, linears in enumerate([(Q, K), (Q, DOWN), (Q,)])]
    added, made = additions_of(base.config, changes), merged(base, changes)
    assert set(added) == {Q, K, DOWN}
    for linear, addition in added.items():
        assert addition.bias is None
        got = values(base, f"{linear}.weight") + addition.b @ addition.a
        np.testing.assert_allclose(got, values(made, f"{linear}.weight"), atol=1e-5)
    assert len(added[Q].a) == sum(len(change.tensors[f"{Q}.lora_A.weight"]) for change in changes)


@pytest.mark.parametrize("biases", [True, False], ids=["biases", "plain"])
def test_a_bottleneck_is_seen_from_the_input(biases: bool) -> None:
    base = random_checkpoint(tiny_config(biases=biases))
    change = random_change(base.config, "bottleneck", linears=(OUT, DOWN))
    for linear, addition in additions_of(base.config, [change], base).items():
        x = np.random.default_rng(1).standard_normal((9, linear_shapes(base.config)[linear][1]))
        y = x @ values(base, f"{linear}.weight").T.astype(np.float64)
        y += values(base, f"{linear}.bias") if biases else 0
        down, up, inner, outer = (
            change.tensors[f"{linear}.adapter_{part}"] for part in ("down.weight", "up.weight", "down.bias", "up.bias")
        )
        expected = np.maximum(y @ down.T + inner, 0) @ up.T + outer
        assert (y @ down.T + inner < 0).any(), "the rectifier has something to do"
        np.testing.assert_allclose(naive.addition(x, addition.a, addition.b, addition.bias), expected, atol=1e-5)
    without = {name: np.zeros_like(t) if name.endswith("up.bias") else t for name, t in change.tensors.items()}
    assert len(additions_of(base.config, [Change("b", "bottleneck", without)], base)[OUT].a) == len(
        change.tensors[f"{OUT}.adapter_down.bias"]
    )


def test_what_stays_beside_the_weights_is_of_one_kind() -> None:
    base = random_checkpoint(tiny_config())
    for kinds in (("lora", "bottleneck"), ("bottleneck", "bottleneck"), ("dora",)):
        with pytest.raises(DeltaError, match="beside the weights"):
            additions_of(base.config, [random_change(base.config, kind) for kind in kinds], base)


def test_virtual_tokens_fit_the_model() -> None:
    config = tiny_config(context=50)
    keys, more = np.ones((2, 2, 5, 12), np.float32), np.zeros((2, 2, 6, 12), np.float32)
    made = virtual_of(config, Change("p", "prefix", {"prefix.keys": keys, "prefix.values": keys * 2}))
    np.testing.assert_array_equal(made[1], keys * 2)
    bad: list[tuple[dict[str, Array], str]] = [
        ({"prefix.keys": keys}, "prefix.values is missing"),
        ({"prefix.keys": keys, "prefix.values": more}, "as many keys as values"),
        ({"prefix.keys": keys[:1], "prefix.values": keys}, r"must have shape \(2, 2, tokens, 12\)"),
        ({"prefix.keys": keys[0], "prefix.values": keys}, "must have shape"),
        ({"prefix.keys": keys[:, :, :0], "prefix.values": keys[:, :, :0]}, "must hold 1 to 49"),
        ({"prefix.keys": np.ones((2, 2, 50, 12)), "prefix.values": keys}, "must hold 1 to 49"),
        ({"prefix.keys": keys * np.nan, "prefix.values": keys}, "finite"),
    ]
    for tensors, what in bad:
        with pytest.raises(DeltaError, match=what):
            virtual_of(config, Change("p", "prefix", tensors))


A, B = np.ones((2, 48), np.float32), np.ones((48, 2), np.float32)


@pytest.mark.parametrize(
    ("kind", "tensors", "what"),
    [
        ("lora", {"lm_head.lora_A.weight": A, "lm_head.lora_B.weight": B}, "no part of a change of kind lora"),
        ("lora", {f"{Q}.lora_A.weight": A, f"{Q}.lora_B.weight": B, f"{Q}.lora_C": B}, "no part of a change"),
        ("lora", {f"{Q}.lora_A.weight": A}, "lora_B.weight is missing"),
        ("lora", {f"{Q}.lora_A.weight": A[:, 1:], f"{Q}.lora_B.weight": B}, r"must have shape \(2, 48\)"),
        ("lora", {f"{Q}.lora_A.weight": A, f"{Q}.lora_B.weight": B[:, :1]}, r"must have shape \(48, 2\)"),
        ("lora", {f"{Q}.lora_A.weight": A[:0], f"{Q}.lora_B.weight": B[:, :0]}, "must have shape"),
        ("lora", {f"{Q}.lora_A.weight": A[0], f"{Q}.lora_B.weight": B}, r"must have shape \(rank, 48\)"),
        ("lora", {f"{Q}.lora_A.weight": A * np.nan, f"{Q}.lora_B.weight": B}, "finite"),
        ("dora", {f"{Q}.lora_A.weight": A, f"{Q}.lora_B.weight": B}, "lora_magnitude_vector is missing"),
        ("ia3", {f"{Q}.ia3_l": A}, r"must have shape \(48, 1\) or \(1, 48\)"),
        ("bias", {f"{Q}.bias": A[0, 1:]}, r"must have shape \(48,\)"),
        ("bias", {"model.layers.7.self_attn.q_proj.bias": A[0]}, "no part of a change"),
        ("full", {"lm_head.weight": A}, "must name a parameter"),
        ("full", {"model.norm.weight": A}, r"must have shape \(48,\)"),
        ("full", {"model.norm.weight": A[0] * np.inf}, "finite"),
        ("bottleneck", {}, "can't become part of the weights"),
        ("prefix", {}, "can't become part of the weights"),
        ("prompt", {}, "can't become part of the weights"),
        ("unheard of", {}, "must be of a known kind"),
    ],
)
def test_what_does_not_fit_is_refused(kind: str, tensors: dict[str, Array], what: str) -> None:
    base = random_checkpoint(tiny_config())
    with pytest.raises(DeltaError, match=what):
        merged(base, [Change("odd", kind, tensors)])
