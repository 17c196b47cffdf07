"""What the documents show must run: `$ ingle …` lines and Python blocks, on the tests' home."""

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingle.home.place import Home
from tests.parts import bring_parts
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


PORT = 4645


@pytest.fixture(scope="module")
def running(smollm2_home: Home) -> Iterator[None]:
    """A server where the documents say that it is."""
    command = [sys.executable, "-m", "ingle", "serve", "--no-open", "--no-page"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None

        def answers() -> bool:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health").close()
            except OSError:
                assert process.poll() is None, "it ended"
                return False
            return True

        if f":{PORT}" not in process.stdout.readline():
            pytest.skip(f"port {PORT} is in use, so what the documents say of a running server can't be tried")
        wait_until(answers, "the server answers")
        yield
        process.terminate()


def blocks(kind: str) -> list[tuple[str, str]]:
    return [(page.name, code) for page in PAGES for code in re.findall(rf"^```{kind}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)]


COMMANDS = [(page, line[2:]) for page, code in blocks("console") for line in code.splitlines() if line.startswith("$ ")]


def test_nothing_names_a_package_of_the_index_that_is_not_ours() -> None:
    files = [*PAGES, *(ROOT / "docs").iterdir(), *(ROOT / "src").rglob("*.py"), *(ROOT / "bench").rglob("*.py"), ROOT / "Makefile"]
    named = re.compile(r"(?:pip|pipx|uv|uvx)\s(?:tool\s)?(?:install|run)\b[^\n`]*(?<![\w./-])ingle(?:\[|['\"`\s]|$)", re.I)
    assert named.search("pip install 'ingle[learn]'") and named.search("pipx install Ingle")
    for file in files:
        if file.is_file():
            assert not named.search(file.read_text("utf-8", "replace")), f"{file.name}: whoever registers that name is installed"


def test_there_are_examples() -> None:
    assert len(COMMANDS) >= 8
    assert blocks("python")


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page}: {command[:40]}" for page, command in COMMANDS])
def test_commands_run(request: pytest.FixtureRequest, smollm2_home: Home, page: str, command: str) -> None:
    if f":{PORT}" in command:
        request.getfixturevalue("running")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, env={**os.environ, "PATH": path}, timeout=120, check=False)
    assert result.returncode == 0, f"{page}: {command}\n{result.stderr}"
    assert result.stdout.strip()


@pytest.mark.parametrize(("page", "code"), blocks("python"), ids=[page for page, _ in blocks("python")])
def test_python_runs(request: pytest.FixtureRequest, smollm2_home: Home, page: str, code: str) -> None:
    if "audio" in code:
        bring_parts()
    if f":{PORT}" in code:
        request.getfixturevalue("running")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, f"{page}\n{result.stderr}"
    assert result.stdout.strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_that_are_named_are_there(page: Path) -> None:
    for path, name in re.findall(r"\b(tests/[\w/]+\.py)::(\w+)", page.read_text("utf-8")):
        assert (ROOT / path).is_file(), f"{page.name} names {path}"
        assert re.search(rf"^(?:async )?def {name}\(", (ROOT / path).read_text("utf-8"), re.M), f"{page.name} names {path}::{name}"


def test_every_promise_names_its_test() -> None:
    promises = (ROOT / "docs" / "threats.md").read_text("utf-8").partition("## Promises")[2].partition("\n## ")[0]
    rows = [line for line in promises.splitlines() if line.startswith("| ") and not line.startswith("| promise |")]
    assert len(rows) > 30
    for row in rows:
        assert re.search(r"`tests/[\w/]+\.py::test_\w+`", row.split("|")[3]), f"no test: {row}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_shown_are_known(page: Path, tmp_path: Path) -> None:
    import tomllib

    from ingle.app.settings import Settings
    from ingle.core.config import from_table
    from ingle.gate.check import load_policy
    from ingle.home.owner import owner_policy
    from ingle.home.place import Home
    from ingle.safety.guard import guard_policy

    for code in re.findall(r"^```toml\n(.*?)^```", page.read_text("utf-8"), re.M | re.S):
        if page.name == "gate.md" or "[guards" in code or "[use]" in code:  # settings of policy.toml
            home = Home(tmp_path)
            home.policy.write_text(code, "utf-8")
            load_policy(home)
            guard_policy(home.policy)
            owner_policy(home.policy)
        else:
            from_table(Settings, tomllib.loads(code))
