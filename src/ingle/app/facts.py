"""The ledger's fact of an answer: figures, and digests under a key of this home. Never a word of it.

Without the key, nobody can test guesses of the text against the digests of a ledger. With the home and a text, one can still prove
that this text was the answer.
"""

import hashlib
import hmac
import logging
import queue
import re
import secrets
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from ingle.core.digest import canonical_json, digest_bytes
from ingle.core.errors import IngleError
from ingle.core.message import Finish, Request, Usage, Verdict
from ingle.core.report import Event, Fact
from ingle.home.place import Home
from ingle.safety.middleware import Blocked
from ingle.safety.policy import USUAL, GuardPolicy

if TYPE_CHECKING:
    from ingle.engine.language_model import LanguageModel
    from ingle.ledger.row import Row

# The ledger's facts of guards that judge content: what they told of, edited or blocked. Rules, scores and keyed digests; never words.


KINDS = {"allow": "guard.tell", "edit": "guard.edit", "block": "guard.block"}  # kinds of facts by a verdict's action
_MOST = 8  # most facts that one answer may leave beside its own; the last one says how many more there were
_LONGEST_RULE = 120


def judged(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts on content, each once."""
    return [verdict for verdict in dict.fromkeys(verdicts) if verdict.rule]


def guard_events(
    verdicts: Sequence[Verdict], name: str, model: str, policy: GuardPolicy, request: str, answer: str = "", completion: str = "",
    asker: str = "",
) -> list[Event]:  # fmt: skip
    """Return the facts of the verdicts on content.

    `model`: its digest; `request`, `answer`: the keyed digests of what was judged; `completion`, `asker`: as for an answer's fact.
    """
    told = judged(verdicts)
    more = len(told) - _MOST
    events = []
    for number, verdict in enumerate(told[:_MOST], 1):
        facts: dict[str, Fact] = {
            "guard": verdict.guard, "rule": verdict.rule[:_LONGEST_RULE], "mode": verdict.mode, "score": verdict.score,
            "threshold": verdict.threshold, "policy": policy.digest, "model": model, "request": request, "answer": answer,
            "id": completion, "key": asker, "more": more if more > 0 and number == _MOST else None,
        }  # fmt: skip
        events.append(Event(KINDS[verdict.action], name, {key: value for key, value in facts.items() if value not in (None, "")}))
    return events


def verdict_tables(verdicts: Sequence[Verdict]) -> list[dict[str, object]]:
    """Return verdicts as responses show them."""
    return [
        {"guard": verdict.guard, "action": verdict.action, "rule": verdict.rule or None, "score": verdict.score, "mode": verdict.mode}
        for verdict in dict.fromkeys(verdicts)
    ]


def summary(verdicts: Sequence[Verdict], most: int) -> str:
    """Return verdicts in one line of at most so many characters: `output: block (words 1); pii: edit (e-mail)`."""
    lines: list[str] = []
    for verdict in dict.fromkeys(verdicts):
        score = "" if verdict.score is None else f" {verdict.score:.2f}"
        line = f"{verdict.guard}: {verdict.action}" + (f" ({verdict.rule}{score})" if verdict.rule else "")
        if line not in lines:
            lines.append(line)
    while len("; ".join(lines)) > most:
        lines.pop()
    return "; ".join(lines)


REFUSED = "refuse"
_FIELD = re.compile(r"[A-Za-z0-9_.\[\]]{1,80}")
_SEED_BITS = 53  # whole numbers up to this many bits survive every JSON reader
# Later fields of requests with their defaults, which are not digested: so older digests stay valid.
_ALWAYS: tuple[tuple[str, Any], ...] = (
    ("origin", None),
    ("modalities", ("text",)),
    ("repetition_window", 0),
    ("repeat_limit", 0),
    ("think", False),
)
_SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "repetition_window", "presence_penalty", "frequency_penalty",
    "repeat_limit",
)  # fmt: skip
_SHORT = 200  # most characters of the guards' verdicts in a fact


def new_seed() -> int:
    """Return a random seed, for requests that name none."""
    return secrets.randbits(_SEED_BITS)


def request_digest(key: bytes, request: Request) -> str:
    """Return the keyed digest of a request without its seed, which the fact names."""
    table = asdict(request, dict_factory=_digested_fields)
    del table["sampling"]["seed"]
    return hmac.digest(key, canonical_json(table), hashlib.sha256).hex()


def _digested_fields(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields that are digested: all but those of `_ALWAYS`, and bytes by their digest."""
    fields = (pair for pair in pairs if pair not in _ALWAYS)
    return {name: digest_bytes(value) if isinstance(value, bytes) else value for name, value in fields}


def answer_digest(key: bytes, text: str) -> str:
    """Return the keyed digest of an answer."""
    return hmac.digest(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()


def answer_event(
    key: bytes, name: str, request: Request, text: str, finish: Finish, usage: Usage, verdicts: Sequence[Verdict] = (),
    completion: str = "", asker: str = "",
) -> Event:  # fmt: skip
    """Return the fact of one answer. `completion`: its id for clients; `asker`: the id of the API key, if there was one."""
    facts: dict[str, Fact] = {
        "model": usage.model_digest,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "finish": finish,
        "seed": usage.seed,
        "max_tokens": request.max_tokens,
        "request": request_digest(key, request),
        "answer": answer_digest(key, text),
    }
    for field in _SAMPLING:
        facts[field] = getattr(request.sampling, field)
    if usage.energy is not None:
        facts |= usage.energy.facts()
    optional = {"id": completion, "key": asker, "verdicts": summary(verdicts, _SHORT)}
    return Event("answer", name, facts | {field: value for field, value in optional.items() if value})


def refusal_event(
    key: bytes, model: "LanguageModel", request: Request, error: IngleError, completion: str = "", asker: str = "",
    policy: GuardPolicy = USUAL,
) -> Event:  # fmt: skip
    """Return the fact of a refused request: the guard, if it was one, and the field or the rule; never a word of the request."""
    digest = request_digest(key, request)
    if isinstance(error, Blocked):
        [event] = guard_events([error.verdict], model.name, model.digest, policy, digest, "", completion, asker)
        return event
    facts: dict[str, Fact] = {"model": model.digest, "error": type(error).__name__, "request": digest}
    optional = {"guard": error.guard, "field": field_fact(error.field), "id": completion, "key": asker}
    return Event(REFUSED, model.name, facts | {name: value for name, value in optional.items() if value})


def field_fact(field_: str) -> str:
    """Return the name of a field as facts hold it; nothing where it may be somebody's words."""
    return field_ if _FIELD.fullmatch(field_) else ""


def told_events(
    key: bytes, model: "LanguageModel", request: Request, text: str, verdicts: Sequence[Verdict], policy: GuardPolicy,
    completion: str = "", asker: str = "",
) -> list[Event]:  # fmt: skip
    """Return the facts of what guards said of the content of an answer and its request; most answers leave none."""
    if not judged(verdicts):
        return []
    digests = request_digest(key, request), answer_digest(key, text)
    return guard_events(verdicts, model.name, model.digest, policy, *digests, completion, asker)


class Recorder:
    """Writes facts in order, in a thread of its own."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._inbox: queue.SimpleQueue[tuple[Event, Future[Row]] | None] = queue.SimpleQueue()
        self.failing = False  # whether the last fact could not be written
        self._thread: Thread | None = None
        self._starting = Lock()

    def add(self, event: Event) -> "Future[Row]":
        """Queues a fact. The future is done when the fact would survive a power cut.

        The first call starts the thread, which imports the database while the person reads.
        """
        done: Future[Row] = Future()
        self._inbox.put((event, done))
        with self._starting:
            if self._thread is None:
                self._thread = Thread(target=self._work, name="ledger")
                self._thread.start()
        return done

    def close(self) -> None:
        """Waits until everything is written."""
        if self._thread is not None:
            self._inbox.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        from ingle.home.database import open_database
        from ingle.ledger.chain import Ledger
        from ingle.ledger.table import MIGRATIONS

        ledger: Ledger | None = None
        engine = None
        while (entry := self._inbox.get()) is not None:
            event, done = entry
            waited_for = done.set_running_or_notify_cancel()  # a client may have gone meanwhile: the fact stays one
            try:
                if ledger is None:
                    engine = open_database(self._home.database_url, {"ledger": MIGRATIONS})
                    ledger = Ledger(engine, self._home.keys)
                row = ledger.append(event)
            except Exception as error:
                self.failing = True
                if not isinstance(error, IngleError):
                    logging.getLogger("ingle").exception("ledger")
                if waited_for:
                    done.set_exception(error)
            else:
                self.failing = False
                if waited_for:
                    done.set_result(row)
        if engine is not None:
            engine.dispose()
