"""Journal of a run: `loss.csv`, a line a step, and `loss.svg`, drawn anew every minute and at the end."""

import csv
import io
import math
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from ingle.core.errors import ConfigError
from ingle.core.files import os_errors, sweep_unfinished, write_atomic
from ingle.train.plot import loss_svg

_DRAW_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class JournalLine:
    """One step as a line of loss.csv."""

    step: int
    """Steps done, this one included."""
    epoch: float
    """Times that the data was read."""
    tokens: int
    """Tokens read so far."""
    seconds: float
    """Time spent on training so far."""
    rate: float
    """Learning rate of this step."""
    norm: float
    """Length of the gradient before clipping."""
    loss: float
    """Mean over the terms of this step's batches: nats per answer token, or per example."""
    held_out: float = math.nan
    """Mean loss on held-out data, where it was measured after this step."""


class Journal:
    """Files of one run. A run that goes on continues them after its last checkpoint."""

    def __init__(self, folder: Path, step: int) -> None:
        """Raises HomeError where the folder can't be written, ConfigError if loss.csv is somebody else's."""
        self._path, self._svg = folder / "loss.csv", folder / "loss.svg"
        self.lines = [line for line in _read(self._path) if line.step <= step]
        for path in (self._path, self._svg):
            sweep_unfinished(path)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(field.name for field in fields(JournalLine))
        writer.writerows(map(astuple, self.lines))
        write_atomic(self._path, text.getvalue().encode())
        self._drawn = time.monotonic()

    def add(self, line: JournalLine) -> None:
        """Add a line; it is on the disk when this returns."""
        self.lines.append(line)
        with os_errors(self._path), self._path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(astuple(line))
        if time.monotonic() - self._drawn > _DRAW_EVERY_S:
            self.draw()

    def draw(self) -> None:
        """Draw the loss curve."""
        loss = [(line.step, line.loss) for line in self.lines]
        held_out = [(line.step, line.held_out) for line in self.lines if not math.isnan(line.held_out)]
        write_atomic(self._svg, loss_svg("loss, nats, by step", loss, held_out).encode())
        self._drawn = time.monotonic()


def _read(path: Path) -> list[JournalLine]:
    if not path.exists():
        return []
    with os_errors(path), path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        names = {field.name for field in fields(JournalLine)}
        if rows.fieldnames is not None and set(rows.fieldnames) != names:
            raise ConfigError(str(path), "must be a run's own loss.csv", ", ".join(rows.fieldnames[:3]), "Give another folder.")
        whole = [row for row in rows if None not in row.values() and None not in row]  # a crash may cut off the last line
    whole_numbers = {"step", "tokens"}
    lines = []
    for row in whole:
        try:
            lines.append(JournalLine(**{name: int(text) if name in whole_numbers else float(text) for name, text in row.items()}))  # type: ignore[arg-type]
        except ValueError:
            break
    return lines
