"""Key-value pairs planted in text: what of the past can a model still say that could not be guessed?

A row is lines of prose, and among them lines `key value`. Every key has eight values of its own, and each row draws one of them: whoever
has read the pair knows the value when the key comes again, and for everybody else one of eight is right. A pair stands in a row up to
four times; between two mentions lie 2 lines to a whole row, short distances as often as long ones (evenly by their logarithm). Trained on
as text, mixed among other rows; measured by whether the likeliest token after the key is the value, by distance, on rows that nobody has
trained on. Loss on prose hardly notices whether a model can do this.

Keys and values are words of the vocabulary, one token each. That a key has its own values makes recall a matter of one look back: where
any word may follow any key, the model must first learn to tell what a word followed, which at this size took more than a million
tokens without a beginning of success (LOG.md).

Source: multi-query associative recall, arXiv 2312.04927; differs: among prose, at distances that are drawn, values by key.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from ingle.core.errors import ConfigError
from ingle.model.tokenizer import Tokenizer

KEYS = 24
"""Fewer in a small vocabulary."""
FEWEST = 4
CHOICES = 8
"""Values of a key."""
MENTIONS = 4
"""Of a pair in a row at the most: those that are planned beyond its end are left out."""
_PROSE = 12  # most tokens of a line of prose


@dataclass(frozen=True, slots=True)
class Asked:
    """A later mention of a pair."""

    at: int
    """Place of the value in the row; the model answers when it has read all before it."""
    distance: int
    """Tokens since the value was last mentioned."""


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens of a row, with what it asks for."""

    ids: tuple[int, ...]
    asked: tuple[Asked, ...]


class Planter:
    """Makes rows for one vocabulary."""

    def __init__(self, tokenizer: Tokenizer, texts: Sequence[str], row_tokens: int) -> None:
        """`texts`: the prose. Raises ConfigError for a vocabulary with too few words."""
        words = _words(tokenizer)
        count = min(KEYS, len(words) // (1 + CHOICES))
        if count < FEWEST:
            cure = "Raise tokenizer.size, or set data.pairs = 0."
            raise ConfigError("data.pairs", f"needs a vocabulary with {FEWEST * (1 + CHOICES)} words", len(words), cure)
        random.Random("words").shuffle(words)
        self.values = {words[i]: tuple(words[count + i * CHOICES :][:CHOICES]) for i in range(count)}
        """By key."""
        self._tokenizer, self._texts, self._row_tokens = tokenizer, texts, row_tokens
        [self._line] = tokenizer.encode("\n")
        assert tokenizer.bos_id is not None, "vocabularies from scratch begin their texts"
        self._begin = tokenizer.bos_id

    def row(self, seed: str) -> Row:
        """The row of this name: at most `row_tokens` tokens, and no value without its whole line."""
        draw = random.Random(seed)
        count = max(4, self._row_tokens // 4)  # a few more lines than fit
        planned: dict[int, tuple[int, int]] = {}
        for key in draw.sample(sorted(self.values), min(len(self.values), max(2, count // 4))):
            value = draw.choice(self.values[key])
            gap = round(2 ** draw.uniform(1, math.log2(count - 1)))
            at = draw.randrange(count - gap)
            for _ in range(MENTIONS):
                planned.setdefault(at, (key, value))
                at += gap
                gap = round(2 ** draw.uniform(1, math.log2(count - 1)))
        ids, asked, last = [self._begin], list[Asked](), dict[int, int]()
        for number in range(count):
            pair = planned.get(number)
            line = [self._line, *pair] if pair else [self._line, *self._prose(draw)]
            if len(ids) + len(line) > self._row_tokens:
                break
            ids += line
            if pair:
                at = len(ids) - 1
                if pair[0] in last:
                    asked.append(Asked(at, at - last[pair[0]]))
                last[pair[0]] = at
        return Row(tuple(ids), tuple(asked))

    def _prose(self, draw: random.Random) -> list[int]:
        text = self._texts[draw.randrange(len(self._texts))]
        begin = draw.randrange(max(1, len(text) - 100))
        piece = text[text.find(" ", begin) + 1 :][:100].partition("\n")[0]
        return self._tokenizer.encode(piece)[: draw.randrange(3, _PROSE)]


def _words(tokenizer: Tokenizer) -> list[int]:
    """Tokens that are whole words in lower case with a space before, the commonest (those found first) left out: prose is full of them."""
    found = [token for token in range(tokenizer.vocab_size) if _is_word(tokenizer.token_bytes(token))]
    return found[len(found) // 4 :]


def _is_word(spelled: bytes) -> bool:
    return len(spelled) >= 4 and spelled[:1] == b" " and spelled[1:].isalpha() and spelled.islower()
