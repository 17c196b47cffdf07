"""`ingle make quantise`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingle.cli.gating import Force, Overrides
from ingle.cli.making import AsJson, Config, Make, Table, Wanted, make_delta, show_delta

if TYPE_CHECKING:
    from ingle.compress.quantising import QuantiseSettings

EXAMPLES = """
ingle make quantise mymodel --bits 4 --recover 30 --name q4
ingle make quantise mymodel --bits 5.5 --method gptq --name mixed
ingle make quantise smollm2 --bits 3.75 --name lighter   (a quarter of what has 4 bits goes to 3)
ingle make quantise mymodel --set 'forms=["q4_1"]' --name g4   (4 bits as GGUF has them, to be exported)
ingle make quantise mymodel --bits 8 --method round --name q8 --json
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
    config: Config = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any setting.")] = None,
    force: Force = False,
    policy: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Store a model's weights in fewer bits.

    For models that come in floating point, or that something was merged into, which are served in 8 bits otherwise; and for those in 4 bits
    that are to become smaller yet. The result is a delta; the model stays as it was. The gate measures it first, and may refuse it.
    Interrupted at any moment, or refused and now with --force, the same command goes on.
    """
    options: dict[str, Any] = {
        "bits": bits, "method": method, "calibration.documents": documents, "recovery.minutes": recover,
        **dict.fromkeys(("calibration.seed", "recovery.seed"), seed),
    }  # fmt: skip
    wanted = Wanted(model, name, config, overrides, policy, force)
    show_delta(make_delta("quantise", wanted, options, _load, "recovering"), as_json, _tables)


def _load() -> "tuple[Make[QuantiseSettings], type[QuantiseSettings]]":
    from ingle.compress.quantising import QuantiseSettings, quantise

    return quantise, QuantiseSettings


def _tables(report: Mapping[str, Any]) -> list[Table]:
    from ingle.core.energy import amount, reported

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
    return [(("figure", "value", ""), rows)]
