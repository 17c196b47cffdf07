"""Setting and figures of one measurement, and what makes its reports."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ingle.core.report import Report
from ingle.measure.choice import Style
from ingle.measure.finished import Row
from ingle.measure.intervals import Difference, Floats, Interval, Statistic, bootstrap, ratio, wilson
from ingle.measure.subject import Subject
from ingle.measure.suites import Suite


@dataclass(frozen=True, slots=True)
class Setting:
    """One measurement: suite, model, items and options."""

    suite: Suite
    subject: Subject
    items: Sequence[Any]
    """Items to measure on."""
    shots: Sequence[Any] = ()
    """Examples at the start of every prompt."""
    training: Sequence[Any] = ()
    """Training items, which simple rules may look at."""
    style: Style = "texts"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """Result of a measurement: reports, details of items, notes."""

    reports: tuple[Report, ...]
    """Reports, the main one first."""
    details: tuple[Row, ...]
    """For each item, the values that pair it with the same item of another model."""
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Reporter:
    """Reporter of the reports of one measurement."""

    setting: Setting
    data_digest: str
    n: int

    def report(self, name: str, value: float, unit: str, interval: Interval, of_model: bool = True) -> Report:
        """Report one figure; simple rules have no model."""
        digest = self.setting.subject.digest if of_model else ""
        return Report(
            name, value, unit, interval.low, interval.high, self.n, digest, self.data_digest, interval.method, self.setting.seed
        )  # fmt: skip

    def ratio(self, name: str, unit: str, columns: Floats, of_model: bool = True) -> Report:
        """Report Σ first column / Σ second column, with a bootstrap interval."""
        return self.report(name, float(ratio(columns.sum(axis=0))), unit, bootstrap(columns, seed=self.setting.seed), of_model)

    def figure(self, name: str, unit: str, columns: Floats, statistic: Statistic) -> Report:
        """Report any figure of the columns' sums, with a bootstrap interval."""
        value = float(statistic(columns.sum(axis=0)))
        return self.report(name, value, unit, bootstrap(columns, statistic, seed=self.setting.seed))

    def mean(self, name: str, unit: str, values: Floats, of_model: bool = True) -> Report:
        """Report the mean of a value per item."""
        return self.ratio(name, unit, with_ones(values), of_model)

    def share(self, name: str, right: Sequence[bool], of_model: bool = True) -> Report:
        """Report the share that is right."""
        return self.report(name, sum(right) / self.n, "share", wilson(sum(right), self.n), of_model)

    def difference(self, name: str, unit: str, difference: Difference) -> Report:
        """Report a difference between the model and something else."""
        return self.report(name, difference.value, unit, difference.interval)


def with_ones(values: Floats) -> Floats:
    """[items, 2]: each value, and 1; their ratio of sums is the mean."""
    return np.stack([values, np.ones_like(values)], axis=1)
