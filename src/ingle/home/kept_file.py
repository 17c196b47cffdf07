"""A file that is kept, with the digest that proves it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeptFile:
    """One file of a base, or of a pack."""

    name: str  # file name within its folder; these have no folders
    size: int  # bytes
    sha256: str
