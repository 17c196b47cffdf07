"""The ladder of sizes: shape, rate and batch of a model as functions of its size.

A law of badly tuned runs is a law of bad tuning (arXiv 2406.19146), so what a rung trains with was tried at both ends: bench/scaling.py.
"""

from typing import Literal

from ingle.core.errors import ConfigError
from ingle.core.spec import Memory
from ingle.scaling.settings import ShapeSettings

Kind = Literal["transformer", "hybrid", "rnn"]
CONTEXT = 2048
LADDER = ("2x64", "2x128", "3x128", "5x128", "4x192", "6x192", "6x256", "8x256", "10x320")
"""Rungs from small to large, as layers × width: transformers of 0.14 to 10.9 million parameters at 512 words.

Every width is a multiple of 64, so that every head is 64 wide: one head of 96 or 160 costs a model 1 % of its loss, heads of 32 cost 2 %,
and a ladder of such rungs is no line (LOG.md).
"""
RATE = {"muon": 9e-3, "adamw": 3e-3}
"""Best learning rate at its peak for the smallest rung, at 2,048 tokens a step."""
_SMALLEST, _FALL = 238_144, 0.25
"""The best rate falls with size: of 4.5e-3, 9e-3 and 1.8e-2 the second was best at 0.24M parameters and the first at 2.8M (LOG.md)."""
_HYBRID: dict[str, tuple[int, int, Memory]] = {"hybrid": (64, 4, "gated_delta"), "rnn": (0, 0, "gated_delta")}


def rung(name: str, kind: Kind) -> ShapeSettings:
    """Return the shape of a rung. Raises ConfigError for a name that is not `LAYERSxWIDTH`."""
    layers, width = _parsed(name)
    if kind == "hybrid" and layers < 2:
        raise ConfigError("sizes", "must have two layers or more in a hybrid: one sees everything, the others don't", name)
    head = next((dim for dim in (64, 96, 160, 32) if width % dim == 0), width)
    window, sinks, memory = _HYBRID.get(kind, (0, 0, "none"))
    everywhere: dict[str, str | int] = {"transformer": "all", "hybrid": min(3, layers), "rnn": "none"}
    return ShapeSettings(
        layers=layers, width=width, heads=width // head, kv_heads=1, context=CONTEXT, retrieval=everywhere[kind], window=window,
        sinks=sinks, memory=memory,
    )  # fmt: skip


def rate_of(optimiser: str, parameters: int) -> float:
    """Return the learning rate of a model of so many parameters."""
    rate: float = RATE[optimiser] * max(1.0, parameters / _SMALLEST) ** -_FALL
    return float(f"{rate:.3g}")


def _parsed(name: str) -> tuple[int, int]:
    layers, _, width = name.partition("x")
    if not (layers.isdecimal() and width.isdecimal() and int(layers) > 0 and int(width) >= 32 and int(width) % 32 == 0):
        cure = f"For example one of the ladder: {', '.join(LADDER)}."
        raise ConfigError("sizes", "must be LAYERSxWIDTH with a width that is a multiple of 32", name, cure)
    return int(layers), int(width)
