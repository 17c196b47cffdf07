"""Runs of a sweep: what each trains, its key, and its report.

A report is a file that says everything about its run; its outcome (all but times, joules and dates) has a digest of its own, which is the
same wherever the run was made.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingle.core.config import to_table
from ingle.core.digest import digest_json
from ingle.scaling.points import Point
from ingle.scaling.settings import ShapeSettings
from ingle.train.settings import NO_MATTER, TrainSettings

VERSION = 1
"""Changes when the same run trains something else than before."""
OUTCOME = ("key", "label", "parameters", "tokens", "unique", "seed", "kind", "loss", "bits_digest", "precision", "data")
"""Fields of a report that follow from the run alone."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """One training of a sweep."""

    size: str
    """Name of the size, as `2x64`."""
    kind: str
    """Runs of different kinds are never fitted together."""
    data: str
    """Digest of the prepared text."""
    parameters: int
    """Parameters that multiply; a tied matrix counts once."""
    unique: int
    """Tokens of text that may be read, again and again; 0 = all of it."""
    model: ShapeSettings
    train: TrainSettings
    """`max_steps` and `batch_tokens` give the tokens that are read."""

    @property
    def tokens(self) -> int:
        """Tokens that are read."""
        assert self.train.max_steps is not None, "runs of a sweep have a length"
        return self.train.max_steps * self.train.batch_tokens * self.train.accumulate

    @property
    def flops(self) -> float:
        """Floating-point operations of the training, 6·N·D (arXiv 2001.08361)."""
        return 6.0 * self.parameters * self.tokens

    @property
    def label(self) -> str:
        """Name for people."""
        again = f", {self.tokens / self.unique:.3g} times" if self.unique and self.unique < self.tokens else ""
        return f"{self.size}, {self.tokens / 1e6:.2f}M tokens{again}, seed {self.train.seed}"

    @property
    def key(self) -> str:
        """Digest of all that the trained tensors follow from."""
        return digest_json([VERSION, self.data, self.unique, self.tokens, to_table(self.model), _course(self.train)])[:32]

    @property
    def trunk(self) -> str:
        """Digest of all but the length: runs with one trunk can branch from each other."""
        course = {name: value for name, value in _course(self.train).items() if name not in ("max_steps", "epochs", "schedule")}
        return digest_json([VERSION, self.data, self.unique, to_table(self.model), course])[:32]


def climbs_of(runs: Iterable[RunSettings]) -> list[list[RunSettings]]:
    """Group runs that can branch from each other; the group with the most work comes first, and in it the longest run."""
    climbs = dict[str, list[RunSettings]]()
    for run in sorted(runs, key=lambda run: -run.tokens):
        climbs.setdefault(run.trunk, []).append(run)
    return sorted(climbs.values(), key=lambda climb: -climb_flops(climb))


def climb_shares(climb: Sequence[RunSettings]) -> list[tuple[RunSettings, float]]:
    """Return (run, share of its steps that are made for it): the longest whole, of each other one its cool-down."""
    return [(run, run.train.schedule.decay if i else 1.0) for i, run in enumerate(climb)]


def climb_flops(climb: Sequence[RunSettings]) -> float:
    """FLOPs of a climb."""
    return sum(run.flops * share for run, share in climb_shares(climb))


def _course(train: TrainSettings) -> dict[str, Any]:
    table: dict[str, Any] = to_table(train)
    return {name: value for name, value in table.items() if name not in NO_MATTER}


def outcome(report: Mapping[str, Any]) -> str:
    """Digest of the outcome of a run."""
    return digest_json({name: report[name] for name in OUTCOME})


def outcomes(reports: Sequence[Mapping[str, Any]]) -> str:
    """Digest of the outcomes of several runs, in whatever order they come."""
    return digest_json(sorted(outcome(report) for report in reports))


def own_share(report: Mapping[str, Any]) -> float:
    """Share of a run's steps that were made for it alone, not with the trunk that it branched off."""
    return 1 - float(report["shared_steps"]) / float(report["steps"])


def point_of(report: Mapping[str, Any]) -> Point:
    """Return a run as a point for a law."""
    return Point(
        parameters=report["parameters"], tokens=report["tokens"], loss=report["loss"], unique=report["unique"], seed=report["seed"],
        flops=report["flops"], kind=report["kind"], seconds=report["seconds"], joules=report["energy"].get("joules", 0.0),
    )  # fmt: skip
