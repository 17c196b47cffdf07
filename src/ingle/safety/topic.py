"""A topic of the owner's own, learned from a few examples at once, in the features of the judges (safety/features.py).

The score is the cosine to the mean of the examples less the cosine to the mean of ordinary texts (safety/ordinary.txt, one a line: written
for this purpose). Each example is also scored by the others, so that the figure of a policy is one for texts it has not seen.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ingle.core.errors import ConfigError
from ingle.safety.features import grams, vector
from ingle.safety.policy import Topic

Weights = Mapping[int, float]
_LEAST_FOUND = 0.5  # share of the examples that the others must find


class FittedTopic(NamedTuple):
    """A topic that texts can be scored for."""

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
