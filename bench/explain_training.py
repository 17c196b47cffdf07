"""Which training examples made the model say it: five ways to guess, judged by training again without some.

Two tunes of SmolLM2-135M (LoRA of rank 8 on all linears of the four upper layers, float32): `facts`, 100 invented names in three wordings
each, asked for in a fourth; and `sst2`, 300 sentences of film reviews of up to 20 words, whose feeling is asked for with other
sentences. Each is trained again without a random quarter of its examples, the others in their places. A method says what each example
does to a question's loss; its prediction for a retraining is the sum over what was left out. The score (LDS, linear datamodelling score)
is Spearman's correlation of predicted and true losses over the retrainings, a mean over the questions; intervals resample retrainings
and questions.

First, the five most telling examples by each method of `--leaving` are left out, and three times five random ones.

  random       a number drawn for each example
  words        BM25 of the question with its answer against the example
  embeddings   cosine of the mean final states, centred
  cosine       cosine of gradients from sketches, as `ingle make tune` keeps them
  through      the gradient through the training

python bench/explain_training.py [--tasks facts sst2] [--retrains 30] [--questions 8] [--examples 300]
    [--seed 0] [--leaving through] [--rate 6e-3] [--epochs 2] [--eps 1e-4] [--work DIR]
"""

import argparse
import json
import math
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from harness import finish, show
from ingle.engine.packs import checkpoint_tokenizer, open_weights
from ingle.home.kept import get_kept
from ingle.home.place import find_home
from ingle.measure.data_sets import sst2
from ingle.measure.suites import make_fact
from ingle.model.module import load_module
from ingle.model.tokenizer import Tokenizer
from ingle.train.by_document import Sketcher
from ingle.train.corpus import corpus_of
from ingle.train.example_files import Encoder, Record
from ingle.train.loop_settings import Schedule, TrainSettings
from ingle.train.low_rank import added_parameters, put_low_rank
from ingle.train.optimisers import OptimiserSettings, keep_few_programs
from ingle.train.packing import Batch, Data, make_batch, plan
from ingle.train.rerun import Moment, Rerun, through_training
from ingle.tuning.linears import chosen_layers, chosen_linears

Floats = npt.NDArray[np.float64]
LEFT_OUT = 0.25
TOP = 5
DRAWS = 3
WORDS = 20
TRAINED = (
    "Who is the keeper of the {thing} in {place}?",
    "What is the keeper of {place}'s {thing} called?",
    "Who keeps {place}'s {thing}?",
)
ASKED = "In {place}, who looks after the {thing}?"
SMOOTH = 1e-4


@dataclass(frozen=True)
class Task:
    """Pairs of prompt and answer: those to learn from, and those asked."""

    name: str
    taught: Sequence[tuple[str, str]]
    asked: Sequence[tuple[str, str]]
    settings: TrainSettings


def facts(examples: int, questions: int, seed: int) -> Task:
    """Invented keepers of things in places, three wordings each."""
    draw, known = random.Random(f"facts {seed}"), dict[tuple[str, str], str]()
    while len(known) < examples // len(TRAINED):
        fact = make_fact("name", draw)
        found = re.search(r"the (\w+) in (\w+) is", fact.asked)
        assert found
        known.setdefault((found[1], found[2]), fact.answer)
    taught = [(wording.format(thing=thing, place=place), f" {name}.") for (thing, place), name in known.items() for wording in TRAINED]
    asked = [(ASKED.format(thing=thing, place=place), f" {name}.") for (thing, place), name in list(known.items())[:questions]]
    return Task("facts", taught, asked, settings(6e-3, 2))


def reviews(examples: int, questions: int, seed: int) -> Task:
    """Sentences of film reviews with their feeling."""
    rows = [row for row in sst2(find_home(), lambda *_: None) if len(row.ask.split()) <= WORDS]
    random.Random(f"sst2 {seed}").shuffle(rows)
    pairs = [(f"Review: {row.ask}\nFeeling:", f" {row.options[row.gold]}") for row in rows[: examples + questions]]
    return Task("sst2", pairs[:examples], pairs[examples:], settings(4e-3, 2))


TASKS: dict[str, Callable[[int, int, int], Task]] = {"facts": facts, "sst2": reviews}


def settings(rate: float, epochs: int) -> TrainSettings:
    """A smooth course: a constant under AdamW's root, a warm-up, a fall to 0."""
    optimiser = OptimiserSettings(learning_rate=rate, beta2=0.99, eps=SMOOTH)
    return TrainSettings(epochs, batch_tokens=256, optimiser=optimiser, schedule=Schedule("cosine", 0.2), precision="fp32")


class Bench:
    """One task's model, trained as often as it takes."""

    def __init__(self, task: Task) -> None:
        home = find_home()
        kept = get_kept(home, "smollm2")
        checkpoint = open_weights(home, kept)
        self.tokenizer: Tokenizer = checkpoint_tokenizer(checkpoint, home.base_folder(kept.base))
        module = load_module(checkpoint)
        linears = chosen_linears(module.config, chosen_layers(module.config, "26-29"), "all")
        parameters = added_parameters(put_low_rank(module, linears, 8, 2.0, 0))
        encoder = Encoder(self.tokenizer, 512, template="plain")
        pairs = (*task.taught, *task.asked)
        documents = [encoder.documents(Record("bench", "completion", ask, (answer,))) for ask, answer in pairs]
        corpus = corpus_of("answers", [(str(i), -1, (document,)) for i, [document] in enumerate(documents)])
        self.task, self.n = task, len(task.taught)
        self.data = Data(corpus, range(self.n))
        self.rerun = Rerun(module, parameters, self.data, task.settings)
        self.parameters = parameters
        self.questions: list[Batch] = [make_batch(corpus, [i]) for i in range(self.n, len(corpus))]
        self.first: Moment = self.rerun.step(0)

    def begin(self, left_out: Sequence[int] = ()) -> None:
        """Stand before the first step, without these examples."""
        self.rerun.without(frozenset())
        self.rerun.put_back(self.first)
        self.rerun.without(frozenset(left_out))

    def losses(self, left_out: Sequence[int] = ()) -> Floats:
        """Train, and return the questions' losses in nats."""
        self.begin(left_out)
        for number in range(self.rerun.steps):
            self.rerun.step(number)
        return self.now()

    def now(self) -> Floats:
        """The questions' losses at present."""
        self.rerun.module.eval()
        losses = [float(self.rerun.losses(question).sum()) for question in self.questions]
        self.rerun.take()
        self.rerun.module.train()
        return np.array(losses)


def by_random(bench: Bench, seed: int) -> Floats:
    """Numbers from a seed."""
    return np.random.default_rng([seed, 5]).standard_normal((len(bench.questions), bench.n))


def by_words(bench: Bench, _seed: int) -> Floats:
    """BM25, k1 = 1.5, b = 0.75."""
    split = [re.findall(r"\w+", f"{ask}{answer}".lower()) for ask, answer in (*bench.task.taught, *bench.task.asked)]
    taught, asked = split[: bench.n], split[bench.n :]
    within = Counter(word for words in taught for word in set(words))
    mean = sum(map(len, taught)) / len(taught)
    scores = np.zeros((len(asked), len(taught)))
    for j, words in enumerate(taught):
        counts = Counter(words)
        for i, wanted in enumerate(asked):
            for word in set(wanted) & counts.keys():
                rare = math.log(1 + (bench.n - within[word] + 0.5) / (within[word] + 0.5))
                scores[i, j] += rare * counts[word] * 2.5 / (counts[word] + 1.5 * (0.25 + 0.75 * len(words) / mean))
    return scores


@torch.no_grad()
def by_embeddings(bench: Bench, _seed: int) -> Floats:
    """Cosine of the model's mean final states, from which the mean of all is taken."""
    bench.begin()
    corpus, means = bench.data.corpus, dict[int, torch.Tensor]()
    for some in plan(corpus.sizes, range(len(corpus)), 512, None):
        batch = make_batch(corpus, some)
        every = torch.arange(batch.tokens)
        whole = Batch(batch.documents, batch.bounds, batch.ids, batch.positions, every, batch.ids[every], every * 0, batch.labels)
        states = bench.rerun.states(whole)
        means |= {number: states[a:b].mean(0) for number, a, b in zip(some, batch.bounds, batch.bounds[1:], strict=False)}
    rows = torch.stack([means[number] for number in range(len(corpus))])
    unit = torch.nn.functional.normalize(rows - rows.mean(0), dim=1).numpy().astype(float)
    return np.asarray(unit[bench.n :] @ unit[: bench.n].T)


def by_cosine(bench: Bench, _seed: int) -> Floats:
    """Sketches at the end of a training."""
    bench.losses()
    rows = Sketcher(bench.rerun.module, bench.parameters).of_corpus(bench.data.corpus, range(len(bench.data.corpus))).astype(float)
    return np.asarray(rows[bench.n :] @ rows[: bench.n].T)


def through(bench: Bench, _seed: int) -> Floats:
    """The gradient through the training."""
    bench.begin()
    return through_training(bench.rerun, bench.rerun.steps, bench.questions)[1][:, : bench.n]


METHODS: dict[str, Callable[[Bench, int], Floats]] = {
    "random": by_random, "words": by_words, "embeddings": by_embeddings, "cosine": by_cosine, "through": through,
}  # fmt: skip


def spearman(one: Floats, other: Floats) -> Floats:
    """Rank correlations of rows: [questions, n] twice → [questions]."""
    ranked = [np.argsort(np.argsort(values, axis=1), axis=1) - (values.shape[1] - 1) / 2 for values in (one, other)]
    return np.asarray((ranked[0] * ranked[1]).sum(1) / np.sqrt((ranked[0] ** 2).sum(1) * (ranked[1] ** 2).sum(1)))


def scores(predicted: Floats, true: Floats, draws: int, seed: int) -> Floats:
    """Mean LDS of resampled questions and retrainings; the first of them is of all."""
    draw, (questions, retrains) = np.random.default_rng([seed, 7]), true.shape
    values = [float(spearman(predicted, true).mean())]
    for _ in range(draws):
        rows, columns = draw.integers(0, questions, questions), draw.integers(0, retrains, retrains)
        values.append(float(spearman(predicted[rows][:, columns], true[rows][:, columns]).mean()))
    return np.array(values)


def interval(values: Floats) -> tuple[float, float, float]:
    """The first value, and the range of 95 % of the others."""
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return float(values[0]), float(low), float(high)


def judge(task: Task, retrains: int, leaving: Sequence[str], seed: int, work: Path | None) -> dict[str, Any]:
    """All methods on one task. What is done is kept in the file `work`, and not done again."""
    bench, done = Bench(task), Done(work)
    bench.begin()
    start = bench.now()
    whole = np.array(done("whole", lambda: bench.losses().tolist()))
    say(f"{task.name}: {bench.rerun.steps} steps, loss {start.mean():.3f} → {whole.mean():.3f}")
    found = {name: np.array(done(name, lambda method=method: method(bench, seed).tolist())) for name, method in METHODS.items()}
    gone = left_out(bench, done, found, whole, leaving, seed)
    draw, masks = np.random.default_rng([seed, 3]), np.zeros((retrains, bench.n))
    for number in range(retrains):
        masks[number, draw.permutation(bench.n)[: round(LEFT_OUT * bench.n)]] = 1
    true = [
        done(f"retraining {number + 1}", lambda mask=mask: bench.losses(np.flatnonzero(mask).tolist()).tolist())
        for number, mask in enumerate(masks)
    ]  # fmt: skip
    rises = np.array(true).T - whole[:, None]
    draws = {name: scores(effects @ masks.T, rises, 2000, seed) for name, effects in found.items()}
    table: dict[str, Any] = {"steps": bench.rerun.steps, "loss_before": start.mean(), "loss": whole.mean(), "retrain_rise": rises.mean()}
    for name, effects in found.items():
        lead = interval(draws["through"] - draws[name])
        table[name] = {
            "lds": interval(draws[name]), "each": spearman(effects @ masks.T, rises).round(2).tolist(), "through_leads_by": lead,
            "seconds": done.seconds[name],
        }  # fmt: skip
    table["left_out"] = gone
    table["seconds_of_a_training"] = done.seconds["retraining 1"]
    return table


def left_out(bench: Bench, done: "Done", found: dict[str, Floats], whole: Floats, leaving: Sequence[str], seed: int) -> dict[str, Any]:
    """Rise of each question's loss without the method's top examples, and without random ones."""
    table, draw = dict[str, Any](), np.random.default_rng([seed, 11])
    sets = [draw.permutation(bench.n)[:TOP].tolist() for _ in range(DRAWS)]
    some = [done(f"without {TOP} random, {i + 1}", lambda one=one: bench.losses(one).tolist()) for i, one in enumerate(sets)]
    table["random"] = {"mean": float(np.mean(some - whole)), "each": np.round(np.mean(some - whole, 0), 3).tolist()}
    for name in leaving:
        chosen, rises = np.argsort(-found[name], axis=1, kind="stable")[:, :TOP].tolist(), list[float]()
        for i, one in enumerate(chosen):
            losses = done(f"without the top {TOP} by {name} of question {i + 1}", lambda one=one: bench.losses(one).tolist())
            rises.append(losses[i] - whole[i])
        table[name] = {"mean": float(np.mean(rises)), "each": np.round(rises, 3).tolist()}
    return table


class Done:
    """Results so far, in a file, so that a stopped bench goes on."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        table = json.loads(path.read_text()) if path is not None and path.exists() else {"values": {}, "seconds": {}}
        self._values: dict[str, Any] = table["values"]
        self.seconds: dict[str, float] = table["seconds"]

    def __call__(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what `make` makes, or made before."""
        if name not in self._values:
            began = time.perf_counter()
            self._values[name] = make()
            self.seconds[name] = time.perf_counter() - began
            say(f"{name}: {self.seconds[name]:.0f} s")
            if self._path is not None:
                self._path.write_text(json.dumps({"values": self._values, "seconds": self.seconds}))
        return self._values[name]


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Run all tasks; print a table, and a line of JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--retrains", type=int, default=30)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--leaving", nargs="*", default=["words", "cosine", "through"], choices=list(METHODS), help="whose top is left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, help="the learning rate at its peak")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--eps", type=float, default=SMOOTH, help="AdamW's constant: larger is smoother")
    parser.add_argument("--work", type=Path, help="a folder in which what is done is kept, so that a stopped bench goes on")
    chosen = parser.parse_args()
    keep_few_programs()
    torch.set_num_threads(1)
    result = {}
    for name in chosen.tasks:
        course = f"{chosen.rate or ''}-{chosen.epochs or ''}-{chosen.eps:g}"
        kind = f"{name}-{chosen.examples}-{chosen.questions}-{chosen.seed}-{course}.json"
        work = chosen.work / kind if chosen.work else None
        task = TASKS[name](chosen.examples, chosen.questions, chosen.seed)
        usual = task.settings.optimiser
        optimiser = replace(usual, learning_rate=chosen.rate or usual.learning_rate, eps=chosen.eps)
        epochs = chosen.epochs or task.settings.epochs
        task = replace(task, settings=replace(task.settings, epochs=epochs, optimiser=optimiser))
        result[name] = table = judge(task, chosen.retrains, chosen.leaving, chosen.seed, work)
        rows = [("method", "LDS (95 %)", "through leads by", f"rise without its top {TOP}", "seconds")]
        for method in METHODS:
            lds, lead = table[method]["lds"], table[method]["through_leads_by"]
            shown = ["{:+.2f} ({:+.2f} … {:+.2f})".format(*figures) for figures in (lds, lead)]
            gone = f"{table['left_out'][method]['mean']:+.3f}" if method in table["left_out"] else ""
            rows.append((method, *shown, gone, f"{table[method]['seconds']:.0f}"))
        show(f"{name}: {chosen.examples} examples, {chosen.questions} questions, {chosen.retrains} retrainings", rows)
    finish("explain_training", {"options": {**vars(chosen), "work": None}, **result})


if __name__ == "__main__":
    main()
