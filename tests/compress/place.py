"""A home with a tiny model, and texts that need no network."""

import random
from collections.abc import Mapping
from typing import Any

from ingle.compress.prune_settings import PruneSettings
from ingle.core.config import from_table
from ingle.measure.items import Text

_WORDS = tuple("abcdefghijklmnopqr"[i : i + 4] for i in range(14))


def some_texts(count: int = 12, seed: int = 0) -> list[Text]:
    """Texts without meaning, in sentences."""
    draw, found = random.Random(seed), []
    for i in range(count):
        sentences = [" ".join(draw.choices(_WORDS, k=draw.randrange(4, 12))).capitalize() + "." for _ in range(30)]
        found.append(Text(str(i), str(i), " ".join(sentences)))
    return found


def told(structure: str, share: float, method: str = "", recovery: Mapping[str, Any] | None = None) -> PruneSettings:
    """Settings for seconds."""
    table: dict[str, Any] = {"structure": structure, "share": share, "method": method}
    table["calibration"] = {"documents": 4, "tokens": 96, "batch": 2}
    table["recovery"] = {"rank": 4, "tokens": 96, "batch_tokens": 192, "held_out": 4, "learning_rate": 3e-3, **(recovery or {})}
    return from_table(PruneSettings, table)
