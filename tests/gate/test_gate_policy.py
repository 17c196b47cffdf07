"""The policy: defaults, what a maker usually gets, the file, overrides; and what is wrong is said by its key."""

import ast
import dataclasses
from pathlib import Path

import pytest

import ingle.gate.checks as folder
from ingle.core.errors import ConfigError
from ingle.core.registry import titles
from ingle.gate.check import CHECKS, Policy, find_check, load_policy, names
from ingle.home.place import Home


def test_every_file_is_a_check_and_says_what_each_limit_means() -> None:
    files = sorted(path.stem for path in Path(folder.__path__[0]).glob("[a-z]*.py"))
    assert names() == files
    assert {"bits", "learned", "safety", "unchanged"} <= set(files)
    for name in files:
        found = find_check(name)
        fields = [field.name for field in dataclasses.fields(found.Limits)]
        assert fields[0] == "on"
        found.Limits()
        assert titles(CHECKS)[name]
        text = (Path(folder.__path__[0]) / f"{name}.py").read_text("utf-8")
        [limits] = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == "Limits"]
        told = [node for node in limits.body if isinstance(node, ast.AnnAssign)]
        lines = text.splitlines()
        for node in told:  # behind the field, or above it
            assert "  # " in lines[node.lineno - 1] or lines[node.lineno - 2].lstrip().startswith("# "), f"{name}, line {node.lineno}"
        assert len(told) == len(fields)


def test_what_is_nearer_wins(empty_home: Home) -> None:
    usual = Policy()
    assert usual.limits("tune", "bits").most_rise_percent == 15.0
    assert usual.limits("style", "bits").most_rise_percent == find_check("bits").Limits().most_rise_percent
    (empty_home.policy).write_text("[bits]\nmost_rise_percent = 3\n[tune.bits]\nmost_rise_percent = 4.5\n[safety]\non = false\n")
    policy = load_policy(empty_home)
    assert [policy.limits(maker, "bits").most_rise_percent for maker in ("lesson", "tune")] == [3.0, 4.5]
    assert not policy.limits("style", "safety").on
    over = load_policy(empty_home, ["tune.bits.most_rise_percent=9", "learned.least=1"])
    assert over.limits("tune", "bits").most_rise_percent == 9.0
    assert over.limits("lesson", "learned").least == 1.0
    assert len({usual.digest("tune"), policy.digest("tune"), over.digest("tune"), policy.digest("lesson")}) == 4
    assert Policy().digest("tune") == usual.digest("tune")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[bist]\n", "There is no check bist.*Did you mean bits"),
        ("[tune.safty]\n", "There is no check safty.*Did you mean safety"),
        ("[bits]\nmost_rise = 1\n", r"policy bits.most_rise is not a known key.*Did you mean most_rise_percent"),
        ("[lesson.bits]\nmost_rise_percent = 'x'\n", "must be float"),
        ("bits = 3\n", "policy bits must be a table"),
        ("tune = true\n", "policy tune must be a table of checks"),
        ("[learned]\nleast = 2.0\n", "must be a share"),
        ("[bits]\nsuite = 'boolq'\n", "must be a suite of texts"),
        ("[bits]\nsuite = 'nothing'\n", "is not known"),
        ("[safety]\nmost_drop_nats = -1.0\n", "must not be negative"),
        ("[unchanged]\nmax_tokens = 0\n", "must be at least 1"),
        ("[bits\n", "must be valid TOML"),
    ],
)
def test_what_is_wrong_in_it_is_said_before_anything_is_measured(empty_home: Home, text: str, message: str) -> None:
    from ingle.core.errors import NotKept

    (empty_home.policy).write_text(text)
    with pytest.raises((ConfigError, NotKept), match=message):
        load_policy(empty_home)
