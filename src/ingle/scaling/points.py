"""Runs as points: how large the model was, how much it read, and how well it guessed a held-out text. CSV in and out.

Loss is in any unit, as long as it is one and the same: a law is fitted to ratios. Ingle's own sweeps write bits per byte.
"""

import csv
import difflib
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ConfigError, counted

Floats = npt.NDArray[np.float64]
FLOPS_A_TOKEN = 6.0  # operations of training a parameter on a token: two forward, four backward
FEWEST_COUNTED = 1000  # where no run has as many parameters or tokens, they are counted in thousands or millions
MOST_OFF = 30.0  # factor by which operations may differ from 6 · parameters · tokens
REQUIRED = ("parameters", "tokens", "loss")
# Names that others give to our columns: they are suggested, never guessed.
_WORDS: Mapping[str, tuple[str, ...]] = {
    "parameters": ("n", "params", "param", "size", "model_size", "n_params", "num_params", "weights"),
    "tokens": ("d", "data", "n_tokens", "num_tokens", "train_tokens", "tokens_seen"),
    "loss": ("l", "val_loss", "eval_loss", "valid_loss", "final_loss", "bits_per_byte", "bpb", "nats", "perplexity"),
    "unique": ("u", "unique_tokens"),
    "flops": ("c", "compute", "flop"),
    "seconds": ("time", "s"),
    "joules": ("energy", "j"),
}
_UNITS = {"k": "thousands", "m": "millions", "b": "billions", "g": "billions", "t": "trillions"}
_GROUPED = re.compile(r"[+-]?\d{1,3}([,_'’ \u00a0\u202f.]\d{3})+([.,]\d+)?")


@dataclass(frozen=True, slots=True)
class Point:
    """One finished run."""

    parameters: float  # parameters that multiply; a tied embedding counts once
    tokens: float  # tokens read, repeats counted
    loss: float
    unique: float = 0.0  # different tokens among them; 0 = as many as were read
    seed: int = 0
    flops: float = 0.0  # 0 = 6 · parameters · tokens
    # How it was trained, in one word. Runs of two kinds have two laws.
    kind: str = ""
    seconds: float = 0.0
    joules: float = 0.0

    @property
    def compute(self) -> float:
        """Operations of its training."""
        return self.flops or FLOPS_A_TOKEN * self.parameters * self.tokens


@dataclass(frozen=True, slots=True)
class Place:
    """A run that may be made: its size and its data."""

    parameters: float
    tokens: float
    unique: float = 0.0  # different tokens; 0 = as many as are read

    @property
    def compute(self) -> float:
        """Operations of its training."""
        return FLOPS_A_TOKEN * self.parameters * self.tokens


NAMES = tuple(field.name for field in fields(Point))  # columns of the CSV, in their order


def places_array(places: Iterable[Point | Place]) -> Floats:
    """Return float64 [n, 3]: parameters, tokens, different tokens."""
    rows = [(one.parameters, one.tokens, min(one.unique or one.tokens, one.tokens)) for one in places]
    return np.array(rows, np.float64).reshape(-1, 3)


def repeats(one: Point | Place) -> bool:
    """Say whether some of its tokens are read twice."""
    return 0 < one.unique < one.tokens


def shown(one: Point | Place) -> str:
    """Return a run's place for people: `820k × 1.5M`."""
    seed = f" seed {one.seed}" if isinstance(one, Point) and one.seed else ""
    return f"{short(one.parameters)} × {short(one.tokens)}{seed}"


def short(number: float) -> str:
    """Return a large number with three digits and a letter: 6.43M."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size * 0.9995:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def check_points(points: Sequence[Point]) -> None:
    """Refuse points that can't be told apart, and figures that no run has. Raises ConfigError that names the run."""
    for number, one in enumerate(points, 1):
        _check_figures(one, f"run {number}")
    keys = Counter((one.parameters, one.tokens, one.unique, one.seed, one.kind) for one in points)
    key, times = max(keys.items(), key=lambda item: item[1], default=((), 0))
    if times > 1:
        twice = ", ".join(f"{name} {value:g}" if not isinstance(value, str) else value for name, value in _named(key) if value)
        cure = "Give each repetition a seed of its own, or delete the row that was copied."
        raise ConfigError("runs", f"must differ in size, tokens or seed; {counted(times, 'run')} have {twice}", "", cure)


def _named(key: Sequence[Any]) -> list[tuple[str, Any]]:
    return list(zip(("parameters", "tokens", "unique", "seed", "kind"), key, strict=True))


def _check_figures(one: Point, where: str) -> None:
    for name in (*REQUIRED, "unique", "flops", "seconds", "joules"):
        value = float(getattr(one, name))
        if not math.isfinite(value):
            cure = "Leave out a run whose loss went astray; it says nothing of the law." if name == "loss" else ""
            raise ConfigError(f"{name} of {where}", "must be a number", value, cure)
        if value < 0 or (value == 0 and name in REQUIRED):
            raise ConfigError(f"{name} of {where}", "must be above 0" if name in REQUIRED else "must not be negative", f"{value:g}")


def write_points(points: Iterable[Point]) -> str:
    """Return points as CSV. Columns that say nothing are left out; numbers read back to the same bits."""
    rows = [asdict(one) for one in points]
    said = [name for name in NAMES if name in REQUIRED or any(row[name] != getattr(_NOTHING, name) for row in rows)]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(said)
    table.writerows([[_plain(row[name]) for name in said] for row in rows])
    return text.getvalue()


_NOTHING = Point(0.0, 0.0, 0.0)


def _plain(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else str(value)


def read_points(path: Path) -> list[Point]:
    """Read runs from a CSV: `parameters,tokens,loss[,unique,seed,flops,kind,seconds,joules]`. Raises ConfigError that says where."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError("runs", f"can't be read from {path}", error.strerror or error) from error
    except UnicodeDecodeError as error:
        raise ConfigError("runs", f"must be a CSV in UTF-8; {path.name} is not", "", "Save it as CSV (UTF-8).") from error
    return parse_points(text, path.name)


def parse_points(text: str, name: str = "runs.csv") -> list[Point]:
    """Return the runs in a CSV's text. Raises ConfigError with line and column."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise ConfigError("runs", f"are missing: {name} is empty", "", f"Its first line names the columns: {','.join(REQUIRED)}.")
    separator = next((one for one in (",", ";", "\t") if one in lines[0]), ",")
    table = csv.reader(text.splitlines(), delimiter=separator)
    header: list[str] = []
    points: list[Point] = []
    for cells in table:
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = _header(cells, name)
            continue
        points.append(_point(dict(zip(header, cells, strict=False)), len(cells), header, f"line {table.line_num} of {name}"))
    if not points:
        raise ConfigError("runs", f"are missing: {name} has a heading and no rows")
    check_points(points)
    _check_units(points)
    return points


def _check_units(points: Sequence[Point]) -> None:
    """Refuse counts that are surely in millions, and compute that is surely in another unit than operations."""
    for name in ("parameters", "tokens"):
        most = max(getattr(one, name) for one in points)
        if most < FEWEST_COUNTED:
            raise ConfigError(
                name, f"must be counted one by one; the largest number is {most:g}", "", "Millions are written as 1200000 or 1.2e6."
            )
    for one in points:
        usual = FLOPS_A_TOKEN * one.parameters * one.tokens
        if one.flops and not usual / MOST_OFF <= one.flops <= usual * MOST_OFF:
            rule = f"must be operations, about {usual:.2g} for {shown(one)}"
            raise ConfigError("flops", rule, f"{one.flops:g}", "Leave the column out if it has another unit.")


def _header(cells: Sequence[str], name: str) -> list[str]:
    found = [cell.strip().lower() for cell in cells]
    if all(_number(cell) is not None for cell in found):
        raise ConfigError(
            "runs", f"must have a first line that names the columns; {name} begins with numbers", "", f"Put {','.join(REQUIRED)} first."
        )
    twice = next((cell for cell in found if cell and found.count(cell) > 1), "")
    if twice:
        raise ConfigError("runs", f"must name each column once; {name} has {twice} twice")
    for wanted in REQUIRED:
        if wanted not in found:
            raise ConfigError("runs", f"must have a column {wanted}; {name} has {', '.join(found)}", "", _suggestion(wanted, found))
    for cell in found:
        ours, unit = _meant(cell)
        if cell not in NAMES and (unit or ours in NAMES):
            raise ConfigError("runs", f"have a column {cell} that is not known", "", _rename(cell, ours, unit))
    return found


def _suggestion(wanted: str, found: Sequence[str]) -> str:
    for cell in found:
        ours, unit = _meant(cell)
        if ours == wanted:
            return _rename(cell, ours, unit)
    return f"Columns: {','.join(REQUIRED)}; if known also {', '.join(NAMES[3:])}."


def _rename(cell: str, ours: str, unit: str) -> str:
    if unit in _UNITS and ours != "loss":
        return f"{cell} seems to be {ours} in {_UNITS[unit]}: name it {ours}, and write whole numbers (1.2 million as 1200000 or 1.2e6)."
    if cell == "perplexity":
        return "Write the logarithm of the perplexity as loss: a law is one of losses."
    return f"If {cell} is the {ours}, name it {ours}." + (
        " Any unit of loss will do, as long as all rows have it." if ours == "loss" else ""
    )


def _meant(cell: str) -> tuple[str, str]:
    """Return which column a foreign name may mean ("" = none) and its unit."""
    stem, _, unit = re.sub(r"[\s_./(\[]+", " ", cell).strip(" )]").partition(" ")
    whole = re.sub(r"[^a-z]+", "_", cell).strip("_")
    for ours in NAMES:
        if whole == ours or whole in _WORDS.get(ours, ()):
            return ours, ""
    for ours in NAMES:
        if stem == ours or stem in _WORDS.get(ours, ()):
            return ours, unit.strip(" )]")
    close = difflib.get_close_matches(whole, NAMES, n=1, cutoff=0.8)
    return (close[0], "") if close else ("", "")


def _point(cells: Mapping[str, str], count: int, header: Sequence[str], where: str) -> Point:
    if count != len(header):
        cure = "A comma inside a number splits it: write 1200000, not 1,200,000." if count > len(header) else ""
        raise ConfigError("runs", f"must have {counted(len(header), 'cell')} in each row; {where} has {count}", "", cure)
    values: dict[str, Any] = {}
    for name in NAMES:
        text = cells.get(name, "").strip()
        if name == "kind":
            values[name] = text
        elif text or name in REQUIRED:
            values[name] = _figure(text, name, where)
    if "seed" in values:
        if values["seed"] != int(values["seed"]):
            raise ConfigError(f"seed in {where}", "must be a whole number", f"{values['seed']:g}")
        values["seed"] = int(values["seed"])
    point = Point(**values)
    _check_figures(point, where)
    return point


def _figure(text: str, name: str, where: str) -> float:
    value = _number(text)
    if value is not None and (math.isfinite(value) or name == "loss"):
        return value
    if not text:
        raise ConfigError(f"{name} in {where}", "is missing")
    if _GROUPED.fullmatch(text):
        raise ConfigError(f"{name} in {where}", "must be written without separators", text, "For example 1200000 or 1.2e6.")
    if re.fullmatch(r"[+-]?\d+,\d+", text):
        raise ConfigError(f"{name} in {where}", "must be written with a point", text, f"For example {text.replace(',', '.')}.")
    letter = re.fullmatch(r"([\d.]+)\s*([kmbgt])", text.lower())
    if letter:
        raise ConfigError(
            f"{name} in {where}",
            "must be a plain number",
            text,
            f"{_UNITS[letter[2]].capitalize()} can't be told by a letter: write {letter[1]}e{_POWERS[letter[2]]}.",
        )
    raise ConfigError(f"{name} in {where}", "must be a number", text)


_POWERS = {"k": 3, "m": 6, "b": 9, "g": 9, "t": 12}


def _number(text: str) -> float | None:
    """Return a number; None for anything that Python would take and a person would not mean."""
    if "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None
