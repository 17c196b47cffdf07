"""`ingle make hybridize`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingle.cli.gating import Force, Overrides
from ingle.cli.making import AsJson, Config, Make, Table, Wanted, make_delta, show_delta

if TYPE_CHECKING:
    from ingle.hybridize.hybrid_settings import HybridSettings

EXAMPLES = """
ingle make hybridize smollm2 --state-budget 1/6
ingle make hybridize smollm2 --training-free --name quick
ingle make hybridize smollm2 --window 64 --retrieval 12 --name narrow --set lessons.documents=2000
ingle measure smollm2+hybrid --suite recall-4k
"""

_WHERE = "Which groups they are stands in the report (--json, or `ingle show`)."


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model with full attention, with or without deltas.")],
    name: Annotated[str, typer.Option(help="What to call the delta: MODEL+NAME is the hybrid.")] = "hybrid",
    state_budget: Annotated[
        str | None, typer.Option(help="Most memory for a conversation, as a share of the original's at 8,192 tokens, e.g. 1/6.")
    ] = None,
    retrieval: Annotated[int | None, typer.Option(help="How many groups keep full attention; by default what the budget allows.")] = None,
    window: Annotated[int | None, typer.Option(help="Tokens that all other groups attend to.")] = None,
    training_free: Annotated[
        bool, typer.Option("--training-free", help="Find the groups and stop there: minutes, and no memories.")
    ] = False,
    documents: Annotated[int | None, typer.Option(help="From how many documents memories learn; more takes longer.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed for the texts and facts, and their order.")] = None,
    config: Config = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any setting, e.g. search.rounds=8.")
    ] = None,
    force: Force = False,
    policy: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Turn a transformer into a hybrid: less memory for long texts.

    Few groups keep full attention, those that recall needs; all others see the first tokens, a window, and a memory of the rest.
    The result is a delta of a few MB; the model stays as it was. The gate measures it first, and may refuse it.
    Interrupted at any moment, or refused and now with --force, the same command goes on.
    """
    from ingle.cli.training import share_of

    options: dict[str, Any] = {
        "state_budget": None if state_budget is None else share_of("--state-budget", state_budget, "1/6, or 0.17"),
        "retrieval": retrieval, "window": window, "method": "training-free" if training_free else None, "lessons.documents": documents,
        **dict.fromkeys(("search.seed", "lessons.seed", "mixers.seed", "logits.seed", "longer.seed"), seed),
    }  # fmt: skip
    wanted = Wanted(model, name, config, overrides, policy, force)
    show_delta(
        make_delta("hybridize", wanted, options, _load, "teaching memories"),
        as_json,
        _tables,
        lambda _: "Which groups they are stands in the report (--json, or `ingle show`).",
    )


def _load() -> "tuple[Make[HybridSettings], type[HybridSettings]]":
    from ingle.hybridize.hybrid_settings import HybridSettings
    from ingle.hybridize.hybridizing import hybridize

    return hybridize, HybridSettings


def _tables(report: Mapping[str, Any]) -> list[Table]:
    from ingle.core.energy import amount, reported

    rows = [("groups with full attention", f"{report['retrieval']} of {report['groups']}", "")]
    rows.append((f"state at {report['state_tokens']:,} tokens", f"{report['state_share']:.3f}", "of the original's"))
    settings = report["settings"]
    rows.append(("window of the others", f"{settings['window']:,}", f"tokens, and the first {settings['sinks']:,}"))
    for lesson, figures in report["lessons"].items():
        before, after = figures["first_held_out"], figures["held_out"]
        rows.append((f"held-out loss of the {lesson}", f"{after:.4f}", f"{before:.4f} before"))
        if energy := reported(figures):
            rows.append((f"energy of the {lesson}", amount(energy.joules), str(energy)))
    return [(("figure", "value", ""), rows)]
