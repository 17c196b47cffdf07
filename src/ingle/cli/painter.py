"""`ingle tune painter`: teaches a model to paint."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ingle.cli.making import Make, Table, Wanted, gate_rows, make_delta, show_delta

if TYPE_CHECKING:
    from ingle.tuning.painter_training import PainterSettings


def tune_by_pictures(
    models: Sequence[str], name: str | None, overrides: Sequence[str] | None, policy: Sequence[str] | None, force: bool, as_json: bool,
    epochs: int | None = None, seed: int | None = None,
) -> None:  # fmt: skip
    """Make a painter of a model (smollm2, unless `models` names one). Raises ConfigError for several."""
    from ingle.core.errors import ConfigError

    if len(models) > 1:
        raise ConfigError("MODEL", "A painter is made of one model", ", ".join(models), "For example: ingle tune painter smollm2")
    options: dict[str, Any] = {"train.epochs": epochs, "seed": seed, "emblems.seed": seed, "train.seed": seed}
    wanted = Wanted(models[0] if models else "smollm2", name or "painter", None, overrides, policy, force)
    made = make_delta("painter", wanted, options, _load, "learning to paint", ("tune", "painter"))
    show_delta(made, as_json, _tables)
    if not as_json:
        print(f'Let it paint: ingle draw "a red apple" {made.kept.name}')


def _load() -> "tuple[Make[PainterSettings], type[PainterSettings]]":
    from ingle.tuning.painter_training import PainterSettings, tune_painter

    return tune_painter, PainterSettings


def _tables(report: Mapping[str, Any]) -> list[Table]:
    from ingle.train.making import cost_rows

    counts = [(key, f"{report[key]:,}", "") for key in ("pictures", "concepts", "examples")]
    return [(("figure", "value", ""), [*counts, *gate_rows(report), *cost_rows(report["train"])])]
