"""Proofs of what is kept: every stored answer, everything taught, every API key and every delta's report is compared with what the
ledger says of it.

Nothing is generated and nothing is written. A fault is looked at twice, because a server may be writing meanwhile.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from ingle.adapt.account import taught_faults
from ingle.app.answer_key import proven_by
from ingle.app.replay import kept_as_said, request_of
from ingle.core.errors import IngleError
from ingle.home.api_keys import key_hashes, list_keys
from ingle.home.deltas import REPORT, report_digest
from ingle.home.place import Home
from ingle.home.turns import altered_turns, answers_kept, get_any_turn
from ingle.ledger.chain import Ledger
from ingle.scaling.foretold import order_faults

if TYPE_CHECKING:
    from sqlalchemy import Engine

Fault = tuple[str, str]  # (the thing, what is wrong with it)
_Part = tuple[int, int, list[Fault]]  # (number compared, number that can't be, faults)
_KEY_FACTS = ("name", "requests_per_minute", "sha256")
_LETS_IN = ("gate.accept", "pull")  # kinds of facts by which deltas come into a home
# Facts of a key that was given more than others. A key that was made before there was such a right doesn't have it.
_RIGHTS = ("metrics", "guards")


@dataclass(frozen=True, slots=True)
class Proofs:
    """How much was compared, and what differs."""

    answers: int = 0  # stored answers that were compared with their facts
    taught: int = 0  # corrections, facts and ratings that were compared with theirs
    keys: int = 0
    unproven: int = 0  # texts that can't be compared: no digest of them is in the ledger
    faults: tuple[Fault, ...] = ()


def proofs(home: Home, engine: "Engine", ledger: Ledger, key: bytes | None) -> Proofs:
    """Compare all that is kept with the ledger. `key`: that of the answers' digests; None = there is none, so no answer can be compared."""
    found = _look(home, engine, ledger, key)
    if not found.faults:
        return found
    again = _look(home, engine, ledger, key)
    return Proofs(again.answers, again.taught, again.keys, again.unproven, tuple(one for one in again.faults if one in found.faults))


def _look(home: Home, engine: "Engine", ledger: Ledger, key: bytes | None) -> Proofs:
    parts: Mapping[str, Callable[[], _Part]] = {
        "the stored answers": lambda: _answers(engine, ledger, key),
        "what was taught": lambda: taught_faults(engine, ledger),
        "the API keys": lambda: _keys(engine, ledger),
        "predictions": lambda: (0, 0, order_faults(reversed(list(ledger.read("scale"))))),
        "reports of deltas": lambda: (0, 0, _reports(home, ledger)),
    }
    found = [_guarded(name, part) for name, part in parts.items()]
    (answers, _, _), (taught, _, _), (keys, _, _), *_ = found
    return Proofs(answers, taught, keys, sum(part[1] for part in found), tuple(fault for part in found for fault in part[2]))


def _guarded(name: str, part: Callable[[], _Part]) -> _Part:
    """Return the part; a row that can't be read ends it, and no other."""
    try:
        return part()
    except IngleError as error:
        return 0, 0, [(name, error.sentence)]


def _answers(engine: "Engine", ledger: Ledger, key: bytes | None) -> _Part:
    kept = answers_kept(engine)
    wanted = dict[int, list[tuple[str, str]]]()
    proven = proven_by(ledger, key) if key is not None else lambda _seq: False
    for turn, completion, seq in kept:
        if seq is not None and proven(seq):
            wanted.setdefault(seq, []).append((turn, completion))
    compared, faults = 0, [(f"turn {id_[:12]}", "its words are not those that its id is a digest of") for id_ in altered_turns(engine)]
    for seq, facts in _facts(ledger, wanted):
        for turn, completion in wanted[seq]:
            compared += 1
            try:
                faults += [(f"answer {completion}", what) for what in _differs(engine, key or b"", seq, facts, turn, completion)]
            except IngleError as error:
                faults.append((f"answer {completion}", error.sentence))
    return compared, len(kept) - compared, faults


def _differs(engine: "Engine", key: bytes, seq: int, facts: Mapping[str, Any], turn_id: str, completion: str) -> Iterator[str]:
    turn = get_any_turn(engine, turn_id)
    if turn is None:
        return  # it was deleted meanwhile
    if facts.get("id") != completion:
        yield f"fact {seq}, which it names, is not its own"
        return
    if any((turn.facts or {}).get(name) != value for name, value in facts.items() if name != "request"):  # there it is the text itself
        yield f"its kept figures are not those of fact {seq}"
    request_same, answer_same = kept_as_said(key, facts, request_of(engine, turn), turn.message.text)
    if not request_same:
        yield f"the kept request is not the one of fact {seq}"
    if not answer_same:
        yield f"the kept answer is not the one of fact {seq}"


def _facts(ledger: Ledger, wanted: Mapping[int, object]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the wanted facts of answers; an empty one where the ledger holds no answer of that number."""
    left = set(wanted)
    for row in ledger.read("answer") if left else ():
        if row.seq in left:
            left.remove(row.seq)
            yield row.seq, row.values
        if not left:
            return
    yield from ((seq, {}) for seq in sorted(left))


def _keys(engine: "Engine", ledger: Ledger) -> _Part:
    made = {row.subject: row.values for row in ledger.read("key.add")}
    revoked = {row.subject: row.seq for row in ledger.read("key.revoke")}
    hashes, keys = key_hashes(engine), list_keys(engine)
    faults = [(f"key {id_}", "it is no longer in the database") for id_ in sorted(made.keys() - hashes.keys())]
    for key in keys:
        now = {"name": key.name, "requests_per_minute": key.requests_per_minute, "sha256": hashes.get(key.id)}
        now |= {name: getattr(key, name) for name in _RIGHTS}
        facts = made.get(key.id)
        if key.id in revoked and key.revoked is None:
            faults.append((f"key {key.id}", f"fact {revoked[key.id]} revoked it, and the database lets it in"))
        elif facts is None and key.revoked is None:
            faults.append((f"key {key.id}", "the database lets it in, and no fact says that it was made"))
        elif facts is not None:
            changed = [name for name in _KEY_FACTS if name in facts and facts[name] != now[name]]
            changed += [name for name in _RIGHTS if facts.get(name, False) != now[name]]
            faults += [(f"key {key.id}", f"its {name} is not what the ledger says") for name in changed]
    return len(keys), 0, faults


def _reports(home: Home, ledger: Ledger) -> list[Fault]:
    """Return the deltas whose report is none that a fact let in. One that came before facts held its digest says nothing."""
    said: dict[str, dict[str, int]] = {}
    for row in chain(*map(ledger.read, _LETS_IN)):
        if report := row.values.get("report"):
            # Several: the same delta was let in again, and a kill may have left the report of before.
            said.setdefault(str(row.values["delta"]), {}).setdefault(str(report), row.seq)
    return [
        (f"delta {digest[:12]}", f"its {REPORT} is not the one of fact {max(reports.values())}")
        for digest, reports in said.items()
        if home.delta_folder(digest).exists() and report_digest(home, digest) not in reports
    ]
