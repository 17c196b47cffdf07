"""The invitation: what a federation is, on one page that people hand to each other, and the privacy that it promises.

Whoever altered an invitation is found by its signature. What keeps its promise in each home:

| unit | in a round, a home | what is one unit's part in the sum at most |
|---|---|---|
| `record` | draws its records by a secret chance, cuts each one's gradient to `clip`, steps along their sum | one record: step · `clip` |
| `home` | learns as without, and cuts its whole gain to `clip` | one home: `clip` |

Then it adds its share of the noise, and only then comes the secure sum. So a round is one step of the accountant: whatever follows from its
sum (votes on it, the next round's start) is known from the sum. That is why a home takes one step a round for the unit `record`: of two
steps before a sum, the second would follow from the first one's records, which no noise covers.

Every home's share is `noise` · length / √honest, with honest the fewest homes in a sum less those that may tell all they know. So homes
that drop out take noise with them that isn't needed.

Numbers go onto a grid after the noise, each to its nearest point. That costs no privacy. Let N be a home's noise and u uniform within half
a step: nearest(x + N) is a point of the grid with the density that x + N + u has there. For the sum of two homes such densities are
convolved on the grid's points. If they are LEAST_STEPS steps wide, that is their convolution on the line, but for a share of
e^(−π² LEAST_STEPS²) < 1e-38 (Poisson's summation). So the sum is distributed as nearest(Σx + ΣN + the other homes' u), which is worked
out from Σx + ΣN alone.
Nothing is cut after the noise: the signal is cut before, number by number, to what the grid leaves beside MOST_DEVIATIONS of noise, and
the noise drawn is never more than that.

Outside of the promise are a home's votes. Each is one bit about examples that are in no sum. And arithmetic in float32, in which a
record's gradient depends a little on those beside it; records are cut shorter by a thousandth for that (train/by_document.py).
"""

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np

from ingle.core.digest import canonical_json, digest_bytes, plain_json
from ingle.core.errors import ConfigError, FederatedError
from ingle.federated.aggregate import aggregation
from ingle.federated.open_round import find_rule
from ingle.federated.privacy import UNITS, PrivacyPlan, Row, check_learnable, epsilon, noise_for, noise_share
from ingle.federated.terms import Grid, Terms
from ingle.ledger.keys import Signer, read_verifier
from ingle.tuning.homework import Learning, check_learning

LEAST_STEPS = 3.0  # steps of the grid in one standard deviation of a home's noise, at the fewest
MOST_DEVIATIONS = 9.0  # standard deviations beyond which no noise is drawn: 53 random bits reach 8.6
ROOM, USUAL_ROOM = 1.0, 3.0  # standard deviations of a home's noise that its own signal may have in one number, at the fewest and usually


@dataclass(frozen=True, slots=True)
class Privacy:
    """Who is protected, and by which noise. All of it empty: nothing is, but for what the secure sum hides."""

    unit: str = ""  # for whom: `record`, one example of one home; `home`, all that a home has; empty: for nobody
    epsilon: float = 0.0  # who sees all sums can tell a run with the unit from one without by a factor e^ε at the most, over all rounds
    delta: float = 0.0  # the chance with which the promise may fail
    clip: float = 0.0  # length to which a unit's part is cut
    noise: float = 0.0  # standard deviation of the noise in a sum, in lengths of the longest part
    # Chance of a record to be in a round. 1 for homes: who takes part is known.
    share: float = 1.0
    records: int = 0  # records that all homes together are thought to learn from; the step is divided by share · records
    numbers: int = 0  # the most numbers that a round trains


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


def plan_of(invitation: Invitation) -> PrivacyPlan:
    """Return the plan that the accountant reads: every round is a step, failed ones too. Raises ConfigError for impossible values."""
    of = invitation.privacy
    return PrivacyPlan(of.unit, of.noise, of.share, invitation.rounds, of.delta)


def check_promise(invitation: Invitation, terms: Terms) -> None:
    """Check that the promise is kept by these terms, and leaves something to be learned. Raises ConfigError with the figures."""
    of = invitation.privacy
    if not of.unit:
        if of != Privacy():
            raise ConfigError("privacy.unit", f"must be {' or '.join(UNITS)} if anything is promised", "nothing", "Or leave out the rest.")
        return
    plan = plan_of(invitation)
    if of.unit == "home" and of.share != 1:
        raise ConfigError("privacy.share", "must be 1 for homes: who takes part in a round is known to all", of.share)
    if not 0 < of.clip < float("inf"):
        raise ConfigError("privacy.clip", "must be above 0", of.clip)
    if of.unit == "record" and of.records < 1:
        raise ConfigError("privacy.records", "must be at least 1", of.records)
    if of.numbers < 1:
        raise ConfigError("privacy.numbers", "must be at least 1", of.numbers)
    if not 0 < of.epsilon < float("inf"):
        raise ConfigError("privacy.epsilon", "must be above 0", of.epsilon)
    if (real := _epsilon(plan)) > of.epsilon:
        rule = f"must be at least {real:.4g}, which is what {plan.steps} rounds with noise {of.noise:g} and share {of.share:g} give"
        raise ConfigError("privacy.epsilon", rule, of.epsilon, f"Take more noise ({noise_for(plan, of.epsilon):g}), or fewer rounds.")
    check_learnable(plan, of.numbers, _units(invitation))
    deviation, grid = home_deviation(invitation, terms), terms.grid
    least, most = (MOST_DEVIATIONS + ROOM) * deviation, deviation / LEAST_STEPS * grid.half
    if not least <= grid.reach <= most:
        rule = f"must be from {least:.3g} to {most:.3g}, where noise of {deviation:.3g} neither is cut nor falls between two points"
        raise ConfigError("reach", rule, grid.reach)


def promised(invitation: Invitation) -> Invitation:
    """Return an invitation with the noise that its ε asks for, and a reach that the noise fits into. Raises ConfigError."""
    of = invitation.privacy
    if not of.unit:
        return invitation
    any_noise = PrivacyPlan(of.unit, 1.0, of.share, invitation.rounds, of.delta)
    noisy = replace(invitation, privacy=replace(of, noise=noise_for(any_noise, of.epsilon)))
    deviation = home_deviation(noisy, _terms(noisy))
    return replace(noisy, reach=float(f"{(MOST_DEVIATIONS + USUAL_ROOM) * deviation:.3g}"))


def promise_in_words(invitation: Invitation) -> str:
    """Return what is promised beside the secure sum, as a sentence for the owner who is asked."""
    of = invitation.privacy
    if not of.unit:
        return "What the sums say about single examples is not bounded: the invitation promises no differential privacy."
    whom = "one of this home's examples" if of.unit == "record" else "anything that this home has"
    return (
        f"Noise hides whether {whom} had a part in the sums: ε {of.epsilon:g}, δ {of.delta:g}, over {invitation.rounds} rounds, "
        "with failed ones. This home's votes are outside of it."
    )


def spent_epsilon(invitation: Invitation, steps: int) -> float:
    """Return ε of so many rounds; 0 for none. Raises ConfigError if nothing was promised."""
    return _epsilon(replace(plan_of(invitation), steps=steps)) if steps else 0.0


def longest_part(invitation: Invitation) -> float:
    """Return the length of what one unit may add to a sum, as gains count."""
    return invitation.privacy.clip * step_length(invitation)


def step_length(invitation: Invitation) -> float:
    """Return what a home multiplies its records' summed gradients with: the mean over all homes then has gone `rate` along their mean."""
    of = invitation.privacy
    return invitation.learning.rate * len(invitation.members) / (of.share * of.records) if of.unit == "record" else 1.0


def home_deviation(invitation: Invitation, terms: Terms) -> float:
    """Return the standard deviation of the noise that one home adds to each number of its gain."""
    return noise_share(invitation.privacy.noise, longest_part(invitation), terms.threshold - terms.traitors)


def with_noise(gain: Row, invitation: Invitation, terms: Terms) -> Row:
    """Return a home's gain as it may go into a sum: a home's part cut to its length, then this home's share of the noise."""
    of = invitation.privacy
    if of.unit == "home" and (length := float(np.linalg.norm(gain))) > of.clip:
        gain = gain * (of.clip / length)
    deviation = home_deviation(invitation, terms)
    room = terms.grid.reach - MOST_DEVIATIONS * deviation
    # Cutting single numbers brings two signals no farther apart.
    return np.clip(gain, -room, room) + deviation * secret_normal(gain.size)


def secret_normal(count: int) -> Row:
    """Draw from the standard normal distribution with the system's own randomness (Box and Muller 1958)."""
    pairs = -(-count // 2)
    uniform = ((np.frombuffer(os.urandom(16 * pairs), np.uint64) >> np.uint64(11)).astype(np.float64) + 1.0) * 2.0**-53  # (0, 1]
    length, angle = np.sqrt(-2.0 * np.log(uniform[:pairs])), 2.0 * np.pi * uniform[pairs:]
    return np.concatenate((length * np.cos(angle), length * np.sin(angle)))[:count]


def _units(invitation: Invitation) -> float:
    of = invitation.privacy
    return of.share * of.records if of.unit == "record" else float(invitation.threshold)


def _terms(invitation: Invitation) -> Terms:
    return Terms("", invitation.members, invitation.threshold, Grid(1.0, invitation.bits, len(invitation.members)))


@lru_cache(maxsize=256)
def _epsilon(plan: PrivacyPlan) -> float:
    return epsilon(plan)
