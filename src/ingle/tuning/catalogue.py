"""Which tuning methods there are, said without importing PyTorch, which takes seconds: each file's first line, read as text."""

import ast
import importlib.util
from pathlib import Path

from ingle.core.errors import ConfigError
from ingle.core.installing import how_to_install

FOLDER = Path(__file__).parent / "methods"


def titles() -> dict[str, str]:
    """Every method and what it is, in a line."""
    found = {}
    for path in sorted(FOLDER.glob("[a-z]*.py")):
        doc = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        found[path.stem] = doc.split("\n")[0]
    return found


def need_learning() -> None:
    """Raises ConfigError if the extra that trains is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise ConfigError("PyTorch", "Training needs PyTorch, which is not installed", "", how_to_install("learn"))
