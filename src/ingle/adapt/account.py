"""The ledger's facts of examples: kind, owner, and keyed digests of the words; never a word."""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ingle.core.example import STATES, Example
from ingle.core.report import Event, Fact, Sink
from ingle.home.examples import example_secret, list_examples
from ingle.home.place import Home
from ingle.ledger.chain import Ledger

if TYPE_CHECKING:
    from sqlalchemy import Engine

_YOUNG = timedelta(minutes=1)  # the fact of a younger example may still be on its way


def words_digest(secret: bytes, words: str) -> str:
    """Return the keyed digest of an example's words. `secret` is the example's own (`example_secret`) and is deleted with it."""
    return hmac.digest(secret, words.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()


def digests(secret: bytes, example: Example) -> dict[str, Fact]:
    """Return the digests of an example's question and answer, of those that it has. Without a key (an older Ingle's example) there are
    none: words could be guessed by them."""
    words = {"question": example.question, "answer": example.answer}
    return {name: words_digest(secret, text) for name, text in words.items() if text and secret}


def feedback_event(engine: "Engine", example: Example, superseded: int) -> Event:
    """Return the fact of a new example; `superseded`: how many earlier ones it replaces."""
    facts: dict[str, Fact] = {
        "example": example.id, "kind": example.kind, "rating": example.rating, "learn": example.learn, "superseded": superseded,
    }  # fmt: skip
    optional = {name: value for name, value in (("id", example.completion), ("key", example.owner)) if value}
    return Event("feedback", example.model, {**facts, **digests(example_secret(engine, example.owner, example.id), example), **optional})


def taught_faults(engine: "Engine", ledger: Ledger) -> tuple[int, int, list[tuple[str, str]]]:
    """Compare every kept example with what the ledger says of it: kind, rating, consent, and the digests of its words.

    Returns how many were compared, how many can't be (an older Ingle's have no digest, and a fact may be on its way), and
    (example, fault).
    """
    said: dict[str, dict[str, Fact]] = {}
    for kind in ("feedback", "memory.edit"):  # an edit comes after what it edits, and has the digests of the new words
        latest = {str(row.values.get("example")): row.values for row in reversed(tuple(ledger.read(kind)))}
        said |= {id_: said.get(id_, {}) | values for id_, values in latest.items()}
    compared, faults, examples = 0, list[tuple[str, str]](), list_examples(engine, None)
    for one in examples:
        facts, secret = said.get(one.id), example_secret(engine, one.owner, one.id)
        if facts is None or not secret:
            continue
        compared += 1
        now: dict[str, Fact] = {"kind": one.kind, "rating": one.rating, "learn": one.learn, **digests(secret, one)}
        names = [name for name in ("kind", "rating", "learn", "question", "answer") if name in facts | now]
        changed = [name for name in names if now.get(name) != facts.get(name)]
        faults += [(f"example {one.id}", f"its {name} is not what the ledger says") for name in changed]
        if one.state not in STATES:
            faults.append((f"example {one.id}", "its state is none that Ingle writes"))
    return compared, len(examples) - compared, faults


def make_up(home: Home, engine: "Engine", sink: Sink) -> int:
    """Write the facts that a kill lost between an example's row and its fact. Returns how many there were."""
    recorded = {row.values.get("example") for row in Ledger(engine, home.keys).read("feedback")}
    before = (datetime.now(UTC) - _YOUNG).isoformat(timespec="microseconds")
    lost = [one for one in list_examples(engine, None) if one.id not in recorded and one.at < before]
    for one in lost:
        sink(feedback_event(engine, one, 0))
    return len(lost)
