"""Every change to a model is a `Delta`: named tensors + the digest of the base that they apply to + how they came about."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_bytes, digest_json
from ingle.core.errors import DeltaError


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a delta: its shape, its type (safetensors' name for it) and the SHA-256 of its bytes."""

    shape: tuple[int, ...]
    dtype: str
    sha256: str


@dataclass(frozen=True)
class Delta:
    """The manifest of one change. The tensors themselves lie beside it in a safetensors file."""

    name: str
    """The owner's name for it; `MODEL+NAME` is the model with it."""
    kind: str
    """How the tensors change the base, e.g. `lora`, `full`, `mask`, `layers`."""
    base_digest: str
    """Digest of the base (and of the deltas before this one) that it applies to."""
    tensors: Mapping[str, TensorEntry]
    """By Hugging Face parameter name."""
    origin: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """How it came about: command, data digest, seed, versions."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the manifest, and through the tensors' digests over every byte. Takes some ms the first time."""
        tensors = {name: {"shape": entry.shape, "dtype": entry.dtype, "sha256": entry.sha256} for name, entry in self.tensors.items()}
        return digest_json(
            {"name": self.name, "kind": self.kind, "base": self.base_digest, "tensors": tensors, "origin": dict(self.origin)}
        )

    def check_base(self, *digests: str) -> None:
        """Raise DeltaError unless one of these digests is of the base that this delta was made for."""
        if self.base_digest not in digests:
            raise DeltaError(
                "delta",
                f"The delta {self.name} was made for base {self.base_digest[:12]}, not for {digests[0][:12]}",
                "",
                "Apply it to that base, or make it again.",
            )


# A candidate: a change to a model that has not been judged. It is stored nowhere; the gate makes a `Delta` of it, or says why not.


@dataclass(frozen=True)
class Candidate:
    """A proposed delta. Its tensors lie in memory only."""

    name: str
    """The name that the delta would have."""
    kind: str
    """How the tensors change the base, as in `Delta`."""
    base_digest: str
    """Digest of the base (and of the deltas before) that it was made for."""
    tensors: Mapping[str, npt.NDArray[Any]]
    """By Hugging Face parameter name: float32, float16, or uint8 for packed bits."""
    origin: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """How it came about; becomes the delta's."""
    report: Mapping[str, Any] | None = None
    """The maker's measurements; they become the delta's `report.json`."""

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


Admit = Callable[[Candidate, Callable[[], bool]], Delta]
"""Judge a candidate: keep it as a delta, or raise Refused. The second argument returns True once it should stop."""
