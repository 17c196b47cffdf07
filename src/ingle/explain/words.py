"""An explanation's figures in plain words, and as a page. Every sentence comes from the table here; none claims more than its figures."""

from collections.abc import Sequence
from html import escape
from math import ceil, floor
from typing import Literal

from ingle.core.errors import counted, shortened
from ingle.core.message import Request
from ingle.explain.cause import PARTS, Kind, Odds, ProvedCause, SureSignals, SureToken, Together, Why
from ingle.explain.prompt_sentences import Sentence, sentences_of
from ingle.explain.traces import WordTrace

Row = Literal[
    "decides", "leans", "unneeded", "unmoved", "several", "enough", "nothing", "unlooked", "alone_prompt", "elsewhere", "sure",
    "unmeasured",
    "wavered", "agrees", "stands_there",
]  # fmt: skip
TABLE: dict[Row, str] = {
    "decides": "Without {what} it would have said: {answer}",
    "leans": "It leaned on {what}, but would have said the same without it.",
    "unneeded": "{What} was there, but the answer did not need it.",
    "unmoved": "{What} made no difference to this answer.",
    "several": "Several places say this; no single one decides: {what}. Without all of them it would have said: {answer}",
    "enough": "{What} alone is enough for it to say this.",
    "elsewhere": "It took this from a sentence about {theirs}, but you asked about {asked}.",
    "nothing": "Nothing here stands out; I can't say why.",
    "alone_prompt": "There is nothing to leave out but the question itself. What it says comes from the weights.",
    "unlooked": "The time was over before everything was looked at: {what}.",
    "sure": "When it answers {kind} like this, it is right {times} ({low} to {high} in 100; it was asked {n} with known answers).",
    "unmeasured": "How often it is right was not measured: {reason}.",
    "wavered": "It was least sure at “{token}” ({share} in 100); next came “{other}” ({next} in 100).",
    "agrees": "Asked {n} times more, with chance, it said the same {times}.",
    "stands_there": "“{run}” stands there too, word for word: {source}, line {line}. That does not show that it comes from there.",
}
# Kinds of questions; see explain/odds.py.
KIND_WORDS = {
    "bare": "questions with nothing beside them",
    "text": "questions with a text beside them",
    "yes_no": "yes-or-no questions with a text beside them",
    "elsewhere": "questions that a sentence about another name decided",
    "taught": "questions on which something taught acted",
}
UNMEASURED = {
    "no_question": "nothing was asked",
    "no_model": "run `ingle why --calibrate {model}` once",
    "lesson": "a lesson acted, and the model with it was not asked",
    "no_kind": "too few {kind} were asked",
    "too_long": "the answer is longer than any that was measured",
}
_KINDS: dict[Kind, str] = {
    "sentence": "“{text}”",
    "memory": "the memory “{text}”",
    "lesson": "the lesson {id}",
    "delta": "the delta {id}",
    "retrieval": "the heads that see the whole text",
    "recurrent": "the recurrent memory",
    "groups": "as many other heads",
}
ENOUGH = 0.1  # a sentence is enough by itself if less than this share of the fall without any sentence is left
SEVERAL = 0.5  # several places say the same if more than this share of the joint fall is in no single one
_WAVERED = 0.5  # a token that was likelier than this is not named as the least sure one
_SHOWN = 160  # most characters of quoted words


def what(found: ProvedCause) -> str:
    """Return a cause in words, with its own words quoted."""
    cause = found.cause
    return _KINDS[cause.kind].format(text=quoted(cause.text), id=cause.id[:12])


def quoted(text: str) -> str:
    return shortened(text, _SHOWN)


def row_of(found: ProvedCause) -> Row:
    """Return the row of the table that the figures of a cause allow."""
    if not found.stands_out:
        return "unmoved" if found.cause.kind in PARTS else "unneeded"
    if found.differs and found.answer_without is not None:
        return "decides"
    return "leans" if found.answer_without is not None else "unneeded"


def say(found: ProvedCause) -> str:
    said = what(found)
    row = row_of(found)
    return TABLE[row].format(what=said, What=said[:1].upper() + said[1:], answer=_answer(found.answer_without))


def say_together(together: Together, shown: Sequence[ProvedCause]) -> str:
    """Return the figures of several sentences left out together as a sentence; "" where single sentences say all."""
    if not shares_blame(together):
        return ""
    listed = "; ".join(what(found) for found in shown)
    return TABLE["several"].format(what=listed, answer=_answer(together.answer_without))


def shares_blame(together: Together) -> bool:
    """Return whether several sentences decide together and none by itself."""
    above = together.by_chance is None or together.necessity > together.by_chance.high
    return above and together.differs and together.rest > SEVERAL * together.necessity and together.necessity > 0


def say_enough(found: ProvedCause) -> str:
    """Return the sentence for a cause that is enough by itself; "" if it is not, or was not tried alone."""
    if not found.stands_out or found.alone is None or found.alone >= ENOUGH:
        return ""
    said = what(found)
    return TABLE["enough"].format(What=said[:1].upper() + said[1:])


def say_sure(
    tokens: Sequence[SureToken], signals: SureSignals, kind: str, odds: Odds | None, missing: str, model: str, drawn: int
) -> tuple[str, ...]:
    """Return how sure an answer is in sentences. `missing`: a row of UNMEASURED where there are no odds. `drawn`: answers beside it."""
    said = []
    if odds is None:
        reason = UNMEASURED[missing].format(model=model, kind=KIND_WORDS.get(kind, ""))
        said.append(TABLE["unmeasured"].format(reason=reason))
    else:
        figures = {"times": times(odds.p), "low": floor(100 * odds.low), "high": ceil(100 * odds.high), "n": odds.n}
        said.append(TABLE["sure"].format(kind=KIND_WORDS[kind], **figures))
    if drawn and signals.agreement is not None:
        said.append(TABLE["agrees"].format(n=drawn, times=counted(round(signals.agreement * drawn), "time")))
    worded_tokens = [one for one in tokens if one.others and any(map(str.isalnum, one.text))]
    if worded_tokens and (least := min(worded_tokens, key=lambda one: one.probability)).probability < _WAVERED:
        other, shares = least.others[0], (least.probability, least.others[0].probability)
        share, after = (round(100 * value) for value in shares)
        said.append(TABLE["wavered"].format(token=quoted(least.text), share=share, other=quoted(other.text), next=after))
    return tuple(said)


def times(share: float) -> str:
    """Return a share as people say it: in tenths, and in hundredths near both ends."""
    if share < 0.01:
        return "less than 1 time in 100"
    if share > 0.99:
        return "more than 99 times in 100"
    few = 0.15 <= share <= 0.85
    return f"{counted(round((10 if few else 100) * share), 'time')} in {10 if few else 100}"


def say_trace(trace: WordTrace) -> str:
    """Return the sentence for a run of words that stands in another text, too."""
    return TABLE["stands_there"].format(run=quoted(trace.text), source=trace.source, line=trace.line)


def unlooked(left: Sequence[str]) -> str:
    """Return the sentence for what was left for lack of time."""
    return TABLE["unlooked"].format(what=", ".join(left))


def _answer(text: str | None) -> str:
    return f"“{quoted(text)}”" if text and text.strip() else "nothing"


# An explanation as a page in one file: the prompt with its causes shaded, the answer, and the figures in words. Colour is never alone.


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
mark { background: rgba(230, 150, 40, var(--depth)); border-bottom: 2px solid #b46a00; color: inherit }
td, th { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top }
blockquote { margin: 0; white-space: pre-wrap }
.of { color: #666 }
@media (prefers-color-scheme: dark) { body { background: #1b1b1b; color: #ddd } .of { color: #999 } }
"""


def why_page(why: Why, request: Request) -> str:
    """Return the page as HTML. `request`: as the model read it."""
    found = {one.cause.id: one for one in why.causes if one.cause.kind == "sentence"}
    shaded = "".join(_sentence(number, one, found) for number, one in enumerate(sentences_of(request), 1))
    rows = "".join(map(_row, why.causes))
    says = "".join(f"<p>{escape(said)}</p>" for said in why.says)
    part = why.answer[why.span.start : why.span.end]
    of = "" if part == why.answer else f"<p class=of>Explained: “{escape(part)}”</p>"
    took = f"{why.sentences} sentences of the prompt, {why.read_tokens} tokens read{'' if why.complete else ', not complete'}"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Why it said that</title><style>{_STYLE}</style>"
        f"<h1>Why it said that</h1><blockquote>{escape(why.answer)}</blockquote>{of}{says}"
        f"<h2>What it was given</h2><blockquote>{shaded}</blockquote>"
        f"<h2>Figures</h2><table><tr><th>Without<th>the answer loses<th>by chance<th>it would have said</tr>{rows}</table>"
        f"<p class=of>{took}. A nat is a factor of e in the answer's probability.</p></html>"
    )


def _sentence(number: int, one: Sentence, found: dict[str, ProvedCause]) -> str:
    cause = found.get(str(number))
    if cause is None:
        return escape(one.text)
    depth = min(0.75, 0.15 + cause.nats / 20)
    text, space = one.text.rstrip(), one.text[len(one.text.rstrip()) :]
    return f'<mark style="--depth:{depth:.2f}" title="{cause.nats:.2f} nats">{escape(text)}</mark>{escape(space)}'


def _row(one: ProvedCause) -> str:
    chance = "" if one.by_chance is None else f"at most {one.by_chance.high:.2f} (n = {one.by_chance.n})"
    name = f"{one.cause.kind}: {one.cause.text or one.cause.id}"
    cells: Sequence[str] = (name, f"{one.nats:.2f} nats", chance, one.answer_without or "")
    return "<tr>" + "".join(f"<td>{escape(cell)}" for cell in cells) + "</tr>"
