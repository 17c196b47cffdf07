"""`ingle quantise`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingle.cli.gating import Force, Overrides

if TYPE_CHECKING:
    from ingle.train.making import MadeDelta

EXAMPLES = """
ingle quantise mymodel --bits 4 --recover 30 --name q4
ingle quantise mymodel --bits 5.5 --method gptq --name mixed
ingle quantise smollm2 --bits 3.75 --name lighter   (a quarter of what has 4 bits goes to 3)
ingle quantise mymodel --set 'forms=["q4_1"]' --name g4   (4 bits as GGUF has them, to be exported)
ingle quantise mymodel --bits 8 --method round --name q8 --json
"""


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model, with or without deltas.")],
    name: Annotated[str, typer.Option(help="What to call the delta: MODEL+NAME is the quantised model.")] = "quantised",
    bits: Annotated[float | None, typer.Option(help="Bits a weight: 3, 4, 8, or between (the most sensitive linears get most).")] = None,
    method: Annotated[str | None, typer.Option(help="Method: round, mse, awq, gptq or guided.")] = None,
    recover: Annotated[
        float | None, typer.Option(metavar="MINUTES", help="Train scales and minima to follow the model as it was; by default not at all.")
    ] = None,
    documents: Annotated[int | None, typer.Option(help="Rows of 1,024 tokens to calibrate on.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed for choosing the texts.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings in a TOML file.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any setting.")] = None,
    force: Force = False,
    policy: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Store a model's weights in fewer bits.

    For models that come in floating point, or that something was merged into, which are served in 8 bits otherwise; and for those in 4 bits
    that are to become smaller yet. The result is a delta; the model stays as it was. The gate measures it first, and may refuse it.
    Interrupted at any moment, or refused and now with --force, the same command goes on.
    """
    from ingle.cli.choose import choose
    from ingle.cli.gating import read_policy, way_in
    from ingle.cli.house import enter, record
    from ingle.cli.progress import watching
    from ingle.cli.training import run_watch, settle
    from ingle.tuning.catalogue import need_learning

    need_learning()
    home = enter()
    kept, rules = choose(home, model), read_policy(home, policy)
    from ingle.compress.quantising import quantise
    from ingle.compress.settings import QuantiseSettings

    options: dict[str, Any] = {
        "bits": bits, "method": method, "calibration.documents": documents, "recovery.minutes": recover,
        **dict.fromkeys(("calibration.seed", "recovery.seed"), seed),
    }  # fmt: skip
    chosen, command_line = settle(QuantiseSettings, ["ingle", "quantise", kept.name, "--name", name], config, options, overrides)
    with watching() as watch:
        admit = way_in(home, kept, "quantise", rules, force, watch)
        result = quantise(home, kept, name, chosen, admit, run_watch(watch, "recovering"), command_line, lambda event: record(home, event))
    _show(result, as_json)


def _show(result: "MadeDelta", as_json: bool) -> None:
    from ingle.cli.output import print_json, print_table
    from ingle.core.energy import amount, reported

    report = result.report
    if as_json:
        print_json(dict(report))
        return
    rows = [("linears", f"{report['linears']}", f"of {report['linears'] + report['untouched']}; the others stay as they are")]
    rows.append(("bits a weight", f"{report['bits']:.2f}", f"{report['stored_bits']:.2f} with scales"))
    used = {kind: names for kind, names in report["forms"].items() if names}
    if len(used) > 1:
        rows += [(f"in {kind[3:]} bits" if kind.startswith("int") else f"in {kind}", f"{len(names)}", "") for kind, names in used.items()]
    worst, error = max(report["output_errors"].items(), key=lambda item: item[1])
    rows.append(("error of the outputs", f"{error:.2e}", f"of their square, in {worst}, the worst kind"))
    if recovery := report.get("recovery"):
        rows.append(("KL from the model as it was", f"{recovery['held_out']:.4f}", f"{recovery['first_held_out']:.4f} before the recovery"))
    if energy := reported(report):
        rows.append(("energy", amount(energy.joules), str(energy)))
    print_table(("figure", "value", ""), rows)
    print(f"Talk with it: ingle chat {result.kept.name}")
