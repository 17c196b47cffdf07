"""A secure sum, from both sides: the coordinator learns the sum of the homes' updates, and nothing else about any of them.

In a round a home says four things, each once, each signed by its ledger's key:

    keys     a new public key, a commitment to a new seed, and for every other home sealed shares of both secrets
    update   the update on the grid + a mask from its own seed ± a mask with every other home that said `keys`
    agree    which updates arrived: every home signs the same list, or the round ends
    shares   of a home whose update arrived: a share of its seed. Of one whose didn't: a share of its key, so that its masks come off

No home tells both kinds of share about one other home, and none tells any before `threshold` homes have signed the same list. So
there is one sum a round, of at least `threshold` homes, as long as no more than `Terms.traitors` homes tell the coordinator all they know.
It could do worse than look: it may announce a wrong sum, which no home can see here; that is what each home's own gate is for.

Source: Bonawitz et al. 2017 (malicious setting). Differs: channels between homes last for a session, and shares go out with the keys; each
update is signed with the list of keys that it was masked for.

Rounds from one base are not independent: the updates are much the same, so one sum less another shows what only one of them holds. So a
home helps with no second sum from a base that would leave fewer than three homes on such a side (`check_apart`).

Every function returns a new value and leaves the old one. Who can be killed must keep `last_round` and `opened` before a message leaves.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, islice
from typing import Any

import numpy as np

from ingle.core.digest import digest_bytes, digest_json
from ingle.core.errors import FederatedError, counted
from ingle.federated.sealing import SECRET_BYTES, SHARE_BYTES, combine, common_key, mask, new_private, public_of, seal, split, unseal
from ingle.federated.statement import Statement, believe, state, text_of
from ingle.federated.terms import FEWEST, Terms, Whole, pack, unpack
from ingle.ledger.keys import Signer

LEAVE = "Do not go on with this coordinator."
Opened = tuple[tuple[str, tuple[int, ...]], ...]  # of each sum, what its round started from and the homes in it


@dataclass(frozen=True)
class Member:
    terms: Terms
    seat: int
    signer: Signer
    channel: bytes = field(repr=False)  # private key of its channels to the other homes, for this session
    channels: Mapping[int, str]  # the other homes' public keys for it, by seat; empty until they joined
    # The highest round that it ever said anything in. It never goes back.
    last_round: int = 0
    opened: Opened = ()  # the sums that it helped to open, and those that it agreed may be opened
    suspended: tuple[int, ...] = ()  # seats of homes that it sums nothing with


@dataclass(frozen=True)
class RoundPart:
    member: Member
    number: int
    base: str  # digest of what the round starts from
    said: Mapping[str, Statement]  # its messages so far, by kind
    private: bytes = field(repr=False)  # this round's key; the masks with the other homes come from it
    seed: bytes = field(repr=False)  # this round's seed; its own mask comes from it
    own_shares: tuple[bytes, bytes] = field(repr=False)  # its own shares of its own key and seed
    roster: Mapping[int, Statement] = field(default_factory=dict)  # the keys that its update was masked for, by seat
    shares: Mapping[int, tuple[bytes, bytes]] = field(default_factory=dict, repr=False)  # by seat: its shares of that home's key and seed
    survivors: tuple[int, ...] = ()  # the homes whose updates arrived, as it signed them


def take_seat(terms: Terms, signer: Signer, last_round: int = 0, opened: Opened = ()) -> Member:
    """Join, or join again after a stop: the home with a new channel key. `last_round` and `opened` are as it kept them.

    Raises FederatedError if the invitation doesn't name this home.
    """
    public = signer.verifier.public
    if public not in terms.members:
        raise FederatedError("member", "This home is not in the invitation", public[:12], "Ask for one that names its key.")
    return Member(terms, terms.members.index(public), signer, new_private(), {}, last_round, opened)


def greet(member: Member, base: str = "") -> Statement:
    """Tell the others that this home is there: its channel key, `base` (digest of what it has so far) and its last round."""
    facts = {"federation": member.terms.federation, "channel": public_of(member.channel), "base": base, "round": member.last_round}
    return state(member.signer, member.seat, "join", facts)


def meet(member: Member, joined: Sequence[Statement]) -> Member:
    """Learn the other homes' channel keys, as they are now: a home that was started anew has a new one.

    Raises FederatedError if one isn't signed by the home that the invitation names.
    """
    channels: dict[int, str] = {}
    for statement in joined:
        believe(statement, "join", member.terms.members, {"federation": member.terms.federation})
        channel = text_of(statement, "channel")
        if channels.get(statement.seat, channel) != channel:
            raise FederatedError("channel", f"The home in seat {statement.seat} joined twice with different keys", "", LEAVE)
        channels[statement.seat] = channel
    if channels.get(member.seat) != public_of(member.channel):
        raise FederatedError("channel", "must be this home's own in its own seat", "another", LEAVE)
    if len(channels) < member.terms.threshold:
        raise FederatedError("homes", f"must be at least {member.terms.threshold}", len(channels), "Wait until more homes have joined.")
    return replace(member, channels=channels)


def check_new(member: Member, number: int) -> None:
    """Raise FederatedError for a round that this home took part in before, or one older than that."""
    if number <= member.last_round:
        rule = f"Round {number} was begun before (the last was {member.last_round})"
        raise FederatedError("round", rule, "", "A round that failed is done again under a new number.")


def begin(member: Member, number: int, base: str) -> tuple[RoundPart, dict[str, Any]]:
    """Begin a round: say `keys`. Returns the message too: the statement, and by seat the sealed shares (hex).

    Raises FederatedError for a round that this home took part in before, or one older than that.
    """
    check_new(member, number)
    member = replace(member, last_round=number)
    private, seed = new_private(), secrets.token_bytes(SECRET_BYTES)
    homes, threshold = len(member.terms.members), member.terms.threshold
    of_key, of_seed = split(private, homes, threshold), split(seed, homes, threshold)
    facts = {**_where(member, number), "base": base, "key": public_of(private), "seed": digest_bytes(seed)}
    said = state(member.signer, member.seat, "keys", facts)
    sealed = {
        seat: seal(_channel(member, seat), of_key[seat + 1] + of_seed[seat + 1], _letter(said, seat)).hex()
        for seat in member.channels
        if seat != member.seat
    }
    own = of_key[member.seat + 1], of_seed[member.seat + 1]
    return RoundPart(member, number, base, {"keys": said}, private, seed, own), {"statement": said, "sealed": sealed}


def hide(part: RoundPart, keys: Sequence[Statement], sealed: Mapping[int, str], update: Whole) -> tuple[RoundPart, Statement, bytes]:
    """Mask an update for the homes whose keys came, once. Returns what it says of it, and the masked numbers as bytes.

    `sealed` holds the shares for this home, by the seat that sent them. Raises FederatedError if any of it is not what that home signed.
    """
    _once(part, "update", "keys")
    terms, member = part.member.terms, part.member
    assert update.ndim == 1, "the update is made by this program"
    roster = _roster(part, keys)
    shares = {member.seat: part.own_shares}
    for seat, statement in roster.items():
        if seat != member.seat:
            plain = unseal(_channel(member, seat), _hex(sealed.get(seat, "")), _letter(statement, member.seat))
            if plain is None or len(plain) != 2 * SHARE_BYTES:
                raise FederatedError("share", f"must be what the home in seat {seat} sealed for this round", "something else", LEAVE)
            shares[seat] = plain[:SHARE_BYTES], plain[SHARE_BYTES:]
    width = terms.grid.width
    hidden = update + mask(part.seed, update.size, width)
    for seat, statement in roster.items():
        if seat != member.seat:
            hidden += pair_mask(terms, part.number, update.size, part.private, member.seat, seat, text_of(statement, "key"))
    payload = pack(hidden & terms.grid.modulus_bits, width)
    said = _say(part, "update", {"roster": roster_digest(roster.values()), "numbers": digest_bytes(payload)})
    return _next(part, said, roster=roster, shares=shares), said, payload


def agree(part: RoundPart, updates: Sequence[Statement]) -> tuple[RoundPart, Statement]:
    """Sign which updates arrived, once. Raises FederatedError if the list can't be right, or is of too few homes."""
    _once(part, "agree", "update")
    member = part.member
    expected = {**_where(member, part.number), "roster": part.said["update"].facts["roster"]}
    survivors = _by_seat(part, updates, "update", expected)
    if strangers := set(survivors) - set(part.roster):
        raise FederatedError("update", f"The home in seat {min(strangers)} sent an update without keys", "", LEAVE)
    check_apart([homes for base, homes in member.opened if base == part.base], sorted(survivors))
    said = _say(part, "agree", {"roster": expected["roster"], "survivors": sorted(survivors)})
    return _next(part, said, survivors=tuple(sorted(survivors))), said


def reveal(part: RoundPart, agreed: Sequence[Statement]) -> tuple[RoundPart, Statement]:
    """Tell the shares that open the sum, once, after enough homes signed the same list; the round's secrets are forgotten with it.

    Raises FederatedError if they signed different lists, or too few signed.
    """
    _once(part, "shares", "agree")
    own = part.said["agree"].facts
    _by_seat(part, agreed, "agree", {**_where(part.member, part.number), "roster": own["roster"], "survivors": own["survivors"]})
    told = {seat: part.shares[seat][1 if seat in part.survivors else 0].hex() for seat in sorted(part.roster)}
    facts = {"survivors": own["survivors"], "of": {str(seat): share for seat, share in told.items()}}
    said = _say(part, "shares", facts)
    member = replace(part.member, opened=(*part.member.opened, (part.base, part.survivors)))
    done = replace(part, member=member, private=b"", seed=b"", own_shares=(b"", b""), shares={})
    return replace(done, said={**part.said, "shares": said}), said


def check_apart(opened: Sequence[Sequence[int]], homes: Sequence[int]) -> None:
    """Raise FederatedError if a sum of `homes`, with those that were opened from the same base, would show fewer than FEWEST of them alone.

    Homes that are in the same of these sums can't be told apart by adding and subtracting them; others can.
    """
    sums = [*opened, homes]
    alike: dict[tuple[bool, ...], list[int]] = {}
    for seat in sorted({seat for one in sums for seat in one}):
        alike.setdefault(tuple(seat in one for one in sums), []).append(seat)
    least = min(alike.values(), key=len)
    if len(least) < FEWEST:
        rule = f"With the sums that were opened before, this one would show the updates of {counted(len(least), 'home')} alone"
        cure = f"Do the round with the homes of before, or with at least {FEWEST} more or fewer."
        raise FederatedError("homes", rule, "", cure)


def pair_mask(terms: Terms, number: int, length: int, private: bytes, seat: int, other: int, other_key: str) -> Whole:
    """Return the mask between two homes as the one in `seat` adds it: the other one's is its opposite. Needs the private key of either."""
    low, high = sorted((seat, other))
    context = {"use": "mask", "federation": terms.federation, "round": number, "between": [low, high]}
    numbers = mask(common_key(private, other_key, context), length, terms.grid.width)
    return numbers if seat == low else -numbers & terms.grid.modulus_bits


def roster_digest(keys: Iterable[Statement]) -> str:
    """Return the SHA-256 over everything that the homes of a round said as their keys."""
    return digest_json({str(statement.seat): statement.digest for statement in keys})


def _roster(part: RoundPart, keys: Sequence[Statement]) -> dict[int, Statement]:
    """Check what the homes said as their keys, and return it by seat."""
    roster = _by_seat(part, keys, "keys", {**_where(part.member, part.number), "base": part.base})
    if strangers := set(roster) - set(part.member.channels):
        raise FederatedError("keys", f"The home in seat {min(strangers)} has not joined", "", LEAVE)
    if left_out := set(roster) & set(part.member.suspended):
        rule = f"The home in seat {min(left_out)} was suspended by the votes on its groups"
        raise FederatedError("keys", rule, "", "Do the round again without it.")
    return roster


def _by_seat(part: RoundPart, statements: Sequence[Statement], kind: str, expected: Mapping[str, Any]) -> dict[int, Statement]:
    """Check statements of one step: signed, of this round, one a home, this home's own among them, and enough."""
    terms, found = part.member.terms, dict[int, Statement]()
    for statement in statements:
        believe(statement, kind, terms.members, expected)
        if statement.seat in found:
            raise FederatedError(kind, f"The home in seat {statement.seat} is in the list twice", "", LEAVE)
        found[statement.seat] = statement
    own, mine = part.said[kind], found.get(part.member.seat)
    if mine is None or mine.bytes != own.bytes:
        got = "missing" if mine is None else "another"
        raise FederatedError(kind, f"This home's own word is not in the list ({kind})", got, "It came too late, or was exchanged.")
    if len(found) < terms.threshold:
        cure = "The round ends without a sum, and nothing of any home is known. Try again when more homes are there."
        raise FederatedError("homes", f"must be at least {terms.threshold} to go on", len(found), cure)
    return found


def _once(part: RoundPart, kind: str, after: str) -> None:
    """Check that this step is the next one: nothing is ever said twice in a round."""
    if kind in part.said or after not in part.said:
        when = "said twice" if kind in part.said else f"said before {after}"
        raise FederatedError("round", f"In round {part.number} this home was asked for something to be {when} ({kind})", "", LEAVE)


def _say(part: RoundPart, kind: str, facts: Mapping[str, Any]) -> Statement:
    return state(part.member.signer, part.member.seat, kind, {**_where(part.member, part.number), **facts})


def _next(
    part: RoundPart, said: Statement, roster: Mapping[int, Statement] | None = None,
    shares: Mapping[int, tuple[bytes, bytes]] | None = None, survivors: tuple[int, ...] = (),
) -> RoundPart:  # fmt: skip
    return replace(
        part, said={**part.said, said.kind: said}, roster=roster or part.roster, shares=shares or part.shares, survivors=survivors
    )


def _where(member: Member, number: int) -> dict[str, Any]:
    return {"federation": member.terms.federation, "round": number}


def _letter(keys: Statement, to: int) -> dict[str, object]:
    """The context that a sealed share is bound to: all that its sender said as its keys, and whom it is for."""
    return {"use": "share", "keys": keys.digest, "to": to}


def _channel(member: Member, seat: int) -> bytes:
    low, high = sorted((member.seat, seat))
    return common_key(
        member.channel, member.channels[seat], {"use": "channel", "federation": member.terms.federation, "between": [low, high]}
    )


def _hex(text: object) -> bytes:
    try:
        return bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        return b""


# The coordinator's side of a secure sum: from masked updates and shares to the sum, whoever dropped out on the way.


MOST_TRIES = 500  # sets of shares that are tried before a secret is given up: some homes may have told wrong ones


def open_sum(
    terms: Terms, number: int, length: int, keys: Mapping[int, Statement], updates: Mapping[int, bytes], told: Mapping[int, Statement]
) -> Whole:
    """Return the sum of the updates on the grid, `length` numbers each, exactly.

    By seat: `keys` is what the homes of the round said as theirs, `updates` the masked numbers of all that were agreed on, `told` their
    shares. All were verified. Raises FederatedError if there are too few shares, or wrong ones.
    """
    if len(told) < terms.threshold:
        cure = "Nothing can be known of any update. Do the round again when more homes are there."
        raise FederatedError("homes", f"must be at least {terms.threshold} to open a sum", len(told), cure)
    width = terms.grid.width
    total = np.zeros(length, np.uint32)
    for payload in updates.values():
        total += unpack(payload, length, width)
    for seat, statement in keys.items():
        shares = _shares(told, seat)
        if seat in updates:
            total -= mask(_secret(terms, seat, "seed", shares, text_of(statement, "seed")), length, width)
        else:
            private = _secret(terms, seat, "key", shares, text_of(statement, "key"))
            for other in updates:  # what the one who dropped out would have added, its partners have subtracted
                total += pair_mask(terms, number, length, private, seat, other, text_of(keys[other], "key"))
    return total & terms.grid.modulus_bits


def seeds_of(terms: Terms, keys: Mapping[int, Statement], homes: Iterable[int], told: Mapping[int, Statement]) -> dict[int, str]:
    """Return the seeds (hex) of the homes in a sum that was opened, from their shares. Raises FederatedError as `open_sum` does."""
    seeds: dict[int, str] = {}
    for seat in homes:
        seeds[seat] = _secret(terms, seat, "seed", _shares(told, seat), text_of(keys[seat], "seed")).hex()
    return seeds


def plain_sum(updates: Iterable[Whole]) -> Whole:
    """Return the sum of updates that lie open: what a secure sum must be equal to."""
    total = np.stack(list(updates)).astype(np.uint64).sum(axis=0)
    return np.asarray(total, np.uint32)


def _secret(terms: Terms, seat: int, what: str, shares: Mapping[int, bytes], expected: str) -> bytes:
    """Put a home's secret together from its shares, and compare it with what that home committed itself to."""
    for tried in islice(combinations(sorted(shares), terms.threshold), MOST_TRIES):
        secret = combine({x: shares[x] for x in tried})
        if secret is not None and (digest_bytes(secret) if what == "seed" else public_of(secret)) == expected:
            return secret
    cure = "Homes told wrong shares, or that home dealt them. Do the round again without it."
    raise FederatedError(
        "shares", f"The shares of the {what} of the home in seat {seat} don't fit together", f"{len(shares)} of them", cure
    )


def _of(said: Statement) -> Mapping[str, str]:
    told = said.facts.get("of")
    return told if isinstance(told, dict) else {}


def _shares(told: Mapping[int, Statement], seat: int) -> dict[int, bytes]:
    """Return what was told of a home's secret, by the number of the share."""
    return {teller + 1: share for teller, said in told.items() if (share := _share(said, seat)) is not None}


def _share(said: Statement, seat: int) -> bytes | None:
    """Return the share of a home's secret as another home told it; None if it is none."""
    try:
        share = bytes.fromhex(_of(said).get(str(seat), ""))
    except (TypeError, ValueError):
        return None
    return share if len(share) == SHARE_BYTES else None


# Work out a sum again from what its homes signed: whoever has the masked updates and the shares needs nobody's word for it.
# The masked updates show no more than the sum does, to whomever; so all homes may have them.


SAID = ("keys", "update", "shares")  # the statements that a sum of all its homes follows from


def witnessed_sum(
    terms: Terms, number: int, base: str, length: int, said: Mapping[str, Sequence[Statement]], bodies: Mapping[int, bytes]
) -> Whole:  # fmt: skip
    """Return the sum of all homes of these terms. Raises FederatedError if any of it is not what each of them signed."""
    everybody = list(range(len(terms.members)))
    where = {"federation": terms.federation, "round": number}
    by_kind = {kind: {statement.seat: statement for statement in said.get(kind, ())} for kind in SAID}
    for kind, statements in by_kind.items():
        if sorted(statements) != everybody:
            raise FederatedError(kind, "must be said by every home of the group", f"{len(statements)} of {len(everybody)}", LEAVE)
    roster = roster_digest(by_kind["keys"].values())
    for seat in everybody:
        believe(by_kind["keys"][seat], "keys", terms.members, {**where, "base": base})
        believe(by_kind["update"][seat], "update", terms.members, {**where, "roster": roster, "numbers": digest_bytes(bodies[seat])})
        believe(by_kind["shares"][seat], "shares", terms.members, {**where, "survivors": everybody})
    return open_sum(terms, number, length, by_kind["keys"], bodies, by_kind["shares"])
