"""Consent: which examples the owner lends to a federation. It is asked for once, recorded, and can be withdrawn. And where it is now.

HOME/federated/KEY/invitation.toml    what was agreed to
HOME/federated/KEY/consent.json       which files, by name, count and digest; deleted when the owner leaves
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ingle.core.digest import canonical_json, digest_bytes, digest_json
from ingle.core.errors import ConfigError, FederatedError, HomeError, counted
from ingle.core.files import os_errors, write_atomic
from ingle.core.report import Event, Fact
from ingle.federated.invitation import MODES, Invitation, from_text, promise_in_words, to_text
from ingle.federated.standing import folder_of, kept_rounds
from ingle.federated.transport import what_left
from ingle.home.kept import list_kept
from ingle.home.place import Home

INVITATION, CONSENT = "invitation.toml", "consent.json"


@dataclass(frozen=True, slots=True)
class LentFile:
    path: str
    examples: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Consent:
    """An owner's agreement: which files are lent, and since when."""

    files: tuple[LentFile, ...]
    at: str  # when, in UTC

    @property
    def examples(self) -> int:
        return sum(file.examples for file in self.files)


def lent(paths: Mapping[Path, int]) -> Consent:
    """Return a consent to learn from these files with so many examples each. Raises HomeError for a file that can't be read."""
    files = []
    for path, examples in paths.items():
        if path.is_dir():
            raise ConfigError("--data", "must name files, so that each is known to be lent", str(path), "Name the files in it.")
        with os_errors(path):
            files.append(LentFile(str(path.absolute()), examples, digest_bytes(path.read_bytes())))
    if not sum(file.examples for file in files):
        raise ConfigError("--data", "must hold at least one example", "none", "Give a file of examples, as for `ingle make tune`.")
    return Consent(tuple(files), datetime.now(UTC).isoformat(timespec="seconds"))


def terms_in_words(invitation: Invitation, examples: int = 0) -> list[str]:
    """Return what an owner is asked to agree to, a sentence a line; `examples` are those that it would lend."""
    homes, rounds = len(invitation.members), counted(invitation.rounds, "round")
    lines = [f"{invitation.name}: {homes} homes learn together, in {rounds} at the most, until {invitation.expires}."]
    if examples:
        lines.append(f"This home would learn from {counted(examples, 'example')}. They stay here; what is learned from them is sent.")
    return [
        *lines, MODES[invitation.mode], promise_in_words(invitation),
        "What was learned together can't be taken out for one home afterwards. `ingle federate leave` ends it for what comes.",
    ]  # fmt: skip


def keep_consent(home: Home, invitation: Invitation, consent: Consent) -> Event:
    """Keep an invitation and what was agreed to. Returns the ledger's fact: counts and digests, never a name of a file."""
    folder = folder_of(home, invitation)
    with os_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(folder / INVITATION, to_text(invitation).encode(), mode=0o600)
    write_atomic(folder / CONSENT, canonical_json(asdict(consent)), mode=0o600)
    facts: dict[str, Fact] = {
        "federation": invitation.digest, "homes": len(invitation.members), "rounds": invitation.rounds,
        "files": len(consent.files), "examples": consent.examples, "data": digest_json([one.sha256 for one in consent.files]),
    }  # fmt: skip
    return Event("federate.join", invitation.name, facts)


def read_consent(home: Home, invitation: Invitation) -> Consent | None:
    """Return what the owner agreed to; None if nothing, or no longer. Raises HomeError for a damaged file."""
    path = folder_of(home, invitation) / CONSENT
    if not path.exists():
        return None
    with os_errors(path):
        data = path.read_bytes()
    try:
        plain = json.loads(data)
        return Consent(tuple(LentFile(**file) for file in plain["files"]), str(plain["at"]))
    except (ValueError, KeyError, TypeError) as error:
        raise HomeError(
            str(path), "must say what the owner agreed to", error, "Join again: `ingle federate join` asks once more."
        ) from error


def check_unchanged(consent: Consent) -> None:
    """Raise FederatedError if a file is no longer the one that the owner agreed to lend."""
    for file in consent.files:
        path = Path(file.path)
        with os_errors(path):
            same = digest_bytes(path.read_bytes()) == file.sha256
        if not same:
            cure = "Say `ingle federate join` with --data again, to agree to what is in it now."
            raise FederatedError("data", f"{path.name} has changed since you agreed to lend it", "", cure)


def withdraw(home: Home, invitation: Invitation) -> Event:
    """Withdraw the consent: this home takes part no more. What it sent stays sent, what it learned stays learned."""
    path = folder_of(home, invitation) / CONSENT
    with os_errors(path):
        path.unlink(missing_ok=True)
    return Event("federate.leave", invitation.name, {"federation": invitation.digest})


def federations(home: Home) -> list[Invitation]:
    """Return the invitations that this home ever agreed to, by name. Raises HomeError for a damaged one."""
    found = []
    for path in sorted(home.federated.glob(f"*/{INVITATION}")):
        with os_errors(path):
            text = path.read_text("utf-8")
        found.append(from_text(text))
    return sorted(found, key=lambda one: one.name)


def find_federation(home: Home, name: str) -> Invitation:
    """Return the invitation of that name, or the only one for an empty name. Raises ConfigError with those that there are."""
    known = federations(home)
    fitting = [one for one in known if name in ("", one.name)]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(one.name for one in known) or "none"
    if not fitting:
        raise ConfigError("NAME", "must be a federation that this home joined", name or "nothing", f"There are: {names}.")
    raise ConfigError("NAME", "Say which federation is meant", names)


@dataclass(frozen=True, slots=True)
class FederationStatus:
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
        return asdict(self)

    def row(self) -> tuple[str, ...]:
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
