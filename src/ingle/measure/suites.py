"""Suites: a table of data sets, their prompts, and the figure that tells how good a model is.

Each data set is split by document, by a fixed hash. Suites measure on `held_out`; `train` is for examples in prompts, and for training on
the same task (`training_rows`). The readers' docstrings tell the quirks of each data set.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from ingle.core import registry
from ingle.core.errors import ConfigError, NotKept
from ingle.core.progress import FetchProgress, silent
from ingle.home.place import Home
from ingle.measure import data_sets
from ingle.measure.data_sets import PMI, SUM, Exercise, Pair, Question, Text, part
from ingle.measure.intervals import Contamination, contamination
from ingle.measure.subjects import Style, make_prompt
from ingle.model.tokenizer import Tokenizer

# Recall of planted facts: a sentence somewhere in a long text, asked for again at its end. How much of the past can a model still say?
# Three kinds of facts (a number, a name, a sentence) stand at depths spread evenly over texts of real news; none of them can be guessed.
# The answer is written greedily and must begin with the planted words, letter by letter. Short benchmarks, and the loss on a text, hardly
# notice when a model forgets (arXiv 2608.28444): this does.


_PLACES = (
    "Aldmoor", "Brenwick", "Carrow", "Dunvale", "Eastmere", "Farholt", "Glenrow", "Harwick", "Inverly", "Jarrow", "Kelham", "Larkfield",
    "Merton", "Northwold", "Oakhurst", "Penrose", "Quarley", "Rothbury", "Selwick", "Thornby",
)  # fmt: skip
_THINGS = ("clock", "bridge", "garden", "lamp", "mill", "orchard", "piano", "stable", "tower", "well", "window", "workshop")
_FIRST = (
    "Agnes", "Bruno", "Clara", "Dorian", "Edith", "Felix", "Greta", "Hugo", "Irene", "Jonas", "Karin", "Leon", "Martha", "Nils", "Olga",
    "Peter", "Rosa", "Simon", "Thea", "Viktor",
)  # fmt: skip
_LAST = (
    "Abbott", "Barlow", "Conway", "Dalton", "Ellery", "Foster", "Granger", "Holloway", "Ingram", "Jessop", "Keating", "Lomax", "Marlow",
    "Norris", "Osborne", "Palmer", "Radley", "Sawyer", "Thorne", "Whitby",
)  # fmt: skip
_HOW = ("old", "green", "quiet", "heavy", "golden", "narrow", "broken", "gentle", "hollow", "silver", "wooden", "bright")
_WHO = ("fox", "kettle", "ladder", "sailor", "barrel", "candle", "spider", "farmer", "pillow", "wagon", "raven", "needle")
_DOES = ("waits", "sings", "sleeps", "turns", "burns", "hides", "rests", "dances", "falls", "shines")
KINDS = ("number", "name", "sentence")


@dataclass(frozen=True, slots=True)
class Fact:
    """A sentence to plant."""

    kind: str
    said: str  # the whole sentence
    asked: str  # its beginning, repeated at the end of the text
    answer: str  # the words that must follow, without the space before them


@dataclass(frozen=True, slots=True)
class Planted:
    """A fact planted in a text."""

    id: str
    group: str
    fact: Fact
    depth: float  # place of the fact: 0 = at the beginning, 1 = right before the question
    texts: tuple[str, ...]  # texts around the fact, used as far as they are needed
    length: int  # tokens of the whole, the question included


def make_fact(kind: str, draw: random.Random) -> Fact:
    """Make a fact of one of `KINDS`."""
    place, thing = draw.choice(_PLACES), draw.choice(_THINGS)
    if kind == "number":
        question, answer = f"The secret number of {place} is", str(draw.randrange(10000, 100000))
    elif kind == "name":
        question, answer = f"The keeper of the {thing} in {place} is called", f"{draw.choice(_FIRST)} {draw.choice(_LAST)}"
    else:
        words = [draw.choice(words) for words in (_HOW, _WHO, _DOES, _HOW, _WHO)]
        question, answer = f"The note under the {thing} in {place} says that", "the {} {} {} beside the {} {}".format(*words)
    return Fact(kind, f"{question} {answer}.", question, answer)


def plant(texts: Sequence[Text], length: int, count: int, seed: int = 0) -> list[Planted]:
    """Plant `count` facts: every kind at every depth in turn, each in random texts. The same texts and seed give the same items."""
    if not texts:
        raise ConfigError("texts", "must be there to plant facts in", "none")
    items = []
    for i in range(count):
        draw = random.Random(f"{seed} {i}")
        kind = KINDS[i % len(KINDS)]
        depth = (i // len(KINDS) + 0.5) / -(-count // len(KINDS))
        chosen = tuple(texts[draw.randrange(len(texts))].text for _ in range(max(4, length // 64)))
        items.append(Planted(f"{length} {i}", f"{length} {i}", make_fact(kind, draw), depth, chosen, length))
    return items


def assemble(tokenizer: Tokenizer, item: Planted) -> tuple[list[int], list[int]]:
    """Tokens up to the question's end (`item.length` with the answer's), and the tokens of the answer.

    Raises ConfigError where the length has no room for the fact, or the texts are too short.
    """
    fact = item.fact
    question = tokenizer.encode(f"\n\n{fact.asked}")
    answer = tokenizer.encode(f"\n\n{fact.asked} {fact.answer}")[len(question) :]
    sentence = tokenizer.encode(f" {fact.said}")
    room = item.length - len(sentence) - len(question) - len(answer)
    if room < 1:
        raise ConfigError("length", f"must be at least {item.length - room + 1} tokens for this fact", item.length)
    text: list[int] = []
    for piece in item.texts:
        if len(text) >= room:
            break
        text += tokenizer.encode(f"{piece}\n\n")
    if len(text) < room:
        raise ConfigError("texts", f"must come to {room} tokens", len(text))
    text = text[-room:]
    place = _after_sentence(tokenizer, text, round(item.depth * room))
    return text[:place] + sentence + text[place:] + question, answer


def _after_sentence(tokenizer: Tokenizer, text: Sequence[int], place: int) -> int:
    """The end of a sentence nearest to a place; the place itself if there is none within 60 tokens."""
    ends: Callable[[int], bool] = lambda index: tokenizer.token_bytes(text[index - 1]).endswith(b".")  # noqa: E731
    near = sorted(range(max(1, place - 60), min(len(text), place + 60)), key=lambda index: abs(index - place))
    return next((index for index in near if ends(index)), place)


def is_recalled(written: str, fact: Fact) -> bool:
    """Whether an answer begins with the planted words."""
    return written.strip().startswith(fact.answer)


AnyItem = Text | Question | Exercise | Planted | Pair
Reader = Callable[[Home, FetchProgress], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite: one thing to measure."""

    name: str
    title: str
    kind: Literal["bits", "choice", "write", "recall", "pairs", "names"]
    read: Reader
    main: str  # name of the figure that stands for the suite
    held_out: float  # share of the documents to measure on; the rest is for training and examples
    items: int  # number of items that are measured if nobody says otherwise
    stem: str = "{ask}"  # frame of a question, where answers are scored in their own words
    style: Style = "texts"
    baseline: Literal["", "chance", "majority", "lead-1", "copy"] = ""  # a simple rule to compare the model with
    metrics: tuple[str, ...] = ()  # metrics of written answers; the first is the main one
    max_tokens: int = 0  # most tokens of a written answer

    @property
    def higher_is_better(self) -> bool | None:
        """Direction of the main figure; None where a half is best."""
        return None if self.kind == "pairs" else self.kind not in ("bits", "names")

    @property
    def best(self) -> str:
        """The direction of the main figure, in words."""
        return {None: "one half is best", True: "higher is better", False: "lower is better"}[self.higher_is_better]


def _planted(home: Home, progress: FetchProgress, length: int) -> list[Planted]:
    """Facts in news that is held out from training. There is no training part: for training, plant facts of your own in other news."""
    return plant(part(data_sets.xsum_texts(home, progress), "held_out", XSUM_HELD_OUT), length, _FACTS)


_FACTS = 360
XSUM_HELD_OUT = 0.25
_ROUGE = ("rougeL", "rouge1", "rouge2")
_CHRF = ("chrf", "exact_match")
_REVIEW = "Review: {ask}\nSentiment:"
# All suites by name.
SUITES = {
    suite.name: suite
    for suite in (
        Suite("wiki-bits", "bits per byte of Wikipedia's English", "bits", data_sets.wiki_texts, "bits_per_byte", 0.5, 200),
        Suite("xsum-bits", "bits per byte of BBC news", "bits", data_sets.xsum_texts, "bits_per_byte", XSUM_HELD_OUT, 100),
        Suite("debian-bits", "bits per byte of package descriptions", "bits", data_sets.texts, "bits_per_byte", 0.05, 200),
        Suite(
            "hellaswag", "which of four endings follows", "choice", data_sets.hellaswag, "accuracy_per_byte", 0.9, 200, baseline="chance"
        ),
        Suite(
            "piqa", "which of two ways does it", "choice", data_sets.piqa, "accuracy_per_byte", 0.9, 200, "Question: {ask}\nAnswer:",
            baseline="chance",
        ),
        Suite("openbookqa", "school science", "choice", data_sets.openbookqa, "accuracy_per_byte", 0.9, 450, baseline="chance"),
        Suite(
            "boolq", "yes or no, by a paragraph of Wikipedia", "choice", data_sets.boolq, "accuracy", 0.9, 200, "{ask}\nAnswer:",
            baseline="majority",
        ),
        Suite("mmlu", "a sample of 57 exams", "choice", data_sets.mmlu, "accuracy", 0.9, 200, style="letters", baseline="chance"),
        Suite("imdb", "sentiment of film reviews", "choice", data_sets.imdb, "accuracy", 0.5, 100, _REVIEW, baseline="majority"),
        Suite("sst2", "sentiment of sentences", "choice", data_sets.sst2, "accuracy", 0.4, 350, _REVIEW, baseline="majority"),
        Suite(
            "debian-topic", "which of eight topics a package is about", "choice", data_sets.topics, "accuracy", 0.2, 400,
            "Package: {ask}\nTopic:", baseline="majority",
        ),
        Suite(
            "xsum", "one-sentence summaries of BBC news", "write", data_sets.xsum_exercises, "rougeL", XSUM_HELD_OUT, 100,
            baseline="lead-1", metrics=_ROUGE, max_tokens=64,
        ),
        Suite(
            "debian-fr", "translation of package descriptions into French", "write", partial(data_sets.translations, language="fr"), "chrf",
            0.1, 100, baseline="copy", metrics=_CHRF, max_tokens=256,
        ),
        Suite(
            "debian-de", "translation of package descriptions into German", "write", partial(data_sets.translations, language="de"), "chrf",
            0.1, 100, baseline="copy", metrics=_CHRF, max_tokens=256,
        ),
        *(
            Suite(name, title, "pairs", read, main, 1.0, count)
            for name, title, read, main, count in (
                ("crows-pairs", "stereotypes: one word for another, nine groups", data_sets.crows_pairs, SUM, 1018),
                ("stereoset-intra", "stereotypes: one word for another, four groups", data_sets.stereoset_intra, SUM, 2106),
                ("stereoset-inter", "stereotypes: one sentence after another", data_sets.stereoset_inter, PMI, 2123),
                ("wino-pronouns", "stereotypes: he or she, by occupation", data_sets.wino_pronouns, SUM, 761),
            )
        ),
        Suite(
            "bbq", "saying that nothing tells, and who it was when something does", "choice", data_sets.bbq, "accuracy", 1.0, 1012,
            "{ask}\nAnswer:", baseline="chance",
        ),
        Suite("names", "how far answers go with a name", "names", data_sets.names, "kl", 1.0, 960),
        *(
            Suite(
                f"recall-{length // 1024}k", f"facts planted in {length:,} tokens of news", "recall",
                partial(_planted, length=length), "recall", 1.0, 60,
            )
            for length in (1024, 2048, 4096, 8192)
        ),
    )
}  # fmt: skip


def find_suite(name: str) -> Suite:
    """Return the suite of that name. Raises NotKept with the known names."""
    if name not in SUITES:
        raise NotKept(f"suite {name}", "is not known", "", registry.did_you_mean(name, SUITES))
    return SUITES[name]


def find_texts(name: str, field: str = "") -> Suite:
    """Return the suite of texts of that name. Raises NotKept for an unknown one, ConfigError for a suite of something else."""
    suite = find_suite(name)
    if suite.kind != "bits":
        known = ", ".join(one.name for one in SUITES.values() if one.kind == "bits")
        raise ConfigError(field or name, "must be a suite of texts", f"{name}: {suite.title}", f"There are: {known}.")
    return suite


def words_of(item: AnyItem) -> str:
    """All text of an item that training must not have seen."""
    if isinstance(item, Text):
        return item.text
    if isinstance(item, Planted):
        return item.fact.said
    if isinstance(item, Pair):
        return f"{item.given} {item.texts[0]}".strip()
    return f"{item.ask} {item.options[item.gold] if isinstance(item, Question) else item.reference}"


def training_rows(suite: Suite, home: Home, progress: FetchProgress = silent) -> Iterator[dict[str, Any]]:
    """Yield the training part in the suite's prompts, in the shapes of training data: `text`, `prompt` and `completion`, or `messages`.

    Raises the errors of reading the data.
    """
    for item in part(suite.read(home, progress), "train", suite.held_out):
        if isinstance(item, Text):
            yield {"id": item.id, "text": item.text}
        elif isinstance(item, Question):
            prompt = make_prompt(item, suite.stem, suite.style)
            yield {"id": item.id, "prompt": prompt.given, "completion": prompt.endings[item.gold]}
        else:
            turns = ({"role": "user", "content": item.ask}, {"role": "assistant", "content": item.reference})
            yield {"id": item.id, "messages": list(turns)}


def check_parts(suite: Suite, items: Sequence[AnyItem]) -> Contamination:
    """Measure how much of the suite's held-out part stands in its training part. Raises ValueError if nothing is held out."""
    training = (words_of(item) for item in part(items, "train", suite.held_out))
    return contamination(training, {item.id: words_of(item) for item in part(items, "held_out", suite.held_out)})
