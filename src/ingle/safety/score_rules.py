"""Rules that score a text instead of finding words in it: topics of the owner's own, and the judge of answers."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from ingle.core.message import Request
from ingle.safety.holding import Look, Passage, Undecided
from ingle.safety.policy import GuardRule
from ingle.safety.topic import FittedTopic, fit

Scorer = Callable[[str, str], float]  # (question, answer so far) → a score; the higher, the surer
LONGEST_SENTENCE = 240  # characters after which a sentence is judged although it goes on
_END = re.compile(r"[.!?…。！？]+[\"')\]”’»]*(?=\s)|\n+(?=[^\n])|[。！？]")


class ScoreRule(NamedTuple):
    """A scorer, and the score from which it counts."""

    name: str
    score: Scorer
    threshold: float
    whole: bool  # whether it reads the answer so far, not the last sentence alone


def score_rules(rule: GuardRule) -> tuple[ScoreRule, ...]:
    """Return what a policy's rule scores. Raises ConfigError for examples that teach no topic."""
    rules = list(topic_rules(rule))
    if rule.harm is not None:
        rules.append(ScoreRule("harm", _judge(), rule.harm, True))
    return tuple(rules)


def topic_rules(rule: GuardRule) -> tuple[ScoreRule, ...]:
    """Return the topics of a policy's rule, fitted. Raises ConfigError for examples that teach none."""
    fitted = [(topic.name, fit(topic, rule.alarms)) for topic in rule.topics]
    return tuple(ScoreRule(f"topic {name}", _of_text(topic), topic.threshold, False) for name, topic in fitted)


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a whole text."""
    start = 0
    while (end := sentence_end(text, start, True)) > start:
        yield text[start:end]
        start = end


def by_sentence(rules: Sequence[ScoreRule], question: str, instead: str) -> Look:
    """Return a look that judges an answer sentence by sentence. It is for one answer: it remembers what it has read."""
    read: list[str] = []
    judged: dict[int, Passage | None] = {}

    def look(held: Undecided) -> tuple[Sequence[Passage], int]:
        have = sum(map(len, read))
        read.append(held.text[have - held.at :])
        answer = "".join(read)
        read[:] = [answer]
        spans, start = [], 0
        # Another look may let only part of a judged sentence go: it still ends where it ended.
        while (end := _known_end(judged, held.at + start, held.at) or sentence_end(held.text, start, held.final)) > start:
            if held.at + end not in judged:
                judged[held.at + end] = _judged(rules, question, answer[: held.at + end], end - start, instead)
            if (span := judged[held.at + end]) is not None:
                spans.append(replace(span, start=start, end=end))
            start = end
        return spans, start

    return look


def last_question(request: Request) -> str:
    """Return what an answer answers: the user's own words of the last turn, or the prompt."""
    if request.prompt is not None:
        return request.prompt if isinstance(request.prompt, str) else ""
    return next((message.text for message in reversed(request.messages) if message.role == "user"), "")


def sentence_end(text: str, start: int, final: bool) -> int:
    """Return where the sentence ends; `start` if that isn't known yet."""
    most = start + LONGEST_SENTENCE
    found = _END.search(text, start, min(len(text), most + 1))
    if found and found.end() > start:
        return min(found.end(), most)
    return most if len(text) > most else len(text) if final else start


def _known_end(judged: Mapping[int, Passage | None], at: int, begin: int) -> int:
    """Return where the sentence at a place ends, counted from `begin`, if it was judged before; else 0."""
    return min((end for end in judged if end > at), default=begin) - begin


def _judged(rules: Sequence[ScoreRule], question: str, answer: str, sentence: int, instead: str) -> Passage | None:
    for rule in rules:
        score = rule.score(question, answer if rule.whole else answer[-sentence:])
        if score >= rule.threshold:
            return Passage(0, 0, rule.name, instead, round(score, 4), rule.threshold)
    return None


def _of_text(topic: FittedTopic) -> Scorer:
    return lambda _question, text: topic.score(text)


def _judge() -> Scorer:
    from ingle.safety.answers import harm

    return harm
