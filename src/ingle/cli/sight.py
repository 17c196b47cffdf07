"""`ingle make tune sight`: teaches a model to see."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingle.cli.making import Make, Table, Wanted, make_delta, show_delta

if TYPE_CHECKING:
    from ingle.tuning.sight_learning import SightSettings


def tune_to_see(
    models: Sequence[str], folder: Path | None, name: str | None, overrides: Sequence[str] | None, policy: Sequence[str] | None,
    force: bool, as_json: bool, epochs: int | None = None, seed: int | None = None,
) -> None:  # fmt: skip
    """Make a sight for a model (smollm2, unless `models` names one), by a folder's pictures. Raises ConfigError for several models."""
    from ingle.core.errors import ConfigError

    if len(models) > 1:
        raise ConfigError(
            "MODEL", "A sight is made for one model", ", ".join(models), "For example: ingle make tune sight smollm2 --from photos/"
        )
    options: dict[str, Any] = {"train.epochs": epochs, "seed": seed, "train.seed": seed}
    place = None if folder is None else folder.expanduser().absolute()
    words = ("ingle", "make", "tune", "sight", *(() if folder is None else ("--from", str(folder))))
    wanted = Wanted(models[0] if models else "smollm2", name or "sight", None, overrides, policy, force)
    made = make_delta("sight", wanted, options, lambda: _load(place), "learning to see", words)
    show_delta(made, as_json, _tables)
    if not as_json:
        print(f"Show it a picture: ingle see FILE --model {made.kept.name}")


def _load(folder: Path | None) -> "tuple[Make[SightSettings], type[SightSettings]]":
    from functools import partial

    from ingle.tuning.sight_learning import SightSettings, tune_sight

    return partial(tune_sight, folder), SightSettings


def _tables(report: Mapping[str, Any]) -> list[Table]:
    from ingle.train.making import cost_rows

    rows = [("pictures", f"{report['pictures']:,}", ""), ("names", f"{report['names']:,}", ""), *cost_rows(report["train"])]
    tables: list[Table] = [(("figure", "value", ""), rows)]
    if told := report["described"]:
        shares = [
            ("named right", f"{told['named']:.2f}", f"of {told['n']} held-out pictures"),
            ("words that fit (F1)", f"{told['words']:.2f}", f"{told['blank_words']:.2f} for a blank picture"),
            ("answers that change with the picture", f"{told['changed']:.2f}", ""),
        ]
        tables.append((("as it is served", "value", ""), shares))
        samples = [(wanted, got) for wanted, got in told["samples"]]
        tables.append((("shown", "said"), samples))
    return tables
