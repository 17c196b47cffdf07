"""Drift: how each change of a model moved its figures. One line for each model that was measured, one column for each figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingle.ethics.facts import CardFact, figures_of

if TYPE_CHECKING:
    from ingle.ledger.row import Row


@dataclass(frozen=True, slots=True)
class DriftLine:
    """The figures of one model."""

    model: str
    cells: tuple[CardFact | None, ...]  # the newest measurement of each figure; None = not measured


@dataclass(frozen=True, slots=True)
class Drift:
    """The figures of a base and its deltas."""

    figures: tuple[str, ...]
    lines: tuple[DriftLine, ...]  # the base first, then its deltas by name


def drift(rows: Sequence["Row"], model: str) -> Drift:
    """Return the figures of a model's base and of every delta on it that was measured. `rows`: the newest first."""
    root = model.partition("+")[0]
    names = sorted({row.subject for row in rows if row.subject == root or row.subject.startswith((f"{root}+", f"{root}-"))})
    found = {name: figures_of(rows, name) for name in names}
    measured = {name: figures for name, figures in found.items() if figures}
    columns = tuple(dict.fromkeys(figure for figures in measured.values() for figure in figures))
    return Drift(columns, tuple(DriftLine(name, tuple(figures.get(column) for column in columns)) for name, figures in measured.items()))
