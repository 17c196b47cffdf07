"""A home with a tiny model, and texts that need no network."""

import random
from collections.abc import Mapping
from typing import Any

from ingle.compress.pruning import PruneSettings
from ingle.core.config import from_table
from ingle.measure.data_sets import Text

_WORDS = tuple("abcdefghijklmnopqr"[i : i + 4] for i in range(14))


def some_texts() -> list[Text]:
    """Texts without meaning."""
    draw = random.Random(0)
    return [Text(str(i), str(i), " ".join(draw.choices(_WORDS, k=200))) for i in range(12)]


def told(structure: str, share: float, method: str = "", recovery: Mapping[str, Any] | None = None) -> PruneSettings:
    """Settings for seconds."""
    table: dict[str, Any] = {"structure": structure, "share": share, "method": method}
    table["calibration"] = {"documents": 4, "tokens": 96, "batch": 2}
    table["rank"] = 4
    table["recovery"] = {"tokens": 96, "batch_tokens": 192, "held_out": 4, "learning_rate": 3e-3, **(recovery or {})}
    return from_table(PruneSettings, table)
