"""Practice for a style: the model writes answers of its own, and those within the bounds of the liked ones become training data.

Ratings are few, and liked answers are rare if the model hardly ever writes such. So it samples answers to the rated questions and to
everyday ones, and keeps those within the bounds. The words are its own, so learning them moves the style and
little else. A second round starts from the first (expert iteration, arXiv 1705.08439). If an answer misses the bounds, the next attempt
follows liked answers as turns of a conversation, whose manner a model continues (context distillation, arXiv 2209.15189); not at once,
because a small model also takes up their subjects. If that fails, a beginning is taken; beginnings are vaguer than answers that are
meant to be short. Repetitive answers are dropped.

An answer that left the bounds shows where: at the token that began another line, or at a word (`slip`). These tokens alone are learned
from too, as unlikely ones (unlikelihood, arXiv 1908.04319).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from ingle.core.example import Example
from ingle.learn.learning_settings import StyleSettings
from ingle.learn.trainable_model import TrainableModel
from ingle.learn.wordings import Turns
from ingle.learn.work import LessonError
from ingle.train.example_files import Document
from ingle.train.writing import Drawn, write_all
from ingle.tuning.data import EVERYDAY

# Bounds on a few counts of a text that tell liked answers from others.
# Nobody says what a rating was for. So counts of words, sentences, lines, and of the marks in any rated answer are searched for bounds that
# hold the liked answers and exclude the others. The search is greedy: each bound excludes most of the others that are left. One that
# excludes few may be chance and is not taken. Last, each upper bound is tightened to where half of the liked answers are, because the most
# extreme liked answer may have been liked for something else.


_CONTRACTION = re.compile(r"\b(?:\w+['’](?:t|m|re|ve|ll|d)|(?:it|he|she|that|there|here|what|who|where|how|let)['’]s)\b", re.IGNORECASE)
_MARKED = re.compile(r"^\s*(?:[^\w\s\"'“”‘’(]+|(?:\d{1,3}|[A-Za-z])[.)])\s", re.MULTILINE)
_SENTENCE = re.compile(r"[^.!?\n]*(?:[.!?]+(?=\s|$)|\n+|$)")
_END = re.compile(r"[.!?][\"'”’)*]*\s*$")
_MARK = re.compile(r"[^\w\s.,]")  # full stops and commas are in all prose: their number only says how long it is
_FEW_WORDS = 15  # least upper bound of words: one short liked answer is no rule for all
_LEAST = 0.15  # least share of the others that a further bound must exclude
_HALF = 0.5  # least share of the others that all bounds together must exclude
_TYPICAL = 0.5  # least share of the liked answers within a tightened bound
Grows = Literal["size", "sign"]


@dataclass(frozen=True, slots=True)
class Count:
    """A count of something in a text. It never falls as a text grows."""

    name: str
    of: Callable[[str], int]
    # `size`: it grows with every sentence. `sign`: only with sentences that have the sign.
    grows: Grows
    slips: Literal["line", "word", ""] = "word"  # the cause if it becomes too much: a new line, a word, or ("") no single place


@dataclass(frozen=True, slots=True)
class Bound:
    """An upper (`most`) or lower bound of a count."""

    count: Count
    most: bool
    value: int

    def holds(self, text: str) -> bool:
        return self.count.of(text) <= self.value if self.most else self.count.of(text) >= self.value


@dataclass(frozen=True, slots=True)
class Beginning:
    """The beginning of an answer, within the bounds."""

    text: str
    # Whether an answer may end there, because more would be too much. If not, it only must not go on as it did.
    ends: bool


def common_bounds(liked: Sequence[str], others: Sequence[str]) -> list[Bound]:
    """Return the bounds that tell liked answers from others, the most telling first; none if no bounds do."""
    if not liked or not others:
        return []
    counts = _counts([*liked, *others])
    within, without, bounds = list(liked), list(others), list[Bound]()
    while without:
        worth, bound = max(
            ((_worth(one, within, without, len(liked), len(others)), one) for one in _tried(counts, within)), key=lambda x: x[0]
        )
        if worth < _LEAST:
            break
        bounds.append(bound)
        within = [text for text in within if bound.holds(text)]
        without = [text for text in without if bound.holds(text)]
    return [_tightened(bound, liked) for bound in bounds] if len(others) - len(without) >= _HALF * len(others) else []


def _tightened(bound: Bound, liked: Sequence[str]) -> Bound:
    """Return the tightest upper bound of its count that holds enough of the liked answers; a lower bound unchanged."""
    kind = [one for one in _tried([bound.count], liked) if one.most and bound.most]
    held = [one for one in kind if sum(one.holds(text) for text in liked) >= _TYPICAL * len(liked)]
    return min(held, key=lambda one: one.value, default=bound)


def beginning(text: str, bounds: Sequence[Bound]) -> Beginning | None:
    """Return the whole sentences at an answer's beginning within all upper bounds; None if there are none, or too few."""
    upper, lower = [one for one in bounds if one.most], [one for one in bounds if not one.most]
    kept, end, broken = "", 0, list[Bound]()
    while bounds and end < len(text):
        sentence = _SENTENCE.match(text, end)
        if not sentence or not sentence.group():
            break
        end = sentence.end()
        broken = [one for one in upper if not one.holds(text[:end].rstrip())]
        if broken:
            break
        if _END.search(text[:end]):
            kept = text[:end]
    kept = kept.strip()
    if not kept or not all(one.holds(kept) for one in lower):
        return None
    return Beginning(kept, not broken or any(one.count.grows == "size" for one in broken))


def _tried(counts: Sequence[Count], within: Sequence[str]) -> list[Bound]:
    bounds = []
    for count in counts:
        values = sorted({count.of(text) for text in within}, reverse=True)
        bounds += [Bound(count, True, max(value, _FEW_WORDS) if count.name == "words" else value) for value in values]
        bounds += [Bound(count, False, value) for value in reversed(values) if value > 0]
    return bounds


def _worth(bound: Bound, within: Sequence[str], without: Sequence[str], liked: int, others: int) -> float:
    """Return Youden's index on the texts still within: the share of the others that a bound excludes, less that of the liked ones."""
    return sum(not bound.holds(text) for text in without) / others - sum(not bound.holds(text) for text in within) / liked


def _counts(texts: Sequence[str]) -> list[Count]:
    marks = sorted({_plain(mark) for text in texts for mark in _MARK.findall(text)})
    return [
        Count("words", lambda text: len(text.split()), "size", ""),
        Count("lines", lambda text: len([line for line in text.split("\n") if line.strip()]), "size", "line"),
        Count("marked lines", lambda text: len(_MARKED.findall(text)), "sign", "line"),
        Count("contractions", lambda text: len(_CONTRACTION.findall(text)), "sign"),
        *(Count(f"mark {mark}", partial(_marks, mark), "sign") for mark in marks),
        Count("numbers", lambda text: len(re.findall(r"\d+", text)), "sign"),
        Count("sentences", lambda text: len(re.findall(r"[.!?](?=\s|$)", text)), "size", ""),
    ]


def _marks(mark: str, text: str) -> int:
    return _plain(text).count(mark)


def _plain(text: str) -> str:
    return text.translate(str.maketrans("’‘“”", "''\"\""))


# Answers written in one row. Each must mask the others' words, which takes time too.
_TOGETHER = 24
_SHOWN = 2  # liked answers that are shown before a question
_MARK_TOKENS = 4  # most tokens between the end of a line and the first word of the next
_CIRCLES = 0.1  # largest share of repeated runs of four tokens in an answer


@dataclass(frozen=True, slots=True)
class Own:
    """An answer of the model's own, or the part of it to learn from."""

    before: Turns
    question: str
    text: str
    ends: bool  # whether the answer may end there
    whole: bool = True  # whether it is the whole answer, not just its beginning

    def document(self, model: TrainableModel, settings: StyleSettings) -> Document | None:
        """Return the answer as a training document; None if it is empty or too long."""
        try:
            written = model.answered(self.before, self.question, self.text, settings.max_tokens)
        except LessonError:
            return None
        stop = len(written.ids)
        while not self.ends and (not written.answer[stop - 1] or int(written.ids[stop - 1]) in model.tokenizer.eos_ids):
            stop -= 1
        stop = min(stop, int(np.argmax(written.answer)) + settings.answer_tokens)
        return Document(written.ids[:stop], written.answer[:stop])


@dataclass(frozen=True, slots=True, eq=False)
class Practice:
    """Practice of one style: its rated examples and its bounds."""

    model: TrainableModel
    settings: StyleSettings
    examples: Sequence[Example]
    bounds: Sequence[Bound]

    def round(self, number: int) -> tuple[list[Own], list[Document]]:
        """Return answers within the bounds, the model's own or (beginnings of) disliked ones, at most one per question; and from the
        other answers of the first attempt, the places where they left the bounds."""
        questions = [*((one.before, one.question) for one in self.examples), *(((), question) for question in EVERYDAY)]
        open_, answers, slips = list(dict.fromkeys(questions)), list[Own](), list[Document]()
        for attempt in range(self.settings.own_answers):
            for start in range(0, len(open_), _TOGETHER):
                some, seed = open_[start : start + _TOGETHER], [self.settings.seed, number, attempt, start]
                kept, left = self._written(some, self._shown(seed) if attempt else (), seed)
                answers += kept
                slips += [] if attempt else left
            answered = {(own.before, own.question) for own in answers if own.whole}
            open_ = [place for place in open_ if place not in answered]
        lent = [within(one.answer, True, self.bounds) for one in self.examples]
        pairs = zip(self.examples, lent, strict=True)
        answers += [replace(own, before=one.before, question=one.question) for one, own in pairs if one.rating < 0 and own is not None]
        best: dict[tuple[Turns, str], Own] = {}
        for own in sorted(answers, key=lambda own: not own.whole):
            best.setdefault((own.before, own.question), own)
        return list(best.values()), slips

    def blanks(self, written: Sequence[Own]) -> list[Document]:
        """Return an immediate end token after each question as a slip, if length is bounded: an empty answer would be the shortest."""
        model, ends = self.model, self.model.tokenizer.eos_ids
        documents = list[Document]()
        for own in written if any(bound.most and not bound.count.slips for bound in self.bounds) else ():
            document = own.document(model, self.settings)
            if document is not None and own.ends and (end := [int(token) for token in document.ids[document.answer] if int(token) in ends]):
                ids = np.array([*model.prompt(own.before, own.question), end[0]], np.int32)
                documents.append(Document(ids, np.arange(len(ids)) == len(ids) - 1))
        return documents

    def _written(self, places: Sequence[tuple[Turns, str]], shown: Turns, seed: Sequence[int]) -> tuple[list[Own], list[Document]]:
        model, settings = self.model, self.settings
        draw = Drawn(len(places), settings.own_tokens, settings.temperature, seed)
        prompts = [model.prompt((*shown, *before), question) for before, question in places]
        answers = write_all(model.module, prompts, settings.own_tokens, model.tokenizer.eos_ids, draw, self._too_much)
        inside, slips = list[Own](), list[Document]()
        for (before, question), prompt, ids in zip(places, prompts, answers, strict=True):
            ended = bool(ids) and ids[-1] in model.tokenizer.eos_ids
            own = within(model.tokenizer.decode(ids[:-1] if ended else ids), ended, self.bounds)
            if own is not None and not _repeats(ids):
                inside.append(replace(own, before=before, question=question))
            if blamed := slip([model.tokenizer.decode([token]) for token in ids], self.bounds):
                places_ = np.arange(len(prompt) + len(ids)) - len(prompt)
                marked = (places_ >= blamed.start) & (places_ < blamed.stop)
                slips.append(Document(np.array(prompt + ids, np.int32), marked))
        return inside, slips

    def _shown(self, seed: Sequence[int]) -> Turns:
        """Return some liked answers within the bounds, each after its question."""
        liked = [one for one in self.examples if one.rating > 0 and all(bound.holds(one.answer) for bound in self.bounds)]
        chosen = np.random.default_rng([*seed, 1]).permutation(len(liked))[:_SHOWN].tolist()
        return tuple(turn for i in chosen for turn in (("user", liked[i].question), ("assistant", liked[i].answer.strip())))

    def _too_much(self, ids: Sequence[int]) -> bool:
        text = self.model.tokenizer.decode(ids).rstrip()
        return not all(bound.holds(text) for bound in self.bounds if bound.most)


def within(text: str, ended: bool, bounds: Sequence[Bound]) -> Own | None:
    """Return the answer or its beginning if it is within the bounds, without a question; else None. `ended`: whether `text` is all."""
    decided = [one for one in bounds if one.most or ended or one.count.grows == "sign"]  # for an unfinished answer, only its length is open
    length = any(one.most and not one.count.slips for one in bounds)
    if (ended or not length) and all(one.holds(text.rstrip()) for one in decided):
        return Own((), "", text.strip(), ended) if text.strip() else None
    begun = beginning(text, bounds)
    return None if begun is None else Own((), "", begun.text, begun.ends, False)


def slip(pieces: Sequence[str], bounds: Sequence[Bound]) -> range | None:
    """Return the tokens by which an answer left the bounds with its last token; None if no single place is to blame."""
    text, last = "".join(pieces).rstrip(), len(pieces) - 1
    blamed = {bound.count.slips for bound in bounds if bound.most and not bound.holds(text)}
    if "line" in blamed:
        lines = [i for i in range(max(0, last - _MARK_TOKENS), last) if "\n" in pieces[i]]
        return range(lines[0], last) if lines else None
    if "word" not in blamed:
        return None
    first = last
    while first > 0 and not pieces[first][:1].isspace():
        first -= 1
    return range(first, last + 1)


def _repeats(ids: Sequence[int]) -> bool:
    runs = [tuple(ids[i : i + 4]) for i in range(len(ids) - 3)]
    return len(runs) - len(set(runs)) > _CIRCLES * len(runs)
