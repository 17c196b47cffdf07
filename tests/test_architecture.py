"""The house keeps its shape: imports point strictly down, rooms of one storey don't know each other, files and functions stay small."""

import ast
import sys
from functools import cache
from pathlib import Path

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
PASSED_ON = {
    "model/template_sandbox.py:call", "model/template_sandbox.py:counted",
    "library.py:does", "cli/operation_commands.py:command", "serve/operation_routes.py:endpoint",
}  # fmt: skip
"""Functions that hand on whatever a template says, as Jinja's own do, or whatever fields an operation has."""
# What serving must never import, wherever in the file the import stands.
TORCH_ALLOWED = {
    "model/module.py", "model/module_parts.py",
    "train", "tuning", "hybridize", "compress", "scratch", "scaling", "explain", "learn",
}  # fmt: skip
TORCH = ("torch", "transformers", "peft")
LOADS_NO_TORCH = ("adapt", "federated", "app", "serve", "page", "safety", "robustness", "explain", "ethics")
"""Rooms that a server imports whole: nothing that they load at their start, however far down, imports PyTorch."""
CORE_ALLOWED = {"numpy", "ingle"}
TESTS = Path(__file__).parent
CLOCKS = {"monotonic", "perf_counter", "process_time", "thread_time", "time", "monotonic_ns", "perf_counter_ns", "time_ns"}
READS_A_CLOCK = {
    "waiting.py": "the one place where tests wait",
    "clocks.py": "an event loop ends a block at the time of its own clock, which is read to say: now",
    "core/apart_worker.py": "it sleeps to be busy until it is killed",
}
"""Tests that may read a clock, sleep or give up within a minute, each with its reason. No assertion may rest on it."""
LEAST_PATIENCE_S = 60
IMPATIENT = {f"httpx.{name}" for name in ("get", "post", "put", "patch", "delete", "options", "request", "stream", "Client", "AsyncClient")}
FILES = sorted(SOURCE.rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


@cache
def text(path: Path) -> str:
    return path.read_text("utf-8")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(text(path))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree(path)))


def imports(path: Path) -> list[tuple[str, int]]:
    """Every module that a file imports, at its top or inside a function, with the line."""
    found = []
    for node in nodes(path):
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
    found, ahead = set[str](), list[ast.AST](tree(path).body)
    while ahead:
        node = ahead.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            ahead += node.orelse
        elif lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            ahead += ast.iter_child_nodes(node)
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


def test_imports_point_strictly_down() -> None:
    wrong = []
    for path in FILES:
        room = relative(path).split("/")[0]
        for module, line in imports(path) if room in STOREYS else ():
            other = module.split(".")[1] if module.startswith("ingle.") else room
            if other != room and other in STOREYS and STOREYS[other] >= STOREYS[room]:
                wrong.append(f"{relative(path)}:{line}: {room} must not import {other}")
    assert wrong == []


def test_core_needs_only_numpy_and_serving_needs_no_torch() -> None:
    wrong = []
    for path in FILES:
        name = relative(path)
        room = name.split("/")[0]
        for module, line in imports(path):
            top = module.split(".")[0]
            if room == "core" and top not in CORE_ALLOWED and top not in sys.stdlib_module_names:
                wrong.append(f"{name}:{line}: core imports {top}")
            if top in TORCH and not {room, name} & TORCH_ALLOWED:
                wrong.append(f"{name}:{line}: {top} outside of the learning rooms")
            if top in ("pickle", "shelve", "dill", "cloudpickle"):
                wrong.append(f"{name}:{line}: pickles are never loaded here")
    assert wrong == []


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
            relative(path) for path in FILES for node in nodes(path)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
        }  # fmt: skip
        assert found == places, name


def test_files_are_small_and_lie_two_folders_deep_at_most() -> None:
    wrong = []
    for path in FILES:
        name = relative(path)
        if len(path.relative_to(SOURCE).parts) > (3 if name.startswith((*REGISTRIES, *WITHIN)) else 2):
            wrong.append(f"{name}: folders are two deep at the most")
        if (size := code_lines(text(path).splitlines())) > MAX_FILE_LINES:
            wrong.append(f"{name} has {size} code lines")
        if path.name == "utils.py":
            wrong.append(f"{name}: say what it is for")
    assert wrong == []


def test_functions_are_small_and_name_what_they_take() -> None:
    wrong = []
    for path in FILES:
        name, lines = relative(path), text(path).splitlines()
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if (size := code_lines(lines[node.lineno - 1 : node.end_lineno])) >= MAX_FUNCTION_LINES:
                    wrong.append(f"{name}:{node.lineno} {node.name} has {size} code lines")
                if node.args.kwarg is not None and f"{name}:{node.name}" not in PASSED_ON:
                    wrong.append(f"{name}:{node.lineno} {node.name} takes any keywords: name the arguments")
    assert wrong == []


def test_one_name_means_one_thing() -> None:
    """A public class has a name of its own. Files of a registry share the names that their folder asks for."""
    named: dict[str, list[str]] = {}
    for path in FILES:
        name = relative(path)
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not name.startswith(REGISTRIES):
                named.setdefault(node.name, []).append(name)
    twice = {name: places for name, places in named.items() if len(places) > 1}
    assert not twice, f"classes of one name: {twice}"


def clock_of(node: ast.AST) -> str:
    """In which way a node lets the machine's speed decide; "" = in none."""
    if not isinstance(node, ast.Call):
        return ""
    called = ast.unparse(node.func)
    owner, _, name = called.rpartition(".")
    if (owner in ("time", "loop") or owner.endswith("_loop()")) and name in CLOCKS:
        return f"reads {called}()"
    given = {one.arg: one.value for one in node.keywords if one.arg in ("timeout", "timeout_s", "within_s", "open_timeout")}
    if name in ("wait", "join", "result", "get") and len(node.args) == 1:
        given[name] = node.args[0]
    if name == "sleep" and owner in ("time", "asyncio") and ast.unparse(node.args[0]) != "0":
        return ast.unparse(node)
    if called in IMPATIENT and not {"timeout", "transport", None} & {one.arg for one in node.keywords}:
        return f"{called}() gives up after five seconds"
    for way, value in given.items():
        seconds = value.value if isinstance(value, ast.Constant) else 0
        if isinstance(seconds, int | float) and 0 < seconds < LEAST_PATIENCE_S:
            return f"{called}({way}: {seconds})"
    return ""


def test_no_test_is_decided_by_a_clock() -> None:
    """docs/testing.md says what to write instead."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("*.py")):
        name = path.relative_to(TESTS).as_posix()
        said = [f"{node.lineno}: {why}" for node in nodes(path) if isinstance(node, ast.expr) and (why := clock_of(node))]
        if said:
            found[name] = said
    assert {name: said for name, said in found.items() if name not in READS_A_CLOCK} == {}
    assert set(READS_A_CLOCK) <= set(found), "exceptions that nobody needs any more"
