"""An explanation as the page shows it: marks in the prompt, causes, words to choose. What it says stands in explain/."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ingle.app.replay import request_of
from ingle.core.energy import amount, energy_in
from ingle.core.errors import counted
from ingle.core.message import Request
from ingle.explain.cause import Cause, Chance, Kind, ProvedCause
from ingle.explain.prompt_sentences import Sentence, sentences_of
from ingle.explain.words import quoted
from ingle.home.example_states import COUNTING
from ingle.home.lessons import list_lessons
from ingle.home.teachings import examples_called

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.home.turns import Turn

# Most nats, name, and what it says of the answer without the cause.
STRENGTHS: Sequence[tuple[float, str, str]] = (
    (2.303, "slight", "up to 10 times"),
    (6.908, "clear", "up to 1,000 times"),
    (float("inf"), "strong", "more"),
)
_NAMES: Mapping[Kind, str] = {
    "sentence": "Sentence", "memory": "Memory", "lesson": "Lesson", "delta": "Delta", "retrieval": "Heads that see the whole text",
    "recurrent": "Recurrent memory", "groups": "Other heads",
}  # fmt: skip
_METHODS: Mapping[str, str] = {
    "leave_one_out": "each sentence left out by itself", "alone": "each sentence kept alone, the best ones left out",
    "": "what was taught left out",
}  # fmt: skip
_WHO = {"system": "System prompt", "user": "You", "assistant": "Answer", "tool": "Tool"}
_SINCE = {
    "undone": "Undone. From the next answer on, it does not count.", "superseded": "Replaced since by a newer correction.",
    "gone": "Undone or forgotten since.",
}  # fmt: skip
_WORD = re.compile(r"([\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\s\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+)(\s*)")
_MOST_SHOWN = 6_000  # characters of a prompt up to which all of it is shown; of a longer one, the marked sentences and those around them
_AROUND = 2
_SHORT = 12  # characters of a figure with its unit, at most
Part = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TaughtNow:
    """State of a memory or a lesson since it acted, and what may be done with it."""

    state: str = ""  # as of an example, or `gone`
    act: Literal["", "undo", "redo"] = ""


def why_values(table: Mapping[str, Any], request: Request, taught: Mapping[str, TaughtNow]) -> dict[str, Any]:
    """Return an explanation's table as properties of the page's part. `request`: as it was asked; `taught`: by the cause's id."""
    causes = [proved_cause(one) for one in table["causes"]]
    answer, span = str(table["answer"]), table["span"]
    part = [int(span["start"]), int(span["end"])]
    whole, sure = part == [0, len(answer)], sure_values(table)
    elsewhere = {one.says for one in causes}.union(sure["says"] if sure else ())
    return {
        "says": [said for said in table["says"] if said not in elsewhere],
        "causes": [cause_row(one, taught) for one in causes],
        "prompt": shaded(request, causes),
        "words": words_of(answer),
        "part": None if whole else part,
        "chosen": "" if whole else answer[part[0] : part[1]].strip(),
        "sure": sure,
    }


def proved_cause(table: Mapping[str, Any]) -> ProvedCause:
    """Return a cause from the table that the API gives, or that was kept."""
    cause, chance = table["cause"], table.get("by_chance")
    return ProvedCause(
        Cause(cause["kind"], cause["id"], cause.get("text", "")), table["nats"], (),
        Chance(chance["mean"], chance["low"], chance["high"], chance["n"]) if chance else None,
        table.get("answer_without"), bool(table.get("differs")), says=str(table.get("says") or ""),
    )  # fmt: skip


def cause_row(one: ProvedCause, taught: Mapping[str, TaughtNow]) -> dict[str, Any]:
    """Return one cause."""
    cause, now = one.cause, taught.get(one.cause.id, TaughtNow())
    chance = one.by_chance
    return {
        "key": f"{cause.kind} {cause.id}", "id": cause.id, "kind": cause.kind, "name": _NAMES[cause.kind],
        "text": quoted(cause.text) if cause.text else cause.id[:12],
        "says": one.says, "strength": strength(one), "figure": f"{one.nats:.1f} nats",
        "chance": "" if chance is None else f"other sentences at most {max(0.0, chance.high):.1f}",
        "without": one.answer_without, "differs": one.differs, "act": now.act, "since": _SINCE.get(now.state, ""),
    }  # fmt: skip


def strength(one: ProvedCause) -> str:
    """Return the word for a cause's nats; "" for one that does not stand out."""
    return next(name for most, name, _ in STRENGTHS if one.nats <= most) if one.stands_out else ""


def legend() -> list[list[str]]:
    """Return the words for shades, and what they say."""
    return [[name, says] for _, name, says in STRENGTHS]


def shaded(request: Request, causes: Sequence[ProvedCause]) -> list[Part]:
    """Return the prompt's messages in parts, with the sentences that are causes marked, and the memories that stood in it.

    A sentence that a guard changed on its way to the model is not found here; its cause is only listed.
    """
    by_number = {one.cause.id: one for one in causes if one.cause.kind == "sentence" and one.stands_out}
    sentences = sentences_of(request)
    marks = {number: by_number[str(number + 1)] for number, one in enumerate(sentences) if _is(by_number.get(str(number + 1)), one)}
    shown = _shown(sentences, marks)
    blocks: list[Part] = []
    for number, sentence in enumerate(sentences):
        role = request.messages[sentence.message].role if sentence.message >= 0 else "user"
        if not blocks or blocks[-1]["message"] != sentence.message:
            blocks.append({"message": sentence.message, "who": _WHO.get(role, role), "parts": []})
        parts = blocks[-1]["parts"]
        if number not in shown:
            if not parts or not parts[-1].get("gap"):
                parts.append({"gap": True, "text": " … "})
            continue
        parts.append(_marked(marks[number], sentence.text) if number in marks else {"text": sentence.text})
    blocks = [block for block in blocks if any(not part.get("gap") for part in block["parts"])]
    memories = [one for one in causes if one.cause.kind == "memory"]
    return blocks + [{"message": one.cause.id, "who": "Memory", "parts": [_marked(one, one.cause.text)]} for one in memories]


def _marked(one: ProvedCause, text: str) -> Part:
    return {"text": text, "strength": strength(one), "figure": f"{one.nats:.1f} nats"}


def _is(found: ProvedCause | None, sentence: Sentence) -> bool:
    return found is not None and found.cause.text == sentence.text.strip()


def _shown(sentences: Sequence[Sentence], marks: Mapping[int, ProvedCause]) -> set[int]:
    """Return the numbers of the sentences to show: all of a short prompt, else what is near to marked ones and to the end."""
    if sum(len(one.text) for one in sentences) <= _MOST_SHOWN:
        return set(range(len(sentences)))
    centres = {*marks, len(sentences) - 1}
    return {number for number in range(len(sentences)) if any(abs(number - centre) <= _AROUND for centre in centres)}


def words_of(answer: str) -> list[Part]:
    """Return the words of an answer, the space after each, and their places in characters, the marks around a word aside."""
    words = []
    for found in _WORD.finditer(answer):
        inner = [place for place, letter in enumerate(found[1], found.start(1)) if letter.isalnum()] or [found.start(1), found.end(1) - 1]
        words.append({"text": found[1], "start": inner[0], "end": inner[-1] + 1, "space": found[2]})
    return words


def sure_values(table: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return how sure the answer is: sentences, and the odds with their interval where they were measured. None if nobody looked."""
    sure = table.get("sure")
    if not isinstance(sure, Mapping):
        return None
    odds = sure.get("odds")
    shares = None if not odds else [max(0.0, min(1.0, float(odds[name]))) for name in ("p", "low", "high")]
    return {"says": [str(said) for said in sure.get("says") or ()], "odds": shares}


def account_line(table: Mapping[str, Any], took: Mapping[str, Any]) -> str:
    """Return the line below an explanation. `took`: seconds, event and energy, as they stand with it or in the ledger."""
    energy = energy_in(took)
    left = ", ".join(table.get("not_looked_at") or ())
    method = str(table.get("method") or "")
    parts = (
        _METHODS.get(method, f"method {method}"),
        counted(int(table["sentences"]), "sentence") if table.get("sentences") else "",
        f"{counted(int(table['read_tokens']), 'token')} read" if table.get("read_tokens") else "",
        f"{took['seconds']:.1f} s" if "seconds" in took else "",
        "" if energy is None or not energy.source else amount(energy.joules) if energy.measured else f"≈ {amount(energy.joules)}",
        f"event {took['event']}" if took.get("event") else "",
        "" if table.get("complete") else f"not complete: {left} not looked at" if left else "not complete",
    )
    return " · ".join(_held(part) if len(part) < _SHORT else part for part in parts if part)


def _held(part: str) -> str:
    """Return a figure with its unit in one piece, so that no line breaks between them."""
    return part.replace(" ", "\u00a0")


def taught_now(engine: "Engine", owner: str, causes: Sequence[Mapping[str, Any]]) -> dict[str, TaughtNow]:
    """Return what became of the memories and lessons among causes, by their ids."""
    memories = [one["id"] for one in causes if one["kind"] == "memory"]
    digests = [one["id"] for one in causes if one["kind"] == "lesson"]
    lessons = {one.digest: one for one in list_lessons(engine, owner)} if digests else {}
    held = {digest: lessons[digest].examples if digest in lessons else () for digest in digests}
    examples = {one.id: one for one in examples_called(engine, owner, {*memories, *(id_ for ids in held.values() for id_ in ids)})}

    def now(ids: Sequence[str]) -> TaughtNow:
        states = {examples[id_].state for id_ in ids if id_ in examples}
        if states & set(COUNTING):
            return TaughtNow(act="undo")
        [state] = states if len(states) == 1 else ("gone",)
        return TaughtNow(state, "redo" if state == "undone" and len(ids) == 1 else "")

    return {id_: now([id_]) for id_ in memories} | {digest: now(ids) for digest, ids in held.items()}


def shown_values(engine: "Engine", owner: str, turn: "Turn", table: Mapping[str, Any], took: Mapping[str, Any]) -> dict[str, Any]:
    """Return an explanation as people see it. `took`: see `account_line`. Reads the database."""
    taught = taught_now(engine, owner, [one["cause"] for one in table["causes"]])
    return {**why_values(table, request_of(engine, turn), taught), "line": account_line(table, took), "legend": legend()}
