"""What one check found, and what the gate decides."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ingle.core.delta import Delta
from ingle.core.report import Report


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    """The check's name."""
    passed: bool
    reason: str
    """What was found against which limit, as a sentence for people; holds no words of any user."""
    reports: tuple[Report, ...]
    """The figures that it rests on."""
    limits: Mapping[str, Any]
    """The policy's limits that were applied."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate says."""

    accepted: bool
    delta: Delta | None
    """What is kept now; None if it was refused."""
    digest: str
    """Of the delta that it is, or would have been."""
    findings: tuple[Finding, ...]
    """Of every check that applied."""
    reasons: tuple[str, ...]
    """Why it was refused (or would have been: see `forced`); empty if every check passed."""
    forced: bool = False
    """Accepted although a check failed, because somebody said so."""
