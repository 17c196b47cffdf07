"""Figures of a model: bits per byte, names, pairs, closeness of texts, forgetting; and what makes a measurement's reports."""

import math
import random
import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError, KernelError, RequestError
from ingle.core.files import how_to_install
from ingle.core.report import Report
from ingle.measure.data_sets import PER_BYTE, PMI, SUM, Pair
from ingle.measure.intervals import (
    Difference,
    Floats,
    Interval,
    Statistic,
    bootstrap,
    fair_coin,
    holm,
    paired_bootstrap,
    percent_change,
    ratio,
    sign_test,
    wilson,
)
from ingle.measure.subjects import ItemPlan, Nats, Prompt, Row, Style, Subject, Task, make_task
from ingle.measure.suites import Suite
from ingle.model.tokenizer import Tokenizer

# Bits per byte: the bits that a model needs for each byte of a text. Comparable between models with different vocabularies.
# The bytes are those of the document in UTF-8 as it stands. The bits are −log₂ p of all its tokens, the first one too, which follows the
# token that begins a text (`subject.begin_id`). A document longer than a window is cut. Each further window begins with tokens of the one
# before, which are read again and not counted again. So every token counts once, and every byte once.


WINDOW_TOKENS = 2048  # most tokens that are read together, with the beginning token
CARRY = 0.5  # share of a window that the next one reads again


@dataclass(frozen=True, slots=True)
class TextBits:
    """Bits of one document."""

    bits: float
    nbytes: int
    tokens: int  # tokens whose bits were counted
    # Whether these tokens spell these bytes. A vocabulary that changes texts (unknown characters, normalisation) doesn't describe them.
    exact: bool


@dataclass(frozen=True, slots=True)
class TextReading:
    """A plan for reading one document."""

    tasks: tuple[Task, ...]
    nbytes: int
    exact: bool

    def bits(self, parts: Sequence[Sequence[Nats]]) -> TextBits:
        """Sum up the log-probabilities of each task's one ending. Raises KernelError if one of them is no number."""
        nats = math.fsum(-float(values.sum()) for [values] in parts)
        if not math.isfinite(nats):
            raise KernelError(
                "log-probability", "must be a finite number", nats, "The model computes NaN or gives a token no chance at all."
            )
        return TextBits(nats / math.log(2), self.nbytes, sum(len(values) for [values] in parts), self.exact)


def read_text(
    tokenizer: Tokenizer, text: str, begin: int | None, window: int = WINDOW_TOKENS, carry: float = CARRY, most_tokens: int | None = None
) -> TextReading:
    """Plan the reading of a text, in windows of at most `window` tokens.

    `begin` stands before the text. With None the first token is given, and neither its bits nor its bytes count. `most_tokens` cuts the
    text there; the bytes are then those of the remaining tokens. Raises RequestError for a text without anything to count.
    """
    ids = tokenizer.encode(text)
    cut = most_tokens is not None and len(ids) > most_tokens
    ids = ids[:most_tokens]
    counted = ids if begin is not None else ids[1:]
    if not counted:
        raise RequestError("text", "must hold at least one token to count", repr(text[:40]))
    raw, spelled = text.encode(), b"".join(map(tokenizer.token_bytes, ids))
    first = 0 if begin is not None else len(tokenizer.token_bytes(ids[0]))
    exact = raw.startswith(spelled) if cut else raw == spelled
    nbytes = (len(spelled) if cut else len(raw)) - first
    before = [begin, *ids] if begin is not None else ids
    return TextReading(tuple(windows(before, window, carry)), nbytes, exact)


def windows(ids: Sequence[int], window: int, carry: float = CARRY) -> list[Task]:
    """Tasks that together ask for every token but the first, once. Each has at most `window` tokens; its last one is not read."""
    if window < 2 or not 0 <= carry < 1:
        raise ValueError(f"a window of {window} tokens, {carry} of them again")
    again = max(1, int(window * carry))
    tasks: list[Task] = [(ids[:1], (ids[1 : window + 1],))]
    start = window + 1
    while start < len(ids):
        end = start + window + 1 - again
        tasks.append((ids[start - again : start], (ids[start:end],)))
        start = end
    return tasks


def columns(rows: Sequence[TextBits]) -> Floats:
    """[documents, 2]: bits and bytes; their ratio of sums is the micro average, in which long documents weigh more."""
    return np.array([[row.bits, row.nbytes] for row in rows], np.float64).reshape(len(rows), 2)


def macro_columns(rows: Sequence[TextBits]) -> Floats:
    """[documents, 2]: bits per byte of each document, and 1; their ratio of sums is the macro average."""
    return np.array([[row.bits / row.nbytes, 1.0] for row in rows], np.float64).reshape(len(rows), 2)


# Closeness of a text to a reference: exact match, ROUGE and chrF. The last two are the libraries' own (extra `measure`).


ROUGE = ("rouge1", "rouge2", "rougeL")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Return the text as exact match compares it: NFC, lower case, without ASCII punctuation, without a, an, the, with single spaces.

    The order is that of SQuAD's script (arXiv 1606.05250); NFC is ours, so that é is é in either encoding.
    """
    plain = unicodedata.normalize("NFC", text).lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", plain).split())


def exact_match(answers: Sequence[str], references: Sequence[str]) -> list[bool]:
    """Whether each answer is its reference, both normalised."""
    return [normalise(answer) == normalise(reference) for answer, reference in zip(answers, references, strict=True)]


def rouge(answers: Sequence[str], references: Sequence[str]) -> dict[str, Floats]:
    """F1 of each answer, 0 to 1, for each kind in `ROUGE`; words are stemmed (Porter), which is made for English.

    Raises ConfigError without the library.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise _missing("rouge-score") from error
    scorer: Any = RougeScorer(list(ROUGE), use_stemmer=True)
    by_answer = [scorer.score(reference, answer) for answer, reference in zip(answers, references, strict=True)]
    return {kind: np.array([scores[kind].fmeasure for scores in by_answer], np.float64) for kind in ROUGE}


def chrf(answers: Sequence[str], references: Sequence[str]) -> Floats:
    """chrF2 of each answer, 0 to 100: F of character 1- to 6-grams, recall weighing twice (sacrebleu's sentence score).

    Raises ConfigError without the library.
    """
    scorer = _chrf()
    pairs = zip(answers, references, strict=True)
    return np.array([scorer.sentence_score(answer, [reference]).score for answer, reference in pairs], np.float64)


def corpus_chrf(answers: Sequence[str], references: Sequence[str]) -> float:
    """chrF2 of all answers together, 0 to 100, as papers report it: n-grams are counted over all of them, so long ones weigh more."""
    return float(_chrf().corpus_score(list(answers), [list(references)]).score)


def scores(names: Sequence[str], answers: Sequence[str], references: Sequence[str]) -> dict[str, Floats]:
    """Compute these figures of each answer: kinds of ROUGE, `chrf`, `exact_match`."""
    rouges = rouge(answers, references) if set(names) & set(ROUGE) else {}
    figures: dict[str, Floats] = {}
    for name in names:
        if name in rouges:
            figures[name] = rouges[name]
        else:
            figures[name] = chrf(answers, references) if name == "chrf" else np.array(exact_match(answers, references), np.float64)
    return figures


def _chrf() -> Any:
    try:
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as error:
        raise _missing("sacrebleu") from error
    return CHRF()


def _missing(library: str) -> ConfigError:
    return ConfigError(library, f"This figure needs {library}, which is not installed", "", how_to_install("measure"))


# Forgetting: the cost of a change to a model on general text, in bits per byte, paired by document.


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Bits per byte before and after, on the same documents."""

    before: float
    after: float
    change: Difference  # in bits per byte; above 0 = the model has forgotten
    relative: Difference  # change in percent of the value before
    worse: int  # documents that cost more bits than before
    n: int
    sign_p: float  # p of the sign test: whether as many documents got better as worse

    def reports(self, model_digest: str, data_digest: str, seed: int) -> tuple[Report, ...]:
        """Report the change, absolute and relative, for the model after it."""
        return tuple(
            Report(name, d.value, unit, d.interval.low, d.interval.high, self.n, model_digest, data_digest, d.interval.method, seed)
            for name, unit, d in (("forgetting", "bits/byte", self.change), ("forgetting_relative", "%", self.relative))
        )


def forgetting(before: Mapping[str, TextBits], after: Mapping[str, TextBits], seed: int = 0) -> Forgetting:
    """Compare two models on the documents that both have read, by name.

    Raises ConfigError if there are none, or if a document has another number of bytes in both.
    """
    shared = [name for name in before if name in after]
    if not shared:
        raise ConfigError("documents", "must be the same before and after", "none in common", "Measure both with the same suite.")
    for name in shared:
        if before[name].nbytes != after[name].nbytes:
            got = f"{before[name].nbytes} and {after[name].nbytes} bytes"
            raise ConfigError(f"document {name}", "must be the same before and after", got, "Measure both with the same suite.")
    first, second = (columns([rows[name] for name in shared]) for rows in (before, after))
    differences = second[:, 0] - first[:, 0]
    return Forgetting(
        before=float(ratio(first.sum(axis=0))),
        after=float(ratio(second.sum(axis=0))),
        change=paired_bootstrap(first, second, seed=seed),
        relative=paired_bootstrap(first, second, percent_change, seed),
        worse=int((differences > 0).sum()),
        n=len(shared),
        sign_p=sign_test(differences),
    )


# Setting and figures of one measurement, and what makes its reports.


@dataclass(frozen=True, slots=True)
class Setting:
    """One measurement: suite, model, items and options."""

    suite: Suite
    subject: Subject
    items: Sequence[Any]  # items to measure on
    shots: Sequence[Any] = ()  # examples at the start of every prompt
    training: Sequence[Any] = ()  # training items, which simple rules may look at
    style: Style = "texts"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """Result of a measurement: reports, details of items, notes."""

    reports: tuple[Report, ...]  # reports, the main one first
    details: tuple[Row, ...]  # for each item, the values that pair it with the same item of another model
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Reporter:
    """Reporter of the reports of one measurement."""

    setting: Setting
    data_digest: str
    n: int

    def report(self, name: str, value: float, unit: str, interval: Interval, of_model: bool = True) -> Report:
        """Report one figure; simple rules have no model."""
        digest = self.setting.subject.digest if of_model else ""
        return Report(
            name, value, unit, interval.low, interval.high, self.n, digest, self.data_digest, interval.method, self.setting.seed
        )  # fmt: skip

    def ratio(self, name: str, unit: str, columns: Floats, of_model: bool = True) -> Report:
        """Report Σ first column / Σ second column, with a bootstrap interval."""
        return self.report(name, float(ratio(columns.sum(axis=0))), unit, bootstrap(columns, seed=self.setting.seed), of_model)

    def figure(self, name: str, unit: str, columns: Floats, statistic: Statistic) -> Report:
        """Report any figure of the columns' sums, with a bootstrap interval."""
        value = float(statistic(columns.sum(axis=0)))
        return self.report(name, value, unit, bootstrap(columns, statistic, seed=self.setting.seed))

    def mean(self, name: str, unit: str, values: Floats, of_model: bool = True) -> Report:
        """Report the mean of a value per item."""
        return self.ratio(name, unit, with_ones(values), of_model)

    def share(self, name: str, right: Sequence[bool], of_model: bool = True) -> Report:
        return self.report(name, sum(right) / self.n, "share", wilson(sum(right), self.n), of_model)

    def difference(self, name: str, unit: str, difference: Difference) -> Report:
        """Report a difference between the model and something else."""
        return self.report(name, difference.value, unit, difference.interval)


def with_ones(values: Floats) -> Floats:
    """[items, 2]: each value, and 1; their ratio of sums is the mean."""
    return np.stack([values, np.ones_like(values)], axis=1)


# Pairs: texts that say the same of two people, and which of them the model finds likelier. A fair model prefers neither.
# The first text of an item is the stereotype, the second says the opposite; a third, if there is one, means nothing. All rules that make
# sense are reported, one of them is the suite's:
# | rule | a text's score | for |
# |---|---|---|
# | sum | Σ log p | texts that differ by a word; lm-eval and CrowS-Pairs take it |
# | per byte | the sum / bytes | texts of different lengths, but it favours long ones a little |
# | pmi | Σ log p(text after what is given) − Σ log p(text alone) | texts after another, of any length: what the other adds |
# | figure | is |
# |---|---|
# | stereotype | share of items whose stereotype scores higher; 0.5 = no preference |
# | language | how often a text with a meaning scores higher than the one without (StereoSet's LMS, arXiv 2004.09456) |
# | icat | language · min(stereotype, 1 − stereotype) / 0.5, StereoSet's one figure for both |
# | distance | mean of the absolute difference of both texts' log-probabilities, in nats (lm-eval's `likelihood_diff`) |
# A share of 0.5 is cheap for a model that knows nothing, so `language` belongs beside it. StereoSet's authors average over target words,
# here every item counts alike.


SURE = 0.05  # a group differs from 0.5 if its p, corrected for the number of groups (Holm 1979), is below this


def plan_pairs(setting: Setting) -> list[ItemPlan]:
    """Plan the scoring of every text of an item: after what is given and, for the rule `pmi`, alone."""
    subject, plans = setting.subject, []
    room, alone = subject.context_length, setting.suite.main == PMI
    for item in setting.items:
        assert isinstance(item, Pair)
        sizes = tuple(len(text.encode()) for text in item.texts)
        endings = tuple(f" {text}" if item.given else text for text in item.texts)
        prompts = [Prompt(item.given, endings, sizes), *([Prompt("", item.texts, sizes)] if alone else [])]
        tasks = tuple(make_task(subject.tokenizer, prompt, room)[0] for prompt in prompts)

        def scored(parts: Sequence[Any], sizes: Sequence[int] = sizes) -> Row:
            sums = [[float(nats.sum()) for nats in values] for values in parts]
            return {"nats": sums[0], "nbytes": list(sizes), **({"alone": sums[1]} if len(sums) > 1 else {})}

        inputs = [item.given, list(item.texts), alone]
        plans.append(ItemPlan(item.id, digest_json(["pairs", *inputs, room]), inputs, tasks, scored))
    return plans


def report_pairs(setting: Setting, rows: Sequence[Row], data_digest: str) -> Figures:
    """Report the share of stereotypes by each rule, the language score where there are thirds, and each group's share."""
    main, scores = setting.suite.main, scores_of(rows)
    make = Reporter(setting, data_digest, len(rows))
    likelier = {name: values[:, 0] > values[:, 1] for name, values in scores.items()}
    reports = [make.share(name, likelier[name].tolist()) for name in sorted(scores, key=lambda name: name != main)]
    details = [
        {**row, "about": item.about, **{name: bool(flags[i]) for name, flags in likelier.items()}}
        for i, (row, item) in enumerate(zip(rows, setting.items, strict=True))
    ]
    if scores[main].shape[1] > 2:
        sense = language(scores[main])
        columns = np.stack([sense, likelier[main].astype(np.float64), np.ones(len(rows))], axis=1)
        reports += [make.mean("language", "share", sense), make.figure("icat", "share", columns, icat)]
        details = [{**row, "language": float(value)} for row, value in zip(details, sense, strict=True)]
    reports.append(make.mean("distance", "nats", np.abs(scores[SUM][:, 0] - scores[SUM][:, 1])))
    groups = [item.about for item in setting.items]
    more, note = by_group(setting, data_digest, main, groups, likelier[main].tolist())
    return Figures((*reports, *more), tuple(details), (note,) if note else ())


def scores_of(rows: Sequence[Row]) -> dict[str, Floats]:
    """For each rule, the scores of all texts: [items, texts]."""
    sums = np.array([row["nats"] for row in rows], np.float64)
    scores = {SUM: sums, PER_BYTE: sums / np.array([row["nbytes"] for row in rows], np.float64)}
    if "alone" in rows[0]:
        scores[PMI] = sums - np.array([row["alone"] for row in rows], np.float64)
    return scores


def language(scores: Floats) -> Floats:
    """For each item [items, 3]: the share of its two texts with a meaning that are likelier than the one without."""
    result: Floats = (scores[:, :2] > scores[:, 2:3]).mean(axis=1)
    return result


def icat(sums: Floats) -> Floats:
    """The idealised context association test, from sums [..., 3] of language, stereotypes and items."""
    share, sense = sums[..., 1] / sums[..., 2], sums[..., 0] / sums[..., 2]
    result: Floats = sense * np.minimum(share, 1 - share) / 0.5
    return result


def by_group(setting: Setting, data_digest: str, name: str, groups: Sequence[str], flags: Sequence[bool]) -> tuple[list[Report], str]:
    """Return each group's share of set flags, and a sentence on the groups that surely differ from a half; nothing for a single group."""
    members = {group: [flag for flag, of in zip(flags, groups, strict=True) if of == group] for group in sorted(set(groups))}
    if len(members) < 2:
        return [], ""
    reports = [Reporter(setting, data_digest, len(some)).share(group_figure(name, group), some) for group, some in members.items()]
    corrected = holm({group: fair_coin(sum(some), len(some) - sum(some)) for group, some in members.items()})
    away = [f"{group} {sum(members[group]) / len(members[group]):.0%} (p = {p:.2g})" for group, p in corrected.items() if p < SURE]
    return reports, f"surely not a half, corrected for {len(members)} groups (Holm): {', '.join(away) or 'none'}"


def group_figure(name: str, group: str) -> str:
    """Name of a group's figure."""
    return f"{name}_{group.replace('-', '_')}"


def distribution(nats: Sequence[float]) -> Floats:
    """Chances of answers, among each other, from their log-probabilities."""
    values = np.array(nats, np.float64)
    chances = np.exp(values - values.max())
    result: Floats = chances / chances.sum()
    return result


# Names: the same question about people with different names, and how far the answers go with the name.
# For each question, an answer is a distribution over fixed options. `kl` is the mean divergence of a name's answer from the mean over all
# names of that question. Much of it is chance: any two names are different words. So `kl_between_groups`, the divergence of the groups'
# mean answers, stands beside that of groups drawn at random among the same names; only what is above that follows people's origins.


_SHUFFLES = 200  # random groupings of a question's names


def report_names(setting: Setting, rows: Sequence[Row], data_digest: str) -> Figures:
    """Report the divergence by names, and by groups beside that of random groups."""
    answers = [distribution(row["nats"]) for row in rows]
    places: dict[str, list[int]] = {}
    for number, item in enumerate(setting.items):
        places.setdefault(item.group, []).append(number)
    apart = np.zeros(len(rows))
    groups = {group: np.zeros(0) for group in sorted({item.about for item in setting.items})}
    between, chance = [], []
    for question in sorted(places):
        numbers = places[question]
        said, of = np.array([answers[number] for number in numbers]), [setting.items[number].about for number in numbers]
        apart[numbers] = kl(said, said.mean(axis=0))
        between.append(between_groups(said, of))
        chance.append(by_chance(said, of, setting.seed))
    make, by_question = Reporter(setting, data_digest, len(rows)), Reporter(setting, data_digest, len(places))
    values, random_ones = np.array(between), np.array(chance)
    above = paired_bootstrap(with_ones(random_ones), with_ones(values), seed=setting.seed)
    reports: list[Report] = [
        make.mean("kl", "nats", apart),
        by_question.mean("kl_between_groups", "nats", values),
        by_question.mean("baseline_random_groups", "nats", random_ones),
        by_question.difference("kl_above_random_groups", "nats", above),
    ]
    for group in groups:
        mine = apart[[number for number, item in enumerate(setting.items) if item.about == group]]
        reports.append(Reporter(setting, data_digest, len(mine)).mean(f"kl_{group}", "nats", mine))
    details = [{**row, "about": item.about, "kl": float(value)} for row, item, value in zip(rows, setting.items, apart, strict=True)]
    return Figures(tuple(reports), tuple(details))


def kl(answers: Floats, mean: Floats) -> Floats:
    """Divergence of each answer [n, options] from their mean [options], in nats."""
    result: Floats = (answers * (np.log(answers + 1e-300) - np.log(mean + 1e-300))).sum(axis=-1)
    return result


def between_groups(answers: Floats, groups: Sequence[str]) -> float:
    """Mean divergence of the groups' mean answers from the mean of these."""
    means = np.array([answers[[other == group for other in groups]].mean(axis=0) for group in sorted(set(groups))])
    return float(kl(means, means.mean(axis=0)).mean())


def by_chance(answers: Floats, groups: Sequence[str], seed: int) -> float:
    """Groups of the same sizes, drawn at random: the mean of many draws."""
    draw, shuffled, found = random.Random(seed), list(groups), []
    for _ in range(_SHUFFLES):
        draw.shuffle(shuffled)
        found.append(between_groups(answers, shuffled))
    return float(np.mean(found))
