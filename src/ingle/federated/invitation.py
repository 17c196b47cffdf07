"""The invitation: what a federation is, on one page that people hand to each other. Whoever altered it is found by its signature."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ingle.core.digest import canonical_json, digest_bytes, plain_json
from ingle.core.errors import ConfigError, FederatedError
from ingle.federated.aggregate import aggregation
from ingle.federated.combine import find_rule
from ingle.federated.promise import Privacy, check_promise
from ingle.federated.rounding import Grid
from ingle.federated.terms import Terms
from ingle.ledger.keys import Signer, read_verifier
from ingle.tuning.homework import Learning, check_learning

VERSION = 1
# The modes, in the words that an owner agrees to.
MODES: Mapping[str, str] = {
    "secure": "Nobody ever sees your home's own update, unless all other homes of a sum tell theirs. Sums are of at least three homes.",
    "open": "The coordinator and every other home see your home's own update. From an update others may find out what it was learned from.",
}


@dataclass(frozen=True, slots=True)
class Invitation:
    """Terms that every member agrees to. Nothing of them changes while the federation lives."""

    name: str  # the owner's name for it
    base: str  # digest of the model that all homes have
    coordinator: str  # the ledger's public key of the home that invites
    # The ledgers' public keys of all homes, 64 hex digits each; the coordinator's home is one of them if it trains too.
    members: tuple[str, ...]
    threshold: int  # the fewest homes in a sum
    rounds: int  # rounds at the most; failed ones count only where privacy is promised, for they cost as much
    expires: str  # until when homes may join and rounds may begin, in UTC: 2026-12-31T00:00:00Z
    aggregation: str = "alternate"  # how updates become one: see federated/aggregate.py
    rank: int = 8  # rank of what is learned
    seed: int = 0  # seed of the factors that all homes start from
    reach: float = 0.01  # the largest gain of one number in one round; what is larger is cut
    bits: int = 11  # bits of one number of one home
    link: str = ""  # where the homes find the coordinator: HOST:PORT
    # Whether single updates are seen: see MODES. The two are never mixed.
    mode: str = "secure"
    # How open updates are combined: a file of federated/rules. Empty where the mode is secure.
    rule: str = ""
    learning: Learning = field(default_factory=Learning)  # how every home learns in a round
    privacy: Privacy = field(default_factory=Privacy)  # the promise of privacy beside the secure sum
    signature: str = ""  # the coordinator's, over everything else

    @property
    def content(self) -> bytes:
        """The bytes that are signed."""
        return canonical_json({"ingle": "invitation", "version": VERSION, **asdict(replace(self, signature=""))})

    @property
    def digest(self) -> str:
        """SHA-256 of what is signed: the federation's name in every message."""
        return digest_bytes(self.content)

    def terms(self) -> Terms:
        """Return the terms of its secure sums. Raises ConfigError for terms that protect nobody."""
        root = self.members.index(self.coordinator) if self.coordinator in self.members else -1
        grid = Grid(self.reach, self.bits, len(self.members))
        # Of a promised noise each home adds its share only, and a group of a few has too little of it.
        return Terms(self.digest, self.members, self.threshold, grid, self.rule, whole=bool(self.privacy.unit), root=root)


def invite(invitation: Invitation, signer: Signer) -> Invitation:
    """Sign an invitation as its coordinator. Raises ConfigError if it can't be used."""
    signed = replace(invitation, coordinator=signer.verifier.public)
    signed = replace(signed, signature=signer.sign(signed.content))
    check_invitation(signed)
    return signed


def check_invitation(invitation: Invitation, now: datetime | None = None) -> None:
    """Check what a home is asked to agree to. With `now`, also that it has not expired.

    Raises FederatedError if it was altered or is too old, ConfigError if its terms protect nobody or can't be used.
    """
    try:
        coordinator = read_verifier(invitation.coordinator)
        end = datetime.fromisoformat(invitation.expires)
    except ValueError as error:
        raise ConfigError("invitation", "must name a coordinator's key and a date", error) from error
    if not coordinator.accepts(invitation.signature, invitation.content):
        raise FederatedError("invitation", "The invitation was altered after it was signed", "", "Ask its coordinator for it once more.")
    _check_mode(invitation)
    if invitation.rounds < 1 or invitation.rank < 1:
        raise ConfigError("rounds", "and rank must be at least 1", min(invitation.rounds, invitation.rank))
    check_learning(invitation.learning)
    check_promise(invitation, invitation.terms())
    if end.tzinfo is None:
        raise ConfigError("expires", "must say its time zone", invitation.expires, "Write Z behind it for UTC.")
    if now is not None and now >= end:
        cure = "Ask for a new one. If that can't be, look at this machine's clock."
        rule = f"The invitation was good until {invitation.expires}, and it is {now.astimezone(UTC):%Y-%m-%d %H:%M}Z"
        raise FederatedError("invitation", rule, "", cure)


def _check_mode(invitation: Invitation) -> None:
    terms = invitation.terms()
    if invitation.mode not in MODES:
        raise ConfigError("mode", f"must be one of {', '.join(MODES)}", invitation.mode)
    if (invitation.mode == "open") != bool(invitation.rule):
        rule = "is for open updates: it must be named where the mode is open, and only there"
        raise ConfigError("rule", rule, invitation.rule or "none", 'Write mode = "open" and a rule, or neither.')
    if terms.rule and invitation.privacy.unit:
        cure = "Promise it in the mode secure, or nothing."
        raise ConfigError("privacy.unit", "is for sums: an open update has only its own home's share of the noise", "", cure)
    if aggregation(invitation.aggregation).open:
        rule = f"{invitation.aggregation} makes one pair of all homes' own pairs, which no round does yet"
        raise ConfigError("aggregation", rule, "", "Choose alternate or frozen.")
    if terms.rule:
        needs = find_rule(terms.rule)
        if terms.threshold < needs.LEAST:
            raise ConfigError("rule", f"{terms.rule} needs a threshold of at least {needs.LEAST} homes", terms.threshold)
        if needs.ROOTED and terms.root < 0:
            cure = "Name its key among the members, or choose another rule."
            raise ConfigError("rule", f"{terms.rule} trusts the coordinator's home, and it is no member", "", cure)


def to_text(invitation: Invitation) -> str:
    """Return it as TOML, for people and `from_text`."""
    lines, tables = [f"# An invitation to learn together with Ingle (version {VERSION})."], list[str]()
    for name, value in asdict(invitation).items():
        if isinstance(value, dict):
            tables += ["", f"[{name}]", *(_line(*pair) for pair in value.items())]
        else:
            lines.append(_line(name, value))
    return "\n".join((*lines, *tables, ""))


def from_text(text: str) -> Invitation:
    """Read an invitation. Raises FederatedError if it is none; nothing is verified: `check_invitation` does."""
    try:
        return Invitation(**_typed(Invitation, tomllib.loads(text)))
    except (tomllib.TOMLDecodeError, TypeError) as error:
        cure = "It was cut or altered; ask its coordinator for it once more."
        raise FederatedError("invitation", "can't be read", error, cure) from error


def _line(name: str, value: object) -> str:
    # A JSON string, number or list of strings is TOML too.
    return f"{name} = {plain_json(value).decode()}"


def _typed(cls: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a dataclass as its fields' types have them. Raises TypeError for more, fewer, or others."""
    known: dict[str, Any] = {one.name: one.type for one in fields(cls)}
    if wrong := sorted(set(values) ^ set(known)):
        raise TypeError(f"{wrong[0]} is {'unknown' if wrong[0] not in known else 'missing'}")
    typed = dict[str, Any]()
    for name, kind in known.items():
        plain: type = dict if is_dataclass(kind) else list if name == "members" else kind
        if type(values[name]) is not plain:
            raise TypeError(f"{name} is a {type(values[name]).__name__}")
        value: Any = values[name]
        if isinstance(value, float) and not math.isfinite(value):
            raise TypeError(f"{name} is no number")
        typed[name] = kind(**_typed(kind, value)) if isinstance(value, dict) else tuple(value) if isinstance(value, list) else value
    if not all(type(member) is str for member in typed.get("members", ())):
        raise TypeError("members are keys")
    return typed
