"""`ingle --help` is quick and complete, and no verb imports more than it needs before it answers."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from ingle import __version__
from ingle.app.operation import abouts, find, titles
from ingle.cli.main import _MODULES, ALIASES, DEFAULTS, GROUPS, HIDDEN, NOUNS, Verbs, verbs_of
from tests.cli.place import COMMAND, environment, ingle

LEAVES = [
    *(verb for verb in [*verbs_of(), *HIDDEN] if verb not in (*NOUNS, *DEFAULTS)),
    *(f"{noun} {verb}" for noun in {**NOUNS, **DEFAULTS} for verb in verbs_of(noun) if f"{noun} {verb}" not in [*ALIASES, *DEFAULTS]),
]
assert set(titles()) <= set(LEAVES)


def test_help_lists_every_verb(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True, env=environment(tmp_path))
    for verb, line in verbs_of().items():
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
        *(f"ingle.cli.{verb}" for verb in [*verbs_of(), *NOUNS["make"]]),
    }


@pytest.mark.parametrize("path", LEAVES)
def test_help_of_a_command_shows_every_word_and_an_example(path: str, tmp_path: Path) -> None:
    said = " ".join(ingle(tmp_path, *path.split(), "--help", changes={"COLUMNS": "500"}).stdout.replace("│", " ").split())
    if (found := find(path)) is not None:
        words, examples, parameters = found.words, found.examples, [about.words for _, about, _ in abouts(found.asked).values()]
    else:
        module = importlib.import_module(f"ingle.cli.{_MODULES.get(path, path.rsplit(maxsplit=1)[-1])}")
        words, examples = module.command.__doc__.splitlines()[0], module.EXAMPLES.strip().splitlines()
        hints = get_type_hints(module.command, include_extras=True)
        marks = [(name, mark) for name, hint in hints.items() for mark in getattr(hint, "__metadata__", ())]
        assert all(mark.help for _, mark in marks), "each says something"
        parameters = [mark.help for _, mark in marks if not mark.hidden]
        noun, _, verb = path.rpartition(" ")
        assert words == {**verbs_of(noun), **HIDDEN}[verb], "as it is listed"
    assert any(line.startswith("ingle ") or " ingle" in line for line in examples)
    for line in (words, *parameters, *examples):
        assert " ".join(line.split()) in said
    assert not any(tmp_path.iterdir()), "help touches no home"


@pytest.mark.parametrize(("old", "new"), ALIASES.items())
def test_old_names_are_understood_and_not_listed(old: str, new: str) -> None:
    command = Verbs(name="ingle")
    for word in new.split():
        command = command.get_command(None, word)
    aliased = Verbs(name="ingle")
    for word in old.split():
        aliased = aliased.get_command(None, word)
    assert aliased.name == command.name and aliased.help == command.help
    assert old.rsplit(maxsplit=1)[-1] not in verbs_of(old.rpartition(" ")[0])


@pytest.mark.parametrize("arguments", [("Who are you?", "--max-tokens", "2"), ("--max-tokens", "2", "Who are you?")])
def test_a_question_is_a_command(arguments: tuple[str, ...], tiny_home: Path) -> None:
    assert ingle(tiny_home, *arguments).stdout.strip()


def test_a_word_that_is_no_command_is_no_question(tiny_home: Path) -> None:
    assert "Did you mean 'list'?" in ingle(tiny_home, "lst", code=2).stderr
    assert "Did you mean 'quantise'" in ingle(tiny_home, "make", "quantis", code=2).stderr


def test_help_of_a_verb_shows_its_examples(tmp_path: Path) -> None:
    said = ingle(tmp_path, "run", "--help").stdout
    assert 'ingle "Why is the sky blue?"' in said
    assert "--logprobs" in said


def test_help_has_the_verbs_in_groups(tmp_path: Path) -> None:
    said = ingle(tmp_path, "--help").stdout
    at = [said.index(f"─ {group} ─") for group in GROUPS]
    assert at == sorted(at)
    assert said.index("─ Teach ─") < said.index("│ forget ") < said.index("─ Make, measure, prove ─") < said.index("│ make ")


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
