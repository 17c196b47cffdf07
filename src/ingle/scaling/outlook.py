"""Reads what a home knows of a sweep, and writes what is advised.

HOME/scaling/NAME/advice.json         offers, see advise.py
HOME/scaling/NAME/offers/LEVER.toml   settings of an offer, for `ingle train`
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ingle.core.config import overrides_of, to_table
from ingle.core.energy import amount
from ingle.core.files import write_atomic
from ingle.energy.label import Label
from ingle.home.place import Home
from ingle.scaling.advise import Advice
from ingle.scaling.budget import Prices
from ingle.scaling.demand import DAYS, Demand, cheapest, serving_energy
from ingle.scaling.points import short
from ingle.scaling.probing import FOLDER, KEPT, finished, fit_of, read_kept, read_pairs, texts_of
from ingle.scaling.routes import Outlook
from ingle.scaling.sweep import Sweep
from ingle.train.making import to_json

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
