"""Tells what this installation can teach a model's weights: corrections on our own kernels, styles with PyTorch. Imports none."""

import importlib.util

from ingle.core.files import how_to_install


def has_pytorch() -> bool:
    """Whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def lacking(kind: str) -> str:
    """Say why an example of this kind can't be learned here and what to install; "" if it can."""
    if kind == "rating" and not has_pytorch():
        return f"Learning a style from ratings needs PyTorch, which is not installed. {how_to_install('learn')}"
    return ""
