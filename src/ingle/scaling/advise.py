"""Advice: what an owner's budget buys by each lever, with intervals, and how likely each is the best.

Every lever spends the budget in its best way. Its gain is the loss of the best model that the sweep has now, less the loss to expect. All
levers are told by the same draws of the law, so that one which looks good only under an odd law doesn't look good alone.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ingle.core.energy import NOTHING, reported
from ingle.core.errors import ConfigError
from ingle.scaling.budget import Budget, Cost
from ingle.scaling.interval import LEVEL
from ingle.scaling.lever import CommandLever, Errand, Lever, TrainingLever, difference
from ingle.scaling.points import Floats, short
from ingle.scaling.probing import probe_cost
from ingle.scaling.routes import Outlook, Route, routes_of
from ingle.scaling.settings import ScratchSettings, VocabularySettings
from ingle.scaling.stopping import stops_paying

STEPS = 24
"""Budgets at which diminishing returns are looked for."""
GROWTH = 1.25
"""Each is so many times the one before."""
NOT_THERE = "ask_more: Ingle has no command that asks a model n times and keeps the best answer."


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """The gain of one lever for the budget."""

    lever: str
    do: str
    command: str
    why: str
    cost: Cost | None = None
    losses: Floats | None = None
    """Draws of the loss to expect; None where nothing was measured."""
    gain: float | None = None
    """Loss that the best model of the sweep has, less that to expect."""
    low: float | None = None
    """Of one new run."""
    high: float | None = None
    probability_best: float = 0.0
    stops_paying: float | None = None
    """Amount of the budget's unit after which another unit gives less than a quarter of the first."""
    route: Route | None = None
    """The way to train it, where it is a training."""
    tokens: int = 0
    """Tokens of that training."""

    @property
    def measured(self) -> bool:
        """Whether there is evidence from this home."""
        return self.losses is not None

    @property
    def settings(self) -> ScratchSettings | None:
        """Settings for `ingle train`, which the command reads."""
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
    do = f"{lever.words}: {_changed(outlook, route)}{route.size} ({short(route.parameters)}), {short(tokens)} tokens"
    file = outlook.folder / "offers" / f"{name}.toml"
    command = shlex.join(["ingle", "train", str(file), "--name", f"{outlook.name}-{name}"])
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
    minutes = report["seconds"] / 60
    cost = Cost(minutes, energy, outlook.prices.of(minutes / 60, energy), report.get("flops", 0.0), minutes)
    if budget.spent(cost) > budget.amount:
        why = f"measured with {budget.said(budget.spent(cost))}, which is more than the budget; less was not tried"
        return Offer(name, lever.words, command, why, cost)
    losses = np.full(len(outlook.fit.samples([])), report["loss"])
    start = f"; {lever.start} itself has {report['start_loss']:.3f}" if "start_loss" in report else ""
    why = f"measured: {report['loss']:.3f} on the sweep's held-out text after {minutes:.2g} min{start}. {lever.tells}"
    return Offer(name, lever.words, report.get("command", command), why, cost, losses)


def _minutes(outlook: Outlook, budget: Budget) -> float:
    """Return the minutes of a budget, by what the best model cost."""
    if budget.unit == "minutes":
        return budget.amount
    best = outlook.incumbent
    energy = reported(best) or NOTHING
    minutes = float(best["seconds"]) / 60
    spent = budget.spent(Cost(minutes, energy, outlook.prices.of(minutes / 60, energy), best["flops"]))
    return minutes * budget.amount / spent if spent > 0 else minutes


def _changed(outlook: Outlook, route: Route) -> str:
    changed = difference(outlook.settings, route.settings)
    return "".join(f"{name} {value:.3g}, " if isinstance(value, float) else f"{name} {value}, " for name, value in changed.items())


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
    low, high = np.quantile(gains, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
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
