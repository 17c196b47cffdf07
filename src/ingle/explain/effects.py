"""Measures what an answer loses without some sentences: one trie over all prompts (engine/scoring.py), so what they share is read once."""

from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from ingle.core.message import Request
from ingle.engine.language_model import LanguageModel
from ingle.engine.prefix_cache import common_length
from ingle.explain.cause import AnswerSpan, Nats, Reader, Said, Variation, within
from ingle.explain.sentences import Sentence, sentences_of, without

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
        """Return the sum over the explained part."""
        return float(by_token[self.inside].sum())

    @property
    def every(self) -> Left:
        """All sentences that may be left out."""
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
