"""The kind `mask`: weights become zero, others something else, and a repair of low rank leaves the holes alone."""

from pathlib import Path

import numpy as np
import pytest

from ingle.core.errors import DeltaError
from ingle.engine.cut_model import pack_mask
from ingle.engine.delta_kinds import Array, Change, merged
from ingle.engine.packs import pack_checkpoint
from tests.engine.test_delta_kinds import values
from tests.engine.tiny import random_checkpoint, tiny_config, unpacked

NAME = "model.layers.1.mlp.down_proj"
BASE = random_checkpoint(tiny_config(mlp=83))  # no whole bytes a row


def some_mask(seed: int = 0) -> Array:
    return np.random.default_rng(seed).random((48, 83)) < 0.5


def change(**parts: Array) -> Change:
    tensors = {f"{NAME}.mask": pack_mask(some_mask())} | {f"{NAME}.{key.replace('__', '.')}": value for key, value in parts.items()}
    return Change("pruned", "mask", {key: value for key, value in tensors.items() if value.size})


def test_what_the_mask_leaves_out_is_zero_and_nothing_else_changes() -> None:
    made = merged(BASE, [change()])
    np.testing.assert_array_equal(values(made, f"{NAME}.weight"), np.where(some_mask(), values(BASE, f"{NAME}.weight"), 0))
    for name in made.names:
        if NAME not in name:
            np.testing.assert_array_equal(values(made, name), values(BASE, name))


def test_other_values_and_a_repair_stand_only_where_the_mask_says(tmp_path: Path) -> None:
    draw, mask = np.random.default_rng(1), some_mask()
    kept = draw.standard_normal(int(mask.sum())).astype(np.float16)
    a, b = (draw.standard_normal(shape).astype(np.float32) for shape in ((3, 83), (48, 3)))
    made = merged(BASE, [change(kept=kept, lora_A__weight=a, lora_B__weight=b)])
    expected = np.zeros((48, 83), np.float32)
    expected[mask] = kept
    expected = np.where(mask, expected + b @ a, 0)
    np.testing.assert_allclose(values(made, f"{NAME}.weight"), expected, rtol=1e-5, atol=1e-6)
    served = dict(unpacked(tmp_path, pack_checkpoint(made, "x", "fp32", tmp_path)))
    np.testing.assert_array_equal(served[f"{NAME}.weight"], values(made, f"{NAME}.weight"))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"mask": np.zeros(0, np.uint8)}, "mask must be uint8"),
        ({"mask": np.zeros((48, 12), np.uint8)}, "must be uint8 of shape"),
        ({"mask": np.zeros((48, 11), np.float32)}, "must be uint8"),
        ({"kept": np.zeros(3, np.float16)}, "kept must have shape"),
        ({"kept": np.full(int(some_mask().sum()), np.nan, np.float32)}, "finite"),
        ({"lora_A__weight": np.zeros((2, 83), np.float32)}, "both"),
        ({"lora_A__weight": np.zeros((2, 83), np.float32), "lora_B__weight": np.zeros((48, 3), np.float32)}, "of shape"),
        ({"scale": np.zeros(3, np.float32)}, "no part of a change of kind mask"),
    ],
)
def test_what_does_not_fit_is_refused(parts: dict[str, Array], message: str) -> None:
    given = change(**parts)
    if "mask" in parts and not parts["mask"].size:
        given = Change("pruned", "mask", {f"{NAME}.kept": np.zeros(1, np.float16)})
    with pytest.raises(DeltaError, match=message):
        merged(BASE, [given])
