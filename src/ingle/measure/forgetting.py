"""Forgetting: the cost of a change to a model on general text, in bits per byte, paired by document."""

from collections.abc import Mapping
from dataclasses import dataclass

from ingle.core.errors import ConfigError
from ingle.core.report import Report
from ingle.measure.bits import TextBits, columns
from ingle.measure.intervals import Difference, paired_bootstrap, percent_change, ratio, sign_test


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Bits per byte before and after, on the same documents."""

    before: float
    after: float
    change: Difference
    """In bits per byte; above 0 = the model has forgotten."""
    relative: Difference
    """Change in percent of the value before."""
    worse: int
    """Documents that cost more bits than before."""
    n: int
    sign_p: float
    """p of the sign test: whether as many documents got better as worse."""

    def reports(self, model_digest: str, data_digest: str, seed: int) -> tuple[Report, ...]:
        """Report the change, absolute and relative, for the model after it."""
        return tuple(
            Report(name, d.value, unit, d.interval.low, d.interval.high, self.n, model_digest, data_digest, d.interval.method, seed)
            for name, unit, d in (("forgetting", "bits/byte", self.change), ("forgetting_relative", "%", self.relative))
        )


def forgetting(before: Mapping[str, TextBits], after: Mapping[str, TextBits], seed: int = 0) -> Forgetting:
    """Compare two models on the documents that both have read, by name.

    Raises ConfigError if there are none, or if a document has another number of bytes in both.
    """
    shared = [name for name in before if name in after]
    if not shared:
        raise ConfigError("documents", "must be the same before and after", "none in common", "Measure both with the same suite.")
    for name in shared:
        if before[name].nbytes != after[name].nbytes:
            got = f"{before[name].nbytes} and {after[name].nbytes} bytes"
            raise ConfigError(f"document {name}", "must be the same before and after", got, "Measure both with the same suite.")
    first, second = (columns([rows[name] for name in shared]) for rows in (before, after))
    differences = second[:, 0] - first[:, 0]
    return Forgetting(
        before=float(ratio(first.sum(axis=0))),
        after=float(ratio(second.sum(axis=0))),
        change=paired_bootstrap(first, second, seed=seed),
        relative=paired_bootstrap(first, second, percent_change, seed),
        worse=int((differences > 0).sum()),
        n=len(shared),
        sign_p=sign_test(differences),
    )
