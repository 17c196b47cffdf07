"""`ingle hybridize`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingle.cli.gating import Force, Overrides

if TYPE_CHECKING:
    from ingle.train.making import MadeDelta

EXAMPLES = """
ingle hybridize smollm2 --state-budget 1/6
ingle hybridize smollm2 --training-free --name quick
ingle hybridize smollm2 --window 64 --retrieval 12 --name narrow --set lessons.documents=2000
ingle measure smollm2+hybrid --suite recall-4k
"""


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
    config: Annotated[Path | None, typer.Option("--config", help="Settings in a TOML file.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any setting, e.g. search.rounds=8.")
    ] = None,
    force: Force = False,
    policy: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Turn a transformer into a hybrid: less memory for long texts.

    Few groups keep full attention, those that recall needs; all others see the first tokens, a window, and a memory of the rest.
    The result is a delta of a few MB; the model stays as it was. The gate measures it first, and may refuse it.
    Interrupted at any moment, or refused and now with --force, the same command goes on.
    """
    from ingle.cli.choose import choose
    from ingle.cli.gating import read_policy, way_in
    from ingle.cli.house import enter, record
    from ingle.cli.progress import watching
    from ingle.cli.training import run_watch, settle, share_of
    from ingle.tuning.catalogue import need_learning

    need_learning()
    home = enter()
    kept, rules = choose(home, model), read_policy(home, policy)
    from ingle.hybridize.run import hybridize
    from ingle.hybridize.settings import HybridSettings

    options: dict[str, Any] = {
        "state_budget": None if state_budget is None else share_of("--state-budget", state_budget, "1/6, or 0.17"),
        "retrieval": retrieval, "window": window, "method": "training-free" if training_free else None, "lessons.documents": documents,
        **dict.fromkeys(("search.seed", "lessons.seed", "mixers.seed", "logits.seed", "longer.seed"), seed),
    }  # fmt: skip
    chosen, command_line = settle(HybridSettings, ["ingle", "hybridize", kept.name, "--name", name], config, options, overrides)
    with watching() as watch:
        admit = way_in(home, kept, "hybridize", rules, force, watch)
        result = hybridize(
            home, kept, name, chosen, admit, run_watch(watch, "teaching memories"), command_line, lambda event: record(home, event)
        )
    _show(result, as_json)


def _show(result: "MadeDelta", as_json: bool) -> None:
    from ingle.cli.output import note, print_json, print_table
    from ingle.core.energy import amount, reported

    report = result.report
    if as_json:
        print_json(dict(report))
        return
    rows = [("groups with full attention", f"{report['retrieval']} of {report['groups']}", "")]
    rows.append((f"state at {report['state_tokens']:,} tokens", f"{report['state_share']:.3f}", "of the original's"))
    settings = report["settings"]
    rows.append(("window of the others", f"{settings['window']:,}", f"tokens, and the first {settings['sinks']:,}"))
    for lesson, figures in report["lessons"].items():
        before, after = figures["first_held_out"], figures["held_out"]
        rows.append((f"held-out loss of the {lesson}", f"{after:.4f}", f"{before:.4f} before"))
        if energy := reported(figures):
            rows.append((f"energy of the {lesson}", amount(energy.joules), str(energy)))
    print_table(("figure", "value", ""), rows)
    note("Which groups they are stands in the report (--json, or `ingle show`).")
    print(f"Talk with it: ingle chat {result.kept.name}")
