"""The decision: every check of the policy is run, and the candidate becomes a delta, or doesn't. Either way it is recorded, with figures.

The fact comes before the delta. A kill in between leaves a decision without its delta; the next attempt then decides and keeps the same.
There is never a delta without a decision.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ingle.core.candidate import Admit, Candidate, strength_of, weakened
from ingle.core.delta import Delta
from ingle.core.digest import digest_bytes
from ingle.core.errors import Refused
from ingle.core.makers import find_maker
from ingle.core.progress import Progress, silent
from ingle.core.report import Event, Fact, Sink
from ingle.engine.loading import Opener
from ingle.gate.check import Policy, find_check, names
from ingle.gate.trial import Decision, Finding, Probes, Trial, never
from ingle.home.deltas import put_delta, refuse_taken_delta, report_bytes
from ingle.home.kept import Kept, sweep_packs
from ingle.home.place import Home
from ingle.home.staging import discard

VERSION = 1
ACCEPT, REFUSE = "gate.accept", "gate.refuse"
STRENGTHS = (0.7, 0.5, 0.3)  # shares of a refused candidate that are tried
_MOST_TEXT = 250


def admit(
    home: Home, kept: Kept, candidate: Candidate, maker: str, policy: Policy, probes: Probes = Probes(), force: bool = False,  # noqa: B008
    sink: Sink = silent, opener: Opener | None = None, stopped: Callable[[], bool] = never, progress: Progress = silent,
) -> Decision:  # fmt: skip
    """Measure a candidate on the kept model that it was made for; keep it as a delta if every check passes, or with `force`.

    `maker`: the name of a gated maker (core/makers). `opener`: one that has the model open already saves a second. `sink` hears
    `gate.accept` or `gate.refuse`. Raises ConfigError for a name that is taken and limits that can't be used, DeltaError for a candidate
    of another model or one that can't be served, the errors of asking the models, HomeError, and Interrupted when `stopped` is true.
    """
    assert find_maker(maker).gated, maker
    sweep_packs(home)
    trial = Trial(home, kept, candidate, probes, opener or Opener(), stopped, progress)
    digest = trial.digest  # raises for a candidate that doesn't fit, so this comes first
    refuse_taken_delta(home, candidate.name, kept.digest, digest)
    findings = judge(trial, policy, maker)
    reasons = tuple(f"{one.check}: {one.reason}" for one in findings if not one.passed)
    accepted = force or not reasons
    decision = Decision(accepted, None, digest, findings, reasons, bool(reasons) and force)
    of = candidate
    report = {**(of.report or {}), "gate": to_table(decision, maker)}
    sink(_event(trial, maker, policy, decision, report))
    if not accepted:
        if trial.packed_alone:
            discard(home, trial.source.packs)
        return decision
    delta = put_delta(home, of.name, of.kind, of.base_digest, of.tensors, of.origin, report)
    return Decision(True, delta, digest, findings, reasons, decision.forced)


def judge(trial: Trial, policy: Policy, maker: str) -> tuple[Finding, ...]:
    """Run every check that is on and applies; return the findings. Raises as `admit` does. Nothing is kept or recorded."""
    findings = []
    for name in names():
        limits = policy.limits(maker, name)
        if limits.on and (finding := find_check(name).check(trial, limits)) is not None:
            findings.append(finding)
    return tuple(findings)


def admission(
    home: Home, kept: Kept, maker: str, policy: Policy, force: bool = False, sink: Sink = silent,
    say: Callable[[str], None] = silent, progress: Progress = silent,
) -> Admit:  # fmt: skip
    """Return a function that admits a candidate, or raises Refused with all reasons. `say` hears what --force overruled."""

    def enter(candidate: Candidate, stopped: Callable[[], bool]) -> Delta:
        decision = admit(home, kept, candidate, maker, policy, force=force, sink=sink, stopped=stopped, progress=progress)
        if decision.delta is None:
            option = find_maker(maker).strength
            weaker = (
                strongest(Trial(home, kept, candidate, stopped=stopped, progress=progress), decision, policy, maker) if option else None
            )
            cure = "Nothing was kept under that name. Add --force to the same command to admit it all the same; that is recorded."
            if weaker is not None:
                cure = f"What was trained stays: {option} {weaker} with the same command keeps {weaker:.0%} of it, which passes. {cure}"
            raise Refused(f"{kept.name}+{candidate.name}", "was refused by the gate", "; ".join(decision.reasons), cure)
        for reason in decision.reasons:
            say(f"admitted by --force although {reason}")
        return decision.delta

    return enter


def strongest(trial: Trial, refused: Decision, policy: Policy, maker: str) -> float | None:
    """Return the largest share of what was trained, by STRENGTHS, at which the checks pass that a candidate failed; None = at none."""
    failed = [one.check for one in refused.findings if not one.passed]
    for strength in STRENGTHS:
        weaker = weakened(trial.candidate, strength)
        if weaker is None:
            return None
        tried = replace(trial, candidate=weaker)
        findings = [find_check(name).check(tried, policy.limits(maker, name)) for name in failed]
        if tried.packed_alone:
            discard(trial.home, tried.source.packs)
        if all(one is None or one.passed for one in findings):
            return strength_of(weaker)
    return None


def to_table(decision: Decision, maker: str) -> dict[str, Any]:
    """A decision as plain values, for the delta's `report.json`."""
    table: dict[str, Any] = {"version": VERSION, "maker": maker, "accepted": decision.accepted, "forced": decision.forced}
    return table | {"reasons": list(decision.reasons), "findings": [asdict(finding) for finding in decision.findings]}


def _event(trial: Trial, maker: str, policy: Policy, decision: Decision, report: Mapping[str, Any]) -> Event:
    """Event of the decision: candidate, policy, every figure with its interval, the digest of the delta's report; never a word of a
    question."""
    candidate, findings = trial.candidate, decision.findings
    facts: dict[str, Fact] = {"delta": decision.digest, "base": candidate.base_digest, "kind": candidate.kind, "maker": maker}
    facts |= {"policy": policy.digest(maker), "checks": _joined([one.check for one in findings]), "forced": decision.forced}
    if decision.accepted:
        facts["report"] = digest_bytes(report_bytes(report))
    if decision.reasons:
        facts |= {"failed": _joined([one.check for one in findings if not one.passed]), "reasons": _cut("; ".join(decision.reasons))}
    for finding in findings:
        main, *others = finding.reports
        where = f"{finding.check}_{main.name}"
        facts |= {where: main.value, f"{where}_low": main.low, f"{where}_high": main.high, f"{where}_n": main.n}
        facts |= {f"{finding.check}_{other.name}": other.value for other in others}
    if findings:
        facts["model_digest"] = findings[0].reports[0].model_digest
    return Event(ACCEPT if decision.accepted else REFUSE, f"{trial.kept.name}+{candidate.name}", facts)


def _joined(words: Sequence[str]) -> str:
    return _cut(", ".join(words))


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"
