"""`ingle make harden`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingle.cli.gating import Force, Overrides
from ingle.cli.making import AsJson, Config, Make, Table, Wanted, gate_rows, make_delta, show_delta

if TYPE_CHECKING:
    from ingle.learn.addition_settings import HardenSettings

EXAMPLES = """
ingle make harden smollm2 --name hard
ingle make harden smollm2 --name hard --rounds 3 --attempts 100
ingle make harden smollm2+mine --name hard --set taught.lookalikes=100 --set push.steps=0
ingle chat smollm2+hard
"""


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model, with or without deltas.")],
    name: Annotated[str, typer.Option(help="What to call the delta: MODEL+NAME is the hardened model.")] = "hard",
    rounds: Annotated[int | None, typer.Option(help="Rounds of training; each learns the attacks that survived the one before.")] = None,
    attempts: Annotated[int | None, typer.Option(help="Fresh attacks between two rounds.")] = None,
    plain: Annotated[int | None, typer.Option(help="Plainly harmful requests to teach with.")] = None,
    dressed: Annotated[int | None, typer.Option(help="Attacks to teach with.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs: how often the first round reads every example.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed for the choice of requests, and for the training.")] = None,
    config: Config = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any setting, e.g. push.steps=0.")] = None,
    force: Force = False,
    policy: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Teach a model to refuse harmful requests, also under attack.

    Harmless requests that look harmful are in the training too, so that it doesn't refuse them. Both are measured on held-out
    requests, before and after. The requests are data that are fetched when first needed.
    The result is a delta; the model stays as it was. The gate measures it first, and may refuse it.
    Interrupted at any moment, or refused and now with --force, the same command goes on.
    """
    options: dict[str, Any] = {
        "rounds": rounds, "attempts": attempts, "taught.plain": plain, "taught.dressed": dressed, "train.epochs": epochs,
        "seed": seed, "train.seed": seed,
    }  # fmt: skip
    wanted = Wanted(model, name, config, overrides, policy, force)
    show_delta(make_delta("harden", wanted, options, _load), as_json, _tables)


def _load() -> "tuple[Make[HardenSettings], type[HardenSettings]]":
    from ingle.learn.addition_settings import HardenSettings
    from ingle.learn.harden import harden

    return harden, HardenSettings


def _tables(report: Mapping[str, Any]) -> list[Table]:
    from ingle.train.making import cost_rows

    rows = []
    for one in report["refusals"]:
        explicit = f"{one['explicit_before']} → {one['explicit_after']}"
        kind, points = "harmful" if one["harmful"] else "harmless", 100 * one["change"]["value"]
        rows.append((f"{one['family']} ({kind})", _share(one["before"]), _share(one["after"]), f"{points:+.1f}", explicit))
    held_out = ("held-out requests", "refused before", "after", "points", "said so")
    return [(held_out, rows), (("figure", "value", ""), [*gate_rows(report), *cost_rows(report["train"])])]


def _share(figure: Any) -> str:
    """A share with its interval and n: `80.0 % (70.1–88.3, n = 60)`."""
    return f"{100 * figure['value']:.1f} % ({100 * figure['low']:.1f}–{100 * figure['high']:.1f}, n = {figure['n']})"
