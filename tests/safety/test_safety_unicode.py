"""What nobody sees is removed and told; what people write in whatever script stays as it is."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingle.core.errors import RequestError
from ingle.core.message import Chunk, Constraint, Message, Request, TextPart, ToolCall
from ingle.safety.guard import make_guards
from ingle.safety.guards.unicode import AnswerFilter, make, visible_request
from ingle.safety.policy import GuardRule
from tests.examples import examples
from tests.safety.scripted import ENGLAND, LIMITS, ORDINARY, PIECES, TAGGED, VALID, passed, requests, user, verdicts

FLAGS = ["\U0001f3f4" + "".join(chr(0xE0000 + ord(c)) for c in region) + "\U000e007f" for region in ("gbeng", "gbsct", "gbwls")]
WRITTEN = [
    "plain\tASCII\r\nwith lines\n",
    "می‌خواهم",  # ZWNJ
    "क्‍ष",  # ZWJ in Devanagari
    "مرحبا \u061c\u200f 123 \u200e abc",
    "שלום \u200f(a)",
    "👩‍👩‍👧‍👦 👍🏽 ❤️ ☎︎ 1️⃣ 🏳️‍🌈 🇪🇺",
    *FLAGS,
    f"{FLAGS[0]}{FLAGS[1]} and {FLAGS[2]}",
    "葛\U000e0100 𠀀 𝔘 \U0010fffd \ue000",  # variation selector, planes 1, 2, and private use
    "soft\u00adhyphen, no\u00a0break, zero\u200bwidth, word\u2060joiner, line\u2028end",
    "\ufffd \ufffc",
]


def cleaned(text: str) -> str:
    return visible_request(user(text))[0].messages[0].text


@pytest.mark.parametrize("text", WRITTEN)
def test_what_people_write_stays(text: str) -> None:
    request = user(text)
    assert visible_request(request) == (request, ())
    assert AnswerFilter().feed(text) == (text, "")
    said = AnswerFilter()
    assert "".join(said.feed(character)[0] for character in text) == text


@pytest.mark.parametrize(
    ("typed", "kept", "named"),
    [
        ("a\x00b", "ab", "U+0000"),
        ("\x1b[31mred\x7f\x9b", "[31mred", "U+001B, U+007F, U+009B"),
        ("page\x0cnext\x0bline\x85end\x1e.", "page\nnext\nline\nend\n.", "U+000B, U+000C, U+001E, U+0085"),
        ("a\u202eb\u2066c\u2069\u202c", "abc", "U+202C, U+202E, U+2066, U+2069"),
        ("\ufeffa\ufeffb", "ab", "U+FEFF"),
        ("a\ufdd0\ufffe\uffff\U0001fffe\U0010ffff", "a", "U+FDD0, U+FFFE, U+FFFF, U+1FFFE, U+10FFFF"),
        (f"hi{TAGGED}!", "hi!", "U+E0000–E007F"),
        ("\U000e0001\U000e007fx", "x", "U+E0000–E007F"),
        (f"{FLAGS[0]}{TAGGED}", FLAGS[0], "U+E0000–E007F"),
        ("\U0001f3f4" + "".join(chr(0xE0000 + ord(c)) for c in "ustx") + "\U000e007f", "\U0001f3f4", "U+E0000–E007F"),
        (f"\U0001f3f4\x00{FLAGS[0][1:]}", "\U0001f3f4", "U+0000, U+E0000–E007F"),
        ("".join(map(chr, range(9))), "", "U+0000, U+0001, U+0002, U+0003, U+0004, U+0005 and 3 more"),
    ],
)
def test_what_nobody_sees_is_removed_and_named(typed: str, kept: str, named: str) -> None:
    request, [verdict] = visible_request(user("ok " + typed))
    assert request.messages[0].text == "ok " + kept
    assert (verdict.action, verdict.guard) == ("edit", "unicode")
    assert f"({named})" in verdict.reason
    assert "messages[0].content" in verdict.reason


def test_every_code_point_is_where_the_table_has_it() -> None:
    removed = {*range(9), 0xB, 0xC, *range(0xE, 0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF}
    removed |= {*range(0xFDD0, 0xFDF0), *(plane << 16 | low for plane in range(17) for low in (0xFFFE, 0xFFFF)), *range(0xE0000, 0xE0080)}
    said = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xE0000, 0xE0080)}
    line_ends = {0xB, 0xC, 0x1C, 0x1D, 0x1E, 0x85}
    points = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    typed = cleaned("".join(f"{chr(point)}|" for point in points)).split("|")
    assert len(typed) == len(points) + 1 + 1  # the bar itself
    kept = cleaned("".join(map(chr, points)))
    assert kept == "".join("\n" if point in line_ends else chr(point) for point in points if point not in removed or point in line_ends)
    assert AnswerFilter().feed("".join(map(chr, points)))[0] == "".join(chr(point) for point in points if point not in said)


def test_it_is_removed_wherever_a_model_would_read_it() -> None:
    bad = f"x\x00{TAGGED}"
    request = Request(
        messages=(
            Message("system", (TextPart(bad), TextPart(bad))),
            Message("assistant", (TextPart(bad),), (ToolCall(bad, bad, bad),)),
            Message("tool", (TextPart(bad),), tool_call_id=bad),
        ),
        tools=({bad: [bad, {"k": bad}, 1, None]},),
        stop=(bad,),
        constraint=Constraint("regex", bad),
    )
    edited, [verdict] = visible_request(request)
    assert edited == Request(
        messages=(
            Message("system", (TextPart("x"), TextPart("x"))),
            Message("assistant", (TextPart("x\x00"),), (ToolCall("x", "x", "x\x00"),)),
            Message("tool", (TextPart("x"),), tool_call_id="x"),
        ),
        tools=({"x": ["x", {"k": "x"}, 1, None]},),
        stop=(bad,),
        constraint=Constraint("regex", bad),
    )
    places = "messages[0].content, messages[1].content, messages[1].tool_calls[0].id, messages[1].tool_calls[0].name"
    assert verdict.reason.endswith(f" from {places}, messages[1].tool_calls[0].arguments, messages[2].content and 2 more")
    prompt, [verdict] = visible_request(Request(prompt=bad))
    assert prompt.prompt == "x"
    assert verdict.reason == f"removed {1 + len(TAGGED)} unseen characters (U+0000, U+E0000–E007F) from prompt"


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (user("a\ud800"), "messages[0].content"),
        (Request(messages=(*ORDINARY.messages, Message.of("assistant", "\udfff"))), "messages[5].content"),
        (Request(prompt="\ud83d\ude00"), "prompt"),  # two halves are no whole in Python
        (replace(ORDINARY, tools=({}, {"a": {"b": "\udc00"}})), "tools[1]"),
        (replace(ORDINARY, tools=({"\udc00": 1},)), "tools[0]"),
        (Request(messages=(Message("assistant", (), (ToolCall("1", "f", "\ud800"),)),)), "messages[0].tool_calls[0].arguments"),
        (user("a", stop=("ok", "\ud800")), "stop[1]"),
        (user("a", constraint=Constraint("lark", "\ud800")), "response_format"),
    ],
)
def test_invalid_unicode_is_refused_where_it_stands(request_: Request, field: str) -> None:
    with pytest.raises(RequestError, match="valid Unicode") as caught:
        visible_request(request_)
    assert caught.value.field == field
    str(caught.value).encode()


def test_the_answer_is_cleaned_as_it_comes() -> None:
    chunks = [Chunk(f"a{TAGGED}", (1,)), Chunk("b\x1b\x00\ufeff"), Chunk("\u202e"), Chunk("c", finish="stop")]
    asked, answer = passed([make(LIMITS, GuardRule("edit"))], user("q\x00"), chunks)
    assert asked == user("q")
    assert [chunk.text for chunk in answer] == ["a", "b\x1b\x00\ufeff", "", "c"]
    reasons = [[verdict.reason for verdict in chunk.verdicts] for chunk in answer]
    assert reasons == [
        ["removed 1 unseen character (U+0000) from messages[0].content", "removed 7 unseen characters (U+E0000–E007F) from answer"],
        [],
        ["removed 1 unseen character (U+202E) from answer"],
        [],
    ]


SPOKEN = st.lists(st.sampled_from([*PIECES, *FLAGS, *"\U000e0067\U000e0062\U000e0065\U000e007f"]), max_size=8).map("".join)


@examples(300)
@given(text=SPOKEN | VALID, cuts=st.lists(st.integers(0, 60), max_size=8))
@example(text="\U0001f3f4\U000e0067\u202e\U000e0062", cuts=[3])
@example(text=ENGLAND, cuts=[1, 2, 3])
def test_however_an_answer_is_cut_it_reads_the_same(text: str, cuts: list[int]) -> None:
    as_a_turn = visible_request(Request(messages=(Message.of("assistant", text),)))[0].messages[0].text
    said, shown, last = AnswerFilter(), "", 0
    for cut in [*sorted(cuts), len(text)]:
        shown += said.feed(text[last : max(last, cut)])[0]
        last = max(last, cut)
    assert shown == as_a_turn


@examples(200)
@given(request=requests(VALID))
def test_behind_the_guards_nothing_unseen_is_left(request: Request) -> None:
    try:
        asked, answer = passed(make_guards(LIMITS), request)
    except RequestError:
        return
    again, told = visible_request(asked)
    assert (again, told) == (asked, ())
    typed = [m.text for m in asked.messages if m.role != "assistant"] + ([asked.prompt] if isinstance(asked.prompt, str) else [])
    for text in typed:
        assert not any(0x7F <= ord(c) < 0xA0 or (c < " " and c not in "\t\n\r") or c in "\u202e\ufeff\ufffe" for c in text)
    assert not verdicts(answer) or verdicts(answer)[0].guard in ("unicode", "control_tokens")
