"""`ingle make prune`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingle.cli.gating import Force, Overrides
from ingle.cli.making import AsJson, Config, Make, Table, Wanted, gate_rows, make_delta, show_delta

if TYPE_CHECKING:
    from ingle.compress.pruning import PruneSettings

EXAMPLES = """
ingle make prune smollm2 --structure layers --share 1/5 --recover 60 --name small
ingle make prune smollm2 --structure channels --share 1/4 --name narrow
ingle make prune smollm2 --structure none --share 0.5 --method wanda --name sparse
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
    config: Config = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any setting, e.g. rank=64.")] = None,
    force: Force = False,
    policy: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Make a model smaller by removing parts of it.

    With fewer layers, channels or heads it is faster too; single weights that become zero save nothing here, and are for comparison.
    The result is a delta; the model stays as it was. The gate measures it first, and may refuse it.
    Interrupted at any moment, or refused and now with --force, the same command goes on.
    """
    from ingle.cli.training import percent, share_of

    loss = [] if quality_loss is None else [f"prune.bits.most_rise_percent={percent('--quality-loss', quality_loss)}"]
    options: dict[str, Any] = {
        "structure": structure, "share": None if share is None else share_of("--share", share, "1/4, or 0.25"),
        "method": method, "recovery.minutes": recover,
        **dict.fromkeys(("calibration.seed", "recovery.seed"), seed),
    }  # fmt: skip
    if structure == "2:4" and share is None:
        options["share"] = 0.5
    wanted = Wanted(model, name, config, overrides, [*loss, *(policy or ())], force)
    show_delta(make_delta("prune", wanted, options, _load, "recovering"), as_json, _tables, _remark)


def _load() -> "tuple[Make[PruneSettings], type[PruneSettings]]":
    from ingle.compress.pruning import PruneSettings, prune

    return prune, PruneSettings


def _tables(report: Mapping[str, Any]) -> list[Table]:
    from ingle.core.energy import amount, reported

    before, after = report["parameters_before"], report["parameters"]
    rows = [("method", report["method"], f"{report['structure']}, {report['share']:.3g} of them")]
    rows.append(("parameters", f"{after / 1e6:.1f} M", f"{after / before:.3f} of {before / 1e6:.1f} M"))
    rows += gate_rows(report)
    if recovery := report.get("recovery"):
        rows.append(("KL from the whole model", f"{recovery['held_out']:.4f}", f"{recovery['first_held_out']:.4f} before the recovery"))
        if energy := reported(recovery):
            rows.append(("energy of the recovery", amount(energy.joules), str(energy)))
    return [(("figure", "value", ""), rows)]


def _remark(report: Mapping[str, Any]) -> str:
    slow = "Weights that are zero are read and multiplied like others: it is not faster. See docs/prune.md."
    return slow if report["structure"] in ("none", "2:4") else ""
