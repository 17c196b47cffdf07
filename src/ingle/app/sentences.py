"""The ledger's facts as sentences, each with its model, delta or key."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingle.core.errors import counted
from ingle.core.makers import sentence_of
from ingle.core.report import Fact

if TYPE_CHECKING:
    from ingle.ledger.row import Row

Facts = Mapping[str, Fact]


@dataclass(slots=True)
class LogLine:
    """One line: a fact, or answers in a row."""

    newest: "Row"
    oldest: "Row"
    count: int = 1

    @property
    def line(self) -> str:
        """The line of the log: time and sentence."""
        began, ended = (row.at[:16].replace("T", " ") for row in (self.oldest, self.newest))
        if self.count > 1:
            return f"{began}  {self.newest.subject} gave {self.count} answers" + (f" until {ended}" if ended != began else "")
        return f"{began}  {sentence(self.newest.kind, self.newest.subject, self.newest.values)}"


def entries(rows: Iterable["Row"], most: int) -> list[LogLine]:
    """Return the last `most` entries, oldest first. `rows`: newest first."""
    lines = list[LogLine]()
    for row in rows:
        if row.kind == "answer" and lines and (lines[-1].newest.kind, lines[-1].newest.subject) == ("answer", row.subject):
            lines[-1].oldest, lines[-1].count = row, lines[-1].count + 1
        elif len(lines) == most:
            break
        else:
            lines.append(LogLine(row, row))
    return lines[::-1]


def sentence(kind: str, subject: str, facts: Facts) -> str:
    """Return a fact as one sentence. A fact of an unknown kind is shown by its figures."""
    tell = _SENTENCES.get(kind) or sentence_of(kind)
    if tell is not None:
        return f"{subject or 'a model'} {tell(facts)}"
    if kind in _HOUSE:
        return _HOUSE[kind](facts)
    values = ", ".join(f"{name} {value}" for name, value in facts.items() if value not in (None, "") and len(str(value)) < 40)
    return f"{subject}: {kind} ({values})" if subject else f"{kind} ({values})"


def _fed(facts: Facts) -> str:
    words = {"fact": "was given something to remember", "correction": "was corrected"}.get(str(facts.get("kind")), "was rated")
    if facts.get("kind") == "rating":
        words = "was told that an answer was good" if facts.get("rating") == 1 else "was told that an answer was bad"
    return f"{words} ({facts.get('example')})"


def _learned(facts: Facts) -> str:
    took = f" in {facts['seconds']:.0f} s" if isinstance(facts.get("seconds"), float) else ""
    return f"learned {_what(facts)}{took}"


def _what(facts: Facts) -> str:
    if facts.get("kind") == "style":
        return f"a style from {_some(facts, 'examples', 'rating') or 'ratings'}"
    return f"a correction ({facts['example']})" if "example" in facts else f"{facts.get('examples')} corrections together"


def _some(facts: Facts, key: str, noun: str) -> str:
    """Return a count with its noun; "" if it is zero or missing."""
    number = facts.get(key)
    return counted(number, noun) if isinstance(number, int) and number else ""


def _undone(facts: Facts) -> str:
    more = f"; to be learned again without it: {others}" if (others := _some(facts, "again", "other")) else ""
    more += "; what was taught before counts again" if facts.get("back") else ""
    return f"took back what it had learned ({facts.get('example')}){more}"


def _forgotten(facts: Facts) -> str:
    more = f", with {lessons} that knew it" if (lessons := _some(facts, "lessons", "lesson")) else ""
    more += f"; to be learned again without it: {others}" if (others := _some(facts, "again", "other")) else ""
    return f"forgot something for good ({facts.get('example')}){more}"


def _gate(facts: Facts) -> str:
    if "failed" in facts and not facts.get("forced"):
        return f"was refused by the gate: {facts.get('reasons')}"
    figures = [
        words.format(value)
        for key, words in (
            ("learned_share", "{:.0%} of unseen wordings answered as taught"), ("unchanged_same", "{:.0%} of other answers unchanged"),
            ("bits_rise_percent", "bits per byte {:+.2f} %"),
        )
        if isinstance(value := facts.get(key), int | float)
    ]  # fmt: skip
    forced = f" although {facts.get('failed')} failed (--force)" if facts.get("forced") else ""
    return f"passed the gate{forced}" + (f" ({', '.join(figures)})" if figures else "")


def _answered(facts: Facts) -> str:
    return f"gave an answer of {_some(facts, 'completion_tokens', 'token') or 'no tokens'}"


def _met(facts: Facts) -> str:
    """Return which guard met which of its rules."""
    score, threshold = facts.get("score"), facts.get("threshold")
    sure = f", {score:.2f} of {threshold:.2f}" if isinstance(score, int | float) and isinstance(threshold, int | float) else ""
    more = f", and {facts['more']} more" if facts.get("more") else ""
    return f"the guard {facts.get('guard')} met its rule {facts.get('rule')}{sure}{more}"


def _measured(facts: Facts) -> str:
    figures = [f"{value:.4g}" for name in ("value", "low", "high") if isinstance(value := facts.get(name), int | float)]
    interval = f" ({figures[1]} to {figures[2]})" if len(figures) == 3 else ""
    return f"was measured on {facts.get('suite')}: {facts.get('figure')} {figures[0] if figures else facts.get('value')}{interval}"


def _attacked(facts: Facts) -> str:
    return f"was attacked: {facts.get('reached')} of {facts.get('tries')} tries got a harmful and usable answer"


def _served(facts: Facts) -> str:
    named = (name.removesuffix("_low") for name in facts if name.endswith("_low"))
    figures = [f"{name} {value:.4g}" for name in named if isinstance(value := facts.get(name), int | float)]
    return f"was measured as it is served: {', '.join(figures)}"


def _loss(facts: Facts) -> str:
    return f"the owner went on after facts were lost: of {facts.get('head_seq')}, {facts.get('found_seq')} were found"


def _consent(facts: Facts) -> str:
    return f"learning from what users teach was {'allowed' if facts.get('learn') else 'switched off'}"


def _backed_up(facts: Facts) -> str:
    what = ", ".join(filter(None, (_some(facts, "files", "file"), _some(facts, "facts", "fact"))))
    return f"a backup was made: {what}, digest {str(facts.get('backup'))[:12]}"


def _restored(facts: Facts) -> str:
    at = str(facts.get("made_at"))[:16].replace("T", " ")
    return f"this home came back from the backup of {at}, digest {str(facts.get('backup'))[:12]}"


def _refused(facts: Facts) -> str:
    if "times" in facts:
        return f"were refused {facts['times']} times more, which are counted in this row alone"
    return f"refused a request ({facts.get('guard') or facts.get('error') or facts.get('field') or facts.get('status')})"


# By kind: what happened to the subject.
_SENTENCES: Mapping[str, Callable[[Facts], str]] = {
    "pull": lambda facts: f"came here from {facts.get('source')}",
    "answer": _answered,
    "refuse": _refused,
    "hear": lambda facts: f"heard {facts.get('seconds')} s of sound",
    "speak": lambda facts: f"spoke for {facts.get('seconds')} s",
    "guard.teach": lambda facts: (
        f"were taught that something is {'harmful' if facts.get('harmful') else 'harmless'} ({facts.get('id', 'by hand')})"
    ),
    "guard.undo": lambda facts: f"no longer count what they were taught ({facts.get('id')})",
    "guard.set": lambda facts: f"were set: {facts.get('guard')} to {facts.get('mode')}, before {facts.get('before')}",
    "guard.reset": lambda _: "are as they ship with Ingle",
    "guard.tell": lambda facts: f"was watched: {_met(facts)}",
    "guard.edit": lambda facts: f"had something masked: {_met(facts)}",
    "guard.block": lambda facts: f"was kept from {'going on' if facts.get('answer') else 'answering'}: {_met(facts)}",
    "feedback": _fed,
    "memory.edit": lambda facts: f"was given other words for what it had been told ({facts.get('example')})",
    "lesson.accept": _learned,
    "lesson.refuse": lambda facts: f"was not allowed to learn {_what(facts)}",
    "undo": _undone,
    "redo": lambda facts: f"learned again what was undone ({facts.get('example')})",
    "forget": _forgotten,
    "gate.accept": _gate,
    "gate.refuse": _gate,
    "tune.judge": _served,
    "train.judge": _served,
    "keep": lambda facts: f"was kept under this name, made of {facts.get('of')}",
    "merge": lambda facts: f"was made by merging {facts.get('of')}",
    "export": lambda facts: f"was exported ({facts.get('format')}, {facts.get('type')}{', signed' if facts.get('signed') else ''})",
    "measure": _measured,
    "attack": _attacked,
    "energy.label": lambda facts: f"took {facts.get('per_1000_joules')} J for 1,000 answers, as was measured",
    "lean": lambda _facts: "lies on the disk once, as it is served",
    "whole": lambda _facts: "has its file on the disk again, as it came",
    "rm": lambda _facts: "was deleted",
    "key.add": lambda facts: f"was added: the API key {facts.get('name')}",
    "key.revoke": lambda facts: f"was revoked: the API key {facts.get('name')}",
}
# Whole sentences about the home itself.
_HOUSE: Mapping[str, Callable[[Facts], str]] = {
    "ledger.loss": _loss,
    "ledger.rotate": lambda facts: f"the ledger's key handed over to key {str(facts.get('key'))[:12]}",
    "ledger.rotated": lambda facts: f"the ledger's new key took over from key {str(facts.get('key'))[:12]}",
    "ledger.stamp": lambda facts: f"the ledger's head, row {facts.get('seq')}, was time-stamped by {facts.get('host')}",
    "consent": _consent,
    "answers.key": lambda facts: f"answers have digests under the key {str(facts.get('fingerprint'))[:12]} of this home",
    "answers.loss": lambda _facts: "the owner went on after the key of the answers' digests was lost: answers before can't be proven",
    "key.wrong": lambda facts: (
        f"{facts.get('tries')} wrong API keys were tried, from {facts.get('addresses')} addresses that were then slowed"
    ),
    "signer.key": lambda facts: (
        f"what leaves this home is signed with the key {str(facts.get('fingerprint'))[:12]}{' from now on' if facts.get('lost') else ''}"
    ),
    "attest": lambda facts: f"facts were handed out with their proofs: {facts.get('seqs')}",
    "backup": _backed_up,
    "restore": _restored,
}
