"""Tells what this installation can teach a model's weights: corrections on our own kernels, all else with PyTorch. Imports none."""

import importlib.util
from contextlib import suppress

from ingle.core.errors import IngleError
from ingle.core.installing import how_to_install
from ingle.core.spec import ModelConfig
from ingle.engine.need import served_size
from ingle.home.kept import Kept, get_kept
from ingle.home.place import Home


def has_pytorch() -> bool:
    """Whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def learns_here(config: ModelConfig) -> bool:
    """Whether all layers of a model are of a kind that learns without PyTorch."""
    plain = all(spec.mixer == "attention" and spec.memory == "none" for spec in config.layers)
    return plain and config.head_dim % 32 == 0 and all(config.experts_at(i) is None for i in range(len(config.layers)))


def needs_pytorch(home: Home, kept: Kept, kind: str) -> bool:
    """Whether this model learns an example of this kind with PyTorch. Raises the errors of opening a model's files."""
    return kind == "rating" or not learns_here(served_size(home, kept).config)


def lacking(home: Home, model: str, kind: str) -> str:
    """Say why an example of this kind can't be learned here and what to install; "" if it can, or if its model isn't here."""
    if has_pytorch():
        return ""
    with suppress(IngleError):
        if needs_pytorch(home, get_kept(home, model), kind):
            what = "a style from ratings" if kind == "rating" else f"corrections of {model}"
            return f"Learning {what} needs PyTorch, which is not installed. {how_to_install('learn')}"
    return ""
