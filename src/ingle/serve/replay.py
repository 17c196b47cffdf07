"""Replays a stored answer: the same request, model and seed must give the same answer."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ingle.core.config import from_table, to_table
from ingle.core.errors import ConfigError, LedgerError, NotKept
from ingle.core.message import Chunk, Message, Request
from ingle.engine.answer import answer
from ingle.engine.language_model import LanguageModel
from ingle.safety.guard import make_guards
from ingle.safety.middleware import drive, from_iterator, wrap
from ingle.safety.opinion import AskGuard, nobody
from ingle.safety.policy import USUAL, GuardPolicy
from ingle.serve.limits import limits_of
from ingle.serve.record import answer_digest, request_digest

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.home.turns import Turn
    from ingle.ledger.chain import Ledger
    from ingle.ledger.row import Row

_PARAMETERS = ("tools", "constraint", "max_tokens", "stop", "logprobs", "sampling", "modalities", "think")


@dataclass(frozen=True, slots=True)
class Replay:
    """The outcome of a replay."""

    row: "Row"  # the fact in the ledger
    request_same: bool  # whether the stored request has the digest of the fact
    kept_same: bool  # whether the stored answer has the digest of the fact
    answer_same: bool  # whether the new answer has the digest of the fact
    # Whether the model is the one that answered then. If not, a different answer proves nothing.
    model_same: bool
    kept: str
    now: str

    @property
    def proven(self) -> bool:
        """Whether request, stored answer and new answer match the ledger."""
        return self.request_same and self.kept_same and self.answer_same


def parameters(request: Request, system: bool) -> dict[str, Any]:
    """Return a request without its messages as plain values. `system`: with the system messages, where they are no turns."""
    table: dict[str, Any] = {name: value for name, value in to_table(request).items() if name in _PARAMETERS}
    if system:
        table["system"] = [message.text for message in request.messages if message.role == "system"]
    return table


def find_row(ledger: "Ledger", event: str | None) -> "Row":
    """Return the fact of an answer, by its number or by its id for clients; None = the last that this home's own user asked for. Raises
    NotKept."""
    if event is None:
        mine = next((row for row in ledger.read(kind="answer") if not row.values.get("key")), None)
        if mine is None:
            raise NotKept("answer", "Nothing was asked here yet", "", 'Ask something first: ingle run "…"')
        return mine
    number = int(event) if event.isdecimal() else None
    for row in ledger.read(kind="answer"):
        if row.seq == number or row.values.get("id") == event:
            return row
        if number is not None and row.seq < number:
            break
    raise NotKept("event", f"The ledger holds no answer {event}", "", "`ingle log --kind answer` lists them.")


def kept_request(engine: "Engine", completion: str) -> tuple[Request, str]:
    """Return the stored request and answer of an id. Raises NotKept if they are not stored, LedgerError if they can't be read."""
    from ingle.home.turns import find_any_completion

    turn = find_any_completion(engine, completion) if completion else None
    if turn is None:
        cure = "Keep conversations on the page, or ask with `store: true`."
        raise NotKept("event", "The text of this answer is not kept", completion, cure)
    return request_of(engine, turn), turn.message.text


def request_of(engine: "Engine", turn: "Turn") -> Request:
    """Return the stored request of a stored answer. Raises LedgerError if it can't be read."""
    from ingle.home.turns import path

    table: Mapping[str, Any] = (turn.facts or {}).get("request", {})
    messages = [Message.of("system", text) for text in table.get("system", [])]
    messages += [before.message for before in path(engine, turn.owner, turn.id)[:-1]]
    try:
        request = from_table(Request, {name: table[name] for name in _PARAMETERS if name in table} | {"prompt": "-"})
    except ConfigError as error:
        raise LedgerError("kept request", "must be readable", error, "It was written by another version.") from error
    return replace(request, prompt=None, messages=tuple(messages))


def kept_as_said(key: bytes, facts: Mapping[str, Any], request: Request, kept: str) -> tuple[bool, bool]:
    """Return whether the stored request and the stored answer have the digests of the fact."""
    request = replace(request, sampling=replace(request.sampling, seed=int(facts.get("seed") or 0)))
    return request_digest(key, request) == facts.get("request"), answer_digest(key, kept) == facts.get("answer")


def again(
    model: LanguageModel, request: Request, policy: GuardPolicy = USUAL, key: str = "", ask: AskGuard = nobody
) -> Iterator[Chunk]:  # fmt: skip
    """Yield the answer as the server would give it now, behind its guards under this policy. `key`: name of the API key; `ask`: asks guard
    models."""
    guards = make_guards(limits_of(model), policy, model.name, key, ask)
    return drive(wrap(guards, lambda passed: from_iterator(answer(model.answering(passed), passed)))(request))


def compare(key: bytes, row: "Row", model: LanguageModel, request: Request, kept: str, now: str) -> Replay:
    """Compare the stored and the new answer with the digests of the fact."""
    facts = row.values
    same = answer_digest(key, now) == facts.get("answer"), model.answering(request).digest == facts.get("model")
    return Replay(row, *kept_as_said(key, facts, request, kept), *same, kept, now)
