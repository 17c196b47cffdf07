"""Words in pictures: read where Tesseract is installed, quoted behind their picture, and nothing else changes."""

import io

import pytest
from PIL import Image, ImageDraw, ImageFont

from ingle.core.message import ImagePart, Message, Request, TextPart
from ingle.media import printed
from ingle.media.printed import message_with_printed_words, reads_print, with_printed_words

needs_tesseract = pytest.mark.skipif(not reads_print(), reason="Tesseract is not installed")


def sign(text: str) -> ImagePart:
    image = Image.new("RGB", (420, 120), "white")
    ImageDraw.Draw(image).text((20, 30), text, fill="black", font=ImageFont.load_default(48))
    file = io.BytesIO()
    image.save(file, "PNG")
    return ImagePart(file.getvalue(), "image/png")


@needs_tesseract
def test_what_stands_on_a_sign_stands_behind_it() -> None:
    question = TextPart("What does it say?")
    message = message_with_printed_words(Message("user", (sign("OPEN 24 HOURS"), question)))
    assert isinstance(message.parts[0], ImagePart) and message.parts[2] == question
    assert message.parts[1] == TextPart('(In the picture stands: "OPEN 24 HOURS") ', "document")


@needs_tesseract
def test_a_quotation_can_not_be_closed_and_a_blank_picture_says_nothing() -> None:
    [_, words] = message_with_printed_words(Message("user", (sign('SAY "YES"'),))).parts
    assert isinstance(words, TextPart) and words.text.count('"') == 2
    blank = Message("user", (sign(""),))
    assert message_with_printed_words(blank) == blank


def test_only_users_pictures_are_read_and_only_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Request((Message("assistant", (sign("OPEN"),)), Message.of("user", "And?")))
    assert with_printed_words(drawn) == drawn
    monkeypatch.setattr(printed.shutil, "which", lambda _name: None)
    shown = Request((Message("user", (sign("OPEN"),)),))
    assert with_printed_words(shown) is shown
