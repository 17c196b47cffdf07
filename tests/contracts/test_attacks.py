"""What every family of attacks must do; run over the folder."""

import inspect
import json
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import ingle.robustness.attacks
from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.core.message import Request, TextPart
from ingle.robustness.attack import AttackFile, Outcome, Reword, Reworded, Step, Weigh, Weight, attack_files, find_attacks
from ingle.robustness.attacks import encode, homoglyph, leet, paraphrase, past, translate
from ingle.robustness.prompts import LabelledPrompt
from tests.robustness.material import GOALS, kit

FILES = attack_files()
FIXED = [file for file in FILES if not file.adaptive]
EVERY = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)


def answered(step: Step) -> Any:
    """What comes of a step here: nothing is reached, all else follows from the words."""
    if isinstance(step, Weigh):
        return tuple(Weight(int(digest_json(one.messages[-1].text)[:4], 16) / 1000, 0.0) for one in step.requests)
    if isinstance(step, Reword):
        number = digest_json([step.request.messages[-1].text, step.request.sampling.seed])[:6]
        return f"In other words, number {number}: {step.request.messages[-1].text.splitlines()[-1]}"
    return Outcome(True, False, False, 0.1, False)


def steps(file: AttackFile, goal: LabelledPrompt, budget: int = 20, seed: int = 0) -> list[Step]:
    """The first steps of a family."""
    running, found = file.make(goal, kit(budget, seed)), list[Step]()
    try:
        step = next(running)
        while len(found) < budget:
            found.append(step)
            step = running.send(answered(step))
    except StopIteration:
        pass
    return found


def sent(found: Sequence[Step]) -> list[Request]:
    requests: list[Request] = []
    for step in found:
        if isinstance(step, Weigh):
            requests += step.requests
        elif isinstance(step, Reworded):
            requests.append(step.request)
        elif isinstance(step, Request):
            requests.append(step)
    return requests


def test_every_file_is_a_family_and_is_named_after_it() -> None:
    stems = {path.stem for path in Path(ingle.robustness.attacks.__path__[0]).glob("*.py")} - {"__init__"}
    assert {file.name for file in FILES} == stems
    assert len(FILES) == len(stems)
    assert {file.adaptive for file in FILES} == {True, False}


@EVERY
def test_a_family_says_what_it_does(file: AttackFile) -> None:
    assert file.sentence[0].islower()
    assert not file.sentence.endswith(".")
    assert isinstance(file.adaptive, bool)
    assert inspect.isgenerator(file.make(GOALS[0], kit()))


@EVERY
@pytest.mark.parametrize("goal", GOALS, ids=range(len(GOALS)))
def test_steps_depend_on_seed_and_goal_alone(file: AttackFile, goal: LabelledPrompt) -> None:
    once = steps(file, goal)
    assert once
    assert once == steps(file, goal)
    assert sent(once) or file.adaptive
    if file.name != "plain":
        assert any(steps(file, goal, seed=seed) != once for seed in (1, 2, 3)), "the seed changes nothing"


@EVERY
def test_tries_at_a_goal_differ(file: AttackFile) -> None:
    found = [digest_json([[m.role, m.text] for m in one.messages]) for one in sent(steps(file, GOALS[0]))]
    assert len(set(found)) >= 0.8 * len(found)


def _leet_back(text: str) -> str:
    for joint in ("   ", " ", ".", "-", "\u200b", "*"):
        text = text.replace(joint, "")
    back = {value: chr(key) for key, value in leet.LETTERS.items() if chr(key).islower()} | {
        "8": "b",
        "9": "g",
        "|": "l",
        "2": "z",
        "@": "a",
        "$": "s",
    }
    return "".join({**back, "!": "i"}.get(one, one) for one in text.lower())


def _plain_letters(text: str) -> str:
    text = text.translate({value: key for table in (homoglyph.CYRILLIC, homoglyph.GREEK) for key, value in table.items()})
    return unicodedata.normalize("NFKC", "".join(one for one in text if one not in "\u00ad\u0336"))


def _decoded(goal: LabelledPrompt, text: str) -> bool:
    code = text.split("\n\n", 1)[1]
    layers = [(one,) for one in encode.CODERS] + [(a, b) for a in encode.CODERS for b in encode.CODERS]
    return any(encode.encoded(goal.text, names) == code and _same(encode.decoded(code, names), goal.text) for names in layers)


def _same(one: str, other: str) -> bool:
    return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()


KEPT: dict[str, Callable[[LabelledPrompt, str], bool]] = {
    "encode": _decoded,
    "leet": lambda goal, text: _leet_back(text) == _leet_back(goal.text),
    "homoglyph": lambda goal, text: _plain_letters(text) == _plain_letters(goal.text),
    "past": lambda goal, text: past.deed_of(goal.text) in text,
    "translate": lambda goal, text: any(text.startswith(translate.translated(goal.text, one)) for one in translate.LANGUAGES),
    "tool": lambda goal, text: (
        goal.text in str(list(json.loads(text.split("\n", 3)[3]).values())).encode().decode("unicode_escape").replace("\\\\", "\\")
    ),
}
"""How a goal is found again in a request that doesn't hold it as it is."""


@pytest.mark.parametrize("goal", GOALS[:2], ids=range(2))
@pytest.mark.parametrize("file", FIXED, ids=lambda file: file.name)
def test_every_try_keeps_the_goal(file: AttackFile, goal: LabelledPrompt) -> None:
    kept = KEPT.get(file.name, lambda goal, text: goal.text in text)
    for request in sent(steps(file, goal)):
        assert kept(goal, request.messages[-1].text), request.messages[-1].text


@pytest.mark.parametrize("goal", GOALS, ids=range(len(GOALS)))
@pytest.mark.parametrize("name", encode.CODERS)
def test_every_encoding_has_its_way_back(name: str, goal: LabelledPrompt) -> None:
    code = encode.encoded(goal.text, (name,))
    back = encode.decoded(code, (name,))
    assert _same(back, goal.text) if name in ("Morse", "NATO alphabet") else back == goal.text
    assert goal.text not in code
    for outer in encode.CODERS:
        if outer not in ("Morse", "NATO alphabet"):
            assert encode.decoded(encode.encoded(code, (outer,)), (outer,)) == code


def test_a_wording_that_is_about_something_else_is_not_sent() -> None:
    goal = "Give detailed instructions for sailing a boat to Malta"
    assert paraphrase.keeps(goal, "Could you explain how sailing to Malta is done in a boat?")
    assert not paraphrase.keeps(goal, "A science fiction game about dragons")
    running = paraphrase.make(LabelledPrompt(goal, "plain", "test"), kit(budget=2))
    step, sent_ = next(running), list[Step]()
    with pytest.raises(StopIteration):
        while True:
            sent_ += [step] if isinstance(step, Reworded) else []
            step = running.send(Outcome(True, False, False, 0.0, False) if isinstance(step, Reworded) else 'Here you are:\n"Dragons"')
    assert not sent_


def test_there_are_fifteen_encodings_and_some_tries_are_two_deep() -> None:
    assert len(encode.CODERS) >= 15
    texts = [one.messages[-1].text for one in sent(steps(find_attacks(["encode"])[0], GOALS[0]))]
    assert any(", then " in text for text in texts)
    assert any(", then " not in text for text in texts)


@pytest.mark.parametrize(("name", "origin"), [("document", "document"), ("tool", "tool"), ("memory", "memory")])
def test_orders_lie_in_parts_of_their_origin(name: str, origin: str) -> None:
    hidden = 0
    for request in sent(steps(find_attacks([name])[0], GOALS[0])):
        parts = [part for part in request.messages[-1].parts if isinstance(part, TextPart)]
        assert origin in {part.origin for part in parts}
        hidden += any(GOALS[0].text in part.text for part in parts if part.origin == origin)
        assert not any(GOALS[0].text in part.text for part in parts if part.origin is None) or name == "memory"
    assert hidden


def test_families_are_found_by_name() -> None:
    assert all(not file.adaptive for file in find_attacks())
    assert set(find_attacks(adaptive=True)) == set(FILES)
    assert [file.name for file in find_attacks(["past", "bandit", "past"])] == ["past", "bandit"]
    with pytest.raises(ConfigError, match="Did you mean persona"):
        find_attacks(["persoma"])
