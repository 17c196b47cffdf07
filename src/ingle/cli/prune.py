"""`ingle prune`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingle.cli.gating import Force, Overrides

if TYPE_CHECKING:
    from ingle.train.making import MadeDelta

EXAMPLES = """
ingle prune smollm2 --structure layers --share 1/5 --recover 60 --name small
ingle prune smollm2 --structure channels --share 1/4 --name narrow
ingle prune smollm2 --structure none --share 0.5 --method wanda --name sparse
ingle measure smollm2+small --suite wiki-bits
"""


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model, with or without deltas.")],
    structure: Annotated[
        str | None, typer.Option(help="What to remove: layers, channels, heads, 2:4, or none (single weights); by default layers.")
    ] = None,
    share: Annotated[str | None, typer.Option(help="How much to remove, e.g. 1/5 or 0.2.")] = None,
    method: Annotated[
        str | None,
        typer.Option(help="Method that chooses what goes: magnitude, wanda, sparsegpt, width, depth; by default what costs the least."),
    ] = None,
    recover: Annotated[
        float | None, typer.Option(metavar="MINUTES", help="Train it on the whole model for so long; by default not at all.")
    ] = None,
    name: Annotated[str, typer.Option(help="What to call the delta: MODEL+NAME is the pruned model.")] = "pruned",
    quality_loss: Annotated[
        str | None, typer.Option(metavar="PERCENT", help="How much bits per byte may rise before the gate refuses it; by default 25%.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed for choosing the texts.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings in a TOML file.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any setting, e.g. rank=64.")] = None,
    force: Force = False,
    policy: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Make a model smaller by removing parts of it.

    With fewer layers, channels or heads it is faster too; single weights that become zero save nothing here, and are for comparison.
    The result is a delta; the model stays as it was. The gate measures it first, and may refuse it.
    Interrupted at any moment, or refused and now with --force, the same command goes on.
    """
    from ingle.cli.choose import choose
    from ingle.cli.gating import read_policy, way_in
    from ingle.cli.house import enter, record
    from ingle.cli.progress import watching
    from ingle.cli.training import percent, run_watch, settle, share_of
    from ingle.tuning.catalogue import need_learning

    need_learning()
    home = enter()
    loss = [] if quality_loss is None else [f"prune.bits.most_rise_percent={percent('--quality-loss', quality_loss)}"]
    kept, rules = choose(home, model), read_policy(home, [*loss, *(policy or ())])
    from ingle.compress.prune import prune
    from ingle.compress.prune_settings import PruneSettings

    options: dict[str, Any] = {
        "structure": structure, "share": None if share is None else share_of("--share", share, "1/4, or 0.25"),
        "method": method, "recovery.minutes": recover,
        **dict.fromkeys(("calibration.seed", "recovery.seed"), seed),
    }  # fmt: skip
    if structure == "2:4" and share is None:
        options["share"] = 0.5
    chosen, command_line = settle(PruneSettings, ["ingle", "prune", kept.name, "--name", name], config, options, overrides)
    with watching() as watch:
        admit = way_in(home, kept, "prune", rules, force, watch)
        result = prune(home, kept, name, chosen, admit, run_watch(watch, "recovering"), command_line, lambda event: record(home, event))
    _show(result, as_json)


def _show(result: "MadeDelta", as_json: bool) -> None:
    from ingle.cli.output import note, print_json, print_table
    from ingle.core.energy import amount, reported

    report = result.report
    if as_json:
        print_json(dict(report))
        return
    before, after = report["parameters_before"], report["parameters"]
    rows = [("method", report["method"], f"{report['structure']}, {report['share']:.3g} of them")]
    rows.append(("parameters", f"{after / 1e6:.1f} M", f"{after / before:.3f} of {before / 1e6:.1f} M"))
    for finding in report.get("gate", {}).get("findings", ()):
        rows.append((f"gate: {finding['check']}", "passed" if finding["passed"] else "not passed", finding["reason"]))
    if recovery := report.get("recovery"):
        rows.append(("KL from the whole model", f"{recovery['held_out']:.4f}", f"{recovery['first_held_out']:.4f} before the recovery"))
        if energy := reported(recovery):
            rows.append(("energy of the recovery", amount(energy.joules), str(energy)))
    print_table(("figure", "value", ""), rows)
    if report["structure"] in ("none", "2:4"):
        note("Weights that are zero are read and multiplied like others: it is not faster. See docs/prune.md.")
    print(f"Talk with it: ingle chat {result.kept.name}")
