"""`debias`: from a kept model to a candidate that finds what it reads about people less likely or unlikely because of their group.

Counterfactuals are made from lists of our own, and become equally likely; general text is kept as the model before found it. Suites that
measure bias are read only before and after, as the model is served. Stopped at any moment, the same call goes on where it was.

HOME/cache/measure/…             items of the suites, before and after; they stay
HOME/tuning/KEY/training/        the training, as `train` writes it
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch

from ingle.core.candidate import Admit, Candidate
from ingle.core.delta import Delta
from ingle.core.digest import digest_json
from ingle.core.progress import silent
from ingle.core.report import Event, Fact, Sink
from ingle.engine.loading import Opener
from ingle.engine.packs import checkpoint_tokenizer, kept_source, open_weights
from ingle.ethics.audit import FULL, Shift, run_suites, shift_table, shifts
from ingle.ethics.counterfactuals import PEOPLE, STYLES, Counterfactual, LineBeginning, beginnings, counterfactuals, questions, words_of
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.learn.addition_settings import DebiasSettings
from ingle.learn.trained_addition import attach, foretell
from ingle.measure.data_sets import held_names
from ingle.measure.measuring import SuiteResult
from ingle.measure.subjects import Subject, begin_id
from ingle.measure.suites import find_suite, training_rows
from ingle.model.checkpoint import Checkpoint
from ingle.model.tokenizer import Tokenizer
from ingle.train.corpus import Corpus, Member, corpus_of
from ingle.train.example_files import Document
from ingle.train.loop_settings import TrainReport
from ingle.train.making import (
    DeltaJob,
    MadeDelta,
    RunWatch,
    delta_job,
    made_event,
    make_delta,
    memory_errors,
    smaller_batches,
    training_facts,
)
from ingle.train.objectives import ABOVE, BOTH, KEPT_TARGET, SWAPPED, WORDS, Equalising
from ingle.train.optimisers import keep_few_programs
from ingle.tuning.linears import chosen_layers

METHOD = "equalised counterfactuals"
TEXTS = ("wiki-bits", "xsum-bits")  # suites whose training part is the general text
# Tokens of two beginnings or of one text about people, tokens of a question or a suite's item, and items of a suite, about.
_LINE, _ASKED, _ITEMS = 13, 90, 1500
VERSION = 1  # changes when the same settings make something else than before
Job = DeltaJob[DebiasSettings]


def debias(
    home: Home, kept: Kept, name: str, settings: DebiasSettings, admit: Admit, watch: RunWatch = RunWatch(),  # noqa: B008 - frozen
    command: str = "", sink: Sink = silent,
) -> MadeDelta:  # fmt: skip
    """Make a delta called `name` with which a kept model judges less by group, and keep it if `admit` takes it.

    Raises ConfigError for a name or layers that can't be used, the errors of opening the model and fetching the data, TrainError,
    HomeError, Refused if `admit` refuses it, and Interrupted after Ctrl-C or SIGTERM; the same call then goes on where it was.
    """
    job = delta_job("debias", VERSION, home, kept, name, settings, watch, command)
    checkpoint = open_weights(home, kept)
    chosen_layers(checkpoint.config, settings.layers)
    return make_delta(job, partial(_make, checkpoint), _events, admit, sink)


@dataclass(frozen=True, slots=True)
class Lessons:
    couples: tuple[tuple[LineBeginning, LineBeginning], ...]
    pairs: tuple[Counterfactual, ...]
    asked: tuple[Counterfactual, ...]
    texts: tuple[str, ...]

    @property
    def digest(self) -> str:
        pairs = [one.texts for one in (*self.pairs, *self.asked)]
        return digest_json([[[one.text for one in couple] for couple in self.couples], pairs, list(self.texts)])

    @property
    def kinds(self) -> Counter[str]:
        return Counter(["beginnings"] * len(self.couples) + [one.kind for one in (*self.pairs, *self.asked)])


def read_lessons(job: Job) -> Lessons:
    """Make the counterfactuals and read the general text. Raises the errors of fetching the data."""
    settings, fetching = job.settings, job.watch.bytes
    names = held_names(job.home, "train", fetching)
    couples: list[tuple[LineBeginning, LineBeginning]] = []
    if settings.objective == "equal":
        couples = beginnings(settings.beginnings, settings.seed, settings.groups)
        pairs = counterfactuals(settings.counterfactuals, names, settings.seed, PEOPLE, settings.groups)
    else:
        pairs = counterfactuals(settings.beginnings + settings.counterfactuals, names, settings.seed, groups=settings.groups)
    texts: list[str] = []
    for suite in TEXTS:
        rows: Iterator[Mapping[str, Any]] = training_rows(find_suite(suite), job.home, fetching)
        texts += [str(row["text"]) for row in islice(rows, settings.texts // len(TEXTS))]
    return Lessons(tuple(couples), tuple(pairs), tuple(questions(settings.questions, settings.seed)), tuple(texts))


def _make(checkpoint: Checkpoint, job: Job) -> Candidate:
    settings = job.settings
    predicted = foretell(job, "This debiasing", *_tokens(settings))
    keep_few_programs()
    lessons = read_lessons(job)
    job.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    opener, tokenizer = Opener(), checkpoint_tokenizer(checkpoint, job.home.base_folder(job.kept.base))
    with memory_errors(smaller_batches(settings.train.batch_tokens, settings.train.recompute)):
        addition = attach(job, checkpoint, opener)
        before = _standing(job, addition.subject(kept_source(job.home, job.kept)), "before")
        job.check()
        words = _word_pairs(tokenizer)
        corpus = _corpus(tokenizer, lessons, settings, [style for style, table in zip(STYLES, words, strict=True) if len(table)])
        objective = Equalising(corpus, addition.before, job.kept.digest, words, settings.weights)
        job.watch.say(f"training on {len(corpus)} pairs")
        trained = addition.train(corpus, objective, settings.train, job.folder / "training", "in training")
    after = _standing(job, addition.as_trained(METHOD), "after")
    return addition.candidate(METHOD, {**_report(job, lessons, trained, before, after), "predicted": predicted})


def _tokens(settings: DebiasSettings) -> tuple[int, int]:
    """About how many tokens an epoch learns from, and how many measuring reads."""
    learnt = _LINE * (settings.beginnings + 2 * settings.counterfactuals) + _ASKED * settings.questions
    asked = 2 * len(FULL) * (settings.measured or _ITEMS) * _ASKED
    return learnt + settings.text_tokens * settings.texts, asked


def _word_pairs(tokenizer: Tokenizer) -> list[torch.Tensor]:
    """For each style, the tokens of its pairs of words; words of several tokens are left out."""
    tables = []
    for style in STYLES:
        tokens = [[tokenizer.encode(f" {word}") for word in pair] for pair in words_of(style)]
        single = [[a[0], b[0]] for a, b in tokens if len(a) == len(b) == 1]
        tables.append(torch.tensor(single, dtype=torch.int64).reshape(len(single), 2))
    return tables


def _corpus(tokenizer: Tokenizer, lessons: Lessons, settings: DebiasSettings, spelt: Sequence[str]) -> Corpus:
    """Beginnings, texts about somebody else, questions, and general text two pieces at a time.

    `spelt`: styles with words of one token; after beginnings of others nothing can be weighed.
    """
    begin, most, styles = begin_id(tokenizer), settings.text_tokens, [*STYLES]
    members: list[Member] = []
    for couple in (one for one in lessons.couples if one[0].style in spelt):
        ids = [[begin, *tokenizer.encode(one.text), begin] for one in couple]  # the last token only makes room for a row
        documents = tuple(_document(one, len(one) - 1) for one in ids)
        members.append((digest_json([one.text for one in couple])[:16], WORDS + styles.index(couple[0].style), documents))
    swapped = SWAPPED if settings.objective == "equal" else BOTH
    members += [_pair(tokenizer, one, swapped) for one in lessons.pairs]
    members += [_pair(tokenizer, one, ABOVE) for one in lessons.asked]
    pieces = [_document([begin, *tokenizer.encode(text)[: most - 1]], 1) for text in lessons.texts]
    members += [(f"text {number}", KEPT_TARGET, pair) for number, pair in enumerate(zip(pieces[::2], pieces[1::2], strict=False))]
    return corpus_of("pairs", [one for one in members if _is_even(one)])


def _is_even(member: Member) -> bool:
    """Whether both documents weigh as many tokens, where each follows the other."""
    _, label, (first, second) = member
    return label != SWAPPED or first.answer.sum() == second.answer.sum()


def _pair(tokenizer: Tokenizer, one: Counterfactual, label: int) -> Member:
    begin, documents = begin_id(tokenizer), []
    for given, weighed in (one.first, one.second):
        whole, alone = tokenizer.encode(given + weighed), tokenizer.encode(given)
        same = next((i for i, (a, b) in enumerate(zip(whole, alone, strict=False)) if a != b), min(len(whole) - 1, len(alone)))
        documents.append(_document([begin, *whole], 1 + same))
    return digest_json(list(one.texts))[:16], label, tuple(documents)


def _document(ids: Sequence[int], first: int) -> Document:
    """Tokens, of which those from number `first` on are weighed."""
    return Document(np.array(ids, np.int32), np.arange(len(ids)) >= first)


def _standing(job: Job, subject: Subject, when: str) -> tuple[SuiteResult, ...]:
    """Measure the suites; what was measured before is not asked again."""

    def heard(label: str, done: int, total: int) -> None:
        job.watch.pieces(f"{label}, {when}", done, total)

    return run_suites(job.home, subject, dict.fromkeys(FULL, job.settings.measured), job.settings.seed, heard, job.watch.bytes)


def _report(
    job: Job, lessons: Lessons, trained: TrainReport, before: Sequence[SuiteResult], after: Sequence[SuiteResult]
) -> dict[str, Any]:  # fmt: skip
    return {
        "method": "debias", "counterfactuals": len(lessons.couples) + len(lessons.pairs), "questions": len(lessons.asked),
        "kinds": dict(sorted(lessons.kinds.items())),
        "texts": len(lessons.texts), "data_digest": lessons.digest, "train": asdict(trained), "held_out": {"before": None, "after": None},
        "shifts": shift_table(shifts(before, after, job.settings.seed)),
    }  # fmt: skip


def _events(report: Mapping[str, Any], _delta: Delta) -> list[Event]:
    facts: dict[str, Fact] = {}
    for one in report["shifts"]:
        if not one["group"] and one["figure"] != "language":
            name = one["suite"].replace("-", "_")
            facts |= {f"{name}_before": one["before"], f"{name}_after": one["after"], f"{name}_verdict": one["verdict"]}
    keys = ("counterfactuals", "questions", "texts", "data_digest")
    return [made_event("debias", report, keys, facts | training_facts(report))]


def shifts_of(report: Mapping[str, Any]) -> list[Shift]:
    return [Shift(**{key: value for key, value in row.items() if key != "verdict"}) for row in report["shifts"]]
