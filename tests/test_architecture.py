"""The house keeps its shape: imports point strictly down, rooms of one storey don't know each other, files and functions stay small."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "ingle"
STOREYS = {
    "core": 0,
    "home": 1, "ledger": 1, "energy": 1, "kernels": 1,
    "model": 2, "media": 2,
    "engine": 3, "train": 3, "measure": 3,
    "tuning": 4, "hybridize": 4, "compress": 4, "scaling": 4, "explain": 4, "safety": 4, "ethics": 4,
    "gate": 5,
    "adapt": 6, "federated": 6,
    "serve": 7,
    "cli": 8,
}  # fmt: skip
REGISTRIES = ("core/makers/", "tuning/methods/", "gate/checks/", "compress/quantisers/", "compress/pruners/")
"""Folders in a room in which every file is one of a kind."""
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
LONGER_FILES: dict[str, int] = {}
PASSED_ON = {"model/template_sandbox.py:call", "model/template_sandbox.py:counted"}
"""Functions that hand on whatever a template says, as Jinja's own do."""
LONGER_FUNCTIONS: dict[str, int] = {}
# What serving must never import, wherever in the file the import stands.
TORCH_ALLOWED = {
    "model/module.py", "model/cache.py", "model/memory.py", "model/pieces.py", "engine/torch_backend.py",
    "train", "tuning", "hybridize", "compress", "scaling", "explain", "adapt",
}  # fmt: skip
CORE_ALLOWED = {"numpy", "ingle"}
FILES = sorted(SOURCE.rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def imports(path: Path) -> list[tuple[str, int]]:
    """Every module that a file imports, at its top or inside a function, with the line."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}:{node.lineno} imports relatively"
            found.append((node.module or "", node.lineno))
            if node.module == "ingle":
                found += [(f"ingle.{alias.name}", node.lineno) for alias in node.names]
    return found


def code_lines(lines: list[str]) -> int:
    return sum(1 for line in lines if line.strip() and not line.strip().startswith("#"))


def test_there_is_a_house_to_check() -> None:
    rooms = {p.name for p in SOURCE.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert {"core", "home", "ledger", "kernels", "model", "engine", "cli"} <= rooms
    assert rooms <= set(STOREYS), f"rooms without a storey: {rooms - set(STOREYS)}"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_point_strictly_down(path: Path) -> None:
    parts = path.relative_to(SOURCE).parts
    if len(parts) == 1:
        return
    room = parts[0]
    for module, line in imports(path):
        names = module.split(".")
        if names[0] != "ingle" or len(names) < 2 or names[1] == room or names[1] not in STOREYS:
            continue
        assert STOREYS[names[1]] < STOREYS[room], f"{relative(path)}:{line}: {room} must not import {names[1]}"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_core_needs_only_numpy_and_serving_needs_no_torch(path: Path) -> None:
    import sys

    name = relative(path)
    room = name.split("/")[0]
    for module, line in imports(path):
        top = module.split(".")[0]
        if room == "core":
            assert top in CORE_ALLOWED or top in sys.stdlib_module_names, f"{name}:{line}: core imports {top}"
        if top in ("torch", "transformers", "peft"):
            assert room in TORCH_ALLOWED or name in TORCH_ALLOWED, f"{name}:{line}: {top} outside of the learning rooms"
        if top in ("pickle", "shelve", "dill", "cloudpickle"):
            pytest.fail(f"{name}:{line}: pickles are never loaded here")


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_sizes(path: Path) -> None:
    name = relative(path)
    deepest = 3 if name.startswith(REGISTRIES) else 2
    assert len(path.relative_to(SOURCE).parts) <= deepest, f"{name}: folders are two deep at the most"
    lines = path.read_text("utf-8").splitlines()
    assert code_lines(lines) <= LONGER_FILES.get(name, MAX_FILE_LINES), f"{name} has {code_lines(lines)} code lines"
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = code_lines(lines[node.lineno - 1 : node.end_lineno])
            allowed = LONGER_FUNCTIONS.get(f"{name}:{node.name}", MAX_FUNCTION_LINES)
            assert size < allowed, f"{name}:{node.lineno} {node.name} has {size} code lines"
            named = node.args.kwarg is None or f"{name}:{node.name}" in PASSED_ON
            assert named, f"{name}:{node.lineno} {node.name} takes any keywords: name the arguments"
    assert path.name != "utils.py", f"{name}: say what it is for"
