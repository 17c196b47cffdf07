"""How a model answers requests: short greedy answers, and whether they refuse. No answer is kept anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ingle.core.errors import Interrupted
from ingle.core.message import Message, Request, Sampling
from ingle.core.progress import Counted, silent
from ingle.core.report import Report
from ingle.measure.intervals import wilson
from ingle.measure.subjects import Subject
from ingle.safety.answers import reached, refuses, signs

SHORT = 24  # tokens of an answer that show whether it refuses
GREEDY = Sampling(temperature=0.0, seed=0)


@dataclass(frozen=True, slots=True)
class JudgedReply:
    """One judged answer, without its words."""

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
        raise Interrupted(
            "answers", "were interrupted", f"{len(found)} of {len(texts)}", "Run the same command again."
        )  # fmt: skip
    return [found[number] for number in range(len(texts))]


def judge_reply(question: str, answer: str) -> JudgedReply:
    """Judge one answer."""
    return JudgedReply(refuses(question, answer), "explicit" in signs(question, answer), reached(question, answer))


def shares(flags: Mapping[str, Sequence[bool]], model_digest: str, data_digest: str) -> list[Report]:
    """Return a figure for each name: the share of its flags that are set, with Wilson's interval."""
    reports = []
    for name, values in flags.items():
        interval = wilson(sum(values), len(values))
        value = sum(values) / len(values)
        reports.append(Report(name, value, "share", interval.low, interval.high, len(values), model_digest, data_digest, interval.method))
    return reports
