"""What every guard must do; run over every guard file, and over all of them together."""

import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ingle.safety.guards
from ingle.core.errors import ConfigError, IngleError, RequestError
from ingle.core.message import Chunk, Request, Verdict
from ingle.core.report import Event
from ingle.safety.guard import GuardFile, guard_files, guard_policy, make_guards
from ingle.safety.middleware import Guard, Next, drive, wrap
from ingle.safety.policy import USUAL, GuardPolicy, GuardRule
from tests.examples import examples
from tests.limited import each_within_cpu
from tests.safety.scripted import (
    ANY_TEXT,
    LIMITS,
    NAMES,
    ORDINARY,
    SOUND,
    USAGE,
    VALID,
    WORDS,
    Scripted,
    layers,
    passed,
    requests,
    user,
    verdicts,
)

FILES = guard_files()
LOOKED_FOR: dict[str, Any] = {"words": ("forbidden", "wording*"), "patterns": (r"wo\w+ \d{4}", "[a-z]{3} end")}
"""What the rules of these tests look for, in guards that take it; the first is in no text here."""
MADE = [
    (file, GuardRule(mode, **{name: value for name, value in LOOKED_FOR.items() if name in file.takes}))
    for file in FILES for mode in file.modes if mode != "off"
]  # fmt: skip
IDS = [f"{file.name}-{rule.mode}" for file, rule in MADE]
USUALLY = [(file, rule) for file, rule in MADE if rule.mode == file.modes[0]]
GUARDS: dict[str, Sequence[Guard]] = {file.name: (file.make(LIMITS, rule),) for file, rule in USUALLY}
GUARDS["all"] = [layer.guard for layer in make_guards(LIMITS)]


def policy(**rules: GuardRule) -> GuardPolicy:
    return GuardPolicy({("", ""): rules})


EVERY = pytest.mark.parametrize("guards", GUARDS.values(), ids=GUARDS)
MIB = 1 << 20


def test_every_guard_file_stands_in_its_declared_place() -> None:
    stems = {path.stem for path in Path(ingle.safety.guards.__path__[0]).glob("*.py")}
    assert {file.name for file in FILES} == stems - {"__init__"}, "a guard is named as its file"
    orders = [file.order for file in FILES]
    assert orders == sorted(set(orders)), "two guards in one place"
    usual = [file.name for file in FILES if file.modes[0] != "off"]
    assert [layer.name for layer in make_guards(LIMITS)] == usual


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_guard_does_what_its_policy_says_and_nothing_else(file: GuardFile) -> None:
    assert file.modes
    assert set(file.modes) <= {"off", "tell", "edit", "block"}
    assert len(set(file.modes)) == len(file.modes)
    assert ("edit" in file.modes) <= file.edits
    for mode in file.modes:
        names = [layer.name for layer in make_guards(LIMITS, policy(**{file.name: GuardRule(mode)}))]
        assert (file.name in names) == (mode != "off")


@pytest.mark.parametrize(("file", "rule"), MADE, ids=IDS)
@examples(80)
@given(request=requests(ANY_TEXT), said=st.lists(VALID, max_size=4))
def test_only_a_guard_that_says_so_edits_and_only_in_that_mode(file: GuardFile, rule: GuardRule, request: Request, said: list[str]) -> None:
    chunks = [*map(Chunk, said), Chunk("", finish="stop")]
    try:
        asked, answer = passed([file.make(LIMITS, rule)], request, chunks)
    except IngleError:
        return
    actions = {verdict.action for verdict in verdicts(answer)}
    changed = asked != request or "".join(c.text for c in answer) != "".join(said)
    if "block" in actions:
        assert rule.mode == "block"
        assert answer[-1].finish == "blocked"
    elif changed:
        assert file.edits
        assert "edit" in actions
    if rule.mode != "edit":
        assert "edit" not in actions


def test_a_policy_names_guards_and_modes_that_there_are(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    assert guard_policy(path).rules() == USUAL.rules() == {}
    path.write_text("[bits]\nmost_rise_percent = 2.0\n")
    assert guard_policy(path).rules() == USUAL.rules() == {}
    for file in FILES:
        path.write_text(f'[guards]\n{file.name} = "{file.modes[-1]}"\n')
        assert guard_policy(path).rules() == {file.name: GuardRule(file.modes[-1])}
    for wrong in ('[guards]\nnobody = "off"', f'[guards]\n{FILES[0].name} = "sometimes"', "guards = 1", f"[guards]\n{FILES[0].name} = []"):
        path.write_text(wrong)
        with pytest.raises(ConfigError):
            guard_policy(path)


WAITING = '''
"""A guard of a test: it looks at three chunks at a time, takes out a word, and blocks where another one stands."""
from dataclasses import replace
from ingle.core.errors import RequestError
from ingle.core.message import Verdict
NAME, ORDER, MODES, EDITS, HOLDS_BACK = "waiting", 35, ("edit", "off"), True, 10
ABOUT, LOOKS_AT = "A word, and another one.", ("question", "answer")

def make(limits, rule):
    async def guard(request, answer):
        if any("forbidden" in message.text for message in request.messages):
            raise RequestError("messages[0].content", "must not be about that")
        held = []
        async for chunk in answer(request):
            verdicts = (*chunk.verdicts, Verdict("edit", "a word", NAME))
            held.append(replace(chunk, text=chunk.text.replace("word", "w***"), verdicts=verdicts))
            if len(held) > 2:
                yield held.pop(0)
        for chunk in held:
            yield chunk
    return guard
'''


def test_a_new_guard_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "waiting.py").write_text(WAITING)
    monkeypatch.setattr(ingle.safety.guards, "__path__", [*ingle.safety.guards.__path__, str(tmp_path)])
    guard_files.cache_clear()
    files = guard_files()
    assert [file.name for file in files if file not in FILES] == ["waiting"]
    [waiting] = [file for file in files if file.name == "waiting"]
    guards = make_guards(LIMITS)
    assert "waiting" in [layer.name for layer in guards]
    assert "waiting" not in [layer.name for layer in make_guards(LIMITS, policy(waiting=GuardRule("off")))]
    inner = Scripted([Chunk("word ", (i,)) for i in range(20)] + [Chunk("", finish="length")])
    texts = []
    for chunk in drive(wrap(guards, inner)(ORDINARY)):
        texts.append(chunk.text)
        assert min(inner.given, 20) * 5 <= len("".join(texts)) + waiting.holds_back + 5
    assert "".join(texts) == "w*** " * 20
    with pytest.raises(RequestError) as caught:
        list(drive(wrap(guards, inner)(user("something forbidden"))))
    assert caught.value.guard == "waiting"
    sys.modules.pop("ingle.safety.guards.waiting")
    guard_files.cache_clear()


@EVERY
@pytest.mark.parametrize(
    "request_", [ORDINARY, Request(prompt="Once upon\r\n\ta time"), Request(prompt=(1, 2, 3))], ids=["chat", "text", "ids"]
)
def test_the_ordinary_passes_unchanged(guards: Sequence[Guard], request_: Request) -> None:
    asked, answer = passed(guards, request_)
    assert asked == request_
    assert answer == WORDS


@pytest.mark.parametrize(("file", "rule"), MADE, ids=IDS)
@examples(60)
@given(said=st.lists(st.text("abwordfint .[@-1\u200b\\", max_size=9), max_size=120))
def test_no_more_is_held_back_than_a_guard_says(file: GuardFile, rule: GuardRule, said: list[str]) -> None:
    inner = Scripted([*(Chunk(text, (i,)) for i, text in enumerate(said)), Chunk("", finish="length")])
    out = 0
    for chunk in drive(wrap(layers([file.make(LIMITS, rule)]), inner)(ORDINARY)):
        out += len(chunk.text)
        given = [*said, ""][: inner.given]
        removed = sum(map(len, given)) if any(verdict.action != "allow" for verdict in chunk.verdicts) else 0
        if removed:
            return  # what a guard took out is not held back
        assert sum(map(len, given)) <= out + file.holds_back + len(given[-1])
    assert inner.given == len(said) + 1


@EVERY
def test_the_answer_is_closed_when_its_reader_goes(guards: Sequence[Guard]) -> None:
    inner = Scripted(WORDS)
    held = wrap(layers(guards), inner)(ORDINARY)  # so that nothing is closed only because nobody refers to it any more
    chunks = drive(held)
    next(chunks)
    assert (inner.given, inner.closed) == (1, 0)
    chunks.close()  # type: ignore[attr-defined]
    assert (inner.given, inner.closed) == (1, 1)


@EVERY
@pytest.mark.parametrize("error", [IngleError("a", "b"), ValueError("x"), KeyboardInterrupt(), StopIteration("s")], ids=repr)
def test_what_fails_inside_comes_out(guards: Sequence[Guard], error: BaseException) -> None:
    inner, seen = Scripted(WORDS[:1], fails=error), []
    with pytest.raises(RuntimeError if isinstance(error, StopIteration) else type(error)) as caught:
        seen += list(drive(wrap(layers(guards), inner)(ORDINARY)))
    assert caught.value is error or isinstance(error, StopIteration)
    assert inner.closed == 1


@EVERY
def test_all_that_a_chunk_says_is_kept(guards: Sequence[Guard]) -> None:
    theirs = Verdict("allow", "said inside", "inner")
    last = Chunk("\u202eend", (9,), finish="length", usage=USAGE, verdicts=(theirs,), event=Event("answer", "m", {"n": 1}), media=(SOUND,))
    asked, [chunk] = passed(guards, user("an <|im_end|>\x00 and more"), [last])
    assert (chunk.tokens, chunk.finish, chunk.usage, chunk.event, chunk.media) == (
        last.tokens,
        last.finish,
        last.usage,
        last.event,
        last.media,
    )
    assert chunk.verdicts[0] == theirs
    assert {verdict.guard for verdict in chunk.verdicts[1:]} <= {file.name for file in FILES}
    assert bool([v for v in chunk.verdicts if v.action == "edit"]) == (asked.messages[0].text != "an <|im_end|>\x00 and more")


@EVERY
@examples(150)
@given(request=requests(ANY_TEXT), said=st.lists(VALID, max_size=4))
def test_whatever_comes_only_our_errors_are_raised_and_once_is_enough(guards: Sequence[Guard], request: Request, said: list[str]) -> None:
    chunks = [*map(Chunk, said), Chunk("", finish="stop")]
    try:
        asked, answer = passed(guards, request, chunks)
    except IngleError as error:
        str(error).encode()
        return
    assert [v for v in verdicts(answer) if v.guard == "unicode"] or (
        asked == request and [c.text for c in answer] == [c.text for c in chunks]
    )
    again, answer_again = passed(guards, asked, [replace(chunk, verdicts=()) for chunk in answer])
    assert again == asked
    assert [chunk.text for chunk in answer_again] == [chunk.text for chunk in answer]
    assert not [v for v in verdicts(answer_again) if v.action == "edit"]
    for verdict in verdicts(answer):
        verdict.reason.encode()
        assert verdict.reason.isprintable()
        assert len(verdict.reason) < 500


LONG = {
    "ASCII": "the cat sat " * (MIB // 12),
    "Japanese": "日本語" * (MIB // 9),
    "emoji": "👩‍👩‍👧" * (MIB // 18),
    "spaces": " " * (MIB - 1) + "a",
    "controls": "\x00" * MIB,
    "controls between": "a\x00" * (MIB // 2),
    "tags": "\U000e0041" * (MIB // 4),
    "flags": "\U0001f3f4\U000e0067\U000e0061" * (MIB // 12),
    "beginnings of names": "<|" * (MIB // 2),
    "long beginnings of names": "<|reserved_special_token_1" * (MIB // 26),
    "names": "<|im_end|>" * (MIB // 10),
    "digits": "0123456789 " * (MIB // 11),
    "one run of digits": "1" * MIB,
    "at signs": "a@" * (MIB // 2),
    "dots": "1.1." * (MIB // 4),
    "colons": "2a:" * (MIB // 3),
    "dashes": "12-34-" * (MIB // 6),
    "one token": "sk-" + "aB3" * (MIB // 4),
}
MANY_NAMES = (*NAMES, *(f"<|reserved_special_token_{i}|>" for i in range(250)))


def mebibyte(case: str) -> bool:
    """A guard looks at a long text."""
    name, _, text = case.partition(": ")
    file, rule = next(one for one in MADE if one[0].name == name)
    passed([file.make(replace(LIMITS, control_names=MANY_NAMES), rule)], user(LONG[text]))
    return True


@pytest.fixture(scope="module")
def looked_at() -> dict[str, bool]:
    """Measured: 1 to 15 ms where nothing is removed, up to 120 ms where all is, 600 ms where every word is a number to check. Anything
    quadratic would take minutes."""
    return each_within_cpu(mebibyte, [f"{file.name}: {text}" for file in FILES for text in LONG], seconds=20)


@pytest.mark.parametrize("text", LONG)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_mebibyte_takes_a_moment(looked_at: dict[str, bool], file: GuardFile, text: str) -> None:
    assert looked_at[f"{file.name}: {text}"]


def block_on(word: str) -> Guard:
    async def guard(request: Request, answer: Next) -> AsyncIterator[Chunk]:
        async for chunk in answer(request):
            if word in chunk.text:
                yield Chunk("", finish="blocked", verdicts=(Verdict("block", f"the answer held {word!r}", "test"),))
                return
            yield chunk

    return guard


@EVERY
@pytest.mark.parametrize("outermost", [True, False])
def test_a_guard_can_end_the_answer(guards: Sequence[Guard], outermost: bool) -> None:
    inner = Scripted(WORDS)
    block = block_on("lo")
    answer = list(drive(wrap(layers([block, *guards] if outermost else [*guards, block]), inner)(ORDINARY)))
    assert [chunk.text for chunk in answer] == ["Hel", ""]
    assert answer[-1].finish == "blocked"
    assert [verdict.action for verdict in answer[-1].verdicts] == ["block"]
    assert (inner.given, inner.closed) == (2, 1)
