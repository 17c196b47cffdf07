"""Catalogue of tuning methods: each file's first line, read as text, because importing PyTorch takes seconds."""

import ast
import importlib.util
from pathlib import Path

from ingle.core.errors import ConfigError
from ingle.core.files import how_to_install

FOLDER = Path(__file__).parent / "methods"


def titles() -> dict[str, str]:
    """Every method with its title, one line each."""
    by_name = {}
    for path in sorted(FOLDER.glob("[a-z]*.py")):
        doc = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        by_name[path.stem] = doc.split("\n")[0]
    return by_name


def need_learning() -> None:
    """Raises ConfigError if the extra that trains is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise ConfigError("PyTorch", "Training needs PyTorch, which is not installed", "", how_to_install("learn"))
