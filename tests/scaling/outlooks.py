"""Outlooks of sweeps whose law is known."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ingle.scaling.budget import Prices
from ingle.scaling.interval import DEFAULT_FORMS, REPEATED_FORMS, Fit, fit_points
from ingle.scaling.points import Point, repeats
from ingle.scaling.probing import Outlook, ProbePair
from ingle.scaling.sweep_settings import SweepSettings, point_of, rung
from ingle.scratch.scratch_settings import TextSettings, config_of, parameters_of
from ingle.scratch.text_sources import Prepared

NOISE = 0.003
SETTINGS = SweepSettings(
    TextSettings(("suite:debian-bits",)), 2048, sizes=("2x64", "3x128", "5x128", "6x192"), tokens=(750_000, 1_500_000, 3_000_000),
    foretold_size="8x256", foretold_tokens=5_250_000,
)  # fmt: skip
SECONDS = 1e-10
"""Of a parameter and token."""
WATTS = 20.0


def prepared(tokens: int = 60_000_000, folder: str = "here", vocabulary: int = 2048) -> Prepared:
    """Prepared text, as far as advice reads it."""
    return Prepared(folder, folder, vocabulary, 512, tokens, 300_000, 500)


def truth(parameters: float, tokens: float) -> float:
    """Loss by the law, in bits per byte."""
    return 0.9 + 60.0 * parameters**-0.35 + 130.0 * tokens**-0.4


def report(size: str, tokens: int, loss: float, seed: int = 0, unique: int = 0) -> dict[str, Any]:
    """A run's report, as far as advice reads it."""
    parameters = parameters_of(config_of(rung(size, "transformer"), 2048))
    seconds = SECONDS * parameters * tokens
    joules = WATTS * seconds
    return {
        "key": f"{size}-{tokens}-{seed}", "label": f"{size}, {tokens}", "size": size, "kind": "transformer", "parameters": parameters,
        "tokens": tokens, "unique": unique or tokens, "seed": seed, "loss": loss, "flops": 6.0 * parameters * tokens, "seconds": seconds,
        "energy": {"joules": joules, "low": 0.7 * joules, "high": 1.5 * joules, "source": "model"},
    }  # fmt: skip


def reports(seed: int = 0, noise: float = NOISE) -> list[dict[str, Any]]:
    """All runs of the sweep."""
    rng, found = np.random.default_rng(seed), []
    for size in SETTINGS.sizes:
        parameters = parameters_of(config_of(rung(size, "transformer"), 2048))
        for tokens in SETTINGS.tokens:
            found.append(report(size, tokens, truth(parameters, tokens) * float(np.exp(noise * rng.standard_normal()))))
    return found


def pairs(
    lever: str, changed: Mapping[str, Any], better: float, seconds: float = 1.0, count: int = 2, noise: float = 0.0
) -> list[ProbePair]:  # fmt: skip
    """Pairs in which a lever takes a share off the loss."""
    rng, found = np.random.default_rng(len(lever)), []
    for size in SETTINGS.sizes[:count]:
        before = point_of(report(size, 1_500_000, 2.0))
        loss = 2.0 * (1 - better) * float(np.exp(noise * rng.standard_normal()))
        after = Point(before.parameters, before.tokens, loss, before.unique / changed.get("epochs", 1), kind="another")
        found.append(ProbePair(lever, changed, "here", size, after, before, seconds, seconds))
    return found


@cache
def law(noise: float, repeated: bool) -> Fit:
    """The fit of all runs of the sweep."""
    return fit_points([point_of(one) for one in reports(noise=noise)], REPEATED_FORMS if repeated else DEFAULT_FORMS)


def outlook(
    found: Sequence[ProbePair] = (), tokens: int = 60_000_000, prices: Prices = Prices(), noise: float = NOISE, **kept: Any,  # noqa: B008 - frozen
) -> Outlook:  # fmt: skip
    """A finished sweep with these probes."""
    text, fit = prepared(tokens), law(noise, any(repeats(pair.after) for pair in found))
    return Outlook("small", Path("here"), SETTINGS, text, {"here": text}, reports(noise=noise), fit, found, kept, prices)
