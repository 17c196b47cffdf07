"""Key-value pairs planted in text: what of the past can a model still say that could not be guessed?

A row is lines of prose, and among them lines `key value`. A pair stands there up to three times: whoever has read it knows the
value when the key comes again, and nobody else does, for each row draws its own pairs. Between two mentions lie 2 lines to a whole row,
short distances as often as long ones (evenly by their logarithm). Trained on as text, mixed among other rows; measured by whether the
likeliest token after the key is the value, by distance. Loss on prose hardly notices whether a model can do this.

Keys and values are words of the vocabulary, one token each. A fifth of all pairs, by a hash, is never trained on.

Source: multi-query associative recall, arXiv 2312.04927; differs: among prose, and asked at distances that are drawn.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.model.tokenizer import Tokenizer

WORDS = 64
"""Keys, and as many values; fewer in a small vocabulary."""
FEWEST = 8
HELD_OUT = 0.2
"""Share of all pairs that is never trained on."""
MENTIONS = 3
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
        count = min(WORDS, len(words) // 2)
        if count < FEWEST:
            cure = "Raise tokenizer.size, or set data.pairs = 0."
            raise ConfigError("data.pairs", f"needs a vocabulary with {2 * FEWEST} words", len(words), cure)
        self.keys, self.values = words[: 2 * count : 2], words[1 : 2 * count : 2]
        self._tokenizer, self._texts, self._row_tokens = tokenizer, texts, row_tokens
        [self._line] = tokenizer.encode("\n")
        assert tokenizer.bos_id is not None, "vocabularies from scratch begin their texts"
        self._begin = tokenizer.bos_id

    def row(self, seed: str, held_out: bool) -> Row:
        """The row of this name: at most `row_tokens` tokens, and no value without its whole line."""
        draw = random.Random(seed)
        count = max(4, self._row_tokens // 4)  # a few more lines than fit
        planned: dict[int, tuple[int, int]] = {}
        for key in draw.sample(self.keys, min(len(self.keys), max(2, count // 3))):
            value = draw.choice([value for value in self.values if _is_held_out(key, value) == held_out])
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


@cache
def _is_held_out(key: int, value: int) -> bool:
    return int(digest_json(["pair", key, value])[:8], 16) / 2**32 < HELD_OUT
