"""The policy for guards: who is meant, what comes over what, and what can't be meant."""

from pathlib import Path

import pytest

from ingle.core.errors import ConfigError
from ingle.safety.guard import guard_policy, make_guards
from ingle.safety.policy import USUAL, GuardRule
from tests.safety.scripted import LIMITS

POLICY = """
[guards]
control_tokens = "block"
[guards.output]
mode = "tell"
words = ["one", "two*"]
say = "No."
[guards.models.smollm2]
output = "edit"
[guards.models."smollm2+terse"]
output = { words = ["three"] }
[guards.keys.ann]
output = "block"
control_tokens = "off"
"""


def policy(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(text, "utf-8")
    return path


def test_what_is_said_of_a_model_or_a_key_comes_over_the_rest_field_by_field(tmp_path: Path) -> None:
    read = guard_policy(policy(tmp_path, POLICY))
    assert read.rules()["output"] == GuardRule("tell", words=("one", "two*"), say="No.")
    assert read.rules("smollm2")["output"] == GuardRule("edit", words=("one", "two*"), say="No.")
    assert read.rules("smollm2+other")["output"] == read.rules("smollm2")["output"]
    assert read.rules("smollm2x")["output"] == read.rules()["output"]
    assert read.rules("smollm2+terse")["output"] == GuardRule("tell", words=("three",), say="No.")
    assert read.rules("smollm2", "ann")["output"] == GuardRule("block", words=("one", "two*"), say="No.")
    assert read.rules("other", "ann")["control_tokens"] == GuardRule("off")
    assert read.rules("other", "bob")["control_tokens"] == GuardRule("block")
    assert read.keys == {"ann"}
    names = [[layer.name for layer in make_guards(LIMITS, read, "smollm2", key)] for key in ("", "ann")]
    assert "control_tokens" in names[0] and "control_tokens" not in names[1] and "output" in names[1]


def test_its_digest_tells_policies_apart_and_examples_too(tmp_path: Path) -> None:
    examples = tmp_path / "cooking.txt"
    numbers = ("one", "two", "six", "ten", "four", "five", "nine", "eight")
    examples.write_text("\n".join(f"Fry {number} onions in butter with herbs for the sauce." for number in numbers))
    text = '[guards.topics]\nmode = "tell"\nexamples.cooking = "cooking.txt"\n'
    one = guard_policy(policy(tmp_path, text))
    assert [topic.name for topic in one.rules()["topics"].topics] == ["cooking"]
    assert len(one.digest) == 64 and guard_policy(policy(tmp_path, text)).digest == one.digest
    examples.write_text(examples.read_text().replace("onions", "shallots"))
    assert guard_policy(policy(tmp_path, text)).digest != one.digest
    assert guard_policy(tmp_path / "none.toml").digest == guard_policy(policy(tmp_path, "")).digest == USUAL.digest == ""


def test_a_damaged_file_of_examples_changes_nothing_and_says_so(tmp_path: Path) -> None:
    text = '[guards.topics]\nmode = "tell"\nexamples.cooking = "cooking.txt"\n'
    for bad in (b"\xff\xfe\x00", b"same\n" * 50, b"\n" * 9, ("x" * 2000 + "\n").encode() * 9, b"x" * (2 << 20), b"abc\n" * 3):
        (tmp_path / "cooking.txt").write_bytes(bad)
        with pytest.raises(ConfigError) as caught:
            guard_policy(policy(tmp_path, text))
        assert "examples" in str(caught.value)
        assert (tmp_path / "cooking.txt").read_bytes() == bad


ORDINARY = [
    "What is the capital of Spain?",
    "Write a poem about winter.",
    "How do I cook rice?",
    "Explain how rain comes about.",
    "Tell me a joke.",
    "Translate good night into French.",
    "Help me plan a trip.",
    "What is a verb?",
    "How far away is the sun?",
    "Give me five ideas for a gift.",
]


def test_examples_that_are_ordinary_texts_poison_nothing(tmp_path: Path) -> None:
    """They are refused, or alarm no more often than the policy allows."""
    lines = ", ".join(f'"{text}"' for text in ORDINARY)
    try:
        read = guard_policy(policy(tmp_path, f'[guards.topics]\nmode = "block"\nexamples.all = [{lines}]\n'))
    except ConfigError as error:
        assert "in common" in str(error)
        return
    from ingle.safety.guards.topics import check
    from ingle.safety.score_rules import _ordinary

    [rule] = check(read.rules()["topics"])
    alarmed = [text for text in _ordinary() if rule.score("", text) >= rule.threshold]
    assert len(alarmed) <= 0.02 * len(_ordinary())


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[guards.keys]\nann = 'block'", "guards.keys"),
        ("[guards.models.m]\nnobody = 'off'", "guards.models.m.nobody"),
        ("[guards.models.m]\nsize = 'off'", "guards.models.m.size"),
        ("[guards.models.m]\noutput = { words = ['a'] }", "guards.output.mode"),
        ("[guards]\noutput = 1", "guards.output"),
        ("[guards.output]\nmode = 'block'\nword = ['a']", "guards.output.word"),
        ("[guards.output]\nmode = 'block'\nwords = 'a'", "guards.output.words"),
        ("[guards.output]\nmode = 'block'\nwords = ['']", "guards.output.words"),
        ("[guards.output]\nmode = 'block'\nwords = ['\u200b']", "guards.output.words"),
        ("[guards.output]\nmode = 'block'\npatterns = ['(a+']", "guards.output.patterns"),
        ("[guards.output]\nmode = 'block'\nharm = 1.5", "guards.output.harm"),
        ("[guards.output]\nmode = 'block'\nalarms = 0.0", "guards.output.alarms"),
        ("[guards.output]\nmode = 'block'\nexamples = ['a']", "guards.output.examples"),
        ("[guards.output]\nmode = 'block'\nexamples.x = 3", "guards.output.examples.x"),
        ("[guards.output]\nmode = 'block'\nsay = 3", "guards.output.say"),
        ("[guards.pii]\nmode = 'block'\nkinds = ['name']", "guards.pii.kinds"),
        ("[guards.keys.'']\noutput = 'tell'", "guards.keys"),
    ],
)
def test_what_cant_be_meant_is_said_with_its_place(tmp_path: Path, text: str, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        guard_policy(policy(tmp_path, text))
    assert caught.value.field == field
    assert caught.value.sentence
