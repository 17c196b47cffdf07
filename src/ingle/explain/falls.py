"""Falls: how much of an answer is lost without some sentences, the proof of causes by it, and the contract of methods that propose some.

All prompts are read as one trie (engine/scoring.py), so what they share is read once. To add a method, put a file into explain/methods. It
holds `propose(falls, answer, seed)`, which returns a number for each sentence that may be left out: the larger, the more the answer rests
on it. A method only proposes. What is shown was proved by really leaving it out.
"""

from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np

from ingle.core import registry
from ingle.core.message import Request
from ingle.engine.language_model import LanguageModel
from ingle.engine.prefix_cache import common_length
from ingle.explain.cause import AnswerSpan, Cause, Chance, Nats, ProvedCause, Reader, Said, Together, Variation, within
from ingle.explain.prompt_sentences import Sentence, sentences_of, without

Left = frozenset[int]  # numbers of the sentences that are left out


@dataclass
class Falls:
    """Falls of one answer's log-probability. Every prompt is read once; asking for the same one again costs nothing."""

    reader: Reader
    said: Said
    span: AnswerSpan
    read_tokens: int = 0
    _known: dict[Left, Nats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.inside = within(self.said, self.span)  # which tokens of the answer are explained
        self.sentences: tuple[Sentence, ...] = sentences_of(self.said.request)
        # Numbers of the sentences that may be left out.
        self.causes: tuple[int, ...] = tuple(i for i, one in enumerate(self.sentences) if not one.asks)

    def of(self, sets: Sequence[Left]) -> list[float]:
        """Return how much the explained part loses without each set of sentences, in nats. Raises OutOfTime."""
        return [self.summed(values) for values in self.by_token(sets)]

    def by_token(self, sets: Sequence[Left]) -> list[Nats]:
        """Return how much each token of the answer loses without each set. Raises OutOfTime."""
        new = [one for one in dict.fromkeys([Left(), *sets]) if one not in self._known]
        if new:
            requests = [without(self.said.request, [self.sentences[i] for i in one]) for one in new]
            self._known |= dict(zip(new, self._score(self.said.model, requests), strict=True))
        base = self._known[Left()]
        return [base - self._known[one] for one in sets]

    def varied(self, variations: Sequence[Variation]) -> list[Nats]:
        """Return how much each token loses under each variation. Raises OutOfTime."""
        results: list[Nats] = [np.empty(0)] * len(variations)
        by_model: dict[int, list[int]] = {}
        for number, variation in enumerate(variations):
            by_model.setdefault(id(variation.model), []).append(number)
        base = self._base()
        for numbers in by_model.values():
            scored = self._score(variations[numbers[0]].model, [variations[i].request for i in numbers])
            for number, nats in zip(numbers, scored, strict=True):
                results[number] = base - nats
        return results

    def summed(self, by_token: Nats) -> float:
        return float(by_token[self.inside].sum())

    @property
    def every(self) -> Left:
        return Left(self.causes)

    def tokens_of(self, sets: Sequence[Left]) -> int:
        """Return how many tokens it takes to read these sets, without reading anything."""
        requests = [without(self.said.request, [self.sentences[i] for i in one]) for one in (Left(), *sets)]
        return tokens_to_read([self.said.model.encode(request) for request in requests], len(self.said.tokens))

    @property
    def base_nats(self) -> float:
        """Log-probability of the explained part, with everything in its place."""
        return self.summed(self._base())

    def _base(self) -> Nats:
        self.by_token([])
        return self._known[Left()]

    def _score(self, model: LanguageModel, requests: Sequence[Request]) -> list[Nats]:
        prompts = [self.said.model.prompt(request) for request in requests]
        self.read_tokens += tokens_to_read([prompt.ids for prompt in prompts], len(self.said.tokens))
        vectors = dict(ChainMap(*(dict(prompt.vectors) for prompt in prompts)))
        scored = self.reader.score(model, [(prompt.ids, [self.said.tokens]) for prompt in prompts], vectors)
        return [endings[0] for endings in scored]


def tokens_to_read(prompts: Sequence[Sequence[int]], answer: int) -> int:
    """Return the tokens of the trie of these prompts with one answer after each, the answer's last token aside."""
    ordered = sorted(list(prompt) for prompt in prompts)
    if not ordered:
        return 0
    shared = [0, *(common_length(a, b) for a, b in pairwise(ordered))]
    return sum(len(prompt) - common + answer - 1 for prompt, common in zip(ordered, shared, strict=True))


# Proves causes: really leaves them out, alone and together, beside as much left out at random.


RANDOM_SETS = 8  # random sets of sentences beside a proved set
FEW_RANDOM_SETS = 3  # random sets for long prompts, where each costs about the prompt


def proved(falls: Falls, numbers: Sequence[int], chance: int, seed: int) -> list[ProvedCause]:
    """Return the sentences with these numbers, each left out by itself, beside at most `chance` others left out by themselves.

    Where all sentences were left out already, all others are taken: they cost nothing. Raises OutOfTime.
    """
    others = [i for i in falls.causes if i not in numbers]
    drawn = np.random.default_rng(seed).permutation(others)[:chance] if len(others) > chance else others
    values = falls.by_token([Left({i}) for i in [*numbers, *map(int, drawn)]])
    by_chance = Chance.of(map(falls.summed, values[len(numbers) :]))
    return [found(falls, i, nats, by_chance) for i, nats in zip(numbers, values, strict=False)]


def found(falls: Falls, number: int, nats: Nats, by_chance: Chance | None) -> ProvedCause:
    cause = Cause("sentence", str(number + 1), falls.sentences[number].text.strip())
    return ProvedCause(cause, falls.summed(nats), tuple(map(float, nats)), by_chance)


def proved_together(falls: Falls, numbers: Sequence[int], chance: int, seed: int) -> Together | None:
    """Return these sentences left out together, beside `chance` random sets of as many others; None for fewer than two.

    Raises OutOfTime."""
    if len(numbers) < 2:
        return None
    best = Left(numbers)
    others = np.array([i for i in falls.causes if i not in best])
    draw = np.random.default_rng(seed)
    sets = [Left(map(int, draw.choice(others, len(best), replace=False))) for _ in range(chance)] if len(others) >= len(best) else []
    necessity, sufficiency, nothing, *drawn = falls.of([best, falls.every - best, falls.every, *sets])
    single = falls.of([Left({i}) for i in numbers])
    return Together(
        tuple(str(i + 1) for i in numbers), necessity, sufficiency, nothing, Chance.of(drawn), necessity - sum(single)
    )  # fmt: skip


METHODS = "ingle.explain.methods"


class Propose(Protocol):
    def __call__(self, falls: Falls, answer: str, seed: int) -> Nats:
        """Return a number for each of `falls.causes`. Raises OutOfTime."""
        ...


def methods() -> list[str]:
    return registry.names(METHODS)


def method(name: str) -> Propose:
    """Return the method of that name. Raises ConfigError with the names there are."""
    propose: Propose = registry.find(METHODS, name, "method", "must be auto or a known method").propose
    return propose
