"""Puts an explanation together from what the home keeps: the answer as it was given, and what acted on it. Terminal and server share it."""

import hashlib
import hmac
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ingle.adapt.choosing import Choice, Chooser
from ingle.adapt.without import without_each
from ingle.app.facts import answer_digest
from ingle.app.replay import kept_as_said, request_of
from ingle.core.config import to_table
from ingle.core.digest import digest_json
from ingle.core.energy import Energy
from ingle.core.errors import DeltaError, NotKept, RequestError
from ingle.core.message import Chunk, Request
from ingle.core.report import Event, Fact
from ingle.engine.language_model import LanguageModel
from ingle.explain.cause import AnswerSpan, Cause, ProvedCause, Reader, Said, Variation, Why, said_by
from ingle.explain.groups import parts_of
from ingle.explain.odds import find_calibration
from ingle.explain.sure import with_sure
from ingle.explain.traces import TaughtText
from ingle.explain.why import WhyOptions, with_traces
from ingle.home.examples import list_examples
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.home.turns import find_any_completion
from ingle.ledger.row import MAX_TEXT
from ingle.safety.guard import guard_files, guard_policy
from ingle.safety.middleware import Next
from ingle.safety.policy import GuardPolicy, rule_of

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.home.turns import Turn
    from ingle.ledger.row import Row


Open = Callable[[Home, Kept], LanguageModel]
CONTROLS = 3  # random sets of groups beside the parts of a hybrid
_CUT = ("cancelled", "deadline")  # ends of answers that stopped wherever they were


@dataclass(frozen=True, slots=True)
class Explained:
    """A stored answer, and what may be asked again to explain it."""

    row: "Row"
    turn: "Turn"
    kept: Kept
    choice: Choice  # the request after memories were added, and the model with its lessons
    variations: tuple[Variation, ...]
    key: bytes = field(repr=False)  # key of the answers' digests

    @property
    def text(self) -> str:
        """The stored answer."""
        return self.turn.message.text

    @property
    def request(self) -> Request:
        """The request to give the answer again: one that was cut ends where it was cut."""
        facts = self.row.values
        if facts.get("finish") in _CUT:
            return replace(self.choice.request, max_tokens=max(1, int(facts.get("completion_tokens") or 1)))
        return self.choice.request


def stored_turn(engine: "Engine", row: "Row", asker: str | None) -> "Turn":
    """Return the stored answer of a fact. `asker`: only this key's; None = the home's own user, who may see all. Raises NotKept."""
    completion = str(row.values.get("id", ""))
    turn = find_any_completion(engine, completion) if completion else None
    if turn is None or (asker is not None and turn.owner != asker):
        cure = "Keep conversations on the page, or ask with `store: true`."
        raise NotKept("answer", "The text of this answer is not kept", completion, cure)
    return turn


def explained(
    home: Home, engine: "Engine", chooser: Chooser, row: "Row", turn: "Turn", kept: Kept, model: LanguageModel, open_: Open, key: bytes
) -> Explained:
    """Return all that is needed to explain a stored answer.

    Raises NotKept if what acted on it is gone or another model stands there now, LedgerError if the stored request can't be read.
    """
    request = request_of(engine, turn)
    if not all(kept_as_said(key, row.values, request, turn.message.text)):
        raise NotKept("answer", "The stored text is not what the ledger has signed", "", "`ingle verify` says what is damaged.")
    owner, *acted = (str(row.values.get(name, "")) for name in ("key", "memories", "lessons"))
    memories, lessons = (names.split() for names in acted)
    try:
        choice = chooser.again(owner, model, kept, request, memories, lessons)
    except NotKept as error:
        rule = "Something that acted on this answer is not kept any more, so nothing about it can be proved"
        raise NotKept("answer", rule, "", "What was forgotten can't be put back, not even to explain.") from error
    if choice.model.digest != row.values.get("model"):
        cure = "`ingle show` says what the model is made of now."
        raise NotKept("model", "Another model stands under this name now, so nothing about the answer can be proved", kept.name, cure)
    left_out = without_each(chooser, owner, model, kept, request, memories, lessons)
    variations = [Variation(Cause(one.kind, one.id, one.text), one.choice.model, one.choice.request) for one in left_out]
    variations += _shorter(home, kept, choice, open_, bool(lessons))
    return Explained(row, turn, kept, choice, tuple(variations), key)


def parts(asked: Explained) -> tuple[Variation, ...]:
    """Return the choice on the model without each of its parts, beside as many others by chance. Raises ConfigError for a transformer."""
    choice = asked.choice
    return tuple(Variation(Cause(part.kind, part.id), part.model, choice.request) for part in parts_of(choice.model, CONTROLS))


def _shorter(home: Home, kept: Kept, choice: Choice, open_: Open, lessons: bool) -> list[Variation]:
    """Return the choice on the model without its newest delta. A lesson was made for the whole model, so it can't act on a shorter one."""
    if not kept.deltas or lessons:
        return []
    name = kept.name.rpartition("+")[2] if "+" in kept.name else kept.deltas[-1][:12]
    try:
        model = open_(home, replace(kept, deltas=kept.deltas[:-1]))
    except DeltaError:
        return []
    return [Variation(Cause("delta", kept.deltas[-1], name), model, choice.request)]


@dataclass
class Tap:
    """A tap between the guards and the engine: the request as the model read it, and the tokens as it wrote them."""

    requests: list[Request] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)

    def around(self, inner: Next) -> Next:
        """Return the engine with a tap at its mouth."""

        async def tapped(request: Request) -> AsyncIterator[Chunk]:
            self.requests.append(request)
            async for chunk in inner(request):
                self.chunks.append(chunk)
                yield chunk

        return tapped

    def said(self, model: LanguageModel) -> Said:
        """Return the answer as the model wrote it. Raises NotKept if a guard kept the request from the model."""
        if not self.requests:
            raise NotKept("answer", "A guard keeps this request from the model now", "", "policy.toml has the guards' modes.")
        return said_by(model, self.requests[-1], self.chunks)


def said_again(asked: Explained, shown: str, tap: Tap) -> Said:
    """Return an answer that was given again, as far as the guards let it out: nobody learns from an explanation what a guard kept back.

    Raises NotKept if it is not the stored answer, or a guard changed its very beginning.
    """
    _check_again(asked, shown)
    said = tap.said(asked.choice.model)
    tokens = tokens_within(said.pieces, shown)
    if said.tokens and not tokens:
        raise NotKept("answer", "A guard changed this answer from its beginning on, so nothing about it can be proved")
    return replace(said, tokens=said.tokens[:tokens], pieces=said.pieces[:tokens])


def tokens_within(pieces: Sequence[str], shown: str) -> int:
    """Return how many of the first tokens a shown text begins with."""
    end = 0
    for number, piece in enumerate(pieces):
        if not shown.startswith(piece, end):
            return number
        end += len(piece)
    return len(pieces)


def _check_again(asked: Explained, shown: str) -> None:
    if answer_digest(asked.key, shown) == asked.row.values.get("answer"):
        return
    if asked.row.values.get("finish") in _CUT and (shown.startswith(asked.text) or asked.text.startswith(shown)):
        return
    rule = "The model does not give this answer any more, so nothing about it can be proved"
    raise NotKept("answer", rule, "", f"`ingle prove replay {asked.row.seq}` compares both; guards or their policy may have changed.")


def more_of(
    reader: Reader,
    asked: Explained,
    said: Said,
    why: Why,
    what: Sequence[str],
    home: Home,
    engine: "Engine",
    files: Sequence[TaughtText] = (),
) -> Why:
    """Return the explanation with how sure the answer is and with its traces, where `what` asks for them.

    `files`: texts that the model was tuned on, beside what the answer's owner taught it.
    """
    if "sure" in what:
        known = find_calibration(home, asked.choice.model.digest)
        why = with_sure(reader, said, why, known, alternatives=not kept_back(guard_policy(home.policy)))
    if "traces" in what:
        taught = [TaughtText(one.id, one.answer) for one in list_examples(engine, asked.turn.owner)]
        why = with_traces(why, [*taught, *files])
    return why


def kept_back(policy: GuardPolicy) -> bool:
    """Return whether a guard keeps words of answers back, for any model or key: then no other word that might have come is named."""
    watching = [file for file in guard_files() if file.holds_back]
    return any(rule_of(rules, file.name, file.modes).mode in ("edit", "block") for rules in policy.tables.values() for file in watching)


def span_in(answer: str, words: str) -> AnswerSpan:
    """Return where these words stand in an answer, for the first time. Raises RequestError."""
    start = answer.find(words) if words.strip() else -1
    if start < 0:
        raise RequestError("span", "must be words of the answer, as they stand there", words, "Copy them from the answer.")
    return AnswerSpan(start, start + len(words))


def explanation_id(owner: str, completion: str, asked: WhyOptions, what: Sequence[str]) -> str:
    """Return the id of an explanation: the same question about the same answer always has the same."""
    return f"why-{digest_json([owner, completion, to_table(asked), sorted(what)])[:32]}"


def explanation_table(why: Why) -> dict[str, Any]:
    """Return an explanation as JSON shows and the home stores it. The same answer explained twice gives the same bytes."""
    return {"object": "explanation", **to_table(why)}


def found_table(found: ProvedCause) -> dict[str, Any]:
    """Return one cause as JSON shows it."""
    return {"object": "explanation.cause", **to_table(found)}


def explanation_event(key: bytes, asked: Explained, id_: str, why: Why, seconds: float, energy: Energy | None) -> Event:
    """Return the fact of an explanation: figures, and keyed digests of causes; never a word."""
    facts: dict[str, Fact] = {
        "seq_of": asked.row.seq, "model": asked.choice.model.digest, "explanation": id_, "method": why.method or "taught",
        "causes": _causes_fact(key, why.causes), "sentences": why.sentences, "read_tokens": why.read_tokens,
        "complete": why.complete, "seconds": round(seconds, 2), "key": asked.turn.owner,
    }  # fmt: skip
    if why.together is not None:
        facts |= {"together": round(why.together.necessity, 3), "rest": round(why.together.rest, 3)}
    if energy is not None:
        facts |= energy.facts()
    return Event("explain", asked.row.subject, {name: value for name, value in facts.items() if value not in (None, "")})


def _causes_fact(key: bytes, causes: Sequence[ProvedCause]) -> str:
    """Return the strongest causes as one text, as many as a fact has room for."""
    said = ""
    for one in causes:
        longer = f"{said}; {_cause_fact(key, one)}" if said else _cause_fact(key, one)
        if len(longer) > MAX_TEXT:
            break
        said = longer
    return said


def _cause_fact(key: bytes, found: ProvedCause) -> str:
    cause = found.cause
    named = cause.id if cause.kind != "sentence" else hmac.digest(key, cause.text.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()
    chance = "" if found.by_chance is None else f" (by chance {found.by_chance.high:.3f}, n {found.by_chance.n})"
    return f"{cause.kind} {named[:16]} {found.nats:.3f}{chance}"


def account(table: Mapping[str, Any], seconds: float, energy: Energy | None, event: int | None) -> dict[str, Any]:
    """Return an explanation's table with what it took; these figures differ from one time to the next."""
    took: dict[str, Any] = {"seconds": round(seconds, 2), "event": event}
    return {**table, "ingle": took | (energy.facts() if energy is not None else {})}
