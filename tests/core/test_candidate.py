"""A candidate's digest says what it does, not what it is called."""

import dataclasses

import numpy as np
import pytest

from ingle.core.candidate import Candidate

TENSORS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}


def test_the_digest_is_of_what_it_does() -> None:
    one = Candidate("one", "full", "b" * 64, TENSORS, {"seed": "1"})
    assert one.content_digest == dataclasses.replace(one, name="two", origin={}, report={"x": 1}).content_digest
    assert one.content_digest == Candidate("one", "full", "b" * 64, {"a.weight": TENSORS["a.weight"].T.copy().T}).content_digest


@pytest.mark.parametrize(
    "other",
    [
        Candidate("one", "lora", "b" * 64, TENSORS),
        Candidate("one", "full", "c" * 64, TENSORS),
        Candidate("one", "full", "b" * 64, {"b.weight": TENSORS["a.weight"]}),
        Candidate("one", "full", "b" * 64, {"a.weight": TENSORS["a.weight"] + 1}),
        Candidate("one", "full", "b" * 64, {"a.weight": TENSORS["a.weight"].reshape(3, 2)}),
        Candidate("one", "full", "b" * 64, {"a.weight": TENSORS["a.weight"].astype(np.float16)}),
    ],
)
def test_another_change_has_another_digest(other: Candidate) -> None:
    assert other.content_digest != Candidate("one", "full", "b" * 64, TENSORS).content_digest
