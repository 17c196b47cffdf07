"""Whether the owner's own examples cost no more than before: those that nobody learned from, paired by example.

Before is what the candidate goes on from, not the model below: a round that loses half of what earlier rounds learned is a loss. Nothing
about an example is kept or recorded but these figures.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ingle.core.config import NotNegative, check_bounds
from ingle.core.errors import KernelError
from ingle.core.report import NO_INTERVAL, Report
from ingle.gate.trial import Finding, Trial
from ingle.measure.intervals import paired_bootstrap, percent_change
from ingle.measure.subjects import ItemPlan, Passing, Row, Subject, gather
from ingle.tuning.homework import HeldOutExample


@dataclass(frozen=True, slots=True)
class Limits:
    on: bool = True  # whether this check is run
    most_rise_percent: NotNegative = 1.0  # most by which nats a token may rise, in percent of those before

    def __post_init__(self) -> None:
        check_bounds(self, "policy own.")


def check(trial: Trial, limits: Limits) -> Finding | None:
    """See `gate.check.Check`; does not apply without examples that fit into the model's context."""
    most = trial.incumbent_model.backend.config.context_length
    examples = [one for one in trial.probes.own if any(one.counted) and len(one.ids) <= most]
    if not examples:
        return None
    before, after = (nats(subject, examples) for subject in (trial.earlier, trial.challenger))
    change = paired_bootstrap(before, after, percent_change)
    rise, n, digest = change.value, len(examples), trial.challenger.digest
    low, high = (rise, rise) if change.interval.method == NO_INTERVAL else (change.interval.low, change.interval.high)
    reports = [Report("rise_percent", rise, "%", low, high, n, digest, "", change.interval.method, 0)]
    for name, side, of in (("before", before, trial.earlier.digest), ("after", after, digest)):
        value = float(side[:, 0].sum() / side[:, 1].sum())
        reports.append(Report(name, value, "nats/token", value, value, n, of, "", "of these examples"))
    most_rise = limits.most_rise_percent
    reason = f"own examples that nobody learned from cost {rise:+.2f} % nats a token (n = {n}); at most {most_rise:+.2f} % are allowed"
    return Finding("own", rise <= most_rise, reason, tuple(reports), asdict(limits))


def nats(subject: Subject, examples: Sequence[HeldOutExample]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[examples, 2]: nats and tokens of each. Nothing is cached: these are an owner's words."""
    rows = gather(subject, [_plan(number, one) for number, one in enumerate(examples)], Passing())
    return np.array([[row["nats"], row["tokens"]] for row in rows], np.float64)


def _plan(number: int, example: HeldOutExample) -> ItemPlan:
    first = example.counted.index(True)
    counted = np.array(example.counted[first:])

    def scored(parts: Sequence[Sequence[Any]]) -> Row:
        [[found]] = parts
        total = -float(found[counted].sum())
        if not np.isfinite(total):
            raise KernelError("log-probability", "must be a finite number", total, "The model computes NaN.")
        return {"nats": total, "tokens": int(counted.sum())}

    return ItemPlan(str(number), str(number), "", ((example.ids[:first], (example.ids[first:],)),), scored)
