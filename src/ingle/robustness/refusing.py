"""Refusals: the requests that `ingle make harden` teaches with and is measured by, and how a model answers requests.

Its answers are short and greedy, and kept nowhere. What is measured is never taught: held-out goals in held-out templates, and two families
of rephrased goals as a whole.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingle.core.config import Amount, check_bounds
from ingle.core.errors import Interrupted
from ingle.core.message import Message, Request, Sampling
from ingle.core.progress import Counted, FetchProgress, silent
from ingle.core.report import Report
from ingle.home.place import Home
from ingle.measure.intervals import wilson
from ingle.measure.subjects import Subject
from ingle.robustness.prompts import LabelledPrompt, dressed, goals, lookalikes, ordinary, rephrased, risky
from ingle.safety.answers import reached, refuses, signs

SHORT = 24  # tokens of an answer that show whether it refuses
GREEDY = Sampling(temperature=0.0, seed=0)


@dataclass(frozen=True, slots=True)
class JudgedReply:
    refused: bool  # whether it refuses, or answers something else: people count both as no answer
    explicit: bool  # whether it says so: that it can't, won't, or is sorry
    reached: bool  # whether a harmful request got what it asked for, usably


def asked(text: str, most_tokens: int) -> Request:
    """The request that asks this of a model, in a turn of its own."""
    return Request(messages=(Message.of("user", text),), max_tokens=most_tokens, sampling=GREEDY)


def judged(subject: Subject, texts: Sequence[str], most_tokens: int = SHORT, done: Counted = silent) -> list[JudgedReply]:
    """Return the judgement of the model's answer to each request. `done` hears how many are answered. Raises Interrupted."""
    found = dict[int, JudgedReply]()
    done(0, len(texts))
    for number, answer in subject.write([asked(text, most_tokens) for text in texts]) if texts else ():
        found[number] = judge_reply(texts[number], answer)
        done(len(found), len(texts))
    if len(found) < len(texts):
        raise Interrupted("answers", "were interrupted", f"{len(found)} of {len(texts)}", "Run the same command again.")
    return [found[number] for number in range(len(texts))]


def judge_reply(question: str, answer: str) -> JudgedReply:
    return JudgedReply(refuses(question, answer), "explicit" in signs(question, answer), reached(question, answer))


def shares(flags: Mapping[str, Sequence[bool]], model_digest: str, data_digest: str) -> list[Report]:
    """Return a figure for each name: the share of its flags that are set, with Wilson's interval."""
    reports = []
    for name, values in flags.items():
        interval = wilson(sum(values), len(values))
        value = sum(values) / len(values)
        reports.append(Report(name, value, "share", interval.low, interval.high, len(values), model_digest, data_digest, interval.method))
    return reports


HARMFUL = ("plain", "persona", "past", "future")  # families of harmful requests that are measured; past and future are never taught
HARMLESS = ("look-alike", "ordinary")
_LONGEST, _PROSE = 900, 400  # most characters of a request, and of a piece of prose: tokens cost training time


@dataclass(frozen=True, slots=True)
class Amounts:
    plain: Amount = 70  # harmful requests as they are: half of them direct (`prompts.goals`), half risky questions (`prompts.risky`)
    dressed: Amount = 10  # harmful requests in the dress of an attack
    lookalikes: Amount = 200  # harmless requests in the words of harmful ones
    ordinary: Amount = 90  # other harmless requests
    prose: Amount = 10  # beginnings of news, along which the model is to stay as it was: requests alone would let it forget other text

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True, slots=True)
class Curriculum:
    harmful: tuple[LabelledPrompt, ...]
    lookalikes: tuple[LabelledPrompt, ...]
    ordinary: tuple[LabelledPrompt, ...]
    prose: tuple[str, ...]
    held_out: Mapping[str, tuple[LabelledPrompt, ...]]  # by family: `HARMFUL`, then `HARMLESS`


def read_curriculum(home: Home, taught: Amounts, measured: Amounts, seed: int, progress: FetchProgress = silent) -> Curriculum:
    """Draw the requests. Raises the errors of fetching the wheels."""
    draw = random.Random(seed)
    plain, hard, every = goals(home, progress), risky(home, progress), ordinary(home, progress)
    usual, ways = [one for one in every if len(one.text) <= _LONGEST], rephrased(home, progress)
    harmful = [
        *_some(plain, False, taught.plain - taught.plain // 2, draw),
        *_some(hard, False, taught.plain // 2, draw),
        *attacks(home, taught.dressed, False, seed, progress),
    ]
    like, others = _some(lookalikes(), False, taught.lookalikes, draw), _some(usual, False, taught.ordinary, draw)
    news = _some([one for one in every if one.family == "xsum"], False, taught.prose, draw)
    held_out = {
        "plain": _some(plain, True, measured.plain, draw),
        "persona": attacks(home, measured.dressed, True, seed, progress),
        **{name: _some([one for one in ways if one.family == name], None, measured.dressed // 2, draw) for name in HARMFUL[2:]},
        "look-alike": _some(lookalikes(), True, measured.lookalikes, draw),
        "ordinary": _some(usual, True, measured.ordinary, draw),
    }
    return Curriculum(
        tuple(harmful), tuple(like), tuple(others), tuple(one.text.split("\n\n", 1)[-1][:_PROSE] for one in news),
        {name: tuple(some) for name, some in held_out.items() if some},
    )  # fmt: skip


def attacks(home: Home, count: int, held_out: bool, seed: int, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """Return so many goals of this part in the dress of an attack, short ones only; other seeds draw others."""
    found, tried = dict[str, LabelledPrompt](), 0
    while len(found) < count and tried < 20:  # a long template is left out, and most are
        for one in dressed(home, 4 * count + 50, 1000 * seed + tried, progress):
            if one.held_out == held_out and len(one.text) <= _LONGEST:
                found[one.id] = one
        tried += 1
    return list(found.values())[:count]


def refusal_for(prompt: LabelledPrompt, refusals: Sequence[str]) -> str:
    """Return one of the refusals, by the request's id: equal requests get equal answers."""
    return refusals[int(prompt.id[:8], 16) % len(refusals)]


def own_refusals() -> tuple[str, ...]:
    """The refusals that are taught, written for Ingle."""
    lines = Path(__file__).with_name("refusals.txt").read_text("utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def _some(prompts: Sequence[LabelledPrompt], held_out: bool | None, count: int, draw: random.Random) -> list[LabelledPrompt]:
    """Draw requests of one part (None: of both)."""
    part = [one for one in prompts if held_out is None or one.held_out == held_out]
    return draw.sample(part, min(count, len(part)))
