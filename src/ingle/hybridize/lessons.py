"""Lessons of a hybrid: plain texts, facts that are said and asked for, texts that are repeated, and dialogues about texts.

A window alone can't do facts and copies, so they teach the memory to look back. Plain texts teach it to leave the rest alone, dialogues to
say what a text is about (`hybridize.dialogues`). Everything comes from the training parts of suites. Facts are made of words of these
texts, in sentences of their own: no planted fact of a suite is ever taught, nor the request of a suite of summaries.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_bytes
from ingle.core.errors import ConfigError
from ingle.home.fetch import FetchProgress
from ingle.home.place import Home
from ingle.hybridize.dialogues import Ask, make_dialogue, nobody_answers, text_tokens
from ingle.hybridize.settings import Lesson
from ingle.measure.recall import Fact
from ingle.measure.suites import find_texts, training_rows
from ingle.model.tokenizer import Tokenizer
from ingle.train.corpus import Corpus, corpus_of
from ingle.train.encode import Document
from ingle.train.making import nobody

Sources = Sequence[Sequence[str]]
"""Texts of each source."""
TOKENS_A_FACT = 128
"""Tokens of a document for each fact in it: only answers are learnt, and reading the rest costs the same."""


def read_texts(home: Home, suites: Sequence[str], progress: FetchProgress) -> Sources:
    """Read the training parts of these suites of texts. Raises ConfigError and NotKept for others, and the errors of fetching them."""
    chosen = [find_texts(name, "lessons.suites") for name in suites]
    return [[row["text"] for row in training_rows(suite, home, progress)] for suite in chosen]


def set_aside(texts: Sources) -> tuple[Sources, Sources]:
    """(to learn from, held out): a twentieth of each source's texts, by their hashes, is held out. A source of one text is learnt."""
    learnt, held_out = [], []
    for source in texts:
        ordered = sorted(set(source), key=lambda text: digest_bytes(text.encode()))
        aside = set(ordered[: -(-len(ordered) // 20)]) if len(ordered) > 1 else set()
        learnt.append([text for text in source if text not in aside])
        held_out.append([text for text in source if text in aside])
    return learnt, [source for source in held_out if any(text.strip() for text in source)]


def make_lessons(
    tokenizer: Tokenizer, parts: Sequence[tuple[Sources, int]], tokens: int, seed: int, kinds: Sequence[Lesson],
    ask: Ask = nobody_answers, told: Callable[[int, int], None] = nobody,
) -> Corpus:  # fmt: skip
    """Make documents of `tokens` tokens (dialogues: at most): for each part so many, of these kinds in turn, from all its sources alike.

    They begin as the model's prompts do, with the token that begins a text, if there is one. `ask` answers in dialogues; `told` hears after
    each document how many are done, and of how many. Raises ConfigError.
    """
    draw = random.Random(seed)
    begin = np.array(tokenizer.encode_prompt("")[:1], np.int32)
    documents, count = list[Document](), sum(count for _, count in parts)
    for texts, share in parts:
        material = Material(tokenizer, texts, draw, ask)
        for _, kind in zip(range(share), cycle(kinds), strict=False):
            documents.append(_with_start(begin, _MAKERS[kind](material, tokens - len(begin), draw)))
            told(len(documents), count)
    return corpus_of("answers", [(str(i), -1, (document,)) for i, document in enumerate(documents)])


def _with_start(begin: npt.NDArray[np.int32], one: Document) -> Document:
    """Return the document after these tokens, unless it begins with them itself, as a dialogue does."""
    if one.ids[: len(begin)].tolist() == begin.tolist():
        return one
    return Document(np.append(begin, one.ids), np.append(begin < 0, one.answer))


class Material:
    """Texts of all sources, as many tokens of one as of another: the next text is always from the source that has given least."""

    def __init__(self, tokenizer: Tokenizer, texts: Sources, draw: random.Random, ask: Ask = nobody_answers) -> None:
        """Raises ConfigError where a source is empty."""
        if not all(any(text.strip() for text in source) for source in texts) or not texts:
            raise ConfigError("texts", "must hold something to learn from in each source", [len(source) for source in texts])
        self.tokenizer, self.ask = tokenizer, ask
        self._texts, self._given = [_shuffled(source, draw) for source in texts], [0] * len(texts)
        self._stream = self._running()

    def take(self, count: int) -> list[int]:
        """Take the next tokens, whatever text they are of."""
        return [token for token, _ in zip(self._stream, range(count), strict=False)]

    def passage(self, count: int) -> str:
        """Take whole texts of one source, cut after so many tokens."""
        least, ids = self._given.index(min(self._given)), list[int]()
        while len(ids) < count:
            ids += self._next(least)
        return self.tokenizer.decode(ids[:count]).strip()

    def _running(self) -> Iterator[int]:
        while True:
            yield from self._next(self._given.index(min(self._given)))

    def _next(self, source: int) -> list[int]:
        ids = self.tokenizer.encode(f"{next(self._texts[source])}\n\n")
        self._given[source] += len(ids)
        return ids


def _shuffled(source: Sequence[str], draw: random.Random) -> Iterator[str]:
    """All texts in random order, again and again."""
    while True:
        yield from draw.sample(source, len(source))


def _plain(material: Material, tokens: int, _draw: random.Random) -> Document:
    """A plain text. Every token is learnt but the first."""
    return Document(np.array(material.take(tokens), np.int32), np.arange(tokens) > 0)


def _facts(material: Material, tokens: int, draw: random.Random) -> Document:
    """Facts in the first half, asked for in another order after it, with text between all of them; the answers are learnt."""
    tokenizer = material.tokenizer
    facts = _different_facts(max(1, tokens // TOKENS_A_FACT), tokenizer.decode(material.take(600)).split(), draw)
    statements = [tokenizer.encode(f" {fact.said}") for fact in facts]
    questions = [tokenizer.encode(f"\n\n{fact.asked}") for fact in facts]
    answers = [tokenizer.encode(f"\n\n{fact.asked} {fact.answer}")[len(ask) :] for fact, ask in zip(facts, questions, strict=True)]
    order = draw.sample(range(len(facts)), len(facts))
    pieces = [(part, False) for part in statements] + [piece for i in order for piece in ((questions[i], False), (answers[i], True))]
    room = max(0, tokens - sum(len(part) for part, _ in pieces))
    gap = room // (2 * len(facts))
    ids: list[int] = []
    marks: list[bool] = []
    for part, marked in pieces:
        between = [] if marked else material.take(gap)
        ids += [*between, *part]
        marks += [False] * len(between) + [marked] * len(part)
    return Document(np.array(ids[:tokens], np.int32), np.array(marks[:tokens]))


_SENTENCES = (
    ("number", "The {word} of {title} has the number"),
    ("number", "Whoever wants to reach {title} {title} dials"),
    ("number", "In grams, the {word} from {title} weighs"),
    ("name", "The {word} near {title} was sold to"),
    ("name", "First to see the {word} was"),
    ("words", "On the back of the {word} from {title} was written:"),
    ("words", "What {title} {title} answered was this: the"),
    ("words", "The last line of the {word} begins with a"),
    ("words", "Behind the {word} {title} had hidden the"),
    ("words", "{title} asked for the {word} of"),
    ("word", "{word} ="),
    ("word", "The password for the {word} is"),
)
"""Kinds of answers, and the words before them. After a word that stands everywhere (the, a, of) an answer is found only by the words
before that one, so some sentences end in one."""


def _different_facts(count: int, text: Sequence[str], draw: random.Random) -> list[Fact]:
    """Facts in the words of a text, no two with the same question: `count` of them, or fewer where the text has few words."""
    words = [word for word in text if re.fullmatch("[A-Za-z]{4,9}", word)] or ["word"]
    drawn, facts = (_fact(text, words, draw) for _ in range(20 * count)), dict[str, Fact]()
    while len(facts) < count and (fact := next(drawn, None)):
        facts.setdefault(fact.asked, fact)
    return list(facts.values())


def _fact(text: Sequence[str], words: Sequence[str], draw: random.Random) -> Fact:
    """A fact from `_SENTENCES`: single words out of `words`, running ones out of `text`."""

    def title() -> str:
        return draw.choice(words).title()

    kind, sentence = draw.choice(_SENTENCES)
    question = re.sub(r"\{(\w+)\}", lambda blank: title() if blank[1] == "title" else draw.choice(words).lower(), sentence)
    size, start = draw.randrange(4, 9), draw.randrange(len(text) or 1)
    answers = {
        "number": str(draw.randrange(100, 1_000_000)),
        "name": f"{title()} {title()}",
        "words": " ".join(text[start : start + size]) or "nothing",
        "word": draw.choice(words),
    }
    return Fact(kind, f"{question} {answers[kind]}.", question, answers[kind])


def _copy(material: Material, tokens: int, draw: random.Random) -> Document:
    """A piece of text, other texts, and the piece again, which is learnt but for its beginning."""
    size = draw.randrange(tokens // 16, tokens // 4)
    piece, again = material.take(size), material.tokenizer.encode("\n\n")
    between = material.take(tokens - 2 * size - len(again))
    ids = [*piece, *between, *again, *piece]
    return Document(np.array(ids, np.int32), np.arange(len(ids)) >= len(ids) - size + min(8, size // 2))


def _dialogue(material: Material, tokens: int, draw: random.Random) -> Document:
    """A dialogue about a text; another text where the model gives no answer."""
    for _ in range(_TEXTS_TRIED):
        if dialogue := make_dialogue(material.tokenizer, material.ask, material.passage(text_tokens(tokens, draw)), tokens, draw):
            return dialogue
    cure = "Leave asked out of lessons.kinds and lessons.long_kinds."
    raise ConfigError(
        "lessons.kinds", f"The kind `asked` needs a model that answers, and this one gave no answer to {_TEXTS_TRIED} requests", "", cure
    )


_TEXTS_TRIED = 20
_MAKERS: dict[Lesson, Callable[[Material, int, random.Random], Document]]
_MAKERS = {"plain": _plain, "facts": _facts, "copy": _copy, "asked": _dialogue}
