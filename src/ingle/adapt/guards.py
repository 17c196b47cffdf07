"""Teaches the guards of a home that they were wrong, and takes it back. The command line, the API and the page all do it here.

A correction acts for everybody whose requests the home answers, so only its owner may teach one; the callers see to that. The ledger gets
counts and digests, never a word.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ingle.adapt.memory import placed, question_of
from ingle.core.errors import NotKept, RequestError
from ingle.core.files import write_atomic
from ingle.core.message import Request, TextPart
from ingle.core.report import Event, Fact, Sink
from ingle.home.database import now
from ingle.home.place import Home
from ingle.home.teachings import examples_called
from ingle.home.turns import find_completion, path
from ingle.safety.features import WEIGHTS_FILE, order_vector
from ingle.safety.guard import guard_files, guard_policy, judge_file
from ingle.safety.guards.injection import DATA, sentences
from ingle.safety.judge import Judge, Pull, Teaching, base_judge, corrected, gap, load_judge, read_taught, taught_file, write_taught
from ingle.safety.judging import sent_texts
from ingle.safety.policy import rule_of
from ingle.safety.reading import REQUESTS, ReadPart, read_text
from ingle.safety.views import views

if TYPE_CHECKING:
    from sqlalchemy import Engine

MOST_TEXTS, MOST_CHARACTERS, MOST_PULLS = 1000, 100_000, 256
GUARDS: Mapping[str, str] = {"harm": "harm", "attack": "attack", "injection": "order"}  # guards that can be taught, each with its judge
_RATE = 0.01  # rate of false alarms that `POST /v1/moderations` and `ingle home guards test` go by


@dataclass(frozen=True, slots=True)
class JudgedTexts:
    """Texts for the judges."""

    asked: tuple[str, ...]  # as somebody asks them
    data: tuple[str, ...] = ()  # as they stand in memories, tools' results and documents
    id: str = ""  # of the answer that they belong to
    # Other texts that were sent, and judged: earlier turns, instructions, tools. Only that it was harmless can be taught of it.
    around: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GuardsTaught:
    """The outcome of teaching."""

    id: str  # by which it is taken back; "" if there was nothing to change
    changed: int  # views and sentences that the judges see otherwise from now on
    judge: str  # digest of the judges that act from now on


def plain_texts(texts: Sequence[str]) -> JudgedTexts:
    """Return plain texts, which count as asked and as data. Raises RequestError for none, empty and too long ones."""
    if not 0 < len(texts) <= MOST_TEXTS or not all(text.strip() for text in texts):
        raise RequestError("text", f"must hold 1 to {MOST_TEXTS:,} texts", "an empty one" if texts else "nothing")
    if longest := max((len(text) for text in texts if len(text) > MOST_CHARACTERS), default=0):
        raise RequestError("text", f"must have at most {MOST_CHARACTERS:,} characters", f"{longest:,}")
    return JudgedTexts(tuple(texts), tuple(texts))


def texts_of_answer(engine: "Engine", owner: str, completion: str) -> JudgedTexts:
    """Return what was judged before an answer: the question, and what was given with it to read.

    Raises NotKept if it is no stored answer of this owner, RequestError if it is one to no question.
    """
    turn = find_completion(engine, owner, completion) if completion else None
    if turn is None:
        cure = "Ask with `store: true`, or give the `text` itself."
        raise NotKept("completion_id", "must name a stored answer of yours", completion[:80], cure)
    said = tuple(one.message for one in path(engine, owner, turn.id)[:-1])
    memories = examples_called(engine, owner, str((turn.facts or {}).get("memories") or "").split())
    request = Request(messages=said) if said else None
    request = placed(request, memories) if request is not None and question_of(request) else request
    asked, around = _asked(request) if request is not None else ((), ())
    if request is None or not asked:
        raise RequestError("completion_id", "must name an answer to a question", "one without")
    read = (part for message in request.messages for part in message.sourced if isinstance(part, TextPart) and part.origin in DATA)
    return JudgedTexts(asked, tuple(part.text for part in read), completion, around)


def _asked(request: Request) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what the user said last, and all else that was judged with it."""
    last = max((number for number, message in enumerate(request.messages) if message.role == "user"), default=-1)
    asked = [one for one in sent_texts(request) if one.speaker == "user" and one.place == f"messages[{last}].content"]
    own = tuple(one.text for one in asked[:1])
    return own, tuple(dict.fromkeys(one.text for one in sent_texts(request) if one.text not in own))


def teach_guards(home: Home, texts: JudgedTexts, harmful: bool, sink: Sink = lambda _: None, owner: str = "") -> GuardsTaught:
    """Teach the judges that texts are harmless, or harmful (`harm` alone learns that). It acts from the next request on.

    What was taught about the same answer before no longer counts. Raises RequestError if too much of it would have to change, ConfigError
    for a damaged file or policy, and the errors of `sink`: then nothing has changed.
    """
    rates = _rates(home, harmful)
    with _changing(home) as (judge, before):
        kept = tuple(one for one in before if not texts.id or one.id != texts.id)
        pulls = tuple(_pulls(corrected(base_judge(judge), kept), texts, harmful, rates))
        if len(pulls) > MOST_PULLS:
            raise RequestError(
                "text", f"At most {MOST_PULLS} sentences and views can be taught at once", f"{len(pulls):,}", "Teach fewer texts."
            )
        id_ = texts.id or f"taught-{secrets.token_hex(6)}"
        if pulls or len(kept) < len(before):
            write_taught(taught_file(judge), (*kept, Teaching(id_, now(), harmful, pulls)) if pulls else kept)
        digest = load_judge(judge).digest
        if pulls or len(kept) < len(before):
            facts: dict[str, Fact] = {"texts": len(texts.asked), "harmful": harmful, "changed": len(pulls), "judge": digest, "id": id_}
            sink(Event("guard.teach", "guards", facts | ({"key": owner} if owner else {})))
    return GuardsTaught(id_ if pulls else "", len(pulls), digest)


def take_back(home: Home, id_: str = "", sink: Sink = lambda _: None, owner: str = "") -> Teaching:
    """Take back a correction, or the last one. The judges are then as they were without it. Raises NotKept if there is none such."""
    with _changing(home) as (judge, before):
        gone = next((one for one in reversed(before) if id_ in ("", one.id)), None)
        if gone is None:
            raise NotKept("id", "The guards were taught nothing of that id" if id_ else "The guards were taught nothing", id_[:80])
        write_taught(taught_file(judge), [one for one in before if one is not gone])
        facts: dict[str, Fact] = {"id": gone.id, "harmful": gone.harmful, "left": len(before) - 1, "judge": load_judge(judge).digest}
        sink(Event("guard.undo", "guards", facts | ({"key": owner} if owner else {})))
    return gone


def reset_guards(home: Home, sink: Sink = lambda _: None) -> str:
    """Remove all that the judges of this home were taught, and its own judge: the one that ships with Ingle acts. Return its digest."""
    path = judge_file(home.root)
    with home.lock("guards"):
        sink(Event("guard.reset", "guards", {"judge": load_judge().digest}))
        for file in (taught_file(path), path, path.parent / WEIGHTS_FILE):
            file.unlink(missing_ok=True)
    return load_judge().digest


def guards_taught(home: Home) -> tuple[Teaching, ...]:
    """Return what the guards of a home were taught, the oldest first. Raises ConfigError for a damaged file."""
    return read_taught(taught_file(judge_file(home.root)))


@contextmanager
def _changing(home: Home) -> Iterator[tuple[Path, tuple[Teaching, ...]]]:
    """Hold the corrections of a home, and put them back if something fails: without a fact nothing changes."""
    judge = judge_file(home.root)
    file = taught_file(judge)
    with home.lock("guards"):
        before, data = read_taught(file), file.read_bytes() if file.exists() else None
        try:
            yield judge, before
        except BaseException:
            if data is None:
                file.unlink(missing_ok=True)
            else:
                write_atomic(file, data, mode=0o600)
            raise


def _pulls(judge: Judge, texts: JudgedTexts, harmful: bool, rates: Mapping[str, float]) -> Iterator[Pull]:
    """Yield what is on the wrong side of a threshold now."""
    for text in texts.asked if harmful else (*texts.asked, *texts.around):
        found = [_pull(judge, part, rates[part.judge]) for part in read_text(judge, text)]
        if harmful:  # the whole text, by the judge of harm; once it is on the right side, so is the request
            found = [max((one for one in found if one.judge == "harm" and one.whole), key=judge.score)]
        yield from (one for one in found if one.judge in REQUESTS and gap(judge, one, harmful))
    if not harmful:
        for view in (view for text in texts.data for sentence in sentences(text) for view in views(sentence)):
            if gap(judge, pull := Pull("order", rates["order"], order_vector(view)), harmful):
                yield pull


def _pull(judge: Judge, part: ReadPart, rate: float) -> Pull:
    """Return a part as it is taught."""
    encoder = judge.meaning.digest if judge.meaning is not None and part.meaning is not None else ""
    return Pull(part.judge, rate, part.vector, part.whole, encoder, part.meaning or 0.0)


def _rates(home: Home, harmful: bool) -> dict[str, float]:
    """Return the rate of false alarms at which a text must be on the right side for every model and key of the policy, by judge."""
    modes = {file.name: file.modes for file in guard_files()}
    tables = guard_policy(home.policy).tables.values()
    pick = min if harmful else max
    return {judge: pick(_RATE, *(rule_of(rules, guard, modes[guard]).alarms for rules in tables)) for guard, judge in GUARDS.items()}
