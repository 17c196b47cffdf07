"""The number format follows from the processor: no clock has a part in it, so that a run makes the same bytes on a busy day."""

import pytest
import torch

from ingle.train import optimisers
from ingle.train.optimisers import choose, multiplies_bf16

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("features", "name"),
    [
        ({"avx512f", "avx512bf16"}, "bf16"),
        ({"amx-bf16"}, "bf16"),
        ({"avx2", "avx512f"}, "fp32"),
        ({"bf16", "neon"}, "fp32"),
        (set(), "fp32"),
    ],
)
def test_auto_follows_from_the_instructions(features: set[str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimisers, "features", lambda: frozenset(features))
    assert choose("auto", CPU) == name
    assert multiplies_bf16(CPU) is (name == "bf16")


@pytest.mark.parametrize("name", ["bf16", "fp32"])
def test_who_names_one_gets_it(name: optimisers.Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimisers, "features", frozenset)
    assert choose(name, CPU) == name
