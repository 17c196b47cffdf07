"""Rules that score a text instead of finding words in it: topics of the owner's own, and the judge of answers."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ingle.core.errors import ConfigError
from ingle.core.message import Request
from ingle.safety.features import grams, vector
from ingle.safety.holding import Look, Passage, Undecided
from ingle.safety.policy import GuardRule, Topic

# A topic is learned from a few examples at once, in the features of the judges (safety/features.py). The score is the cosine to the mean of
# the examples less the cosine to the mean of ordinary texts (safety/ordinary.txt, one a line: written for this purpose). Each example is
# also scored by the others, so that the figure of a policy is one for texts it has not seen.


Weights = Mapping[int, float]
_LEAST_FOUND = 0.5  # share of the examples that the others must find


class FittedTopic(NamedTuple):
    weights: Weights
    threshold: float
    found: float  # share of the examples that the others find

    def score(self, text: str) -> float:
        """Return how much a text is about the topic, −1 to 1."""
        return _product(_vector(text), self.weights)


@lru_cache(64)
def fit(topic: Topic, alarms: float) -> FittedTopic:
    """Return the fitted topic, whose threshold at most this share of ordinary texts reaches.

    Raises ConfigError for examples that would alarm on ordinary texts, or that have nothing in common.
    """
    ordinary = [_vector(text) for text in _ordinary()]
    middle = _mean(ordinary)
    texts = [_vector(text) for text in topic.texts]
    weights = _less(_mean(texts), middle)
    threshold = _threshold([_product(one, weights) for one in ordinary], alarms)
    found = 0
    for number, text in enumerate(texts):
        others = _less(_mean([*texts[:number], *texts[number + 1 :]]), middle)
        found += _product(text, others) >= _threshold([_product(one, others) for one in ordinary], alarms)
    share = found / len(texts)
    if share < _LEAST_FOUND:
        rule = f"must have something in common that ordinary texts have not: of the {len(texts)} examples of {topic.name}, the others find"
        cure = "Give more examples, about one topic, or allow more false alarms (alarms)."
        raise ConfigError(f"examples.{topic.name}", rule, f"{found}", cure)
    return FittedTopic(weights, threshold, share)


def _threshold(scores: Sequence[float], alarms: float) -> float:
    """Return the least score that so small a share of ordinary texts reaches."""
    ranked = sorted(scores, reverse=True)
    return max(ranked[min(len(ranked) - 1, math.floor(alarms * len(ranked)))] + 0.01, 0.02)


def _vector(text: str) -> Weights:
    places, values = vector(grams(text))
    return dict(zip(places.tolist(), values.tolist(), strict=True))


def _scaled(vector: Weights) -> Weights:
    length = math.sqrt(sum(value * value for value in vector.values())) or 1.0
    return {gram: value / length for gram, value in vector.items()}


def _mean(texts: Sequence[Weights]) -> Weights:
    total: dict[int, float] = {}
    for text in texts:
        for gram, value in text.items():
            total[gram] = total.get(gram, 0.0) + value
    return _scaled(total)


def _less(one: Weights, other: Weights) -> Weights:
    return {gram: one.get(gram, 0.0) - other.get(gram, 0.0) for gram in {**one, **other}}


def _product(one: Weights, other: Weights) -> float:
    return sum(value * other[gram] for gram, value in one.items() if gram in other)


@lru_cache(1)
def _ordinary() -> tuple[str, ...]:
    return tuple(Path(__file__).with_name("ordinary.txt").read_text("utf-8").splitlines())


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
