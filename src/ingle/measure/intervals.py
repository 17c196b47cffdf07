"""Intervals: how far a figure can be trusted. Bootstrap over items, Wilson's for proportions, tests for two models on the same items.

All figures here are functions of column sums: a mean is Σ value / Σ 1, bits per byte are Σ bits / Σ bytes. So a resample is a sum of
drawn rows, and leaving one item out is a subtraction.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_json
from ingle.core.report import NO_INTERVAL, Report

Floats = npt.NDArray[np.float64]
Statistic = Callable[[Floats], Floats]  # computes a figure [...] from sums [..., columns]
Method = Literal["percentile", "bca"]
LEVEL = 0.95
DRAWS = 10_000
_BLOCK_NUMBERS = 1 << 22


@dataclass(frozen=True, slots=True)
class Interval:
    """Range in which a figure probably lies."""

    low: float
    high: float
    method: str  # name of the method, for `Report.interval`


@dataclass(frozen=True, slots=True)
class Difference:
    """Change of a figure from one model to another, on the same items."""

    value: float  # after minus before
    interval: Interval
    p: float  # two-sided p by the bootstrap: twice the share of resamples with the other sign


def ratio(sums: Floats) -> Floats:
    """Σ first column / Σ second column; 0 / 0 is NaN."""
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = sums[..., 0] / sums[..., 1]
    return result


def bootstrap(columns: Floats, statistic: Statistic = ratio, seed: int = 0, method: Method = "bca", draws: int = DRAWS) -> Interval:
    """Interval of `statistic` over items: rows of `columns` [items, columns] are drawn with replacement, all columns together.

    `bca` corrects the percentiles for bias and skew (Efron 1987); where all resamples are equal, percentiles are taken.
    A resample on which the figure is not defined (0 / 0) is left out. One item has no interval (`NO_INTERVAL`). Raises ValueError
    without items.
    """
    if len(columns) == 1:
        value = float(statistic(columns.sum(axis=0)))
        return Interval(value, value, NO_INTERVAL)
    values = resample(columns, statistic, seed, draws)
    values = values[np.isfinite(values)]
    share = (1 - LEVEL) / 2
    shares = [share, 1 - share]
    if method == "bca":
        shares = _bca_shares(columns, statistic, values) or shares
    low, high = np.quantile(values, shares) if len(values) else (math.nan, math.nan)
    return Interval(float(low), float(high), f"{100 * LEVEL:.0f} % bootstrap ({'BCa' if method == 'bca' else 'percentile'})")


def change(before: Floats, after: Floats) -> Floats:
    """Change of the ratio, from the sums before and after."""
    result: Floats = ratio(after) - ratio(before)
    return result


def percent_change(before: Floats, after: Floats) -> Floats:
    """Change of the ratio in percent of its value before."""
    result: Floats = 100 * (ratio(after) / ratio(before) - 1)
    return result


def farther_from(aim: float) -> Callable[[Floats, Floats], Floats]:
    """Return a contrast for `paired_bootstrap`: by how much farther the ratio lies from `aim` than before."""

    def contrast(before: Floats, after: Floats) -> Floats:
        result: Floats = np.abs(ratio(after) - aim) - np.abs(ratio(before) - aim)
        return result

    return contrast


def paired_bootstrap(
    before: Floats, after: Floats, contrast: Callable[[Floats, Floats], Floats] = change, seed: int = 0, draws: int = DRAWS
) -> Difference:
    """Difference of two models on the same items, rows of both [items, columns]: the same rows of both are drawn together.

    One item has no interval (`NO_INTERVAL`) and p = 1. Raises ValueError if there are no items, or not the same number.
    """
    if before.shape != after.shape:
        raise ValueError(f"pairs must have the same shape: {before.shape}, {after.shape}")
    width = before.shape[1]

    def both(sums: Floats) -> Floats:
        return contrast(sums[..., :width], sums[..., width:])

    columns = np.concatenate([before, after], axis=1)
    if len(columns) == 1:
        value = float(both(columns.sum(axis=0)))
        return Difference(value, Interval(value, value, NO_INTERVAL), 1.0)
    values = resample(columns, both, seed, draws)
    values = values[np.isfinite(values)]
    share = (1 - LEVEL) / 2
    low, high = np.quantile(values, [share, 1 - share]) if len(values) else (math.nan, math.nan)
    # One more of each sign, so that no p is smaller than this number of draws can show.
    p = 2 * (min((values <= 0).sum(), (values >= 0).sum()) + 1) / (len(values) + 1)
    interval = Interval(float(low), float(high), f"{100 * LEVEL:.0f} % paired bootstrap")
    return Difference(float(both(columns.sum(axis=0))), interval, min(1.0, float(p)))


def resample(columns: Floats, statistic: Statistic, seed: int, draws: int) -> Floats:
    """Compute `statistic` on `draws` resamples. The same seed draws the same items, whatever is measured on them."""
    items = len(columns)
    if columns.ndim != 2 or not items:
        raise ValueError(f"there must be items, in rows: {columns.shape}")
    return np.concatenate([statistic(columns[picks].sum(axis=1)) for picks in _picks(items, seed, draws, columns.shape[1])])


def _picks(items: int, seed: int, draws: int, width: int) -> Iterator[npt.NDArray[Any]]:
    draw = np.random.default_rng(seed)
    block = max(1, _BLOCK_NUMBERS // (items * width))
    for start in range(0, draws, block):
        yield draw.integers(0, items, (min(block, draws - start), items))


def _bca_shares(columns: Floats, statistic: Statistic, values: Floats) -> list[float] | None:
    """Shares of the resamples at which the interval's ends lie; None where BCa isn't defined."""
    total = columns.sum(axis=0)
    point = float(statistic(total))
    without = statistic(total - columns)  # each item left out once
    apart = without.mean() - without
    spread = float((apart**2).sum()) ** 1.5
    below = ((values < point).sum() + (values <= point).sum()) / (2 * len(values)) if len(values) else 0.0
    if not np.isfinite(without).all() or not spread or not 0 < below < 1:
        return None
    normal = NormalDist()
    bias, skew = normal.inv_cdf(float(below)), float((apart**3).sum()) / (6 * spread)
    shares = []
    for share in ((1 - LEVEL) / 2, (1 + LEVEL) / 2):
        shifted = bias + normal.inv_cdf(share)
        shares.append(normal.cdf(bias + shifted / (1 - skew * shifted)))
    return shares


def wilson(successes: int, n: int) -> Interval:
    """Wilson's interval (1927) for a proportion; never empty, also at 0 and n. Raises ValueError for impossible counts."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} of {n}")
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends the formula is exact but for rounding.
    low, high = 0.0 if successes == 0 else middle - half, 1.0 if successes == n else middle + half
    return Interval(low, high, f"{100 * LEVEL:.0f} % Wilson")


def mcnemar(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> float:
    """Two-sided p of McNemar's exact test: whether right answers became wrong as often as wrong ones became right."""
    return fair_coin(int((before & ~after).sum()), int((~before & after).sum()))


def sign_test(differences: Floats) -> float:
    """Two-sided p of the sign test: whether as many items went up as down. Items without a change don't count."""
    return fair_coin(int((differences > 0).sum()), int((differences < 0).sum()))


def fair_coin(ups: int, downs: int) -> float:
    """Two-sided p of so many heads and tails of a fair coin, exactly."""
    n = ups + downs
    term = total = 1
    for k in range(1, min(ups, downs) + 1):
        term = term * (n - k + 1) // k
        total += term
    return float(min(1.0, 2 * total / 2**n))


def holm(ps: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction (1979) of several tests' p: with these, the chance of any false alarm among all of them is what one test's was."""
    corrected, least = dict[str, float](), 0.0
    for rank, (name, p) in enumerate(sorted(ps.items(), key=lambda one: one[1])):
        least = max(least, min(1.0, (len(ps) - rank) * p))
        corrected[name] = least
    return {name: corrected[name] for name in ps}


# Contamination: was the held-out text trained on, whole or as a stretch of 13 words (as arXiv 2005.14165, appendix C)?


WORDS = 13
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Contamination:
    """Share of the held-out texts that stand in the training texts."""

    n: int  # number of held-out texts
    exact: tuple[str, ...]  # names of held-out texts that stand there whole, word for word
    overlapping: tuple[str, ...]  # names of held-out texts that share a stretch of words, the exact ones included
    words: int
    data_digest: str  # digest of the names and words of the held-out texts

    def report(self) -> Report:
        """Report the share of texts that overlap; it is of no model."""
        interval = wilson(len(self.overlapping), self.n)
        share, name = len(self.overlapping) / self.n, f"contamination_{self.words}_words"
        return Report(name, share, "share", interval.low, interval.high, self.n, "", self.data_digest, interval.method)


def contamination(training: Iterable[str], held_out: Mapping[str, str], words: int = WORDS) -> Contamination:
    """Compare words without case and punctuation. A text shorter than `words` only counts if it stands there whole.

    `training` is read once and may be long: about 8 bytes are kept for each of its words. Raises ValueError if nothing is held out.
    """
    if not held_out:
        raise ValueError("nothing is held out")
    split = {name: tuple(_WORD.findall(text.casefold())) for name, text in held_out.items()}
    stretches: dict[int, set[str]] = {}  # by hash: Python's is good for one process, and equal hashes of unequal words are one in 10^19
    wholes: dict[tuple[str, ...], set[str]] = {}
    for name, text in split.items():
        wholes.setdefault(text, set()).add(name)
        for stretch in _stretches(text, words):
            stretches.setdefault(hash(stretch), set()).add(name)
    exact: set[str] = set()
    overlapping: set[str] = set()
    for document in training:
        spoken = tuple(_WORD.findall(document.casefold()))
        exact |= wholes.get(spoken, set())
        for stretch in _stretches(spoken, words):
            overlapping |= stretches.get(hash(stretch), set())
    digest = digest_json({name: list(text) for name, text in split.items()})
    return Contamination(len(split), tuple(sorted(exact)), tuple(sorted(overlapping | exact)), words, digest)


def _stretches(text: tuple[str, ...], words: int) -> Iterable[tuple[str, ...]]:
    return (text[i : i + words] for i in range(len(text) - words + 1))
