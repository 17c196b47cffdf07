"""Results: one check's finding, and the gate's decision."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ingle.core.delta import Delta
from ingle.core.report import Report


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check."""

    check: str  # name of the check
    passed: bool
    reason: str  # the figure and its limit, as a sentence for people; holds no words of any user
    reports: tuple[Report, ...]  # figures that the result rests on
    limits: Mapping[str, Any]  # limits of the policy that were applied


@dataclass(frozen=True, slots=True)
class Decision:
    """Decision of the gate."""

    accepted: bool
    delta: Delta | None  # the new delta; None if it was refused
    digest: str  # digest of the delta that it is, or would have been
    findings: tuple[Finding, ...]  # results of all checks that applied
    reasons: tuple[str, ...]  # reasons for refusing it (or for having done so: see `forced`); empty if every check passed
    forced: bool = False  # accepted although a check failed, because the owner asked for it (--force)
