"""What the ledger is told of an example: that it came, whose it is, and keyed digests of its words; never a word."""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ingle.core.event import Event, Fact, Sink
from ingle.core.example import Example
from ingle.home.examples import example_secret, list_examples
from ingle.home.place import Home
from ingle.ledger.chain import Ledger

if TYPE_CHECKING:
    from sqlalchemy import Engine

_YOUNG = timedelta(minutes=1)
"""An example that came just now may have its fact on the way."""


def words_digest(secret: bytes, words: str) -> str:
    """What the ledger holds of an example's words; `secret` is the example's own (`example_secret`), and goes with it."""
    return hmac.digest(secret, words.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()


def digests(secret: bytes, example: Example) -> dict[str, Fact]:
    """Of its question and its answer, as far as it has them."""
    words = {"question": example.question, "answer": example.answer}
    return {name: words_digest(secret, text) for name, text in words.items() if text}


def feedback_event(engine: "Engine", example: Example, superseded: int) -> Event:
    """The fact that an example came; `superseded`: how many earlier ones it stands in the place of."""
    facts: dict[str, Fact] = {
        "example": example.id, "kind": example.kind, "rating": example.rating, "learn": example.learn, "superseded": superseded,
    }  # fmt: skip
    optional = {name: value for name, value in (("id", example.completion), ("key", example.owner)) if value}
    return Event("feedback", example.model, {**facts, **digests(example_secret(engine, example.owner, example.id), example), **optional})


def make_up(home: Home, engine: "Engine", sink: Sink) -> int:
    """Tells of every example whose fact was lost to a kill between the two. Returns how many there were."""
    told = {row.values.get("example") for row in Ledger(engine, home.keys).read("feedback")}
    before = (datetime.now(UTC) - _YOUNG).isoformat(timespec="microseconds")
    lost = [one for one in list_examples(engine, None) if one.id not in told and one.at < before]
    for one in lost:
        sink(feedback_event(engine, one, 0))
    return len(lost)
