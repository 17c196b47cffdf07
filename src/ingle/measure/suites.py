"""Suites: a table of data sets, their prompts, and the figure that tells how good a model is.

Each data set is split by document, by a fixed hash. Suites measure on `held_out`; `train` is for examples in prompts, and for training on
the same task (`training_rows`). The readers' docstrings tell the quirks of each data set.
"""

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from ingle.core.errors import ConfigError, NotKept
from ingle.home.fetch import FetchProgress, silent
from ingle.home.place import Home
from ingle.measure import bias_data, debian, sources
from ingle.measure.choice import Style, make_prompt
from ingle.measure.contamination import Contamination, contamination
from ingle.measure.items import PMI, SUM, Exercise, Pair, Question, Text, part
from ingle.measure.recall import Planted, plant

AnyItem = Text | Question | Exercise | Planted | Pair
Reader = Callable[[Home, FetchProgress], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite: one thing to measure."""

    name: str
    title: str
    kind: Literal["bits", "choice", "write", "recall", "pairs", "names"]
    read: Reader
    main: str
    """Name of the figure that stands for the suite."""
    held_out: float
    """Share of the documents to measure on; the rest is for training and examples."""
    items: int
    """Number of items that are measured if nobody says otherwise."""
    stem: str = "{ask}"
    """Frame of a question, where answers are scored in their own words."""
    style: Style = "texts"
    baseline: Literal["", "chance", "majority", "lead-1", "copy"] = ""
    """A simple rule to compare the model with."""
    metrics: tuple[str, ...] = ()
    """Metrics of written answers; the first is the main one."""
    max_tokens: int = 0
    """Most tokens of a written answer."""

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
            Suite(name, title, "pairs", read, main, 1.0, count)
            for name, title, read, main, count in (
                ("crows-pairs", "stereotypes: one word for another, nine groups", bias_data.crows_pairs, SUM, 1018),
                ("stereoset-intra", "stereotypes: one word for another, four groups", bias_data.stereoset_intra, SUM, 2106),
                ("stereoset-inter", "stereotypes: one sentence after another", bias_data.stereoset_inter, PMI, 2123),
                ("wino-pronouns", "stereotypes: he or she, by occupation", bias_data.wino_pronouns, SUM, 761),
            )
        ),
        Suite(
            "bbq", "saying that nothing tells, and who it was when something does", "choice", bias_data.bbq, "accuracy", 1.0, 1012,
            "{ask}\nAnswer:", baseline="chance",
        ),
        Suite("names", "how far answers go with a name", "names", bias_data.names, "kl", 1.0, 960),
        *(
            Suite(
                f"recall-{length // 1024}k", f"facts planted in {length:,} tokens of news", "recall",
                partial(_planted, length=length), "recall", 1.0, 60,
            )
            for length in (1024, 2048, 4096, 8192)
        ),
    )
}  # fmt: skip
"""All suites by name."""


def find_suite(name: str) -> Suite:
    """Return the suite of that name. Raises NotKept with the known names."""
    if name not in SUITES:
        close = difflib.get_close_matches(name, SUITES, n=1)
        cure = f"Did you mean {close[0]}?" if close else f"Known: {', '.join(SUITES)}."
        raise NotKept(f"suite {name}", "is not known", "", cure)
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
