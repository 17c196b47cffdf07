"""`ingle --help` is quick and complete, and no verb imports more than it needs before it answers."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from ingle import __version__
from ingle.cli.main import GROUPS, VERBS
from tests.cli.place import COMMAND, environment, ingle


def test_help_lists_every_verb(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True, env=environment(tmp_path))
    for verb, line in VERBS.items():
        assert verb in done.stdout
        assert line in done.stdout
    assert not any(tmp_path.iterdir()), "help touches no home"


def test_help_imports_no_verb_and_nothing_heavy(tmp_path: Path) -> None:
    program = "import sys\nfrom ingle.cli.main import main\nmain(['--help'])\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment(tmp_path))
    loaded = set(done.stderr.split())
    assert "ingle.cli.main" in loaded
    assert not loaded & {
        "numpy",
        "llvmlite",
        "tokenizers",
        "sqlalchemy",
        "cryptography",
        "jinja2",
        *(f"ingle.cli.{verb}" for verb in VERBS),
    }


@pytest.mark.parametrize("verb", VERBS)
def test_verb_has_the_help_that_is_listed_and_examples(verb: str, tmp_path: Path) -> None:
    module = importlib.import_module(f"ingle.cli.{verb}")
    assert module.command.__doc__.splitlines()[0] == VERBS[verb]
    assert f"ingle {verb}" in module.EXAMPLES


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_shows_every_word(verb: str, tmp_path: Path) -> None:
    module = importlib.import_module(f"ingle.cli.{verb}")
    said = " ".join(ingle(tmp_path, verb, "--help", changes={"COLUMNS": "500"}).stdout.replace("│", " ").split())
    for name, hint in get_type_hints(module.command, include_extras=True).items():
        for parameter in getattr(hint, "__metadata__", ()):
            assert parameter.help, f"{name} says nothing"
            assert parameter.hidden or " ".join(parameter.help.split()) in said
    for line in (VERBS[verb], *module.EXAMPLES.strip().splitlines()):
        assert " ".join(line.split()) in said
    assert not any(tmp_path.iterdir()), "help touches no home"


def test_help_of_a_verb_shows_its_examples(tmp_path: Path) -> None:
    said = ingle(tmp_path, "run", "--help").stdout
    assert 'ingle run "Why is the sky blue?"' in said
    assert "--logprobs" in said


def test_help_has_the_verbs_in_groups(tmp_path: Path) -> None:
    said = ingle(tmp_path, "--help").stdout
    at = [said.index(f"─ {group} ─") for group in GROUPS]
    assert at == sorted(at)
    assert said.index("─ Teach ─") < said.index("│ forget ") < said.index("─ Change a model ─") < said.index("│ tune ")


@pytest.mark.parametrize(("typed", "verb"), [("quantize", "quantise"), ("hybridise", "hybridize")])
def test_both_spellings_are_understood(typed: str, verb: str, tmp_path: Path) -> None:
    said = [ingle(tmp_path, name, "--help").stdout.partition("[OPTIONS]")[2] for name in (typed, verb)]
    assert said[0] == said[1]
    assert f"ingle {typed} --help" in ingle(tmp_path, typed, code=2).stderr


def test_version_and_nothing_at_all(tmp_path: Path) -> None:
    assert ingle(tmp_path, "--version").stdout == f"ingle {__version__}\n"
    assert "Chat with a model in the terminal." in ingle(tmp_path).stdout


def test_an_answer_begins_without_database_and_rich(tiny_home: Path) -> None:
    program = """
import io, sys
from ingle.cli.main import main
class Watch(io.TextIOWrapper):
    first = True
    def write(self, text):
        if Watch.first:
            Watch.first = False
            print(*sys.modules, file=sys.stderr)
        return super().write(text)
sys.stdout = Watch(sys.stdout.buffer, encoding="utf-8")
sys.exit(main(["run", "hello", "--max-tokens", "4", "--temperature", "0"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment(tiny_home), stdin=subprocess.DEVNULL
    )
    loaded = set(done.stderr.split())
    assert "ingle.engine.answer" in loaded
    assert not loaded & {"sqlalchemy", "cryptography", "rich", "numba", "torch", "huggingface_hub"}


def test_tests_leave_the_users_home_alone() -> None:
    assert "ingle-tests" in os.environ["INGLE_HOME"] or "INGLE_TEST_HOME" in os.environ
