"""Status of a federation, as one home sees it."""

from dataclasses import asdict, dataclass
from typing import Any

from ingle.federated.consent import read_consent
from ingle.federated.invitation import Invitation
from ingle.federated.kept_rounds import kept_rounds
from ingle.federated.outbound import what_left
from ingle.federated.standing import folder_of
from ingle.home.kept import list_kept
from ingle.home.place import Home


@dataclass(frozen=True, slots=True)
class FederationStatus:
    """Where a home is in a federation."""

    name: str
    federation: str  # digest of the invitation
    model: str  # name of the model here; empty if it is not kept
    homes: int
    rounds: int  # rounds at the most
    accepted: int
    dropped: int
    lent: int | None  # examples that the owner lends; None = the consent was withdrawn
    messages: int  # messages that left this machine
    bytes_left: int
    expires: str

    def table(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)

    def row(self) -> tuple[str, ...]:
        """Return it as a table's row."""
        rounds = f"{self.accepted} of {self.rounds}" + (f", {self.dropped} dropped" if self.dropped else "")
        lent = "nothing any more" if self.lent is None else f"{self.lent:,} examples"
        left = f"{self.messages:,} messages, {self.bytes_left / 1e6:,.1f} MB"
        return (self.name, self.model or "not kept", str(self.homes), rounds, lent, left, self.expires[:10])


def federation_status(home: Home, invitation: Invitation) -> FederationStatus:
    """Return where this home is. Raises HomeError for damaged files."""
    verdicts = [verdict for verdict, _ in kept_rounds(home, invitation)]
    accepted = sum(verdict.accepted for verdict in verdicts)
    consent = read_consent(home, invitation)
    messages = what_left(folder_of(home, invitation))
    model = next((kept.name for kept in list_kept(home) if kept.digest == invitation.base), "")
    return FederationStatus(
        invitation.name, invitation.digest, model, len(invitation.members), invitation.rounds, accepted, len(verdicts) - accepted,
        consent.examples if consent else None, len(messages), sum(one.bytes for one in messages), invitation.expires,
    )  # fmt: skip
