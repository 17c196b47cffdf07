"""The house keeps its shape: imports point strictly down, rooms of one storey don't know each other, files and functions stay small."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "ingle"
STOREYS = {
    "core": 0,
    "home": 1, "ledger": 1, "energy": 1, "kernels": 1,
    "model": 2, "media": 2,
    "engine": 3, "train": 3, "measure": 3, "safety": 3,
    "tuning": 4, "hybridize": 4, "compress": 4, "scratch": 4, "explain": 4, "ethics": 4, "robustness": 4, "adapt": 4,
    "gate": 5, "scaling": 5,
    "learn": 6, "federated": 6,
    "app": 7,
    "serve": 8,
    "page": 9,
    "cli": 10,
}  # fmt: skip
REGISTRIES = (
    "tuning/methods/", "gate/checks/", "compress/quantisers/", "compress/pruners/", "robustness/attacks/", "safety/guards/",
    "explain/methods/", "ethics/cards/", "federated/rules/", "media/ears/", "media/eyes/", "media/mouths/", "scaling/runners/",
    "model/families/", "app/operations/",
)  # fmt: skip
"""Folders in a room in which every file is one of a kind."""
WITHIN = ("federated/flower/",)
"""Folders in a room that are one thing, in several processes."""
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60
LONGER_FILES: dict[str, int] = {}
PASSED_ON = {
    "model/template_sandbox.py:call", "model/template_sandbox.py:counted",
    "library.py:does", "cli/operation_commands.py:command", "serve/operation_routes.py:endpoint",
}  # fmt: skip
"""Functions that hand on whatever a template says, as Jinja's own do, or whatever fields an operation has."""
LONGER_FUNCTIONS: dict[str, int] = {}
# What serving must never import, wherever in the file the import stands.
TORCH_ALLOWED = {
    "model/module.py", "model/module_parts.py",
    "train", "tuning", "hybridize", "compress", "scratch", "scaling", "explain", "learn",
}  # fmt: skip
TORCH = ("torch", "transformers", "peft")
LOADS_NO_TORCH = ("adapt", "federated", "app", "serve", "page", "safety", "robustness", "explain", "ethics")
"""Rooms that a server imports whole: nothing that they load at their start, however far down, imports PyTorch."""
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


def module_file(module: str) -> str | None:
    """The file of a module of ours, as `relative` names it."""
    path = SOURCE.joinpath(*module.split(".")[1:])
    found = next((one for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file()), None)
    return relative(found) if module.startswith("ingle.") and found else None


def run_imports(path: Path, lazy: bool) -> set[str]:
    """Modules that a file imports when it runs: at its top, and with `lazy` inside functions too; never those for types alone."""
    found, nodes = set[str](), list[ast.AST](ast.parse(path.read_text("utf-8")).body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes += node.orelse
        elif lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            nodes += ast.iter_child_nodes(node)
    return found


def arrows(lazy: bool) -> dict[str, set[str]]:
    """Which file imports which, of ours."""
    found = {relative(path): {module_file(module) for module in run_imports(path, lazy)} - {None} for path in FILES}
    return {name: {other for other in others if other is not None and other != name} for name, others in found.items()}


def way(graph: dict[str, set[str]], start: str, goals: set[str]) -> list[str]:
    """The shortest way along the arrows to any of the goals; [] = there is none. It has at least one arrow."""
    ways, seen = [[start]], set[str]()
    for known in ways:
        for after in sorted(graph[known[-1]] - seen):
            seen.add(after)
            ways.append([*known, after])
            if after in goals:
                return ways[-1]
    return []


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
        if top in TORCH:
            assert room in TORCH_ALLOWED or name in TORCH_ALLOWED, f"{name}:{line}: {top} outside of the learning rooms"
        if top in ("pickle", "shelve", "dill", "cloudpickle"):
            pytest.fail(f"{name}:{line}: pickles are never loaded here")


def test_what_a_server_loads_holds_no_torch() -> None:
    torch = {relative(path) for path in FILES if any(module.split(".")[0] in TORCH for module in run_imports(path, lazy=False))}
    assert torch, "nothing is found at all"
    graph = arrows(lazy=False)
    for name in graph:
        if name.split("/")[0] in LOADS_NO_TORCH:
            assert name not in torch, f"{name} imports PyTorch"
            assert not (found := way(graph, name, torch)), f"PyTorch is loaded: {' → '.join(found)}"


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = arrows(lazy=True)
    assert sum(map(len, graph.values())) > len(graph), "nothing is found at all"
    for name in graph:
        assert not (found := way(graph, name, {name})), f"a circle: {' → '.join(found)}"


ANSWERED_IN = {"app/answering.py", "robustness/target.py"}
"""Where requests pass the guards: answers in one place; attacks and the judges' figures measure guards by themselves."""


def test_answers_have_one_way() -> None:
    """Guards are put around a model, and an answer's fact is made, in one place."""
    calls = {"make_guards": ANSWERED_IN, "answer_event": {"app/answering.py"}, "refusal_event": {"app/answering.py"}}
    for name, places in calls.items():
        found = {
            relative(path) for path in FILES for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
        }  # fmt: skip
        assert found == places, name


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_sizes(path: Path) -> None:
    name = relative(path)
    deepest = 3 if name.startswith((*REGISTRIES, *WITHIN)) else 2
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


def test_one_name_means_one_thing() -> None:
    """A public class has a name of its own. Files of a registry share the names that their folder asks for."""
    named: dict[str, list[str]] = {}
    for path in FILES:
        name = relative(path)
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not name.startswith(REGISTRIES):
                named.setdefault(node.name, []).append(name)
    twice = {name: places for name, places in named.items() if len(places) > 1}
    assert not twice, f"classes of one name: {twice}"
