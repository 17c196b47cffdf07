"""Explains one answer: proposes causes, proves them, asks for the answer without them, and says it in plain words. And its need."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ingle.core.errors import RequestError
from ingle.core.headroom import Need, speed
from ingle.core.message import Request
from ingle.engine.packs import LIBRARIES, ServedSize
from ingle.explain.cause import PARTS, AnswerSpan, Chance, OutOfTime, ProvedCause, Reader, Said, Together, Variation, Why, worded
from ingle.explain.falls import FEW_RANDOM_SETS, RANDOM_SETS, Falls, Left, method, proved, proved_together
from ingle.explain.prompt_sentences import sentences_of, twin, without
from ingle.explain.traces import TaughtText, traces
from ingle.explain.words import TABLE, row_of, say, say_enough, say_together, say_trace, shares_blame, unlooked
from ingle.model.tensor import size_of

EXACT_SENTENCES = 25  # up to so many sentences, each is left out by itself
EXACT_TOKENS = 6_000  # most tokens that this may take to read; beyond, sentences are looked at alone
SHOWN = 3  # most sentences that are proved and shown


@dataclass(frozen=True, slots=True)
class WhyOptions:
    span: AnswerSpan | None = None  # the part to explain; None = all of it
    method: str = "auto"  # a file of explain/methods, or auto
    sentences: bool = True  # whether to look at the sentences of the prompt; what was taught is always looked at
    seed: int = 0


def explain(reader: Reader, said: Said, variations: Sequence[Variation], asked: WhyOptions) -> Iterator[ProvedCause | Why]:
    """Yield causes as they are proved, and at last the whole explanation.

    `variations`: the answer's model and request without each thing that was taught and acted. Raises RequestError for an empty span or
    answer, ConfigError for an unknown method.
    """
    span = checked_span(said, asked.span)
    if asked.method != "auto":
        method(asked.method)
    falls = Falls(reader, said, span)
    causes, together, name, missed = list[ProvedCause](), None, "", list[str]()
    try:
        for one in _taught(falls, variations):
            causes.append(one)
            yield one
        if asked.sentences and falls.causes:
            name = chosen(falls, asked.method)
            for part in _sentences(falls, name, asked.seed):
                if isinstance(part, Together):
                    together = part
                else:
                    causes.append(part)
                    yield part
    except OutOfTime:
        missed = _missed(causes, variations, together, bool(falls.causes))
    yield _whole(falls, causes, together, name, missed)


def with_traces(why: Why, texts: Iterable[TaughtText]) -> Why:
    """Return the explanation with the runs of words of its answer that stand in these texts, too."""
    found = traces(why.answer, texts)
    return replace(why, traces=found, says=(*why.says, *map(say_trace, found)))


def checked_span(said: Said, span: AnswerSpan | None) -> AnswerSpan:
    """Return the span, of the whole answer if none was named. Raises RequestError."""
    if not said.tokens:
        raise RequestError("answer", "must have at least one word to explain", "an empty one")
    if span is None:
        return AnswerSpan(0, len(said.text))
    if not 0 <= span.start < span.end <= len(said.text):
        raise RequestError(
            "span", f"must begin before it ends, within the answer's {len(said.text)} characters", f"{span.start} to {span.end}"
        )
    return span


def chosen(falls: Falls, asked: str) -> str:
    """Return the method: by counts alone, so that the same answer is always explained in the same way."""
    if asked != "auto":
        return asked
    singles = [Left({i}) for i in falls.causes]
    return "leave_one_out" if len(singles) <= EXACT_SENTENCES and falls.tokens_of(singles) <= EXACT_TOKENS else "alone"


def _taught(falls: Falls, variations: Sequence[Variation]) -> Iterator[ProvedCause]:
    """Yield what was taught, and parts of the model, each left out by itself, the strongest first."""
    if not variations:
        return
    losses = falls.varied(variations)
    control = [falls.summed(nats) for nats, one in zip(losses, variations, strict=True) if one.cause.kind == "groups"]
    shown = sorted((i for i, one in enumerate(variations) if one.cause.kind != "groups"), key=lambda i: -falls.summed(losses[i]))
    answers = falls.reader.write([(variations[i].model, variations[i].request) for i in shown])
    for i, answer in zip(shown, answers, strict=True):
        cause = variations[i].cause
        chance = Chance.of(control) if cause.kind in PARTS else None
        nats = tuple(map(float, losses[i]))
        one = ProvedCause(cause, falls.summed(losses[i]), nats, chance, answer, differs(falls, answer))
        yield worded(one, say(one))


def _sentences(falls: Falls, name: str, seed: int) -> Iterator[ProvedCause | Together]:
    """Yield the sentences that stand out, the strongest first, and what they do together."""
    scores = method(name)(falls, falls.said.text, seed)
    few = name != "leave_one_out"
    best = [falls.causes[i] for i in np.argsort(-scores, kind="stable")[:SHOWN]]
    if not few:  # two sentences that say the same each hide the other: looked at alone, both show
        alone = method("alone")(falls, falls.said.text, seed)
        best = list(dict.fromkeys([best[0], *(falls.causes[i] for i in np.argsort(-alone, kind="stable")[:2]), *best[1:]]))[:SHOWN]
    count = FEW_RANDOM_SETS if few else len(falls.causes)
    found = sorted(proved(falls, best, count, seed), key=lambda one: -one.nats)
    [nothing] = falls.of([falls.every])
    if len(best) > 1:
        numbers = [int(one.cause.id) - 1 for one in found]
        together = proved_together(falls, numbers, FEW_RANDOM_SETS if few else RANDOM_SETS, seed)
    else:
        together = None
    out = [one for one in found if one.stands_out]
    requests = [_without(falls, [one.cause.id]) for one in out]
    joint = together is not None and together.rest > 0 and together.necessity > 0
    if joint and together is not None:
        requests.append(_without(falls, together.causes))
    answers = list(falls.reader.write([(falls.said.model, request) for request in requests])) if requests else []
    lost_alone = falls.of([falls.every - Left({int(one.cause.id) - 1}) for one in out]) if nothing > 0 else []
    for number, one in enumerate(out):
        share = lost_alone[number] / nothing if nothing > 0 else None
        one = replace(one, answer_without=answers[number], differs=differs(falls, answers[number]), alone=share)
        yield worded(one, say(one))
    if together is not None and joint:
        together = replace(together, answer_without=answers[-1], differs=differs(falls, answers[-1]))
        together = replace(together, says=say_together(together, found))
    if together is not None:
        yield together


def _without(falls: Falls, numbers: Sequence[str]) -> Request:
    return without(falls.said.request, [falls.sentences[int(number) - 1] for number in numbers])


def differs(falls: Falls, answer: str) -> bool:
    """Return whether another answer lacks the explained part: the whole answer is another one, or the named words are not in it."""
    text, span = falls.said.text, falls.span
    if (span.start, span.end) == (0, len(text)):
        return answer.strip() != text.strip()
    return text[span.start : span.end].strip() not in answer


def _missed(causes: Sequence[ProvedCause], variations: Sequence[Variation], together: Together | None, sentences: bool) -> list[str]:
    left = []
    if len([one for one in causes if one.cause.kind != "sentence"]) < len(variations):
        left.append("what was taught")
    if sentences and together is None:
        left.append("the sentences of the prompt")
    return left


def _whole(falls: Falls, causes: Sequence[ProvedCause], together: Together | None, name: str, missed: Sequence[str]) -> Why:
    ordered = sorted(causes, key=lambda one: -one.nats)
    says = [one.says for one in ordered if one.cause.kind != "sentence" or one.stands_out]
    says += filter(None, (say_enough(one) for one in ordered))
    if together is not None and together.says:
        says.append(together.says)
    elsewhere = _elsewhere(falls, ordered)
    if elsewhere is not None:
        says.append(TABLE["elsewhere"].format(theirs=elsewhere[0], asked=elsewhere[1]))
    stands = any(one.stands_out for one in ordered) or (together is not None and shares_blame(together))
    if missed:
        says.append(unlooked(missed))
    elif not stands:
        says.append(TABLE["nothing" if falls.causes or causes else "alone_prompt"])
    return Why(
        falls.said.text, falls.span, tuple(ordered), together, tuple(says), falls.said.pieces, len(falls.causes), name, falls.read_tokens,
        not missed, tuple(missed), elsewhere,
    )  # fmt: skip


def _elsewhere(falls: Falls, causes: Sequence[ProvedCause]) -> tuple[str, str] | None:
    """Return both names if the sentence that decides is about another name than the question."""
    question = " ".join(one.text for one in falls.sentences if one.asks)
    strongest = next((one for one in causes if one.cause.kind == "sentence" and row_of(one) == "decides"), None)
    text = "".join(one.text for one in falls.sentences)
    return None if strongest is None else twin(question, strongest.cause.text, falls.said.text, text)


# Time and memory of an explanation, before the model is opened.


_BYTES_A_TOKEN, _TEMPLATE = 3.8, 40
_SETS = 20  # sets of sentences that are left out together or by chance, beside each by itself
_START_S = 2.0
_WRITTEN = 6  # a token that is written takes as long as so many that are read together


def why_need(served: ServedSize, request: Request, answer: str, variations: int = 0) -> Need:
    """Predict the memory and the time of explaining an answer to this request."""
    prompt, said = (round(len(text.encode()) / _BYTES_A_TOKEN) for text in (_text(request), answer))
    prompt, size = prompt + _TEMPLATE, size_of(served.config)
    sentences = len(sentences_of(request))
    sets = 1 + sentences + (_SETS if sentences > 1 else 0) + variations
    read = sets * (prompt / 2 + said) + 2 * prompt
    written = (2 + min(3, sentences) + variations) * said
    parts = {
        "the model": served.weights, "what it reads": served.state_bytes(round(prompt + said * min(sets, 16))), "Ingle itself": LIBRARIES,
    } | ({"packing its weights": served.packing} if served.packing else {})  # fmt: skip
    operations = 2 * size.read * (read + _WRITTEN * written)
    return Need("Explaining this", parts, _START_S + operations / speed(None, 1))


def _text(request: Request) -> str:
    whole = "".join(message.text for message in request.messages)
    return whole + (request.prompt if isinstance(request.prompt, str) else "    " * len(request.prompt or ()))
