"""`ingle make debias`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingle.cli.gating import Force, Overrides
from ingle.cli.making import AsJson, Config, Make, Table, Wanted, gate_rows, make_delta, show_delta

if TYPE_CHECKING:
    from ingle.learn.addition_settings import DebiasSettings

EXAMPLES = """
ingle make debias smollm2 --name fair
ingle make debias smollm2+mine --name fair --set questions=0
ingle measure bias smollm2+fair --against smollm2
"""


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model, with or without deltas.")],
    name: Annotated[str, typer.Option(help="What to call the delta: MODEL+NAME is the debiased model.")] = "fair",
    counterfactuals: Annotated[int | None, typer.Option(help="Pairs of texts that are to become equally likely.")] = None,
    questions: Annotated[int | None, typer.Option(help="Questions that teach to say when nothing tells; 0 = none.")] = None,
    measured: Annotated[int | None, typer.Option(help="Items of every suite to measure before and after; 0 = all.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs: how often every pair is read.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed for the counterfactuals, and for the training.")] = None,
    config: Config = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any setting, e.g. weights.keep=8.")] = None,
    force: Force = False,
    policy: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Teach a model not to judge people by their group.

    Texts that differ only in whom they speak of become equally likely; all else stays as it was. They are made here, and none is
    from a suite that measures. Suites are measured before and after, and the report says for whom what changed.
    The result is a delta; the model stays as it was. The gate measures it first, and may refuse it.
    Interrupted at any moment, or refused and now with --force, the same command goes on.
    """
    options: dict[str, Any] = {
        "counterfactuals": counterfactuals, "questions": questions, "measured": measured, "train.epochs": epochs, "seed": seed,
        "train.seed": seed,
    }  # fmt: skip
    made = make_delta("debias", Wanted(model, name, config, overrides, policy, force), options, _load)
    if not as_json:
        from ingle.cli.audit import show_shifts
        from ingle.learn.debias import shifts_of

        show_shifts(made.kept.name.rpartition("+")[0], made.kept.name, shifts_of(made.report))
    show_delta(made, as_json, _tables)


def _load() -> "tuple[Make[DebiasSettings], type[DebiasSettings]]":
    from ingle.learn.addition_settings import DebiasSettings
    from ingle.learn.debias import debias

    return debias, DebiasSettings


def _tables(report: Mapping[str, Any]) -> list[Table]:
    from ingle.train.making import cost_rows

    return [(("figure", "value", ""), [*gate_rows(report), *cost_rows(report["train"])])]
