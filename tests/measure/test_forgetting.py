"""Forgetting: paired by document, in bits per byte."""

import numpy as np
import pytest

from ingle.core.errors import ConfigError
from ingle.measure.figures import TextBits, forgetting


def documents(scale: float, seed: int = 0, noise: float = 0.0) -> dict[str, TextBits]:
    draw, other = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    sizes = draw.integers(100, 5000, 60)
    bits = sizes * draw.normal(1.1, 0.2, 60) * (scale + noise * other.normal(size=60))
    return {str(i): TextBits(float(b), int(n), int(n) // 4, True) for i, (b, n) in enumerate(zip(bits, sizes, strict=True))}


def test_a_model_that_got_worse_everywhere() -> None:
    lost = forgetting(documents(1.0), documents(1.02))
    assert lost.after / lost.before == pytest.approx(1.02)
    assert lost.change.value == pytest.approx(0.02 * lost.before)
    assert (lost.relative.value, lost.worse, lost.n) == (pytest.approx(2.0), 60, 60)
    assert lost.change.interval.low > 0
    assert lost.sign_p < 1e-15
    absolute, relative = lost.reports("model", "data", 0)
    assert (absolute.name, absolute.unit, absolute.n, absolute.model_digest) == ("forgetting", "bits/byte", 60, "model")
    assert (relative.value, relative.unit) == (pytest.approx(2.0), "%")
    assert absolute.low <= absolute.value <= absolute.high


def test_noise_is_not_forgetting() -> None:
    lost = forgetting(documents(1.0), documents(1.0, noise=0.05))
    assert lost.change.interval.low < 0 < lost.change.interval.high
    assert lost.change.p > 0.05


def test_only_documents_that_both_read_are_compared() -> None:
    before, after = documents(1.0), documents(1.5)
    some = {name: after[name] for name in list(after)[:7]}
    assert forgetting(before, some).n == 7
    with pytest.raises(ConfigError, match="none in common"):
        forgetting(before, {"other": after["0"]})
    with pytest.raises(ConfigError, match="document 3"):
        forgetting(before, {**after, "3": TextBits(1.0, 7, 2, True)})
