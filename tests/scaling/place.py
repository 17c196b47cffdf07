"""Texts that a tiny model can learn in seconds, and settings for that."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ingle.core.config import from_table
from ingle.core.spec import ModelConfig
from ingle.scratch.scratch_settings import ScratchSettings

NAMES = ("anna", "bert", "clara", "david", "emma", "fritz", "greta", "henry", "ida", "jonas")
THINGS = ("apple", "bread", "candle", "drum", "eggs", "flower", "garden", "hammer", "island", "jacket", "kettle", "ladder")
DOES = ("buys", "finds", "loses", "paints", "sells", "wants", "breaks", "mends")
KINDS: dict[str, dict[str, Any]] = {
    "transformer": {"retrieval": "all"},
    "hybrid": {"retrieval": [[1, 0]], "window": 8, "sinks": 1, "memory": "gated_delta"},
    "rnn": {"retrieval": "none", "memory": "gated_delta"},
}
TINY: dict[str, Any] = {
    "model": {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "mlp": 48, "context": 128},
    "tokenizer": {"size": 300},
    "data": {"row_tokens": 48, "held_out": 0.2},
    "train": {"batch_tokens": 192, "max_steps": 12, "precision": "fp32", "optimiser": {"learning_rate": 0.01}},
    "judge": {"items": 5, "pair_rows": 4, "format": "fp32", "threads": 1},
}


def write_texts(path: Path, count: int = 80) -> str:
    """Texts about the same few things, a line each."""
    lines = []
    for i in range(count):
        said = [f"{NAMES[(i * j) % 10]} {DOES[(i + j) % 8]} the {THINGS[(3 * i + 5 * j) % 12]}." for j in range(1, 7)]
        lines.append(json.dumps({"text": f"Story {i}. " + " ".join(said)}))
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return str(path)


def tiny(source: str, kind: str = "transformer", **changes: Mapping[str, Any]) -> ScratchSettings:
    """Settings for seconds; `changes` are added to the tables of that name."""
    return from_table(ScratchSettings, table(source, kind, **changes))


def table(source: str, kind: str = "transformer", **changes: Mapping[str, Any]) -> dict[str, Any]:
    """The same as a plain table."""
    made = {name: {**values, **changes.get(name, {})} for name, values in TINY.items()}
    made["model"] |= {key: value for key, value in KINDS[kind].items() if key not in changes.get("model", {})}
    made["data"] = {"sources": [source], **made["data"]}
    return made


def plain_config(vocab: int = 70, **changes: Any) -> ModelConfig:
    """Of the tiny shape."""
    from ingle.scratch.scratch_settings import ShapeSettings, config_of

    return config_of(ShapeSettings(layers=2, width=32, heads=4, kv_heads=2, **changes), vocab)
