"""The model's own answers, kept where they have what was liked: a user's few thumbs say what to look for, the model writes it itself.

Thumbs are few, and liked ones rare where the model hardly ever writes what is liked. So it answers the rated questions and everyday ones
by chance, and an answer that is within the bounds (`learn.style_bounds`) is kept. All words being its own, learning from these moves what
the bounds are about and little else. A second round begins where the first one led (expert iteration, arXiv 1705.08439). Where an answer is
not within, it tries again after liked answers as turns of a conversation, in whose manner a model goes on (context distillation,
arXiv 2209.15189): not at once, for a small model takes up what they are about as well. Only where that fails is the beginning of an answer
taken: beginnings are vaguer than answers that are meant to be short. What goes around in circles is not taken at all.

An answer that left the bounds shows where: the token that began another line, or the word (`slip`). Such places are learned from as well,
and no other of its tokens (unlikelihood, arXiv 1908.04319).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ingle.core.example import Example
from ingle.learn.everyday import EVERYDAY
from ingle.learn.lesson_settings import StyleSettings
from ingle.learn.style_bounds import Bound, beginning
from ingle.learn.trainable_model import TrainableModel, Turns
from ingle.learn.work import LessonError
from ingle.train.encode import Document
from ingle.train.writing import Drawn, write_all

_TOGETHER = 24
"""Answers written in one row: each looks past the others' words, which takes time too."""
_SHOWN = 2
"""Liked answers that stand before a question."""
_MARK_TOKENS = 4
"""Most tokens between the end of a line and the word that shows that another began."""
_CIRCLES = 0.1
"""Of its runs of four tokens, an answer may have so many twice."""


@dataclass(frozen=True, slots=True)
class Own:
    """An answer of the model's own, as far as it is to be learned from."""

    before: Turns
    question: str
    text: str
    ends: bool
    """Whether it ends there."""
    whole: bool = True
    """Whether it is all that was written; else it is the beginning of something longer."""

    def document(self, model: TrainableModel, settings: StyleSettings) -> Document | None:
        """None where it says nothing, or too much."""
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
    """One style's: what was rated, and what is to be seen in answers."""

    model: TrainableModel
    settings: StyleSettings
    examples: Sequence[Example]
    bounds: Sequence[Bound]

    def round(self, number: int) -> tuple[list[Own], list[Document]]:
        """Of what the model as it is now writes, and of the disliked answers, one to each question, where any is within the bounds;
        and of the other answers written at the first try, the places where they left the bounds."""
        asked = [*((one.before, one.question) for one in self.examples), *(((), question) for question in EVERYDAY)]
        open_, found, slips = list(dict.fromkeys(asked)), list[Own](), list[Document]()
        for attempt in range(self.settings.own_answers):
            for at in range(0, len(open_), _TOGETHER):
                some, seed = open_[at : at + _TOGETHER], [self.settings.seed, number, attempt, at]
                kept, left = self._written(some, self._shown(seed) if attempt else (), seed)
                found += kept
                slips += [] if attempt else left
            answered = {(own.before, own.question) for own in found if own.whole}
            open_ = [place for place in open_ if place not in answered]
        lent = [within(one.answer, True, self.bounds) for one in self.examples]
        pairs = zip(self.examples, lent, strict=True)
        found += [replace(own, before=one.before, question=one.question) for one, own in pairs if one.rating < 0 and own is not None]
        best: dict[tuple[Turns, str], Own] = {}
        for own in sorted(found, key=lambda own: not own.whole):
            best.setdefault((own.before, own.question), own)
        return list(best.values()), slips

    def blanks(self, written: Sequence[Own]) -> list[Document]:
        """Where length is bounded, an answer that ends before it began is the shortest: that token after each question, as a slip."""
        model, ends = self.model, self.model.tokenizer.eos_ids
        found = list[Document]()
        for own in written if any(bound.most and not bound.count.slips for bound in self.bounds) else ():
            document = own.document(model, self.settings)
            if document is not None and own.ends and (end := [int(token) for token in document.ids[document.answer] if int(token) in ends]):
                ids = np.array([*model.prompt(own.before, own.question), end[0]], np.int32)
                found.append(Document(ids, np.arange(len(ids)) == len(ids) - 1))
        return found

    def _written(self, places: Sequence[tuple[Turns, str]], shown: Turns, seed: Sequence[int]) -> tuple[list[Own], list[Document]]:
        model, settings = self.model, self.settings
        draw = Drawn(len(places), settings.own_tokens, settings.temperature, seed)
        prompts = [model.prompt((*shown, *before), question) for before, question in places]
        answers = write_all(model.module, prompts, settings.own_tokens, model.tokenizer.eos_ids, draw, self._too_much)
        found, slips = list[Own](), list[Document]()
        for (before, question), prompt, ids in zip(places, prompts, answers, strict=True):
            ended = bool(ids) and ids[-1] in model.tokenizer.eos_ids
            own = within(model.tokenizer.decode(ids[:-1] if ended else ids), ended, self.bounds)
            if own is not None and not _repeats(ids):
                found.append(replace(own, before=before, question=question))
            if blamed := slip([model.tokenizer.decode([token]) for token in ids], self.bounds):
                places_ = np.arange(len(prompt) + len(ids)) - len(prompt)
                marked = (places_ >= blamed.start) & (places_ < blamed.stop)
                slips.append(Document(np.array(prompt + ids, np.int32), marked))
        return found, slips

    def _shown(self, seed: Sequence[int]) -> Turns:
        """Some liked answers that are within the bounds, after their questions."""
        liked = [one for one in self.examples if one.rating > 0 and all(bound.holds(one.answer) for bound in self.bounds)]
        chosen = np.random.default_rng([*seed, 1]).permutation(len(liked))[:_SHOWN].tolist()
        return tuple(turn for i in chosen for turn in (("user", liked[i].question), ("assistant", liked[i].answer.strip())))

    def _too_much(self, ids: Sequence[int]) -> bool:
        text = self.model.tokenizer.decode(ids).rstrip()
        return not all(bound.holds(text) for bound in self.bounds if bound.most)


def within(text: str, ended: bool, bounds: Sequence[Bound]) -> Own | None:
    """What of an answer is within the bounds, its question left open; None where nothing is. `ended`: whether it is all of the answer."""
    told = [one for one in bounds if one.most or ended or one.count.grows == "sign"]  # of what goes on, only its length is open
    length = any(one.most and not one.count.slips for one in bounds)
    if (ended or not length) and all(one.holds(text.rstrip()) for one in told):
        return Own((), "", text.strip(), ended) if text.strip() else None
    begun = beginning(text, bounds)
    return None if begun is None else Own((), "", begun.text, begun.ends, False)


def slip(pieces: Sequence[str], bounds: Sequence[Bound]) -> range | None:
    """The tokens by which an answer that its last token took out of the bounds left them; None where no single place is to blame."""
    text, last = "".join(pieces).rstrip(), len(pieces) - 1
    blamed = {bound.count.slips for bound in bounds if bound.most and not bound.holds(text)}
    if "line" in blamed:
        lines = [at for at in range(max(0, last - _MARK_TOKENS), last) if "\n" in pieces[at]]
        return range(lines[0], last) if lines else None
    if "word" not in blamed:
        return None
    first = last
    while first > 0 and not pieces[first][:1].isspace():
        first -= 1
    return range(first, last + 1)


def _repeats(ids: Sequence[int]) -> bool:
    """Whether it goes around in circles."""
    runs = [tuple(ids[at : at + 4]) for at in range(len(ids) - 3)]
    return len(runs) - len(set(runs)) > _CIRCLES * len(runs)
