"""Advice: what an owner's budget buys by each lever, and how much the answers that a model will give weigh beside its training."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from ingle.core.config import overrides_of, to_table
from ingle.core.energy import NOTHING, Energy, amount, reported
from ingle.core.errors import ConfigError
from ingle.core.files import write_atomic
from ingle.energy.label import Label
from ingle.home.place import Home
from ingle.scaling.budget import Budget, Cost, Prices
from ingle.scaling.frontier import stops_paying, tokens_to_reach
from ingle.scaling.interval import LEVEL, MOST_EXTRAPOLATION, Fit, interval_of
from ingle.scaling.lever import CommandLever, Errand, Lever, TrainingLever, difference, shown
from ingle.scaling.points import FLOPS_A_TOKEN, Floats, Place, short
from ingle.scaling.probing import (
    FOLDER,
    KEPT,
    Outlook,
    Route,
    finished,
    fit_of,
    probe_cost,
    read_kept,
    read_pairs,
    routes_of,
    speed_at,
    texts_of,
)
from ingle.scaling.sweep import Sweep
from ingle.scratch.scratch_settings import ScratchSettings, VocabularySettings
from ingle.train.making import to_json

# Demand: how many tokens a model will answer, and what serving them costs beside training (arXiv 2401.00448).
#
# A smaller model that trained longer costs more joules once, and fewer for every token. So the more is answered, the smaller is the model
# that reaches a loss with the fewest joules in all.


DAYS = 180  # days that a model is used
WINDOW_DAYS = 30  # latest days of the ledger from which demand is told
FORWARD = 1 / 3  # share of a training token's operations that reading or writing it takes: 2·N of 6·N
_TEXT = re.compile(r"\s*(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*([kmg]?)\s*tok(?:en)?s?\s*/\s*(day|d|hour|h|week|w)\s*", re.IGNORECASE)
_TIMES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_A_DAY = {"h": 24.0, "d": 1.0, "w": 1 / 7}
_DRAWS = 300
_SIZES, _LENGTHS = 49, 73


@dataclass(frozen=True, slots=True)
class Demand:
    """Tokens that are read and written a day."""

    tokens_a_day: float
    source: str  # how it is known, for people


def parse_demand(text: str) -> Demand:
    """Read a demand: 2Mtokens/day, 300ktokens/h. Raises ConfigError."""
    found = _TEXT.fullmatch(text)
    if found and 0 <= (number := float(found[1])) < float("inf"):
        return Demand(number * _TIMES[found[2].lower()] * _A_DAY[found[3][0].lower()], "as you said")
    raise ConfigError("--serves", "must be tokens in a time", text, "For example 2Mtokens/day, 300ktokens/h or 5Mtokens/week.")


def demand_of(answers: Iterable[tuple[str, Mapping[str, Any]]], now: datetime) -> Demand:
    """Return the demand of this home, from the time (UTC, ISO 8601) and facts of each answer in its ledger.

    Days are counted from the first answer within the last WINDOW_DAYS. Tokens that were known from before cost nothing and don't count.
    """
    since = now - timedelta(days=WINDOW_DAYS)
    first, tokens = now, 0
    for at, facts in answers:
        when = datetime.fromisoformat(at)
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        if when < since:
            continue
        first = min(first, when)
        read = int(facts.get("prompt_tokens") or 0) - int(facts.get("cached_tokens") or 0)
        tokens += max(0, read) + int(facts.get("completion_tokens") or 0)
    days = max(1.0, (now - first).total_seconds() / 86400)
    return Demand(tokens / days, f"by this home's ledger, the last {days:.3g} days")


def serving_energy(reports: Sequence[Mapping[str, Any]], labels: Sequence[tuple[Label, float]], parameters: float) -> tuple[Energy, str]:
    """Return the energy of a served token at this size, and how it is known.

    `labels`: energy labels of this home, with each model's parameters. Without one, a token in serving is reckoned as a third of one in
    training.
    """
    known = [(label, size) for label, size in labels if size > 0 and _tokens(label)]
    if known:
        label, size = min(known, key=lambda one: abs(np.log(one[1] / parameters)))
        energy = label.parts[0].energy
        for part in label.parts[1:]:
            energy = energy + part.energy
        return energy.scaled(parameters / size / _tokens(label)), f"by the energy label of {label.model}, in proportion to size"
    return speed_at(reports, parameters).energy.scaled(FORWARD), "reckoned as a third of a training token's"


def _tokens(label: Label) -> int:
    return sum(part.prompt_tokens + part.completion_tokens for part in label.parts)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The cheapest model that reaches a loss, over all the days that it is used."""

    parameters: float
    low: float  # of `parameters`, by the drawn laws
    high: float
    tokens: float
    training: Energy
    serving: Energy

    @property
    def energy(self) -> Energy:
        """Training and serving together."""
        return self.training + self.serving

    def table(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        numbers = {name: getattr(self, name) for name in ("parameters", "low", "high", "tokens")}
        return numbers | {"training": self.training.table(), "serving": self.serving.table()}

    def __str__(self) -> str:
        size = f"{short(self.parameters)} parameters ({short(self.low)} – {short(self.high)}) on {short(self.tokens)} tokens"
        return f"{size}: {amount(self.training.joules)} of training, {amount(self.serving.joules)} of serving"


def cheapest(
    fit: Fit, reports: Sequence[Mapping[str, Any]], labels: Sequence[tuple[Label, float]], loss: float, tokens_a_day: float,
    days: float = DAYS,
) -> Lifetime:  # fmt: skip
    """Return the size that reaches a loss with the fewest joules of training and serving together.

    Raises ConfigError for a loss that no size reaches within what the runs can say, and where runs have no energy.
    """
    if not any(reported(report) for report in reports):
        raise ConfigError("--serves", "needs runs with their energy; this sweep has none")
    known, read = ([report[name] for report in reports] for name in ("parameters", "tokens"))
    sizes = np.geomspace(min(known) / 4, max(known) * 8, _SIZES)
    training = np.array([speed_at(reports, size).energy.joules for size in sizes])
    served = np.array([serving_energy(reports, labels, size)[0].joules for size in sizes]) * tokens_a_day * days
    needed = _needed(fit, sizes, np.geomspace(min(read) / 4, max(read) * 40, _LENGTHS), loss)
    with np.errstate(invalid="ignore"):
        joules = needed * training + served
    joules = np.where(np.isfinite(joules), joules, np.inf)
    can = np.isfinite(joules).any(axis=1)
    if can.mean() < 0.5:
        cure = "Give a smaller budget, or more and larger runs."
        raise ConfigError(
            "--serves", f"can't be answered: no size reaches {loss:.3f} within {MOST_EXTRAPOLATION:g} times the largest run", "", cure
        )
    best = joules[can].argmin(axis=1)
    low, middle, high = interval_of(sizes[best])
    at = int(np.abs(np.log(sizes / middle)).argmin())
    tokens = float(np.median(needed[can][:, at][np.isfinite(needed[can][:, at])]))
    train = speed_at(reports, sizes[at]).energy.scaled(tokens)
    serve = serving_energy(reports, labels, sizes[at])[0].scaled(tokens_a_day * days)
    return Lifetime(float(sizes[at]), float(low), float(high), tokens, train, serve)


def _needed(fit: Fit, sizes: Floats, lengths: Floats, loss: float) -> Floats:
    """Return how many tokens each size needs for a loss under each of some drawn laws, [draws, sizes]; inf where it is too far."""
    losses = fit.thinned(_DRAWS).samples([Place(size, length) for size in sizes for length in lengths])
    tokens = tokens_to_reach(loss, losses.reshape(-1, len(sizes), len(lengths)), lengths)
    return np.where(FLOPS_A_TOKEN * sizes * tokens > MOST_EXTRAPOLATION * fit.largest, np.inf, tokens)


# Advice: what an owner's budget buys by each lever, with intervals, and how likely each is the best.
# Every lever spends the budget in its best way. Its gain is the loss of the best model that the sweep has now, less the loss to expect. All
# levers are told by the same draws of the law, so that one which looks good only under an odd law doesn't look good alone.


STEPS = 24  # budgets at which diminishing returns are looked for
GROWTH = 1.25  # each is so many times the one before
NOT_THERE = "ask_more: Ingle has no command that asks a model n times and keeps the best answer."


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """The gain of one lever for the budget."""

    lever: str
    do: str
    command: str
    why: str
    cost: Cost | None = None
    losses: Floats | None = None  # draws of the loss to expect; None where nothing was measured
    gain: float | None = None  # loss that the best model of the sweep has, less that to expect
    low: float | None = None  # of one new run
    high: float | None = None
    probability_best: float = 0.0
    stops_paying: float | None = None  # amount of the budget's unit after which another unit gives less than a quarter of the first
    route: Route | None = None  # the way to train it, where it is a training
    tokens: int = 0  # tokens of that training

    @property
    def measured(self) -> bool:
        """Whether there is evidence from this home."""
        return self.losses is not None

    @property
    def settings(self) -> ScratchSettings | None:
        """Settings for `ingle make train`, which the command reads."""
        if self.route is None:
            return None
        run, settings = self.route.run(self.tokens), self.route.settings
        data = replace(settings.data, max_tokens=run.unique)
        return ScratchSettings(data, self.do, run.model, VocabularySettings(settings.vocabulary), run.train)

    def table(self, budget: Budget) -> dict[str, Any]:
        """Return plain values for JSON."""
        names = ("lever", "do", "command", "gain", "low", "high", "probability_best", "stops_paying", "measured", "why")
        cost = self.cost.table() | {"spent": budget.spent(self.cost)} if self.cost else {}
        spent = budget.spent(self.cost) if self.cost else 0.0
        per_unit = self.gain / spent if self.gain is not None and spent else None
        return {name: getattr(self, name) for name in names} | {"cost": cost, "gain_per_unit": per_unit}


@dataclass(frozen=True, slots=True, eq=False)
class Advice:
    """Offers for a budget, the best first."""

    budget: Budget
    incumbent: Mapping[str, Any]
    offers: Sequence[Offer]
    notes: Sequence[str]

    def table(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        names = ("key", "label", "size", "parameters", "tokens", "loss")
        best = {name: self.incumbent[name] for name in names if name in self.incumbent}
        offers = [offer.table(self.budget) for offer in self.offers]
        budget = {"unit": self.budget.unit, "amount": self.budget.amount, "said": str(self.budget), "level": LEVEL}
        return {"budget": budget, "incumbent": best, "offers": offers, "notes": list(self.notes)}


def advise(outlook: Outlook, budget: Budget, levers: Mapping[str, Lever]) -> Advice:
    """Return what each lever gives for the budget.

    Raises ConfigError, with the reason, where the budget is too small or too large for anything that these runs can say.
    """
    offers, notes, reasons = list[Offer](), [f"{note}." for note in outlook.fit.notes], list[ConfigError]()
    for name, lever in levers.items():
        try:
            offer = _trained(outlook, budget, name, lever) if isinstance(lever, TrainingLever) else _made(outlook, budget, name, lever)
        except ConfigError as error:
            reasons.append(error)
            notes.append(f"{name}: {error}")
            continue
        if offer is None:
            notes.append(f"{name}: it can't be done under this sweep's settings.")
        else:
            offers.append(offer)
    if reasons and not any(offer.measured for offer in offers):
        raise reasons[0]
    offers = _with_chances([_with_interval(offer, outlook, number) for number, offer in enumerate(offers)])
    ordered = sorted(offers, key=lambda offer: (offer.gain is None, -(offer.gain or 0.0)))
    if not any((offer.gain or 0.0) > 0 for offer in offers):
        notes.append(f"Nothing that was measured gains for {budget}: the best model cost more than that. Give a larger budget.")
    return Advice(budget, outlook.incumbent, ordered, [*notes, NOT_THERE])


def _trained(outlook: Outlook, budget: Budget, name: str, lever: TrainingLever) -> Offer | None:
    """Return the best that a training lever makes of the budget; None where it can't be done here."""
    changes = lever.changes(outlook.settings)
    if not changes:
        return None
    routes = routes_of(outlook, name, lever)
    if not routes:
        minutes = probe_cost(outlook, lever).minutes
        command = f"ingle scale probe {outlook.name} --lever {name}"
        return Offer(name, lever.words, command, f"not measured: a probe costs {minutes:.2g} min: {command}")
    lines = [(route, route.line(budget)) for route in routes if route.most >= 2 * route.least]
    if not lines:
        raise ConfigError("data", "are too few for a run of any size", f"{outlook.prepared.tokens:,} tokens")
    route, tokens, losses = _best(outlook, budget, lines, budget.amount)
    cost = route.cost(tokens)
    changed = [shown(change)] if (change := difference(outlook.settings, route.settings)) else []
    do = f"{lever.words}: {', '.join([*changed, route.size])} ({short(route.parameters)}), {short(tokens)} tokens"
    file = outlook.folder / "offers" / f"{name}.toml"
    command = shlex.join(["ingle", "make", "train", str(file), "--name", f"{outlook.name}-{name}"])
    stops = _stops(outlook, budget, lines)
    return Offer(name, do, command, _why(outlook, name, route, tokens), cost, losses, stops_paying=stops, route=route, tokens=tokens)


Lines = Sequence[tuple[Route, tuple[float, float]]]


def _best(outlook: Outlook, budget: Budget, lines: Lines, amount: float) -> tuple[Route, int, Floats]:
    """Return the route that gets lowest for so much, its tokens and draws of its loss. Raises ConfigError where there is none."""
    found, reasons = list[tuple[Route, int, Floats]](), list[ConfigError]()
    for route, line in lines:
        try:
            tokens = route.tokens(budget, line, amount)
            outlook.fit.check_place(route.place(tokens))
        except ConfigError as error:
            reasons.append(error)
        else:
            found.append((route, tokens, route.losses(outlook.fit, tokens)))
    if not found:
        raise reasons[0]
    return min(found, key=lambda one: float(one[2].mean()))


def _stops(outlook: Outlook, budget: Budget, lines: Lines) -> float | None:
    """Return the spending after which a lever stops paying, from what the best model cost on."""
    best = outlook.incumbent
    [(_, (start, each)), *_] = sorted(lines, key=lambda one: abs(one[0].parameters - best["parameters"]))
    spent, losses = list[float](), list[float]()
    for step in range(STEPS):
        amount = (start + each * best["tokens"]) * GROWTH**step
        try:
            losses.append(float(_best(outlook, budget, lines, amount)[2].mean()))
        except ConfigError:
            break
        spent.append(amount)
    return stops_paying(spent, losses)


def _made(outlook: Outlook, budget: Budget, name: str, lever: CommandLever) -> Offer:
    """Return what a command lever made when it was tried, if the budget is enough for that."""
    report = outlook.kept.get(name)
    errand = Errand(outlook.name, outlook.settings.data.sources, _minutes(outlook, budget))
    command = shlex.join(["ingle", *lever.arguments(errand)])
    if report is None:
        why = f"not measured: a probe costs about 5 min: ingle scale probe {outlook.name} --lever {name}"
        return Offer(name, lever.words, command, why)
    best = outlook.incumbent
    as_the_best = (reported(best) or NOTHING).scaled(report["seconds"] / best["seconds"])  # in the same seconds, on this machine
    energy = reported(report) or as_the_best
    cost = outlook.prices.cost(report["seconds"], energy, report.get("flops", 0.0), report["seconds"])
    if budget.spent(cost) > budget.amount:
        why = f"measured with {budget.said(budget.spent(cost))}, which is more than the budget; less was not tried"
        return Offer(name, lever.words, command, why, cost)
    losses = np.full(len(outlook.fit.samples([])), report["loss"])
    start = f"; {lever.start} itself has {report['start_loss']:.3f}" if "start_loss" in report else ""
    why = f"measured: {report['loss']:.3f} on the sweep's held-out text after {cost.minutes:.2g} min{start}. {lever.tells}"
    return Offer(name, lever.words, report.get("command", command), why, cost, losses)


def _minutes(outlook: Outlook, budget: Budget) -> float:
    """Return the minutes of a budget, by what the best model cost."""
    if budget.unit == "minutes":
        return budget.amount
    best = outlook.incumbent
    cost = outlook.prices.cost(best["seconds"], reported(best) or NOTHING, best["flops"], best["seconds"])
    spent = budget.spent(cost)
    return cost.minutes * budget.amount / spent if spent > 0 else cost.minutes


def _why(outlook: Outlook, name: str, route: Route, tokens: int) -> str:
    changed = difference(outlook.settings, route.settings)
    pairs = [pair for pair in outlook.pairs if pair.lever == name and pair.changed == changed]
    ends = "; the text ends there" if tokens >= route.most else ""
    if not pairs:
        return f"measured: by the law of {len(outlook.reports)} runs{ends}"
    sizes = ", ".join(dict.fromkeys(pair.size for pair in pairs))
    percent, seconds = np.expm1(np.median(route.offset)) * 100, np.median([pair.seconds for pair in pairs])
    return f"measured: at {sizes} {percent:+.1f} % of loss for as many tokens, each in {seconds:.2f} times the seconds{ends}"


def _with_interval(offer: Offer, outlook: Outlook, number: int) -> Offer:
    """Return the offer with its gain, and the interval of that of one new run."""
    if offer.losses is None:
        return offer
    kicks = np.random.default_rng([5, number]).standard_normal(len(offer.losses)) * outlook.fit.noise
    gains = outlook.incumbent["loss"] - offer.losses * np.exp(kicks)
    low, _, high = interval_of(gains)
    return replace(offer, gain=float(outlook.incumbent["loss"] - np.median(offer.losses)), low=float(low), high=float(high))


def _with_chances(offers: Sequence[Offer]) -> list[Offer]:
    """Return the offers with how often each is the best under the same draw; those that are equally good share it."""
    known = [offer for offer in offers if offer.losses is not None]
    if not known:
        return list(offers)
    losses = np.stack([offer.losses for offer in known if offer.losses is not None])
    best = losses == losses.min(axis=0)
    chances = iter((best / best.sum(axis=0)).mean(axis=1))
    return [offer if offer.losses is None else replace(offer, probability_best=float(next(chances))) for offer in offers]


# Reads what a home knows of a sweep, and writes what is advised.
#     HOME/scaling/NAME/advice.json         offers, see advise.py
#     HOME/scaling/NAME/offers/LEVER.toml   settings of an offer, for `ingle make train`


ADVICE, OFFERS = "advice.json", "offers"


def outlook_of(home: Home, sweep: Sweep, prices: Prices) -> Outlook:
    """Return what is known of a sweep. Raises ConfigError where it has too few finished runs for a law."""
    pairs = read_pairs(sweep)
    fit = fit_of(sweep, pairs)
    texts = texts_of(home, pairs)
    return Outlook(sweep.name, sweep.folder, sweep.settings, sweep.prepared, texts, finished(sweep), fit, pairs, read_kept(sweep), prices)


def served(outlook: Outlook, advice: Advice, demand: Demand, labels: Sequence[tuple[Label, float]]) -> dict[str, Any]:
    """Return which size is the cheapest for the loss of the best offer without a change of settings: when serving counts, and when not.

    Raises ConfigError where these runs can't say it.
    """
    lawful = [offer for offer in advice.offers if offer.route is not None and offer.route.settings == outlook.settings]
    gains = [offer.gain for offer in lawful if offer.gain is not None]
    loss = advice.incumbent["loss"] - max([0.0, *gains])
    without, within = (cheapest(outlook.fit, outlook.reports, labels, loss, tokens) for tokens in (0.0, demand.tokens_a_day))
    how = serving_energy(outlook.reports, labels, within.parameters)[1]
    ignoring = serving_energy(outlook.reports, labels, without.parameters)[0].scaled(demand.tokens_a_day * DAYS) + without.training
    said = f"For {loss:.3f} and {short(demand.tokens_a_day)} tokens a day ({demand.source}) over {DAYS} days the cheapest is {within}."
    saved = f"The cheapest to train, {short(without.parameters)} on {short(without.tokens)}, would take {amount(ignoring.joules)} in all."
    return {
        "tokens_a_day": demand.tokens_a_day, "source": demand.source, "days": DAYS, "loss": loss, "cheapest": within.table(),
        "cheapest_to_train": without.table() | {"all": ignoring.table()}, "energy_of_a_token": how, "said": [said, saved],
    }  # fmt: skip


def write_advice(sweep: Sweep, advice: Advice, serving: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Write an advice and the settings of its offers, and return its table."""
    table = advice.table() | ({"serving": dict(serving)} if serving else {})
    folder = sweep.folder / OFFERS
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for offer in advice.offers:
        if offer.settings is not None:
            lines = [f"# {offer.do}", *(line.replace("=", " = ", 1) for line in overrides_of(to_table(offer.settings)))]
            write_atomic(folder / f"{offer.lever}.toml", ("\n".join(lines) + "\n").encode(), mode=0o600)
    write_atomic(sweep.folder / ADVICE, to_json(table), mode=0o600)
    return table


def keep_report(sweep: Sweep, lever: str, report: Mapping[str, Any]) -> None:
    """Keep the report of a model that a lever's command made."""
    folder = sweep.folder / FOLDER / KEPT
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(folder / f"{lever}.json", to_json(dict(report)), mode=0o600)


def rows(advice: Advice) -> list[tuple[str, str, str, str, str, str]]:
    """Return (lever, gain, interval, chance of being the best, cost, until when it pays) for people."""
    table = []
    for offer in advice.offers:
        if offer.gain is None or offer.low is None or offer.high is None:
            table.append((offer.lever, "not measured" if offer.cost is None else "over budget", "", "", "", ""))
            continue
        assert offer.cost is not None, "what is measured has a cost"
        stops = "" if offer.stops_paying is None else advice.budget.said(offer.stops_paying)
        spent = f"{offer.cost.minutes:.3g} min, {amount(offer.cost.energy.joules)}"
        table.append(
            (offer.lever, f"{offer.gain:+.3f}", f"{offer.low:+.3f} – {offer.high:+.3f}", f"{offer.probability_best:.0%}", spent, stops)
        )
    return table
