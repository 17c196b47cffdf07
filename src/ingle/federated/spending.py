"""Privacy that a home has spent in a federation, kept in HOME/federated/KEY/spent.json: it is written before anything leaves.

A round counts when its noisy update is made, whatever becomes of it. So after a kill it may be counted too high, never too low. Learning
that fails before costs nothing: nothing of it leaves.
"""

import json

from ingle.core.digest import canonical_json
from ingle.core.errors import FederatedError, HomeError
from ingle.core.files import os_errors, write_atomic
from ingle.core.report import Event, Fact
from ingle.federated.invitation import Invitation
from ingle.federated.promise import spent_epsilon
from ingle.federated.standing import folder_of, read_said
from ingle.home.place import Home

SPENT = "spent.json"


def read_spent(home: Home, invitation: Invitation) -> int:
    """Return how many rounds were paid for. Raises HomeError for a file that is damaged, or gone although this home took part."""
    path = folder_of(home, invitation) / SPENT
    cure = "Leave this federation: without it nobody knows what was promised already. A new invitation begins anew."
    if not path.exists():
        if read_said(home, invitation)[0]:
            raise HomeError(str(path), "must say how much privacy was spent", "no such file", cure)
        return 0
    with os_errors(path):
        data = path.read_bytes()
    try:
        return int(json.loads(data)["rounds"])
    except (ValueError, KeyError, TypeError) as error:
        raise HomeError(str(path), "must say how much privacy was spent", error, cure) from error


def next_round(home: Home, invitation: Invitation) -> int:
    """Return which round will be paid for next. Raises FederatedError where all was spent, HomeError."""
    rounds = read_spent(home, invitation) + 1
    if rounds > invitation.rounds:
        rule = f"All of the privacy that was promised is spent: {invitation.rounds} rounds, ε {invitation.privacy.epsilon:g}"
        raise FederatedError("privacy", rule, "", "Go on under a new invitation; what both spend adds up.")
    return rounds


def spend(home: Home, invitation: Invitation) -> Event:
    """Pay for one more round, on the disk. Returns the fact of it. Raises FederatedError where all was spent, HomeError."""
    rounds, of = next_round(home, invitation), invitation.privacy
    path = folder_of(home, invitation) / SPENT
    with os_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(path, canonical_json({"rounds": rounds}), mode=0o600)
    facts: dict[str, Fact] = {
        "federation": invitation.digest, "unit": of.unit, "rounds": rounds, "epsilon": round(spent_epsilon(invitation, rounds), 4),
        "delta": of.delta, "of_epsilon": of.epsilon,
    }  # fmt: skip
    return Event("federate.spent", invitation.name, facts)
