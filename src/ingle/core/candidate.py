"""A candidate: a change to a model that has not been judged. It is stored nowhere; the gate makes a `Delta` of it, or says why not.

It is not in core/delta.py: whoever lists a home reads deltas, and needs no NumPy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.delta import Delta
from ingle.core.digest import digest_bytes, digest_json


@dataclass(frozen=True)
class Candidate:
    """A proposed delta. Its tensors lie in memory only."""

    name: str  # the name that the delta would have
    kind: str  # how the tensors change the base, as in `Delta`
    base_digest: str  # digest of the base (and of the deltas before) that it was made for
    tensors: Mapping[str, npt.NDArray[Any]]  # by Hugging Face parameter name: float32, float16, or uint8 for packed bits
    origin: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # how it came about; becomes the delta's
    report: Mapping[str, Any] | None = None  # the maker's measurements; they become the delta's `report.json`

    @cached_property
    def content_digest(self) -> str:
        """SHA-256 of its effect: kind, base and every byte of its tensors, regardless of name and origin."""
        tensors = {
            name: [list(values.shape), values.dtype.name, digest_bytes(np.ascontiguousarray(values).tobytes())]
            for name, values in self.tensors.items()
        }
        return digest_json({"kind": self.kind, "base": self.base_digest, "tensors": tensors})


def weakened(candidate: Candidate, strength: float) -> Candidate | None:
    """Return the candidate at a share of its present strength; None for a kind that can't be scaled. Its origin has the share of what was
    trained."""
    if candidate.kind != "lora":
        return None
    parts = {name: values * values.dtype.type(strength) if ".lora_B." in name else values for name, values in candidate.tensors.items()}
    return replace(candidate, tensors=parts, origin={**candidate.origin, "strength": f"{strength * strength_of(candidate):.3g}"})


def strength_of(candidate: Candidate) -> float:
    """Return the share of what was trained that a candidate is, 0 to 1."""
    return float(candidate.origin.get("strength", 1))


# Judge a candidate: keep it as a delta, or raise Refused. The second argument returns True once it should stop.
Admit = Callable[[Candidate, Callable[[], bool]], Delta]
