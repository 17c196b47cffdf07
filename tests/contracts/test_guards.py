"""What every guard must do; run over every guard file, and over all of them together."""

import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ingle.safety
from ingle.core.errors import ConfigError, IngleError, RequestError
from ingle.core.event import Event
from ingle.core.message import Chunk, Request, Verdict
from ingle.safety.middleware import Guard, Next, drive, wrap
from ingle.safety.policy import Mode
from ingle.safety.registry import GuardFile, guard_files, guard_policy, make_guards
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
NOT_GUARDS = {"__init__", "limits", "middleware", "policy", "registry", "texts"}
MADE = [(file, mode) for file in FILES for mode in file.modes if mode != "off"]
GUARDS: dict[str, Sequence[Guard]] = {file.name: (file.make(LIMITS, file.modes[0]),) for file in FILES if file.modes[0] != "off"}
GUARDS["all"] = [layer.guard for layer in make_guards(LIMITS)]
EVERY = pytest.mark.parametrize("guards", GUARDS.values(), ids=GUARDS)
MIB = 1 << 20


def test_every_guard_file_stands_in_its_declared_place() -> None:
    stems = {path.stem for path in Path(ingle.safety.__path__[0]).glob("*.py")}
    assert {file.name for file in FILES} == stems - NOT_GUARDS, "a file of safety/ is a guard (NAME, ORDER, make, …), or is named here"
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
        names = [layer.name for layer in make_guards(LIMITS, {file.name: mode})]
        assert (file.name in names) == (mode != "off")


@pytest.mark.parametrize(("file", "mode"), MADE, ids=[f"{file.name}-{mode}" for file, mode in MADE])
@settings(deadline=None, max_examples=80)
@given(request=requests(ANY_TEXT), said=st.lists(VALID, max_size=4))
def test_only_a_guard_that_says_so_edits_and_only_in_that_mode(file: GuardFile, mode: Mode, request: Request, said: list[str]) -> None:
    chunks = [*map(Chunk, said), Chunk("", finish="stop")]
    try:
        asked, answer = passed([file.make(LIMITS, mode)], request, chunks)
    except IngleError:
        return
    actions = {verdict.action for verdict in verdicts(answer)}
    changed = asked != request or "".join(c.text for c in answer) != "".join(said)
    if "block" in actions:
        assert mode == "block"
        assert answer[-1].finish == "blocked"
    elif changed:
        assert file.edits
        assert "edit" in actions
    if mode != "edit":
        assert "edit" not in actions


def test_a_policy_names_guards_and_modes_that_there_are(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    assert guard_policy(path) == {}
    path.write_text("[bits]\nmost_rise_percent = 2.0\n")
    assert guard_policy(path) == {}
    for file in FILES:
        path.write_text(f'[guards]\n{file.name} = "{file.modes[-1]}"\n')
        assert guard_policy(path) == {file.name: file.modes[-1]}
    for wrong in ('[guards]\nnobody = "off"', f'[guards]\n{FILES[0].name} = "sometimes"', "guards = 1", f"[guards]\n{FILES[0].name} = []"):
        path.write_text(wrong)
        with pytest.raises(ConfigError):
            guard_policy(path)


HOLDING = '''
"""A guard of a test: it looks at three chunks at a time, takes out a word, and blocks where another one stands."""
from dataclasses import replace
from ingle.core.errors import RequestError
from ingle.core.message import Verdict
NAME, ORDER, MODES, EDITS, HOLDS_BACK = "holding", 35, ("edit", "off"), True, 2

def make(limits, mode):
    async def guard(request, answer):
        if any("forbidden" in message.text for message in request.messages):
            raise RequestError("messages[0].content", "must not be about that")
        held = []
        async for chunk in answer(request):
            verdicts = (*chunk.verdicts, Verdict("edit", "a word", NAME))
            held.append(replace(chunk, text=chunk.text.replace("word", "w***"), verdicts=verdicts))
            if len(held) > HOLDS_BACK:
                yield held.pop(0)
        for chunk in held:
            yield chunk
    return guard
'''


def test_a_new_guard_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "holding.py").write_text(HOLDING)
    monkeypatch.setattr(ingle.safety, "__path__", [*ingle.safety.__path__, str(tmp_path)])
    files = guard_files()
    assert [file.name for file in files if file not in FILES] == ["holding"]
    [holding] = [file for file in files if file.name == "holding"]
    guards = make_guards(LIMITS)
    assert "holding" in [layer.name for layer in guards]
    assert "holding" not in [layer.name for layer in make_guards(LIMITS, {"holding": "off"})]
    inner = Scripted([Chunk("word ", (i,)) for i in range(20)] + [Chunk("", finish="length")])
    texts = []
    for count, chunk in enumerate(drive(wrap(guards, inner)(ORDINARY)), start=1):
        texts.append(chunk.text)
        assert inner.given <= count + holding.holds_back
    assert "".join(texts) == "w*** " * 20
    with pytest.raises(RequestError) as caught:
        list(drive(wrap(guards, inner)(user("something forbidden"))))
    assert caught.value.guard == "holding"
    sys.modules.pop("ingle.safety.holding")


@EVERY
@pytest.mark.parametrize(
    "request_", [ORDINARY, Request(prompt="Once upon\r\n\ta time"), Request(prompt=(1, 2, 3))], ids=["chat", "text", "ids"]
)
def test_the_ordinary_passes_unchanged(guards: Sequence[Guard], request_: Request) -> None:
    asked, answer = passed(guards, request_)
    assert asked == request_
    assert answer == WORDS


@pytest.mark.parametrize(("file", "mode"), MADE, ids=[f"{file.name}-{mode}" for file, mode in MADE])
def test_no_more_is_held_back_than_a_guard_says(file: GuardFile, mode: Mode) -> None:
    inner = Scripted([Chunk("word ", (i,)) for i in range(20)] + [Chunk("", finish="length")])
    for count, _chunk in enumerate(drive(wrap(layers([file.make(LIMITS, mode)]), inner)(ORDINARY)), start=1):
        assert inner.given <= count + file.holds_back
    assert inner.given == 21


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
@settings(deadline=None, max_examples=150)
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
}
MANY_NAMES = (*NAMES, *(f"<|reserved_special_token_{i}|>" for i in range(250)))


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_mebibyte_takes_a_moment(file: GuardFile, text: str) -> None:
    """Measured: 1 to 15 ms where nothing is removed, up to 120 ms where all is. Anything quadratic would take minutes."""
    guard = file.make(replace(LIMITS, control_names=MANY_NAMES), next(mode for mode in file.modes if mode != "off"))
    best_s = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        passed([guard], user(text))
        best_s = min(best_s, time.perf_counter() - start)
    assert best_s < 0.5


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
