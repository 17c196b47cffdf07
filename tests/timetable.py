"""How long the tests take, in which order they start, and how each that failed is repeated. A plugin of pytest's.

`tests/durations.json` holds the seconds of each file, and the processor's seconds of each item above one; `pytest --write-durations`
brings it up to date for the files that ran. Files that take long start first, so that no process works alone at the end.
"""

import json
import os
import shlex
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
TABLE = Path(__file__).parent / "durations.json"
LISTED_CPU_S = 1.0
CPU_S = "cpu_s"
WHOLE = "# whole"  # a line of --failed-to: this run came to its end


def table() -> dict[str, dict[str, float]]:
    """`files`: seconds by file. `items`: seconds of the processor by item."""
    found: dict[str, dict[str, float]] = json.loads(TABLE.read_text("utf-8")) if TABLE.is_file() else {"files": {}, "items": {}}
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("timetable")
    group.addoption("--write-durations", action="store_true", help="write how long each file took to tests/durations.json")
    group.addoption("--failed-to", type=Path, help="add the command that repeats each failed item to this file, a line each; see .ci/again")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Worker(), "timetable-worker")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Controller(config), "timetable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; an unknown one is thought to be long."""
    files = table()["files"]
    items.sort(key=lambda item: -files.get(item.nodeid.partition("::")[0], float("inf")))


def _cpu_s() -> float:
    """Of this process and its children that have ended."""
    return sum(os.times()[:4])


class _Worker:
    """Measures each item where it runs."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self._began = _cpu_s()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Any:
        report: pytest.TestReport = yield
        if call.when == "teardown":
            report.user_properties = [*report.user_properties, (CPU_S, _cpu_s() - self._began)]
        return report


class _Controller:
    """Adds up what the workers measured, and says what failed."""

    def __init__(self, config: pytest.Config) -> None:
        self._write, self._to = config.getoption("--write-durations"), config.getoption("--failed-to")
        self._files: dict[str, float] = defaultdict(float)
        self._items: dict[str, float] = {}
        self._failed: dict[str, None] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._files[report.nodeid.partition("::")[0]] += report.duration
        for name, value in report.user_properties:
            if name == CPU_S and isinstance(value, float) and value > LISTED_CPU_S:
                self._items[report.nodeid] = value
        if report.failed:
            self._failed[report.nodeid] = None

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if self._to is not None:
            lines = [repeated(name) for name in self._failed]
            if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):  # else nobody knows what didn't run
                lines.append(WHOLE)
            with self._to.open("a", encoding="utf-8") as file:
                file.writelines(line + "\n" for line in lines)
        if self._write:
            kept = table()
            items = {name: cpu for name, cpu in kept["items"].items() if name.partition("::")[0] not in self._files} | self._items
            files = kept["files"] | self._files
            exist = {name for name in files if (ROOT / name).is_file()}
            rows = {"files": {name: round(files[name], 1) for name in sorted(exist)}}
            rows["items"] = {name: round(items[name], 1) for name in sorted(items) if name.partition("::")[0] in exist}
            TABLE.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", "utf-8")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._failed:
            terminalreporter.section("to repeat")
            for name in self._failed:
                terminalreporter.write_line(repeated(name))


def repeated(name: str) -> str:
    """The command that runs one item alone."""
    return shlex.join([sys.executable, "-m", "pytest", "-m", "", name])
