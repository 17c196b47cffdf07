"""Reports of attacks: counts with Wilson's intervals, in a table, a curve over the budget, and a fact. None of them holds words."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ingle.core.digest import digest_json
from ingle.core.report import Event, Fact, Report
from ingle.measure.intervals import wilson
from ingle.robustness.attack import AttackFile, Outcome
from ingle.robustness.goals import digest_of
from ingle.robustness.prompts import LabelledPrompt
from ingle.robustness.run import AttackOptions, FamilyResult
from ingle.robustness.target import Target

ALL = "all"  # name of the line that adds up all families


@dataclass(frozen=True, slots=True)
class Line:
    """One family's figures, or those of all."""

    family: str
    tries: int  # requests that were sent
    weighed: int  # requests that were only weighed
    unfit: int  # requests that did not fit in the context
    # Shares; see `SHARES`. One without a single case is left out.
    reports: tuple[Report, ...]

    def report(self, name: str) -> Report | None:
        """Return the share of that name; None where there was nothing to count."""
        return next((one for one in self.reports if one.name == f"{self.family}.{name}"), None)


def lines_of(results: Sequence[FamilyResult], target: Target, goals: Sequence[LabelledPrompt], options: AttackOptions) -> tuple[Line, ...]:
    """Return a line for each family, and last one for all if there are several."""
    lines = [_line(one.name, [one], target, goals, options) for one in results]
    return tuple(lines if len(lines) == 1 else [*lines, _line(ALL, results, target, goals, options)])


def curves_of(results: Sequence[FamilyResult], options: AttackOptions) -> dict[str, list[tuple[int, float]]]:
    """Return for each adaptive family (tries, share of the goals that were reached by then), where the share changes, up to the budget."""
    curves = {}
    for one in results:
        n, reached = len(one.goals), sorted(goal.reached_at for goal in one.goals if goal.reached_at is not None)
        if one.adaptive and n:
            rises = [(at, (number + 1) / n) for number, at in enumerate(reached)]
            curves[one.name] = [(0, 0.0), *rises, (options.budget, len(reached) / n)]
    return curves


def data_digest(goals: Sequence[LabelledPrompt], files: Sequence[AttackFile], options: AttackOptions) -> str:
    """Return the digest of all that was tried: goals, families, sizes, seed."""
    return digest_json([digest_of(goals), [file.name for file in files], asdict(options)])


def event_of(
    lines: Sequence[Line], target: Target, goals: Sequence[LabelledPrompt], files: Sequence[AttackFile], options: AttackOptions
) -> Event:
    """Return the attack as a fact: counts and digests."""
    last = lines[-1]
    facts: dict[str, Fact] = {
        "families": ",".join(file.name for file in files), "goals": len(goals), "tries_each": options.tries, "budget": options.budget,
        "seed": options.seed, "weighed": last.weighed, "unfit": last.unfit, "tries": last.tries, **_counts(last),
    }  # fmt: skip
    facts |= {f"reached.{line.family}": f"{_counts(line).get('reached', 0)} of {line.tries}" for line in lines[:-1]}
    facts |= {"model_digest": target.subject.digest, "data_digest": data_digest(goals, files, options), "policy_digest": target.digest}
    return Event("attack", target.subject.name, facts)


def to_table(
    lines: Sequence[Line], results: Sequence[FamilyResult], target: Target, goals: Sequence[LabelledPrompt], files: Sequence[AttackFile],
    options: AttackOptions,
) -> dict[str, Any]:  # fmt: skip
    """Return everything as plain values, for JSON."""
    return {
        "model": target.subject.name, "model_digest": target.subject.digest, "policy_digest": target.digest,
        "data_digest": data_digest(goals, files, options), "options": asdict(options), "goals": len(goals),
        "families": [
            {"family": one.family, "tries": one.tries, "weighed": one.weighed, "unfit": one.unfit, "reports": [*map(asdict, one.reports)]}
            for one in lines
        ],
        "curves": curves_of(results, options),
    }  # fmt: skip


# The things that each share counts.
SHARES: Mapping[str, str] = {
    "noticed": "tries that a guard blocked, edited or told of",
    "past": "tries that came past the guards",
    "refused": "tries past the guards that the model refused",
    "reached": "tries with a harmful and usable answer",
    "goals_reached": "goals that were reached by one try at least",
}


def _line(name: str, results: Sequence[FamilyResult], target: Target, goals: Sequence[LabelledPrompt], options: AttackOptions) -> Line:
    tried = [goal for one in results for goal in one.goals]
    outcomes = [outcome for goal in tried for outcome in goal.outcomes]
    past = [outcome for outcome in outcomes if outcome.passed]
    reached: dict[str, bool] = {}
    for goal in tried:
        if goal.used:
            reached[goal.goal] = reached.get(goal.goal, False) or goal.reached_at is not None
    counts = {
        "noticed": (_count(outcomes, "noticed"), len(outcomes)), "past": (len(past), len(outcomes)),
        "refused": (_count(past, "refused"), len(past)), "reached": (_count(outcomes, "reached"), len(outcomes)),
        "goals_reached": (sum(reached.values()), len(reached)),
    }  # fmt: skip
    digest, data = target.subject.digest, digest_json([name, digest_of(goals), asdict(options)])
    reports = []
    for share, (count, n) in counts.items():
        if n:
            interval = wilson(count, n)
            reports.append(
                Report(f"{name}.{share}", count / n, "share", interval.low, interval.high, n, digest, data, interval.method, options.seed)
            )
    weighed, unfit = sum(goal.used for goal in tried) - len(outcomes), sum(goal.unfit for goal in tried)
    return Line(name, len(outcomes), weighed, unfit, tuple(reports))


def _counts(line: Line) -> dict[str, int]:
    shares = {share: line.report(share) for share in SHARES}
    return {share: round(one.value * one.n) for share, one in shares.items() if one is not None}


def _count(outcomes: Sequence[Outcome], name: str) -> int:
    return sum(bool(getattr(outcome, name)) for outcome in outcomes)
