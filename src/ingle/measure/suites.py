"""What can be measured by name: a table of data sets, how prompts are made of them, and which figure tells how good a model is.

Each data set is split by document, by a fixed hash: `held_out` is what suites measure on, `train` is for examples in prompts, and for
whoever wants to train on the same task (`training_rows`). Readers say what is odd about each data set.
"""

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from ingle.core.errors import ConfigError, NotKept
from ingle.home.fetch import Progress, silent
from ingle.home.place import Home
from ingle.measure import debian, sources
from ingle.measure.choice import Style, make_prompt
from ingle.measure.contamination import Contamination, contamination
from ingle.measure.items import Exercise, Question, Text, part
from ingle.measure.recall import Planted, plant

AnyItem = Text | Question | Exercise | Planted
Reader = Callable[[Home, Progress], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Suite:
    """One thing to measure."""

    name: str
    title: str
    kind: Literal["bits", "choice", "write", "recall"]
    read: Reader
    main: str
    """The figure that stands for the suite."""
    held_out: float
    """Share of the documents that are measured on; the rest is for training and examples."""
    items: int
    """How many are measured if nobody says otherwise."""
    stem: str = "{ask}"
    """How a question is put, where answers are scored in their own words."""
    style: Style = "texts"
    baseline: Literal["", "chance", "majority", "lead-1", "copy"] = ""
    """The simple rule that stands beside the model."""
    metrics: tuple[str, ...] = ()
    """Of what is written; the first is the main one."""
    max_tokens: int = 0
    """Most tokens of what is written."""

    @property
    def higher_is_better(self) -> bool:
        """The direction of the main figure."""
        return self.kind != "bits"


def _planted(home: Home, progress: Progress, length: int) -> list[Planted]:
    """Facts in news that is held out from training. There is no training part: whoever trains plants facts of its own in other news."""
    return plant(part(sources.xsum_texts(home, progress), "held_out", XSUM_HELD_OUT), length, _FACTS)


_FACTS = 360
XSUM_HELD_OUT = 0.25
_ROUGE = ("rougeL", "rouge1", "rouge2")
_CHRF = ("chrf", "exact_match")
_REVIEW = "Review: {ask}\nSentiment:"
SUITES = {
    suite.name: suite
    for suite in (
        Suite("wiki-bits", "bits per byte of Wikipedia's English", "bits", sources.wiki_texts, "bits_per_byte", 0.5, 200),
        Suite("xsum-bits", "bits per byte of BBC news", "bits", sources.xsum_texts, "bits_per_byte", XSUM_HELD_OUT, 100),
        Suite("debian-bits", "bits per byte of package descriptions", "bits", debian.texts, "bits_per_byte", 0.05, 200),
        Suite(
            "hellaswag", "which of four endings follows", "choice", sources.hellaswag, "accuracy_per_byte", 0.9, 200, baseline="chance"
        ),
        Suite(
            "piqa", "which of two ways does it", "choice", sources.piqa, "accuracy_per_byte", 0.9, 200, "Question: {ask}\nAnswer:",
            baseline="chance",
        ),
        Suite("openbookqa", "school science", "choice", sources.openbookqa, "accuracy_per_byte", 0.9, 450, baseline="chance"),
        Suite(
            "boolq", "yes or no, by a paragraph of Wikipedia", "choice", sources.boolq, "accuracy", 0.9, 200, "{ask}\nAnswer:",
            baseline="majority",
        ),
        Suite("mmlu", "a sample of 57 exams", "choice", sources.mmlu, "accuracy", 0.9, 200, style="letters", baseline="chance"),
        Suite("imdb", "sentiment of film reviews", "choice", sources.imdb, "accuracy", 0.5, 100, _REVIEW, baseline="majority"),
        Suite("sst2", "sentiment of sentences", "choice", sources.sst2, "accuracy", 0.4, 350, _REVIEW, baseline="majority"),
        Suite(
            "debian-topic", "which of eight topics a package is about", "choice", debian.topics, "accuracy", 0.2, 400,
            "Package: {ask}\nTopic:", baseline="majority",
        ),
        Suite(
            "xsum", "one-sentence summaries of BBC news", "write", sources.xsum_exercises, "rougeL", XSUM_HELD_OUT, 100,
            baseline="lead-1", metrics=_ROUGE, max_tokens=64,
        ),
        Suite(
            "debian-fr", "translation of package descriptions into French", "write", partial(debian.translations, language="fr"), "chrf",
            0.1, 100, baseline="copy", metrics=_CHRF, max_tokens=256,
        ),
        Suite(
            "debian-de", "translation of package descriptions into German", "write", partial(debian.translations, language="de"), "chrf",
            0.1, 100, baseline="copy", metrics=_CHRF, max_tokens=256,
        ),
        *(
            Suite(
                f"recall-{length // 1024}k", f"facts planted in {length:,} tokens of news", "recall",
                partial(_planted, length=length), "recall", 1.0, 60,
            )
            for length in (1024, 2048, 4096, 8192)
        ),
    )
}  # fmt: skip
"""By name."""


def find_suite(name: str) -> Suite:
    """The suite of that name. Raises NotKept with the known names."""
    if name not in SUITES:
        close = difflib.get_close_matches(name, SUITES, n=1)
        cure = f"Did you mean {close[0]}?" if close else f"Known: {', '.join(SUITES)}."
        raise NotKept(f"suite {name}", "is not known", "", cure)
    return SUITES[name]


def find_texts(name: str, field: str = "") -> Suite:
    """The suite of texts that a field names. Raises NotKept for an unknown one, ConfigError for a suite of something else."""
    suite = find_suite(name)
    if suite.kind != "bits":
        known = ", ".join(one.name for one in SUITES.values() if one.kind == "bits")
        raise ConfigError(field or name, "must be a suite of texts", f"{name}: {suite.title}", f"There are: {known}.")
    return suite


def words_of(item: AnyItem) -> str:
    """All that would give an item away if it were trained on."""
    if isinstance(item, Text):
        return item.text
    if isinstance(item, Planted):
        return item.fact.said
    return f"{item.ask} {item.options[item.gold] if isinstance(item, Question) else item.reference}"


def training_rows(suite: Suite, home: Home, progress: Progress = silent) -> Iterator[dict[str, Any]]:
    """The training part as the suite puts it, in the shapes that training data come in: `text`, `prompt` and `completion`, or `messages`.

    Raises what reading the data raises.
    """
    for item in part(suite.read(home, progress), "train", suite.held_out):
        if isinstance(item, Text):
            yield {"id": item.id, "text": item.text}
        elif isinstance(item, Question):
            prompt = make_prompt(item, suite.stem, suite.style)
            yield {"id": item.id, "prompt": prompt.given, "completion": prompt.endings[item.gold]}
        else:
            said = ({"role": "user", "content": item.ask}, {"role": "assistant", "content": item.reference})
            yield {"id": item.id, "messages": list(said)}


def check_parts(suite: Suite, items: Sequence[AnyItem]) -> Contamination:
    """How much of the suite's held-out part stands in its training part. Raises ValueError if nothing is held out."""
    training = (words_of(item) for item in part(items, "train", suite.held_out))
    return contamination(training, {item.id: words_of(item) for item in part(items, "held_out", suite.held_out)})
