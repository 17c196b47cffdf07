"""Audit of a federation in one home: every vote is counted again, every sum added again, every row of the ledger compared."""

from dataclasses import dataclass
from typing import Any

from ingle.core.errors import FederatedError, HomeError
from ingle.federated.at_home import shapes_of
from ingle.federated.invitation import Invitation, check_invitation
from ingle.federated.kept_rounds import replay, same_factors
from ingle.federated.standing import first_standing, read_standing
from ingle.federated.verdict import RoundVerdict
from ingle.home.kept import Kept, list_kept
from ingle.home.place import Home
from ingle.ledger.chain import Ledger


@dataclass(frozen=True, slots=True)
class FederationAudit:
    """Findings of an audit."""

    verdicts: tuple[RoundVerdict, ...]
    problems: tuple[str, ...]  # sentences; none = all is as the homes signed it
    base: str  # digest of where it ends: the same in every home that followed all rounds

    @property
    def sentence(self) -> str:
        """One sentence of the result."""
        if self.problems:
            return " ".join(self.problems)
        return f"All votes, sums and ledger rows agree. Compare with other homes: this one is at {self.base}."

    def table(self) -> dict[str, Any]:
        """Return it as JSON."""
        rounds = [
            {"round": one.number, "homes": len(one.survivors), "yes": len(one.yes), "no": len(one.no), "accepted": one.accepted,
             "digest": one.digest}
            for one in self.verdicts
        ]  # fmt: skip
        return {"rounds": rounds, "problems": list(self.problems), "base": self.base}


def audit(home: Home, invitation: Invitation, ledger: Ledger) -> FederationAudit:
    """Count everything again. Nothing is changed. Raises HomeError for files that can't be read at all."""
    problems: list[str] = []
    try:
        check_invitation(invitation)
    except FederatedError as error:
        problems.append(error.sentence)
    kept = _model(home, invitation)
    shapes = shapes_of(home, kept, invitation)
    start = first_standing(invitation, shapes)
    try:
        reached, verdicts = replay(home, start)
    except HomeError as error:
        return FederationAudit((), (*problems, error.sentence), "")
    now = read_standing(home, invitation, shapes)
    if now.base != reached.base or not same_factors(now.factors, reached.factors):
        problems.append("What this home learned is not the sum of its rounds. Restore its folder from a backup.")
    rows = {row.values.get("digest") for row in ledger.read("federate.round")}
    if missing := [str(one.number) for one in verdicts if one.digest not in rows]:
        problems.append(f"The ledger has no row of round {', '.join(missing)}.")
    return FederationAudit(tuple(verdicts), tuple(problems), reached.base)


def _model(home: Home, invitation: Invitation) -> Kept:
    for kept in list_kept(home):
        if kept.digest == invitation.base:
            return kept
    raise HomeError("base", "The model that the invitation is about is not kept here", invitation.base[:12], "Pull it again.")
