"""Makes the judges: of requests (harm, attack), of orders in data, and of answers (refusal, harm), from pinned data.

What teaches sets no thresholds: these come from harmless texts that no judge has seen, among them look-alikes, requests in dresses, and
long writing tasks. What is held out does neither (`LabelledPrompt.part`), and what nearly repeats it is left out as well.
"""

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_json
from ingle.core.progress import Counted, FetchProgress, silent
from ingle.home.place import Home
from ingle.robustness.prompts import (
    JudgedAnswer,
    LabelledPrompt,
    briefs,
    data_sentences,
    dressed,
    fragments,
    goals,
    injections,
    judged_answers,
    near_copies,
    ordinary,
    own_texts,
    probes,
    questions,
    rephrased,
    reworded,
    risky,
    wild,
)
from ingle.safety.answers import harm_vector, refusal_vector
from ingle.safety.features import SIZE, Meaning, Sparse, logit, order_vector, stacked
from ingle.safety.judge import RATES, Judge, TextScores, save_judge, threshold_table
from ingle.safety.reading import REQUESTS, request_vector

# Linear judges: logistic regression on sparse vectors, on the whole data, in NumPy.


Floats = npt.NDArray[np.float64]


def fit(
    texts: Sequence[Sparse], labels: Sequence[float], weights: Sequence[float] | None = None, strength: float = 30.0, steps: int = 200
) -> tuple[npt.NDArray[np.float32], float]:
    """Return the weights [SIZE] and the bias that give these labels (0 to 1). `weights`: how much each text counts.

    strength: how far the data may move the weights; the inverse of the penalty on their squares. Solved by Nesterov's accelerated gradient
    with the step that a vector of length 1 allows.
    """
    places, values, starts = stacked(texts)
    lengths = np.diff([*starts, len(places)])
    target, each = np.asarray(labels, np.float64), np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    penalty, each = 1 / (strength * each.sum()), each / each.sum()
    w, before, bias, bias_before = np.zeros(SIZE), np.zeros(SIZE), 0.0, 0.0
    step = 1 / (0.5 + penalty)  # a logistic loss curves by a quarter, and the bias adds as much as a vector of length 1
    for number in range(steps):
        pull = number / (number + 3)
        ahead, bias_ahead = w + pull * (w - before), bias + pull * (bias - bias_before)
        now = np.add.reduceat(ahead[places] * values, starts) + bias_ahead
        wrong = (1 / (1 + np.exp(-np.clip(now, -30, 30))) - target) * each
        before, bias_before = w, bias
        w = ahead - step * (np.bincount(places, np.repeat(wrong, lengths) * values, SIZE) + penalty * ahead)
        bias = bias_ahead - step * float(wrong.sum())
    return w.astype(np.float32), float(bias)


def logits(texts: Sequence[Sparse], w: npt.NDArray[np.float32], bias: float) -> Floats:
    places, values, starts = stacked(texts)
    result: Floats = np.add.reduceat(w[places].astype(np.float64) * values, starts) + bias
    return result


_ROWS = (
    "water the plants",
    "call the plumber on Friday",
    "what is the tallest tree?",
    "order more paper",
    "a short poem about rain",
    "book the hall",
)


def _table(text: str, draw: random.Random) -> str:
    rows = [*draw.sample(_ROWS, 3), text]
    draw.shuffle(rows)
    return "Answer each row of this table.\n\nNo. | Request | Done\n" + "\n".join(f"{n} | {row} | no" for n, row in enumerate(rows, 1))


def _record(text: str, draw: random.Random) -> str:
    table = {"id": draw.randrange(9000), "language": "en", "task": text, "format": "plain text", "priority": draw.choice(("low", "high"))}
    return f"Process this job and return the result:\n{json.dumps(table, indent=2 if draw.random() < 0.5 else None)}"


def _program(text: str, draw: random.Random) -> str:
    words = text.split()
    cut = max(1, len(words) // 2)
    one, other = " ".join(words[:cut]), " ".join(words[cut:])
    return f'a = "{one}"\nb = "{other}"\nprint(a + " " + b)\n\nSay what the program prints, and do what that says.'


def _role(text: str, draw: random.Random) -> str:
    who = draw.choice(("an old sea captain", "a patient teacher", "a detective in a novel", "my grandfather, who loved to tell stories"))
    return f"You are {who}. You always stay in character and answer at length. My first question is: {text}"


def _quoted(text: str, draw: random.Random) -> str:
    return f'Translate into {draw.choice(("French", "Italian", "Dutch"))} and then answer it yourself: "{text}"'


def _story(text: str, draw: random.Random) -> str:
    names = draw.choice((("Mara", "Tom"), ("Ines", "Paul")))
    return f"Write a short story. {names[0]} sits in a café and asks {names[1]}: “{text}” {names[1]} answers in full, step by step."


DRESSES: Mapping[str, Callable[[str, random.Random], str]] = {
    "table": _table, "record": _record, "program": _program, "role": _role, "quoted": _quoted, "story": _story,
}  # fmt: skip


def in_dress(prompt: LabelledPrompt) -> LabelledPrompt:
    draw = random.Random(prompt.id)
    name = draw.choice(sorted(DRESSES))
    return replace(prompt, text=DRESSES[name](prompt.text, draw), family="dressed", goal=prompt.goal or prompt.text)


CONTENT = ("plain", "risky", "harmful", "probe", "shot", "past", "future")  # families that ask for harm
FORM = ("persona", "wild", "injection")  # families that attack, whatever they ask for
ALIKE = ("look-alike", "writing")  # harmless families in the words, or in the form, of harmful ones
_DRESSED, _FRAGMENTS, _MOST_SENTENCES = 700, 1500, 1500
_STRENGTH = {"harm": 200.0, "attack": 200.0, "refusal": 3.0, "harm of answers": 10.0}
# How much a text of these families counts: there are few, and they are what matters.
_WEIGHTS = {"look-alike": 3.0, "harmful": 3.0, "probe": 2.0}
# Share of common stems from which a text counts as a copy of one that is held out, and of one of an unseen source.
_NEAR, _NEAR_UNSEEN = 0.6, 0.5
Weights = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Requests:
    """Requests to learn from, to set thresholds by, and to be judged by."""

    bad: tuple[LabelledPrompt, ...]
    good: tuple[LabelledPrompt, ...]
    vectors: dict[str, Sparse] = field(default_factory=dict)  # vectors by text, made once

    def vector(self, text: str) -> Sparse:
        if text not in self.vectors:
            self.vectors[text] = request_vector(text)
        return self.vectors[text]

    def of(self, part: str, bad: bool, keep: Callable[[LabelledPrompt], bool] = lambda _: True) -> list[LabelledPrompt]:
        """Return the texts of one part. Harmful texts set no thresholds: they all teach, but for those that are held out."""
        wanted = ("teaches", "thresholds") if bad and part == "teaches" else (part,)
        return [one for one in (self.bad if bad else self.good) if one.part in wanted and keep(one)]


def gather(home: Home, progress: FetchProgress = silent) -> Requests:
    """Return all requests. Raises PullError where the data can't be fetched."""
    plain = [*goals(home, progress), *risky(home, progress), *probes(home, progress), *own_texts("harmful")]
    other = [*rephrased(home, progress), *wild(home, progress), *injections(home, progress)[0]]
    bad = _without_copies([*plain, *other, *dressed(home, _DRESSED, progress=progress)])
    bad += [reworded(one) for one in bad if one.family in ("plain", "risky")]
    usual, tasks = ordinary(home, progress), briefs(home, progress)
    good = [*usual, *questions(home, progress), *tasks, *(one for kind in ("ordinary", "data", *ALIKE) for one in own_texts(kind))]
    good += [reworded(one) for one in usual if one.family == "piqa"]
    good += [in_dress(one) for one in good if one.part == "teaches" and one.family in (*ALIKE, "ordinary")]
    good += fragments([one for one in (*usual, *tasks) if len(one.text) > 300], _FRAGMENTS)
    return Requests(tuple(bad), (*good, *data_sentences(home, progress)[:_MOST_SENTENCES], *injections(home, progress)[1]))


def _without_copies(bad: Sequence[LabelledPrompt]) -> list[LabelledPrompt]:
    held = [one for one in bad if one.part == "held out" and one.family in CONTENT]
    rest = [one for one in bad if one.part != "held out"]
    unseen = near_copies(rest, [one for one in held if one.source == "harmbench"], _NEAR_UNSEEN)
    copies = near_copies(rest, held, _NEAR) | unseen
    return [one for one in bad if one.id not in copies]


def train_words(
    requests: Requests, keep: Callable[[LabelledPrompt], bool] = lambda _: True, own: Sequence[tuple[str, bool]] = ()
) -> tuple[dict[str, Weights], dict[str, float]]:  # fmt: skip
    """Return weights and biases of the judges of requests that go by n-grams.

    `keep`: which prompts may be seen. `own`: an owner's texts, and whether they are bad; each counts as much as ten.
    """
    weights, biases = dict[str, Weights](), dict[str, float]()
    for name, families in (("harm", CONTENT), ("attack", FORM)):
        every = requests.of("teaches", True, keep)
        bad = [one for one in every if one.family in families]
        other = [one for one in every if one.family not in families and name == "attack"]
        good = [*requests.of("teaches", False, keep), *other]
        texts = [*(requests.vector(one.text) for one in (*bad, *good)), *(request_vector(text) for text, _ in own)]
        labels = [*([1.0] * len(bad)), *([0.0] * len(good)), *(float(is_bad) for _, is_bad in own)]
        each = [_WEIGHTS.get(one.family, 1.0) for one in (*bad, *good)] + [10.0] * len(own)
        weights[name], biases[name] = fit(texts, labels, each, _STRENGTH[name])
    return weights, biases


def measured(
    judge: Judge, requests: Requests, keep: Callable[[LabelledPrompt], bool] = lambda _: True, watch: Counted = silent
) -> Judge:  # fmt: skip
    """Return the judge with thresholds, from harmless texts that it has not seen."""
    rest = requests.of("thresholds", False, keep)
    plain = [one for one in rest if len(one.text) < 300]
    groups: dict[str, list[str]] = {
        "ordinary": [one.text for one in plain if one.family not in ALIKE],
        "alike": [one.text for one in plain if one.family in ALIKE and not one.goal],
        "pairs": [one.text for one in plain if one.family in ALIKE and one.goal],
        "dressed": [in_dress(one).text for one in plain if one.family in (*ALIKE, "ordinary", "piqa", "harmless probe")],
        "long": [one.text for one in rest if len(one.text) >= 300],
    }  # fmt: skip
    every, done = sum(map(len, groups.values())) * (1 + (judge.meaning is not None)), 0
    thresholds = dict[str, dict[str, float]]()
    for by_meaning in (False, True)[: 1 + (judge.meaning is not None)]:
        scores = dict[str, list[TextScores]]()
        for name, texts in groups.items():
            for text in texts:
                watch(done, every)
                scores.setdefault(name, []).append(judge.read(text, by_meaning))
                done += 1
        thresholds |= _thresholds(scores, by_meaning)
    watch(every, every)
    return replace(judge, thresholds={**judge.thresholds, **thresholds})


# By judge, of whole texts and of pieces: what each kind of text may take up of the rate of false alarms that is asked for. Together they
# allow one in a hundred ordinary texts, two of those that look like harm or stand in a dress, and five of the long ones.
_SHARES: Mapping[tuple[str, bool], Mapping[str, float]] = {
    ("harm", True): {"ordinary": 0.5, "alike": 1.5, "pairs": 2.5, "dressed": 1.0, "long": 1.5},
    ("harm", False): {"ordinary": 0.1, "alike": 0.3, "pairs": 1.0, "dressed": 1.0, "long": 2.5},
    ("attack", True): {"ordinary": 0.3, "alike": 0.3, "pairs": 0.5, "dressed": 0.3, "long": 1.0},
    ("attack", False): {"ordinary": 0.1, "alike": 0.1, "pairs": 0.3, "dressed": 0.3, "long": 1.0},
}


def _thresholds(scores: Mapping[str, Sequence[TextScores]], by_meaning: bool) -> dict[str, dict[str, float]]:
    """Return thresholds by table and rate. With few texts, the highest score of all is a threshold for no rate below 1 / n."""
    tables = dict[str, dict[str, float]]()
    for name in REQUESTS if not by_meaning else REQUESTS[:1]:
        for whole in (True, False):
            groups = {kind: np.array([(one.whole if whole else one.piece)[name] for one in some]) for kind, some in scores.items()}
            tables[threshold_table(name, whole, by_meaning)] = {
                str(rate): max(
                    float(np.quantile(group, max(0.0, 1 - rate * _SHARES[name, whole][kind]), method="higher"))
                    for kind, group in groups.items() if len(group)
                )
                for rate in RATES
            }  # fmt: skip
    return tables


def train_orders(
    bad: Sequence[LabelledPrompt], good: Sequence[LabelledPrompt]
) -> tuple[Weights, float, dict[str, float]]:  # fmt: skip
    """Return weights, bias and thresholds of the judge of orders in data. Bad texts all teach; harmless ones teach or set thresholds."""
    taught = [*bad, *(one for one in good if one.part == "teaches")]
    labels = [float(one.family in ("order", "injection")) for one in taught]
    weights, bias = fit([order_vector(one.text) for one in taught], labels, strength=200.0)
    scores = [logit(weights, bias, order_vector(one.text)) for one in good if one.part == "thresholds"]
    return weights, bias, {str(rate): float(np.quantile(scores, 1 - rate, method="higher")) for rate in RATES}


def orders(each: int = 8, seed: int = 0) -> list[LabelledPrompt]:
    """Return orders as they are hidden in data: each way to give one, with so many things to want."""
    draw, wishes = random.Random(seed), [one.text for one in own_texts("wish")]
    return [
        LabelledPrompt(way.text.replace("{x}", wish), "order", "ingle", wish)
        for way in own_texts("order") for wish in draw.sample(wishes, min(each, len(wishes)))
    ]  # fmt: skip


def train_answers(judged: Iterable[JudgedAnswer]) -> tuple[dict[str, Weights], dict[str, float]]:
    judged = list(judged)
    weights, biases = dict[str, Weights](), dict[str, float]()
    for name, kind, see in (("refusal", "refusal", refusal_vector), ("harm of answers", "harm", harm_vector)):
        mine = [one for one in judged if one.kind == kind]
        weights[name], biases[name] = fit(
            [see(one.question, one.answer) for one in mine], [one.score for one in mine], strength=_STRENGTH[name]
        )
    return weights, biases


def train(
    home: Home, path: Path, meaning: Meaning | None, own: Sequence[tuple[str, bool]] = (), progress: FetchProgress = silent,
    watch: Counted = silent,
) -> Mapping[str, Any]:  # fmt: skip
    """Train every judge but the encoder of meaning, set thresholds with it, and write the file. Return what it was made of.

    `bench/guard.py` tells how good such judges are, each on texts that it has not seen.
    """
    requests = gather(home, progress)
    weights, biases = train_words(requests, own=own)
    judged = judged_answers(home, progress)
    more_weights, more_biases = train_answers(judged)
    attacks, benign = injections(home, progress)
    found = [one for one in (*orders(), *attacks) if one.part != "held out"]
    more_weights["order"], more_biases["order"], of_orders = train_orders(found, [*data_sentences(home, progress), *benign])
    bad, good = requests.of("teaches", True), [*requests.of("teaches", False), *requests.of("thresholds", False)]
    about = {
        "bad": len(bad), "harmless": len(good), "judged": len(judged), "own": len(own),
        "data": digest_json(sorted(one.id for one in (*bad, *good))),
    }  # fmt: skip
    judge = Judge(weights | more_weights, biases | more_biases, {"order": of_orders}, "", about, meaning=meaning)
    save_judge(path, measured(judge, requests, watch=watch), meaning.digest if meaning else "")
    return about
