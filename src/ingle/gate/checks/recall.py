"""Whether it still recalls what was said far back: facts planted in long texts, the same ones asked of both.

The loss of a text hardly shows that a model forgets (`measure.suites`). This check is for hybrids, for whom the past lies behind a window.
"""

from dataclasses import asdict, dataclass, replace

from ingle.core.config import Count, Share, check_bounds
from ingle.core.errors import ConfigError
from ingle.core.progress import silent
from ingle.gate.trial import Finding, Trial
from ingle.measure.intervals import paired_bootstrap
from ingle.measure.measuring import Options, run_suite
from ingle.measure.subjects import choice_columns
from ingle.measure.suites import find_suite


@dataclass(frozen=True, slots=True)
class Limits:
    on: bool = False  # whether this check is run
    least_share: Share = 0.7  # least share of the facts recalled by the incumbent that must still be recalled
    suite: str = "recall-2k"  # a suite of planted facts, recall-1k to recall-8k; not run on models with a shorter context
    items: Count = 18  # facts to ask for

    def __post_init__(self) -> None:
        if find_suite(self.suite).kind != "recall":
            raise ConfigError("policy recall.suite", "must be a suite of planted facts", self.suite, "For example recall-2k.")
        check_bounds(self, "policy recall.")


def check(trial: Trial, limits: Limits) -> Finding | None:
    suite = find_suite(limits.suite)
    longest = max(item.length for item in suite.read(trial.home, silent))
    if trial.incumbent.context_length < longest:
        return None
    options = Options(items=limits.items)
    outcomes = [run_suite(trial.home, suite, one, options, trial.progress) for one in (trial.incumbent, trial.challenger)]
    before, after = ([bool(row["recall"]) for row in one.rows] for one in outcomes)
    changed = paired_bootstrap(choice_columns(before), choice_columns(after))
    first, second = (replace(one.main, name=name) for one, name in zip(outcomes, ("before", "after"), strict=True))
    change = replace(second, name="change", value=changed.value, low=changed.interval.low, high=changed.interval.high,
                     interval=changed.interval.method)  # fmt: skip
    passed = sum(after) >= limits.least_share * sum(before)
    least = f"at least {limits.least_share:.0%} of those must be"
    reason = f"of {len(after)} facts far back {sum(after)} are recalled, {sum(before)} before; {least}"
    return Finding("recall", passed, reason, (change, first, second), asdict(limits))
