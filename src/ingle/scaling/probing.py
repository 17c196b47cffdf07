"""Evidence for levers: pairs of runs that differ in one setting, and how far what they show is believed elsewhere.

A lever's offset is the logarithm of a pair's losses beyond what the law says of their places: a hybrid of 0.83 million parameters is not
compared with a transformer of 0.82 million as if both were of one size. What a token costs is compared, too.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.energy import Energy, reported
from ingle.core.errors import ConfigError, Interrupted
from ingle.core.files import write_atomic
from ingle.core.progress import Progress, silent
from ingle.core.report import Sink
from ingle.engine.language_model import LanguageModel
from ingle.engine.scoring import score
from ingle.home.place import Home
from ingle.measure.subjects import begin_id
from ingle.scaling.budget import Budget, Cost, Prices
from ingle.scaling.cost import Speed, cost_of, relative_costs
from ingle.scaling.interval import Fit, fit_points, forms_for
from ingle.scaling.lever import TrainingLever, difference
from ingle.scaling.points import Floats, Place, Point, write_points
from ingle.scaling.sweep import CSV, Sweep, run_sweep
from ingle.scaling.sweep_settings import LADDER, LEAST_STEPS, RunSettings, SweepSettings, point_of, run_of, rung
from ingle.scratch.scratch_settings import config_of, parameters_of
from ingle.scratch.text_sources import Prepared, find_prepared, held_out_texts, prepare, rows_read
from ingle.train.making import RunWatch, to_json


@dataclass(frozen=True, slots=True)
class ProbePair:
    """Two runs of one size and seed that read as many tokens; one has the lever."""

    lever: str
    changed: Mapping[str, Any]  # settings that differ
    prepared: str  # folder name of the text that the run with the lever read
    size: str
    after: Point  # with the lever
    before: Point  # without it
    seconds: float = 1.0  # time of a token, as a multiple of that without the lever, timed side by side
    joules: float = 1.0  # energy of a token, likewise


def _seconds(report: Mapping[str, Any]) -> float:
    return float(report["seconds"] / report["tokens"])


def _joules(report: Mapping[str, Any]) -> float:
    energy = reported(report)
    return energy.joules / report["tokens"] if energy else 0.0


def speed_at(reports: Sequence[Mapping[str, Any]], parameters: float) -> Speed:
    """Return the cost of a token at some size, from the sweep's own runs: a straight line between the logarithms, the last slope beyond."""
    sizes = sorted({report["parameters"] for report in reports})
    medians = [
        [_median([table for table in reports if table["parameters"] == size], what) for size in sizes] for what in (_seconds, _joules)
    ]
    seconds, joules = (_line(sizes, values, parameters) for values in medians)
    metered = [energy for report in reports if (energy := reported(report))]
    whole = sum(energy.joules for energy in metered) or 1.0
    low, high = (joules * sum(getattr(energy, name) for energy in metered) / whole for name in ("low", "high"))
    return Speed(seconds, Energy(joules, low, high, metered[0].source) if metered else Energy(0.0, 0.0, 0.0, ""))


def _median(reports: Sequence[Mapping[str, Any]], what: Callable[[Mapping[str, Any]], float]) -> float:
    return float(np.median([what(report) for report in reports]))


def _line(sizes: Sequence[float], values: Sequence[float], at: float) -> float:
    """Interpolate between logarithms. Beyond the ends, cost grows in proportion to size, or as between the last two where that is more."""
    if min(values) <= 0:
        return 0.0
    x, y = np.log(sizes), np.log(values)
    wanted = math.log(at)
    if wanted <= x[-1]:
        return float(np.exp(np.interp(wanted, x, y)))
    slope = max(1.0, (y[-1] - y[-2]) / (x[-1] - x[-2])) if len(x) > 1 else 1.0
    return float(np.exp(y[-1] + slope * (wanted - x[-1])))


def residuals(pair: ProbePair, fit: Fit) -> Floats:
    """Return the offset that a pair shows under each drawn law: [draws]."""
    laws = np.log(fit.samples([pair.after, pair.before]))
    result: Floats = math.log(pair.after.loss / pair.before.loss) - (laws[:, 0] - laws[:, 1])
    return result


def differences(pairs: Sequence[ProbePair], fit: Fit) -> float:
    """Return the variance of a lever's true offset between sizes, of all levers together.

    It is believed to be at least that of a run: two sizes are at least as different as two runs of one.
    """
    groups: dict[tuple[str, str], list[float]] = {}
    for pair in pairs:
        groups.setdefault((pair.lever, repr(sorted(pair.changed.items()))), []).append(float(np.median(residuals(pair, fit))))
    freedom = sum(len(group) - 1 for group in groups.values())
    seen = sum(float(np.var(group)) * len(group) for group in groups.values()) / freedom if freedom else 0.0
    return max(seen - 2 * fit.noise**2, fit.noise**2)


def offset(pairs: Sequence[ProbePair], fit: Fit, spread: float, rng: np.random.Generator) -> Floats:
    """Return draws of a change's offset at a new size: [draws]. `spread`: the variance between sizes; zeros without pairs."""
    if not pairs:
        return np.zeros(len(fit.samples([])))
    seen = np.mean([residuals(pair, fit) for pair in pairs], axis=0)
    variance = spread + (2 * fit.noise**2 + spread) / len(pairs)
    result: Floats = seen + math.sqrt(variance) * rng.standard_normal(len(seen))
    return result


# Routes: each way to spend a budget by training, as a size under some settings, with what a token costs and what it is worth.


@dataclass(frozen=True, slots=True)
class Outlook:
    """All that is known when advice is asked for."""

    name: str
    folder: Path  # folder of the sweep
    settings: SweepSettings
    prepared: Prepared
    texts: Mapping[str, Prepared]  # texts that probes read, by the name of their folder
    reports: Sequence[Mapping[str, Any]]  # finished runs of the sweep
    fit: Fit
    pairs: Sequence[ProbePair]  # probes of levers
    kept: Mapping[str, Mapping[str, Any]]  # reports of models that commands made, by lever, read on the sweep's held-out text
    prices: Prices

    @property
    def incumbent(self) -> Mapping[str, Any]:
        """Report of the best model that the sweep has now."""
        return min(self.reports, key=lambda report: float(report["loss"]))


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One size under one change of the settings."""

    settings: SweepSettings
    prepared: Prepared
    size: str
    parameters: int
    speed: Speed
    offset: Floats  # draws of the logarithm by which its loss differs from the law's
    prices: Prices

    @property
    def least(self) -> int:
        """Fewest tokens that are worth a run."""
        return LEAST_STEPS * self.settings.batch_tokens

    @property
    def most(self) -> int:
        """Most tokens that the text is enough for."""
        return int(self.prepared.tokens * self.settings.epochs) // self.settings.batch_tokens * self.settings.batch_tokens

    def run(self, tokens: int) -> RunSettings:
        """Return the run of so many tokens."""
        return run_of(self.settings, self.prepared, self.size, tokens, self.settings.first_seed)

    def cost(self, tokens: int) -> Cost:
        """Return the cost of that run on one core."""
        return cost_of([self.run(tokens)], self.prepared, {self.size: self.speed}, 1, self.prices)

    def place(self, tokens: int) -> Place:
        """Return where the law has that run."""
        return Place(self.parameters, tokens, tokens / self.settings.epochs if self.settings.epochs > 1 else 0.0)

    def line(self, budget: Budget) -> tuple[float, float]:
        """Return what a run costs in the budget's unit: at its start, and for each token."""
        if self.most < 2 * self.least:
            raise ConfigError(self.size, "wants more text than there is", f"{self.prepared.tokens:,} tokens")
        one, two = (budget.spent(self.cost(times * self.least)) for times in (1, 2))
        if two <= one:
            cure = "Give a budget in minutes, or set [costs] in config.toml."
            raise ConfigError("--budget", f"is in {budget.unit}, and the sweep's runs say nothing of that", "", cure)
        return 2 * one - two, (two - one) / self.least

    def tokens(self, budget: Budget, line: tuple[float, float], amount: float) -> int:
        """Return how many tokens so much buys, in whole steps; no more than there are. Raises ConfigError where it is too little."""
        start, each = line
        steps = math.floor((amount - start) / each / self.settings.batch_tokens)
        if steps < LEAST_STEPS:
            cure = f"Give {budget.said(start + each * self.least)} or more."
            raise ConfigError("--budget", f"buys {self.size} fewer than {LEAST_STEPS} steps", budget.said(amount), cure)
        return min(steps * self.settings.batch_tokens, self.most)

    def losses(self, fit: Fit, tokens: int) -> Floats:
        """Return draws of the loss to expect."""
        result: Floats = fit.samples([self.place(tokens)])[:, 0] * np.exp(self.offset)
        return result


def routes_of(outlook: Outlook, name: str, lever: TrainingLever) -> list[Route]:
    """Return the routes of a lever for which there is evidence."""
    best = outlook.incumbent
    sizes = {"same": [best["size"]], "others": _sizes(outlook, best["size"])}
    sizes["all"] = [*sizes["same"], *sizes["others"]]
    spread = differences(outlook.pairs, outlook.fit)
    rng = np.random.default_rng([3, *name.encode()])
    routes = []
    for settings in lever.changes(outlook.settings):
        changed = difference(outlook.settings, settings)
        pairs = [pair for pair in outlook.pairs if pair.lever == name and pair.changed == changed]
        if lever.needs_probe and not pairs:
            continue
        prepared = outlook.texts[pairs[0].prepared] if pairs else outlook.prepared
        drawn = offset(pairs, outlook.fit, spread, rng)
        for size in sizes[lever.sizes]:
            parameters = parameters_of(config_of(rung(size, settings.kind), prepared.vocabulary))
            routes.append(Route(settings, prepared, size, parameters, _speed(outlook, pairs, parameters), drawn, outlook.prices))
    return routes


def _sizes(outlook: Outlook, best: str) -> list[str]:
    named = dict.fromkeys((*outlook.settings.sizes, outlook.settings.foretold_size, *LADDER))
    return [size for size in named if size != best]


def _speed(outlook: Outlook, pairs: Sequence[ProbePair], parameters: int) -> Speed:
    own = speed_at(outlook.reports, parameters)
    seconds, joules = (float(np.median([getattr(pair, name) for pair in pairs] or [1.0])) for name in ("seconds", "joules"))
    return Speed(own.seconds * seconds, own.energy.scaled(joules))


# The loss of a kept model on a sweep's held-out text: so that models of other vocabularies can be compared, in bits per byte.


def bits_of_kept(
    model: LanguageModel, prepared: Prepared, stopped: Callable[[], bool] = lambda: False, progress: Progress = silent
) -> npt.NDArray[np.float64]:  # fmt: skip
    """Return a kept model's bits of each held-out text, as it is served: [texts]. Raises Interrupted."""
    tokenizer, texts = model.tokenizer, held_out_texts(prepared)
    first = begin_id(tokenizer)
    tasks = []
    for number, text in enumerate(texts):
        for row, counts in rows_read([first, *tokenizer.encode(text)], prepared.row_tokens):
            start = int(counts.argmax())
            tasks.append((number, (row[:start].tolist(), [row[start:].tolist()])))
    bits = np.zeros(len(texts))
    done = 0
    for place, [nats] in score(model.backend, [task for _, task in tasks], stopped):
        bits[tasks[place][0]] -= float(nats.sum()) / math.log(2)
        done += 1
        progress("reading held-out text", done, len(tasks))
    if done < len(tasks):
        raise Interrupted("reading", "was interrupted", f"{done} of {len(tasks)} pieces", "Run the same command to try again.")
    return bits


# Probes of levers: pairs of the smallest runs, with and without each lever, on the same held-out text.
#     HOME/scaling/NAME/probes/runs/KEY.json, texts/KEY.npy   runs with a lever, as the sweep's own (scaling/sweep.py)
#     HOME/scaling/NAME/probes/pairs.json                     which belongs to which
#     HOME/scaling/NAME/probes/kept/LEVER.json                a model that a command made, read on the same text
# The worse half of the levers ends with the first size, the others go on to the next one (successive halving). They are compared at equal
# seconds: a lever whose tokens cost more gets fewer of them, by the law.


FOLDER, PAIRS, KEPT = "probes", "pairs.json", "kept"
ROUNDS = 2  # sizes that probes go up to


Train = Callable[[Sweep, Sequence[RunSettings]], list[dict[str, Any]]]  # trains these runs where the sweep says, and returns their reports


@dataclass(frozen=True, slots=True)
class Attempt:
    """A change of settings that is to be tried."""

    lever: str
    settings: SweepSettings
    prepared: Prepared


def probe(
    home: Home, sweep: Sweep, levers: Mapping[str, TrainingLever], runner: str = "local", workers: int = 0, address: str = "",
    watch: RunWatch = RunWatch(), sink: Sink = silent,  # noqa: B008 - frozen
) -> list[ProbePair]:  # fmt: skip
    """Train pairs for these levers, and return all pairs that there are. Pairs that are there are not trained again.

    Raises ConfigError where the sweep has too few runs for a law, TrainError, HomeError, and Interrupted after Ctrl-C; the same call then
    goes on.
    """
    fit_of(sweep, ())  # says at once where there are too few runs for a law
    alive = [
        Attempt(name, settings, _text(home, sweep, name, settings, watch))
        for name, lever in levers.items() if lever.needs_probe for settings in lever.changes(sweep.settings)
    ]  # fmt: skip

    def train(there: Sweep, runs: Sequence[RunSettings]) -> list[dict[str, Any]]:
        return run_sweep(home, there, runs, runner, workers, address, watch, sink)

    sizes = small_sizes(sweep)[:ROUNDS]
    for number, size in enumerate(sizes, 1):
        _train(sweep, alive, size, train)
        alive = _better_half(sweep, alive, sizes[:number])
    return read_pairs(sweep)


def _text(home: Home, sweep: Sweep, lever: str, settings: SweepSettings, watch: RunWatch) -> Prepared:
    """Return the text of a probe: the sweep's; for other words that of an earlier probe, whatever became of its sources, or a new one."""
    if settings.vocabulary == sweep.settings.vocabulary:
        return sweep.prepared
    rows = [row for row in _read_table(sweep) if row["lever"] == lever and row["changed"] == difference(sweep.settings, settings)]
    if rows:
        return find_prepared(home.scaling / "texts" / rows[0]["prepared"])
    text = prepare(home, settings.data, settings.vocabulary, watch)
    if held_out_texts(text) != held_out_texts(sweep.prepared):
        cure = f"Plan a sweep of the texts as they are now: ingle scale plan {sweep.name}2"
        raise ConfigError("data.sources", "must hold out what they held out when the sweep was planned", "other texts", cure)
    return text


def small_sizes(sweep: Sweep) -> list[str]:
    """Return the sizes of a sweep, the smallest first."""
    return list(dict.fromkeys(run.size for run in sorted(sweep.runs, key=lambda run: run.parameters)))


def probe_tokens(settings: SweepSettings) -> int:
    """Return the length of a probe: the middle one of the sweep, the shorter of two."""
    return sorted(settings.tokens)[(len(settings.tokens) - 1) // 2]


def probe_cost(outlook: Outlook, lever: TrainingLever) -> Cost:
    """Reckon what the first probe of a lever costs on one core, as if its tokens cost what the sweep's do."""
    small = min(outlook.reports, key=lambda report: int(report["parameters"]))
    speeds = {small["size"]: speed_at(outlook.reports, small["parameters"])}
    tokens = probe_tokens(outlook.settings)
    runs = [run_of(replace(outlook.settings, epochs=settings.epochs), outlook.prepared, small["size"], tokens, number)
            for number, settings in enumerate(lever.changes(outlook.settings))]  # fmt: skip
    return cost_of(runs, outlook.prepared, speeds, 1, outlook.prices)


def _train(
    sweep: Sweep, attempts: Sequence[Attempt], size: str, train: Callable[[Sweep, Sequence[RunSettings]], list[dict[str, Any]]]
) -> None:
    """Train one size with each lever and once without, and keep the pairs."""
    tokens, seed = probe_tokens(sweep.settings), sweep.settings.first_seed
    without = run_of(sweep.settings, sweep.prepared, size, tokens, seed)
    [before] = train(sweep, [without])
    runs = [run_of(attempt.settings, attempt.prepared, size, tokens, seed) for attempt in attempts]
    texts = {attempt.prepared.folder: attempt.prepared for attempt in attempts}
    for folder, prepared in texts.items():
        those = [run for attempt, run in zip(attempts, runs, strict=True) if attempt.prepared.folder == folder]
        train(_there(sweep, prepared, those), those)
    kept = {(row["after"], row["before"]): row for row in _read_table(sweep)}
    new = [(attempt, run) for attempt, run in zip(attempts, runs, strict=True) if (run.key, before["key"]) not in kept]
    timed = [(run, attempt.prepared) for attempt, run in new]
    costs = relative_costs((without, sweep.prepared), timed) if timed else []
    for (attempt, run), (seconds, joules) in zip(new, costs, strict=True):
        kept[run.key, before["key"]] = {
            "lever": attempt.lever, "changed": difference(sweep.settings, attempt.settings), "after": run.key, "before": before["key"],
            "prepared": Path(attempt.prepared.folder).name, "seconds": seconds, "joules": joules,
        }  # fmt: skip
    write_atomic(sweep.folder / FOLDER / PAIRS, to_json({"pairs": list(kept.values())}), mode=0o600)
    points = [replace(point_of(_report(sweep, row["after"])), kind=f"{row['lever']}: {row['changed']}") for row in kept.values()]
    write_atomic(sweep.folder / FOLDER / CSV, write_points(points).encode())


def _there(sweep: Sweep, prepared: Prepared, runs: Sequence[RunSettings]) -> Sweep:
    """Return the sweep of probes, whose reports lie in a folder of their own."""
    folder = sweep.folder / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    return replace(sweep, folder=folder, prepared=prepared, runs=tuple(runs))


def _better_half(sweep: Sweep, attempts: Sequence[Attempt], sizes: Sequence[str]) -> list[Attempt]:
    """Return the half of the attempts that gains more at equal seconds, by what these sizes show: larger ones may be there from before."""
    pairs = [pair for pair in read_pairs(sweep) if pair.size in sizes]
    fit = fit_of(sweep, pairs)

    def gain(attempt: Attempt) -> float:
        changed = difference(sweep.settings, attempt.settings)
        return float(np.mean([equal_seconds(pair, fit) for pair in pairs if pair.lever == attempt.lever and pair.changed == changed]))

    return sorted(attempts, key=gain, reverse=True)[: -(-len(attempts) // 2)]


def equal_seconds(pair: ProbePair, fit: Fit) -> float:
    """Return the share of the loss that a pair's lever takes off if it trains for as many seconds as the run without it."""
    shorter = replace(pair.after, tokens=pair.after.tokens / pair.seconds, unique=pair.after.unique / pair.seconds)
    laws = np.log(fit.samples([shorter, pair.before]))
    return float(-np.expm1(np.median(residuals(pair, fit) + laws[:, 0] - laws[:, 1])))


def fit_of(sweep: Sweep, pairs: Sequence[ProbePair]) -> Fit:
    """Return the law of a sweep's finished runs; with repeats where a probe repeats its text. Raises ConfigError."""
    points = [point_of(report) for report in finished(sweep)]
    return fit_points(points, forms_for(points, [pair.after for pair in pairs]))


def finished(sweep: Sweep) -> list[dict[str, Any]]:
    """Return the reports of all finished runs, the foretold one included once it was checked."""
    checked = sweep.report(sweep.foretold)
    return [*sweep.reports(), *([checked] if checked else [])]


def read_pairs(sweep: Sweep) -> list[ProbePair]:
    """Return all pairs of a sweep whose runs are there."""
    pairs = []
    for row in _read_table(sweep):
        after, before = _report(sweep, row["after"]), _report(sweep, row["before"])
        told = {name: row[name] for name in ("lever", "changed", "prepared", "seconds", "joules")}
        pairs.append(ProbePair(**told, size=after["size"], after=point_of(after), before=point_of(before)))
    return pairs


def texts_of(home: Home, pairs: Sequence[ProbePair]) -> dict[str, Prepared]:
    """Return the texts that probes read, by the name of their folder."""
    return {name: find_prepared(home.scaling / "texts" / name) for name in {pair.prepared for pair in pairs}}


def read_kept(sweep: Sweep) -> dict[str, dict[str, Any]]:
    """Return the reports of models that commands made, by lever."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((sweep.folder / FOLDER / KEPT).glob("*.json"))}


def _read_table(sweep: Sweep) -> list[dict[str, Any]]:
    path = sweep.folder / FOLDER / PAIRS
    rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["pairs"] if path.exists() else []
    return rows


def _report(sweep: Sweep, key: str) -> dict[str, Any]:
    """Return a run's report, the sweep's own or a probe's. Raises ConfigError where it was deleted."""
    for one in (sweep, replace(sweep, folder=sweep.folder / FOLDER)):
        if one.file_of(key).exists():
            report: dict[str, Any] = json.loads(one.file_of(key).read_text("utf-8"))
            return report
    cure = f"Delete {FOLDER}/{PAIRS} of the sweep, and probe again."
    raise ConfigError(f"probe {key[:12]}", "must have its report", "none", cure)
