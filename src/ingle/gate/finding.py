"""Results: one check's finding, and the gate's decision."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ingle.core.delta import Delta
from ingle.core.report import Report


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check."""

    check: str
    """Name of the check."""
    passed: bool
    reason: str
    """The figure and its limit, as a sentence for people; holds no words of any user."""
    reports: tuple[Report, ...]
    """Figures that the result rests on."""
    limits: Mapping[str, Any]
    """Limits of the policy that were applied."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Decision of the gate."""

    accepted: bool
    delta: Delta | None
    """The new delta; None if it was refused."""
    digest: str
    """Digest of the delta that it is, or would have been."""
    findings: tuple[Finding, ...]
    """Results of all checks that applied."""
    reasons: tuple[str, ...]
    """Reasons for refusing it (or for having done so: see `forced`); empty if every check passed."""
    forced: bool = False
    """Accepted although a check failed, because the owner asked for it (--force)."""
