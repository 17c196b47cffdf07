"""The terms of a secure sum: who takes part, how many must stay, and which numbers are summed. All homes have them from the invitation."""

from dataclasses import dataclass

from ingle.core.errors import ConfigError
from ingle.federated.rounding import Grid
from ingle.ledger.keys import read_verifier

FEWEST = 3  # in a sum of two, each of them can work out the other's update


@dataclass(frozen=True, slots=True)
class Terms:
    """Checks that every home makes by itself, whatever a coordinator says."""

    federation: str  # digest of the invitation
    members: tuple[str, ...]  # the ledger's public key of each home, 64 hex digits; a home's seat is its place here
    threshold: int  # the fewest homes that a sum is made of; that many are also needed to open it
    grid: Grid
    # How updates are combined in the open (federated/rules). Empty: secure, and no single update is ever shown.
    rule: str = ""
    # True if only sums of all may be opened: where each home adds its share of a noise that hides records in the sum of all only.
    whole: bool = False
    root: int = -1  # seat of the coordinator's home; −1 if it doesn't take part

    def __post_init__(self) -> None:
        homes = len(self.members)
        if homes < FEWEST:
            cure = "Invite more homes: in a sum of two, each can work out what the other sent."
            raise ConfigError("members", f"must be at least {FEWEST}", homes, cure)
        if len(set(self.members)) < homes:
            raise ConfigError("members", "must be different", "the same key twice", "Each home has a ledger's key of its own.")
        for public in self.members:
            try:
                read_verifier(public)
            except ValueError as error:
                raise ConfigError("members", "must be public keys of 64 hex digits", public[:70]) from error
        least = fewest_of(homes)
        if not least <= self.threshold <= homes:
            cure = "With fewer, a coordinator could open two different sums of one round, and subtract them."
            raise ConfigError("threshold", f"must be from {least} to {homes} for {homes} homes", self.threshold, cure)
        if self.grid.homes < homes:
            raise ConfigError("grid", f"must have room for {homes} homes", self.grid.homes)

    @property
    def traitors(self) -> int:
        """The most homes that may tell everything to the coordinator, before it can open more than one sum of a round."""
        return max(0, 2 * self.threshold - len(self.members) - 1)


def fewest_of(homes: int) -> int:
    """Return the lowest threshold that a home accepts: two thirds, and three."""
    return max(FEWEST, -(-2 * homes // 3))
