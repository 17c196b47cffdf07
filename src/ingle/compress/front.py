"""Front of a search: the models that no other beats in loss and cost, the best within a budget, and a picture of them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ingle.compress.served import Quality, QualityLoss, ServedStepTimer
from ingle.core.errors import ConfigError
from ingle.core.files import write_atomic
from ingle.energy.totals import HEIGHT, WIDTH, Box, Shape, Words, png, svg

Goal = Literal["joules", "size", "speed"]
GOALS: tuple[Goal, ...] = get_args(Goal)
AXES: Mapping[Goal, str] = {"joules": "joules per token", "size": "MB", "speed": "seconds per token"}
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 40, 46
_ON, _OFF, _CHOSEN, _GRID = "#c2410c", "#a8a29e", "#15803d", "#dddddd"


@dataclass(frozen=True, slots=True)
class Tried:
    """A model that was tried, with its figures."""

    recipe: str
    """Its recipe; empty for the original."""
    quality: Quality
    loss: QualityLoss
    pace: ServedStepTimer
    mb: float
    """Packed weights, 10⁶ bytes."""
    mb_before: float
    """MB of the original."""

    def cost(self, goal: Goal) -> float:
        """Cost as a multiple of the original's: below 1 is a gain."""
        return {"joules": self.pace.joules, "size": self.mb / self.mb_before, "speed": 1 / self.pace.speed}[goal]


def front(points: Sequence[Tried], goal: Goal) -> list[Tried]:
    """Points that no other beats in both loss and cost, by cost."""
    unbeaten: list[Tried] = []
    for point in sorted(points, key=lambda one: (one.cost(goal), one.loss.percent)):
        if not unbeaten or point.loss.percent < unbeaten[-1].loss.percent:
            unbeaten.append(point)
    return unbeaten


def best(points: Sequence[Tried], goal: Goal, most_loss_percent: float) -> Tried:
    """Return the cheapest point within this loss, the original not among them.

    Raises ConfigError, with the nearest, if none of these is cheaper than the original.
    """
    tried = [point for point in points if point.recipe]
    fitting = [point for point in tried if point.loss.percent <= most_loss_percent and point.cost(goal) < 1]
    if fitting:
        return min(fitting, key=lambda one: one.cost(goal))
    gaining = [point for point in tried if point.cost(goal) < 1]
    where = f"a loss of {most_loss_percent:g} % for fewer {AXES[goal]}"
    if not gaining:
        least = min(tried, key=lambda one: one.cost(goal), default=None)
        got = "none was tried" if least is None else f"{least.recipe} comes to {least.cost(goal):.2f} times the original's"
        raise ConfigError("--quality-loss", f"can't buy {where}: nothing that was tried costs less", got, "Keep the model as it is.")
    near = min(gaining, key=lambda one: one.loss.percent)
    got = f"the nearest is {near.recipe}: {near.loss.percent:+.2f} % at {near.cost(goal):.2f} times the original's"
    cure = f"Allow it: --quality-loss {math.ceil(100 * near.loss.percent) / 100:.2f}%; or give it time to recover: --recover 30."
    raise ConfigError("--quality-loss", f"can't buy {where}", got, cure)


def rows(points: Sequence[Tried], goal: Goal, chosen: Tried | None) -> list[tuple[str, ...]]:
    """Rows for people, by cost: recipe, loss, accuracy, joules per token, MB, tokens/s, and whether it is chosen or on the front."""
    good, table = front(points, goal), list[tuple[str, ...]]()
    for point in sorted(points, key=lambda one: one.cost(goal)):
        right = point.quality.accuracy
        table.append((
            point.recipe or "as it is", f"{point.loss.percent:+.2f} % ({point.loss.low:+.2f} … {point.loss.high:+.2f})",
            "" if right is None else f"{right:.3f}", f"{point.pace.joules_per_token:.3g} (×{point.pace.joules:.2f})",
            f"{point.mb:.0f}", f"{point.pace.tokens_per_s:.0f} (×{point.pace.speed:.2f})",
            "chosen" if point is chosen else "front" if point in good else "",
        ))  # fmt: skip
    return table


def draw(path: Path, title: str, points: Sequence[Tried], goal: Goal, most_loss_percent: float, chosen: Tried | None) -> None:
    """Draw the picture: cost along, loss up. Raises ConfigError for a kind of file that can't be drawn, HomeError."""
    kind = path.suffix.lower()
    if kind not in (".svg", ".png"):
        raise ConfigError("--plot", "must be a file that ends in .svg or .png", path.name)
    shapes = list(_shapes(title, points, goal, most_loss_percent, chosen))
    write_atomic(path, svg(shapes).encode() if kind == ".svg" else png(shapes))


def _shapes(title: str, points: Sequence[Tried], goal: Goal, budget: float, chosen: Tried | None) -> Iterator[Shape]:
    yield Words(_LEFT, 20, title)
    good, across, down = front(points, goal), WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    costs = [point.cost(goal) for point in points]
    left, right = min(costs) - 0.02, max(costs) + 0.02
    # A point that lost far more than is allowed would flatten all the others: it stands at the upper edge.
    top = min(max(point.loss.percent for point in points), max(4 * budget, 1.0)) * 1.1
    bottom = min(0.0, *(point.loss.percent for point in points)) - 0.02 * top

    def place(cost: float, loss: float) -> tuple[float, float]:
        up = (min(max(loss, bottom), top) - bottom) / (top - bottom)
        return _LEFT + across * (cost - left) / (right - left), HEIGHT - _BOTTOM - down * up

    for i in range(5):
        loss, cost = bottom + (top - bottom) * i / 4, left + (right - left) * i / 4
        x, y = place(cost, loss)
        yield Box(_LEFT, y, across, 0, _GRID)
        yield Words(_LEFT - 6, y + 4, f"{loss:+.1f} %", "end")
        yield Words(x, HEIGHT - _BOTTOM + 18, f"{cost:.2f}", "middle")
    yield Words(_LEFT + across / 2, HEIGHT - 8, f"{AXES[goal]}, times the original's", "middle")
    if budget < top:
        yield Box(_LEFT, place(left, budget)[1], across, 1, _CHOSEN)
    for point in points:
        x, y = place(point.cost(goal), point.loss.percent)
        colour = _CHOSEN if point is chosen else _ON if point in good else _OFF
        yield Box(x - 4, y - 4, 8, 8, colour)
        if point in good or point is chosen:
            name = (point.recipe or "as it is") + (f", at {point.loss.percent:+.0f} %" if point.loss.percent > top else "")
            yield Words(min(x + 7, WIDTH - _RIGHT), y - 6, name, "end" if x > _LEFT + 0.7 * across else "start")


def to_table(point: Tried) -> dict[str, Any]:
    """Return plain values."""
    from ingle.core.config import to_table as plain

    table: dict[str, Any] = plain(point)
    return table | {"costs": {goal: point.cost(goal) for goal in GOALS}}
