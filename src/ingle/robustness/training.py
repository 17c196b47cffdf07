"""Makes the judges: of requests (harm, attack) and of answers (refusal, harm), from pinned data, and sets their thresholds on harmless
requests."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_json
from ingle.home.fetch import FetchProgress, silent
from ingle.home.place import Home
from ingle.robustness.fitting import fit
from ingle.robustness.prompts import (
    JudgedAnswer,
    LabelledPrompt,
    asked,
    data_sentences,
    dressed,
    goals,
    injections,
    judged_answers,
    lookalikes,
    orders,
    ordinary,
    rephrased,
    reworded,
    risky,
    wild,
)
from ingle.safety.answers import harm_vector, refusal_vector
from ingle.safety.features import Sparse, logit
from ingle.safety.judge import RATES, REQUESTS, Judge, request_vector, save_judge
from ingle.safety.orders import order_vector

CONTENT = ("plain", "risky", "asked", "past", "future")
"""Families that ask for harm."""
FORM = ("persona", "wild", "injection")
"""Families that attack, whatever they ask for."""
_DRESSED = 700
_FOLDS = 3
_STRENGTH = {"harm": 200.0, "attack": 200.0, "refusal": 3.0, "harm of answers": 10.0}
_WEIGHTS = {"look-alike": 4.0, "asked": 4.0}
"""How much a text of these families counts: there are few, and they are what matters."""


@dataclass(frozen=True)
class Requests:
    """Requests to learn from, and to set thresholds by."""

    bad: tuple[LabelledPrompt, ...]
    good: tuple[LabelledPrompt, ...]
    vectors: dict[str, Sparse] = field(default_factory=dict)
    """Vectors by text, made once."""

    def vector(self, text: str) -> Sparse:
        """Return what a judge sees of a text."""
        if text not in self.vectors:
            self.vectors[text] = request_vector(text)
        return self.vectors[text]


def gather(home: Home, progress: FetchProgress = silent) -> Requests:
    """Return all requests. Raises PullError where the data can't be fetched."""
    attacks, benign = injections(home, progress)
    plain = [*goals(home, progress), *risky(home, progress), *asked()]
    bad = [*plain, *map(reworded, plain), *rephrased(home, progress), *wild(home, progress), *attacks]
    bad += dressed(home, _DRESSED, progress=progress)
    usual = ordinary(home, progress)
    how = [one for one in usual if one.family == "piqa"]
    return Requests(tuple(bad), (*usual, *map(reworded, how), *lookalikes(), *map(reworded, lookalikes()), *benign))


def train_requests(
    requests: Requests, keep: Callable[[LabelledPrompt], bool] = lambda _: True, own: Sequence[tuple[str, bool]] = (),
    watch: Callable[[int, int], None] = lambda _done, _all: None,
) -> tuple[dict[str, npt.NDArray[np.float32]], dict[str, float], dict[str, dict[str, float]]]:  # fmt: skip
    """Return weights, biases and thresholds of the judges of requests.

    `keep`: which prompts may be seen. `own`: an owner's texts, and whether they are bad; each counts as much as ten. Thresholds come
    from judges that have not seen the texts: each third of the harmless ones is judged by what the others taught.
    """
    rest = [one for one in requests.good if keep(one)]
    fold = {one.id: number % _FOLDS for number, one in enumerate(random.Random(0).sample(rest, len(rest)))}
    scores: dict[str, dict[str, float]] = {}
    for number in range(_FOLDS):
        watch(number, _FOLDS + 1)
        weights, biases = _fitted(requests, lambda one, number=number: keep(one) and fold.get(one.id) != number, own)  # type: ignore[misc]
        judge = Judge(weights, biases, {}, "", {})
        scores |= {one.id: judge.scores(one.text) for one in rest if fold[one.id] == number}
    watch(_FOLDS, _FOLDS + 1)
    weights, biases = _fitted(requests, keep, own)
    watch(_FOLDS + 1, _FOLDS + 1)
    return weights, biases, _thresholds([(one.family == "look-alike", scores[one.id]) for one in rest])


def _fitted(
    requests: Requests, keep: Callable[[LabelledPrompt], bool], own: Sequence[tuple[str, bool]]
) -> tuple[dict[str, npt.NDArray[np.float32]], dict[str, float]]:  # fmt: skip
    weights: dict[str, npt.NDArray[np.float32]] = {}
    biases: dict[str, float] = {}
    for name, families in (("harm", CONTENT), ("attack", FORM)):
        bad = [one for one in requests.bad if one.family in families and keep(one)]
        other = [one for one in requests.bad if one.family not in families and keep(one) and name == "attack"]
        good = [*(one for one in requests.good if keep(one)), *other]
        texts = [*(requests.vector(one.text) for one in (*bad, *good)), *(request_vector(text) for text, _ in own)]
        labels = [*([1.0] * len(bad)), *([0.0] * len(good)), *(float(is_bad) for _, is_bad in own)]
        each = [_WEIGHTS.get(one.family, 1.0) for one in (*bad, *good)] + [10.0] * len(own)
        weights[name], biases[name] = fit(texts, labels, each, _STRENGTH[name])
    return weights, biases


def _thresholds(harmless: Sequence[tuple[bool, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Return thresholds at which both judges together alarm for so many ordinary requests, and so many look-alikes, at most."""
    tables: dict[str, dict[str, float]] = {}
    for name in REQUESTS:
        groups = [np.array([score[name] for alike, score in harmless if alike is wanted]) for wanted in (False, True)]
        # Half of the rate for each judge. With few texts, the highest score of all is a threshold for no rate below 1 / n.
        tables[name] = {
            str(rate): float(max(np.quantile(group, 1 - rate / 2, method="higher") for group in groups if len(group))) for rate in RATES
        }
    return tables


def train_orders(
    bad: Sequence[LabelledPrompt], good: Sequence[LabelledPrompt]
) -> tuple[npt.NDArray[np.float32], float, dict[str, float]]:  # fmt: skip
    """Return weights, bias and thresholds of the judge of orders in data. Thresholds as in `train_requests`."""
    fold = {one.id: number % _FOLDS for number, one in enumerate(random.Random(0).sample(list(good), len(good)))}
    seen = {one.id: order_vector(one.text) for one in (*bad, *good)}
    scores: list[float] = []

    def fitted(number: int) -> tuple[npt.NDArray[np.float32], float]:
        texts = [*bad, *(one for one in good if fold[one.id] != number)]
        return fit([seen[one.id] for one in texts], [float(one.family in ("order", "injection")) for one in texts], strength=200.0)

    for number in range(_FOLDS):
        weights, bias = fitted(number)
        scores += [logit(weights, bias, seen[one.id]) for one in good if fold[one.id] == number]
    weights, bias = fitted(-1)
    return weights, bias, {str(rate): float(np.quantile(scores, 1 - rate, method="higher")) for rate in RATES}


def train_answers(judged: Iterable[JudgedAnswer]) -> tuple[dict[str, npt.NDArray[np.float32]], dict[str, float]]:
    """Return weights and biases of the judges of answers."""
    judged = list(judged)
    weights: dict[str, npt.NDArray[np.float32]] = {}
    biases: dict[str, float] = {}
    for name, kind, see in (("refusal", "refusal", refusal_vector), ("harm of answers", "harm", harm_vector)):
        mine = [one for one in judged if one.kind == kind]
        weights[name], biases[name] = fit(
            [see(one.question, one.answer) for one in mine], [one.score for one in mine], strength=_STRENGTH[name]
        )
    return weights, biases


def train(
    home: Home, path: Path, own: Sequence[tuple[str, bool]] = (), progress: FetchProgress = silent,
    watch: Callable[[int, int], None] = lambda _done, _all: None,
) -> Mapping[str, Any]:  # fmt: skip
    """Train every judge on all data, and write the file. Returns what it was made of.

    `bench/guard.py` tells how good judges are that were made so, each on texts that it has not seen.
    """
    requests = gather(home, progress)
    weights, biases, thresholds = train_requests(requests, own=own, watch=watch)
    judged = judged_answers(home, progress)
    more_weights, more_biases = train_answers(judged)
    attacks, benign = injections(home, progress)
    in_data = train_orders([*orders(), *attacks], [*data_sentences(home, progress), *benign])
    more_weights["order"], more_biases["order"], thresholds["order"] = in_data
    about = {
        "bad": len(requests.bad), "harmless": len(requests.good), "judged": len(judged), "own": len(own),
        "data": digest_json(sorted(one.id for one in (*requests.bad, *requests.good))),
    }  # fmt: skip
    save_judge(path, weights | more_weights, biases | more_biases, thresholds, about)
    return about
