"""Every change to a model is a `Delta`: named tensors + the digest of the base that they apply to + how they came about."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from ingle.core.digest import digest_json
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

    name: str  # the owner's name for it; `MODEL+NAME` is the model with it
    # How the tensors change the base, e.g. `lora`, `full`, `mask`, `layers`.
    kind: str
    base_digest: str  # digest of the base (and of the deltas before this one) that it applies to
    tensors: Mapping[str, TensorEntry]  # by Hugging Face parameter name
    # How it came about: command, data digest, seed, versions.
    origin: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

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
