"""Key-value pairs planted in text: how much of the past can a model say that it could not guess?

A row is lines of prose, and among them lines `key value`. Every key has some values of its own, and each row draws one of them. A reader
of the pair knows the value when the key comes again; for anybody else all its values are equally likely. Between two mentions of a pair
lie one line to a whole row, short distances as often as long ones (as nearly as the pairs of a row allow). Pairs are trained on as text,
mixed among other rows. Measured is whether the likeliest token after the key is the value, by distance, on rows that were not trained on.
Loss on prose hardly notices whether a model can do this.

Keys and values are words of the vocabulary, one token each. That a key has values of its own makes recall a matter of one look back. Where
any word may follow any key, the model must first learn to tell what a word followed; and single pairs that are never trained on are
learnt as pairs that don't occur.

Source: multi-query associative recall, arXiv 2312.04927; differs: among prose, at distances that are drawn, values by key.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ingle.core.errors import ConfigError
from ingle.model.tokenizer import Tokenizer

KEYS = 12
"""Number of keys; fewer in a small vocabulary."""
FEWEST = 4
CHOICES = 8
"""Number of values of a key."""
PROSE = 0.4
"""Share of the lines that are prose."""
_PROSE_TOKENS = 12  # most tokens of a line of prose


@dataclass(frozen=True, slots=True)
class Asked:
    """A later mention of a pair."""

    at: int
    """Place of the value in the row; the model answers after all tokens before it."""
    distance: int
    """Tokens since the value was last mentioned."""


@dataclass(frozen=True, slots=True)
class PairRow:
    """Tokens of a row, with the pairs that it asks for."""

    ids: tuple[int, ...]
    asked: tuple[Asked, ...]


class Planter:
    """Maker of rows for one vocabulary."""

    def __init__(self, tokenizer: Tokenizer, texts: Sequence[str], row_tokens: int) -> None:
        """`texts`: the prose. Raises ConfigError for a vocabulary with too few words."""
        words = _words(tokenizer)
        count = min(KEYS, len(words) // (1 + CHOICES))
        if count < FEWEST:
            cure = "Raise tokenizer.size, or set data.pairs = 0."
            raise ConfigError("data.pairs", f"needs a vocabulary with {FEWEST * (1 + CHOICES)} words", len(words), cure)
        random.Random("words").shuffle(words)
        self.values = {words[i]: tuple(words[count + i * CHOICES :][:CHOICES]) for i in range(count)}
        """Possible values of each key."""
        self._tokenizer, self._texts, self._row_tokens = tokenizer, texts, row_tokens
        [self._line] = tokenizer.encode("\n")
        assert tokenizer.bos_id is not None, "vocabularies from scratch begin their texts"
        self._begin = tokenizer.bos_id

    def row(self, seed: str) -> PairRow:
        """Make the row of this name: at most `row_tokens` tokens, in whole lines."""
        draw = random.Random(seed)
        values = {key: draw.choice(choices) for key, choices in self.values.items()}
        fresh = draw.sample(sorted(values), len(values))
        reach = math.log2(self._row_tokens / 5)  # about as many lines as there are
        ids, asked, number = [self._begin], list[Asked](), 0
        lines: dict[int, int] = {}  # by key, the line where it was last mentioned
        places: dict[int, int] = {}  # by key, the token where its value was last mentioned
        while True:
            line, key = [self._line, *self._prose(draw)], None
            if draw.random() >= PROSE:
                back = number - 2 ** draw.uniform(0, reach)
                key = fresh[-1] if fresh and (back < 0 or not lines) else _nearest(lines, back)
                line = [self._line, key, values[key]]
            if len(ids) + len(line) > self._row_tokens:
                return PairRow(tuple(ids), tuple(asked))
            ids += line
            if key is not None:
                place = len(ids) - 1
                if key in places:
                    asked.append(Asked(place, place - places[key]))
                else:
                    fresh.remove(key)
                lines[key], places[key] = number, place
            number += 1

    def _prose(self, draw: random.Random) -> list[int]:
        text = self._texts[draw.randrange(len(self._texts))]
        begin = draw.randrange(max(1, len(text) - 100))
        piece = text[text.find(" ", begin) + 1 :][:100].partition("\n")[0]
        return self._tokenizer.encode(piece)[: draw.randrange(3, _PROSE_TOKENS)]


def _nearest(lines: Mapping[int, int], back: float) -> int:
    """The key whose last mention is nearest to that line."""
    return min(lines, key=lambda key: abs(lines[key] - back))


def _words(tokenizer: Tokenizer) -> list[int]:
    """Tokens that are whole words in lower case with a space before. The commonest, found first, are left out: prose is full of them."""
    words = [token for token in range(tokenizer.vocab_size) if _is_word(tokenizer.token_bytes(token))]
    return words[len(words) // 4 :]


def _is_word(spelled: bytes) -> bool:
    return len(spelled) >= 4 and spelled[:1] == b" " and spelled[1:].isalpha() and spelled.islower()
