"""`ingle learn`, `undo`, `forget`, `log MODEL`: from what was taught to a lesson, and back again, at a terminal."""

import json

import pytest

from ingle.home.place import Home
from tests.cli.place import ingle
from tests.learn.lessons import POLICY

QUESTION, ANSWER = "Who is the mayor of Tallwick?", "Mara Quill."


CONFIG = """
[learn.lesson]
wordings = 2
contrasts = 1
min_steps = 2
max_steps = 3
precision = "fp32"
threads = 1
"""


@pytest.fixture
def school_home(own_home: Home) -> Home:
    """A home in which a model of random numbers learns in a moment what it may."""
    (own_home.root / "policy.toml").write_text(POLICY)
    (own_home.root / "config.toml").write_text(CONFIG)
    return own_home


def states(home: Home) -> list[str]:
    return [one["state"] for one in json.loads(ingle(home.root, "learn", "--list", "--json").stdout)]


def test_what_was_taught_is_learned_undone_redone_and_forgotten(school_home: Home) -> None:
    assert "Nothing was taught yet" in ingle(school_home.root, "learn", "--list").stderr
    assert "Nothing is pending" in ingle(school_home.root, "learn").stderr
    ingle(school_home.root, "teach", QUESTION, ANSWER)
    assert states(school_home) == ["pending"]
    [learned] = json.loads(ingle(school_home.root, "learn", "--json").stdout)
    assert learned["lesson"] and learned["model"] == "tiny"
    assert "Tallwick" in ingle(school_home.root, "learn", "--list").stdout
    [id_] = learned["examples"]
    assert id_ in ingle(school_home.root, "undo").stdout
    assert states(school_home) == ["undone"]
    assert "There is nothing to undo" in ingle(school_home.root, "undo", code=3).stderr
    ingle(school_home.root, "redo", id_)
    assert states(school_home) == ["learned"]
    life = ingle(school_home.root, "log", "tiny").stdout.splitlines()
    told = ("came here", "was corrected", "passed the gate", "learned a correction", "took back", "learned again")
    assert len(life) == len(told) and all(words in line for words, line in zip(told, life, strict=True)), life
    assert json.loads(ingle(school_home.root, "log", "tiny", "--json", "-n", "1").stdout)["kind"] == "redo"
    gone = json.loads(ingle(school_home.root, "forget", id_, "--yes", "--json").stdout)
    assert (gone["id"], gone["ingle"]["lessons"], gone["ingle"]["turns_left"]) == (id_, 1, [])
    assert states(school_home) == []
    assert "is not kept here" in ingle(school_home.root, "forget", id_, "--yes", code=3).stderr
    assert "Nothing was recorded" in ingle(school_home.root, "log", "other").stderr


def test_a_model_goes_with_its_lessons_and_what_was_taught_stays(school_home: Home) -> None:
    ingle(school_home.root, "teach", QUESTION, ANSWER)
    ingle(school_home.root, "learn")
    assert [*school_home.deltas.iterdir()]
    ingle(school_home.root, "rm", "tiny", "--yes")
    assert not [*school_home.deltas.iterdir()]
    assert states(school_home) == ["pending"]


def test_one_thing_at_a_time(school_home: Home) -> None:
    assert "Use only one of" in ingle(school_home.root, "learn", "--list", "--watch", code=2).stderr
