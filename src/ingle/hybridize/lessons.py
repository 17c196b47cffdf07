"""What is learnt from: plain texts on end, facts that are said and asked for, texts that are said twice, and talks about texts.

Facts and copies are what a window alone can't do, so they teach the memory to look back; plain texts teach it to leave the rest alone, and
talks to say what a text is about (`hybridize.talks`). Everything comes from the training parts of suites. Facts are made of words of these
texts, in forms of their own: none that a suite of planted facts asks for is ever taught, nor the request of a suite of summaries.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_bytes
from ingle.core.errors import ConfigError
from ingle.home.fetch import Progress
from ingle.home.place import Home
from ingle.hybridize.dialogues import Ask, make_talk, nobody_answers, text_tokens
from ingle.hybridize.settings import Lesson
from ingle.measure.recall import Fact
from ingle.measure.suites import find_texts, training_rows
from ingle.model.tokenizer import Tokenizer
from ingle.train.corpus import Corpus, corpus_of
from ingle.train.encode import Document
from ingle.train.making import nobody

Sources = Sequence[Sequence[str]]
"""The texts of each."""
TOKENS_A_FACT = 128
"""One document has a fact for every so many of its tokens: of such a document only answers are learnt, and reading it costs the same."""


def read_texts(home: Home, suites: Sequence[str], progress: Progress) -> Sources:
    """The training parts of these suites of texts. Raises ConfigError and NotKept for others, and what fetching them raises."""
    found = [find_texts(name, "lessons.suites") for name in suites]
    return [[row["text"] for row in training_rows(suite, home, progress)] for suite in found]


def set_aside(texts: Sources) -> tuple[Sources, Sources]:
    """What is learnt from, and what never is: a twentieth of each source's texts, by their hashes. A source of one text is learnt."""
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
    """Documents of `tokens` tokens, talks of as many at most: of each part so many, of these kinds in turn, out of all its sources alike.

    They begin as the model's prompts do, with the token that begins a text where there is one. `ask` answers in talks, `told` hears after
    each document how many are made, and of how many. Raises ConfigError.
    """
    draw = random.Random(seed)
    begin = np.array(tokenizer.encode_prompt("")[:1], np.int32)
    documents, count = list[Document](), sum(count for _, count in parts)
    for texts, share in parts:
        material = Material(tokenizer, texts, draw, ask)
        for _, kind in zip(range(share), cycle(kinds), strict=False):
            documents.append(_begun(begin, _MAKERS[kind](material, tokens - len(begin), draw)))
            told(len(documents), count)
    return corpus_of("answers", [(str(i), -1, (document,)) for i, document in enumerate(documents)])


def _begun(begin: npt.NDArray[np.int32], one: Document) -> Document:
    """The document behind these tokens, unless it begins with them by itself, as a talk does."""
    if one.ids[: len(begin)].tolist() == begin.tolist():
        return one
    return Document(np.append(begin, one.ids), np.append(begin < 0, one.answer))


class Material:
    """Texts of all sources, as much of one as of another: the next text is always of the source that has given least."""

    def __init__(self, tokenizer: Tokenizer, texts: Sources, draw: random.Random, ask: Ask = nobody_answers) -> None:
        """Raises ConfigError where a source holds nothing."""
        if not all(any(text.strip() for text in source) for source in texts) or not texts:
            raise ConfigError("texts", "must hold something to learn from, each source of them", [len(source) for source in texts])
        self.tokenizer, self.ask = tokenizer, ask
        self._texts, self._given = [_shuffled(source, draw) for source in texts], [0] * len(texts)
        self._stream = self._running()

    def take(self, count: int) -> list[int]:
        """The next tokens, whatever text they are of."""
        return [token for token, _ in zip(self._stream, range(count), strict=False)]

    def passage(self, count: int) -> str:
        """Texts of one source from a beginning on, so many tokens of them."""
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
    """All texts in a drawn order, again and again."""
    while True:
        yield from draw.sample(source, len(source))


def _plain(material: Material, tokens: int, _draw: random.Random) -> Document:
    """Every token is learnt but the first."""
    return Document(np.array(material.take(tokens), np.int32), np.arange(tokens) > 0)


def _facts(material: Material, tokens: int, draw: random.Random) -> Document:
    """Facts in the first half, asked for in another order behind it, with text between all of them; the answers are learnt."""
    tokenizer = material.tokenizer
    facts = _different_facts(max(1, tokens // TOKENS_A_FACT), tokenizer.decode(material.take(600)).split(), draw)
    said = [tokenizer.encode(f" {fact.said}") for fact in facts]
    asked = [tokenizer.encode(f"\n\n{fact.asked}") for fact in facts]
    answers = [tokenizer.encode(f"\n\n{fact.asked} {fact.answer}")[len(ask) :] for fact, ask in zip(facts, asked, strict=True)]
    order = draw.sample(range(len(facts)), len(facts))
    pieces = [(part, False) for part in said] + [piece for i in order for piece in ((asked[i], False), (answers[i], True))]
    room = max(0, tokens - sum(len(part) for part, _ in pieces))
    gap = room // (2 * len(facts))
    ids: list[int] = []
    marks: list[bool] = []
    for part, marked in pieces:
        between = [] if marked else material.take(gap)
        ids += [*between, *part]
        marks += [False] * len(between) + [marked] * len(part)
    return Document(np.array(ids[:tokens], np.int32), np.array(marks[:tokens]))


_FORMS = (
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
"""Kinds of answers, and what is said before them. After a word that stands everywhere (the, a, of) an answer is found only by what stands
before that, so some forms end in one."""


def _different_facts(count: int, text: Sequence[str], draw: random.Random) -> list[Fact]:
    """Facts in the words of a text, of which no two answer the same question: as many, or fewer where the text has few words."""
    words = [word for word in text if re.fullmatch("[A-Za-z]{4,9}", word)] or ["word"]
    drawn, facts = (_fact(text, words, draw) for _ in range(20 * count)), dict[str, Fact]()
    while len(facts) < count and (fact := next(drawn, None)):
        facts.setdefault(fact.asked, fact)
    return list(facts.values())


def _fact(text: Sequence[str], words: Sequence[str], draw: random.Random) -> Fact:
    """One of `_FORMS`: single words out of `words`, running ones out of `text`."""

    def title() -> str:
        return draw.choice(words).title()

    kind, form = draw.choice(_FORMS)
    asked = re.sub(r"\{(\w+)\}", lambda blank: title() if blank[1] == "title" else draw.choice(words).lower(), form)
    size, start = draw.randrange(4, 9), draw.randrange(len(text) or 1)
    answers = {
        "number": str(draw.randrange(100, 1_000_000)),
        "name": f"{title()} {title()}",
        "words": " ".join(text[start : start + size]) or "nothing",
        "word": draw.choice(words),
    }
    return Fact(kind, f"{asked} {answers[kind]}.", asked, answers[kind])


def _copy(material: Material, tokens: int, draw: random.Random) -> Document:
    """A piece of text, others, and the piece again, which is learnt but for its beginning."""
    size = draw.randrange(tokens // 16, tokens // 4)
    piece, again = material.take(size), material.tokenizer.encode("\n\n")
    between = material.take(tokens - 2 * size - len(again))
    ids = [*piece, *between, *again, *piece]
    return Document(np.array(ids, np.int32), np.arange(len(ids)) >= len(ids) - size + min(8, size // 2))


def _asked(material: Material, tokens: int, draw: random.Random) -> Document:
    """A talk about a text; another text where the model has nothing to say about one."""
    for _ in range(_TEXTS_TRIED):
        if talk := make_talk(material.tokenizer, material.ask, material.passage(text_tokens(tokens, draw)), tokens, draw):
            return talk
    cure = "Leave asked out of lessons.kinds and lessons.long_kinds."
    raise ConfigError(
        "lessons.kinds", f"The kind `asked` needs a model that answers, and this one gave no answer to {_TEXTS_TRIED} requests", "", cure
    )


_TEXTS_TRIED = 20
_MAKERS: dict[Lesson, Callable[[Material, int, random.Random], Document]]
_MAKERS = {"plain": _plain, "facts": _facts, "copy": _copy, "asked": _asked}
