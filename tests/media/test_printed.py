"""Words in pictures: read where Tesseract is installed, quoted behind their picture, and nothing else changes."""

import asyncio
import io
from typing import cast

import pytest
from PIL import Image, ImageDraw, ImageFont

from ingle.core.apart import StopFlag
from ingle.core.errors import Interrupted
from ingle.core.message import ImagePart, Message, TextPart
from ingle.media import printed
from ingle.media.picture import read_picture
from ingle.media.printed import printed_words, quoted, reads_print
from ingle.serve.hearing import with_printed_words
from ingle.serve.service import Service

needs_tesseract = pytest.mark.skipif(not reads_print(), reason="Tesseract is not installed")


def sign(text: str) -> ImagePart:
    image = Image.new("RGB", (420, 120), "white")
    ImageDraw.Draw(image).text((20, 30), text, fill="black", font=ImageFont.load_default(48))
    file = io.BytesIO()
    image.save(file, "PNG")
    return ImagePart(file.getvalue(), "image/png")


def words_in(picture: ImagePart) -> str:
    return printed_words(read_picture(picture.data), StopFlag())


@needs_tesseract
def test_what_stands_on_a_sign_is_read() -> None:
    assert words_in(sign("OPEN 24 HOURS")) == "OPEN 24 HOURS"
    assert quoted("OPEN 24 HOURS") == TextPart('(In the picture stands: "OPEN 24 HOURS") ', "document")


@needs_tesseract
def test_a_quotation_can_not_be_closed_and_a_blank_picture_says_nothing() -> None:
    assert '"' not in words_in(sign('SAY "YES"')) and "SAY" in words_in(sign('SAY "YES"'))
    assert words_in(sign("")) == ""


@needs_tesseract
def test_nobody_waits_for_what_nobody_wants() -> None:
    stop = StopFlag()
    stop.set()
    with pytest.raises(Interrupted):
        printed_words(read_picture(sign("OPEN").data), stop)


def test_only_users_pictures_are_read_and_only_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = cast(Service, None)
    drawn = Message("assistant", (sign("OPEN"),))
    assert asyncio.run(with_printed_words(nobody, drawn, "")) is drawn
    monkeypatch.setattr(printed.shutil, "which", lambda _name: None)
    shown = Message("user", (sign("OPEN"),))
    assert asyncio.run(with_printed_words(nobody, shown, "")) is shown
