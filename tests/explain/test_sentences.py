"""Sentences of a request: together they are its text, what was taught is none of them, and what is left out is gone and nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.adapt.memory import placed
from ingle.core.example import Example
from ingle.core.media import Picture
from ingle.core.message import ImagePart, Message, Request, TextPart
from ingle.explain.prompt_sentences import QUARTERS, sentences_of, spans, without
from ingle.media.picture import png_of, read_picture
from tests.engine.colours import png

WORDS = st.text(alphabet="abc XYZ.,!?\n\"'1é。", max_size=120)


@given(WORDS)
def test_sentences_are_the_text(text: str) -> None:
    pieces = [text[start:end] for start, end in spans(text)]
    assert "".join(pieces) == text
    assert all(any(map(str.isalnum, piece)) for piece in pieces[:-1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It rains. Dr. Mill is out. He reads.", ["It rains. ", "Dr. Mill is out. ", "He reads."]),
        ("J. Smith left the U.S. in May. Why?", ["J. Smith left the U.S. in May. ", "Why?"]),
        ("It cost 3.50 pounds. “No!” she said. Fine", ["It cost 3.50 pounds. ", "“No!” she said. ", "Fine"]),
        ("one\ntwo\n\nthree", ["one\n", "two\n\n", "three"]),
        ("彼は来た。雨だ。", ["彼は来た。", "雨だ。"]),
        ("...", ["..."]),
        ("", []),
    ],
)
def test_a_sentence_ends_where_people_end_it(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in spans(text)] == expected


def test_the_question_and_an_order_before_a_text_are_no_causes() -> None:
    def asks(text: str) -> list[bool]:
        return [one.asks for one in sentences_of(Request((Message.of("user", text),)))]

    assert asks("One is red. Two is blue.\n\nWhat is red?") == [False, False, True]
    assert asks("Summarise this:\n\nOne is red. Two is blue.") == [True, False, False]
    assert asks("Read this:\nOne is red. Two is blue. What is red?") == [True, False, False, True]
    assert asks("What is red?") == [True]
    plain = Request(prompt="One is red. Two is blue. Red is")
    assert [one.asks for one in sentences_of(plain)] == [False, False, True]


def test_what_was_taught_is_left_out_as_a_whole_only() -> None:
    request = Request((Message.of("system", "Be kind."), Message.of("user", "It rains. Who is the mayor?")))
    with_memory = placed(request, [Example("ex-1", "", "tiny", "correction", "Who is the mayor?", "Mara. She is nice.")])
    assert [one.text for one in sentences_of(with_memory)] == [one.text for one in sentences_of(request)]
    assert [one.text.strip() for one in sentences_of(request)] == ["Be kind.", "It rains.", "Who is the mayor?"]


def test_without_a_sentence_all_else_stays() -> None:
    request = Request((Message.of("user", "A one. B two.\n\nC three?"), Message.of("assistant", "Yes."), Message.of("user", "Do it. Eh?")))
    a, b, c, yes, d, e = sentences_of(request)

    def left(*out: object) -> list[str]:
        return [message.text for message in without(request, out).messages]  # type: ignore[arg-type]

    assert left() == [message.text for message in request.messages]
    assert left(a) == ["B two.\n\nC three?", "Yes.", "Do it. Eh?"]
    assert left(b) == ["A one.\n\nC three?", "Yes.", "Do it. Eh?"]  # the paragraph still ends there
    assert left(a, b) == ["C three?", "Yes.", "Do it. Eh?"]
    assert left(yes) == ["A one. B two.\n\nC three?", "Do it. Eh?"]  # nothing is left of that turn
    assert left(d, e) == ["A one. B two.\n\nC three?", "Yes.", ""]  # the last turn stays: it is answered
    assert without(request, [c]).max_tokens == request.max_tokens


def test_a_prompt_of_token_ids_has_no_sentences_and_parts_keep_their_origin() -> None:
    assert sentences_of(Request(prompt=(1, 2, 3))) == ()
    parts = (TextPart("It said this. It said that. ", "document"), TextPart("Why?"))
    request = Request((Message("user", parts),))
    first, *_ = sentences_of(request)
    [message] = without(request, [first]).messages
    assert [(part.text, part.origin) for part in message.parts if isinstance(part, TextPart)] == [
        ("It said that. ", "document"),
        ("Why?", None),
    ]


def test_the_quarters_of_a_picture_are_causes_and_never_the_question() -> None:
    message = Message("user", (png((200, 0, 0)), TextPart("What is this? Be brief.")))
    request = Request((Message.of("system", "Be kind."), message))
    found = sentences_of(request)
    assert [one.text for one in found if one.message == 1 and one.part == 0] == [f"[the picture: {place}] " for place in QUARTERS]
    assert [one.asks for one in found] == [False] * 6 + [True]
    last = Request((Message("user", (TextPart("What is this?"), png((200, 0, 0)))),))
    assert [one.asks for one in sentences_of(last)] == [True, False, False, False, False]


def test_a_quarter_is_left_out_by_the_mean_colour() -> None:
    halves = np.zeros((4, 6, 3), np.uint8)
    halves[:2] = 200
    request = Request((Message("user", (ImagePart(png_of(Picture(halves)), "image/png", "tool"), TextPart("What is this?"))),))
    quarters = [one for one in sentences_of(request) if not one.asks]
    cut = without(request, quarters[:1]).messages[0].parts
    assert (cut[0].origin, cut[1]) == ("tool", TextPart("What is this?"))
    pixels = read_picture(cut[0].data).pixels  # type: ignore[union-attr]
    assert (pixels[:2, :3] == 100).all()
    assert np.array_equal(pixels[:, 3:], halves[:, 3:])
    blank = read_picture(without(request, quarters).messages[0].parts[0].data).pixels  # type: ignore[union-attr]
    assert (blank == 100).all()
    assert without(request, ()) == request
