"""What the browser sends as a message."""

import base64
from typing import Any

import pytest

from ingle.core.errors import RequestError
from ingle.core.message import ImagePart, Message, TextPart
from ingle.serve.sent import MOST_TEXT, message_of

URL = "data:image/png;base64," + base64.b64encode(b"png").decode()
PICTURE = ImagePart(b"png", "image/png")


@pytest.mark.parametrize(
    ("sent", "parts"),
    [
        (" hello ", (TextPart("hello"),)),
        ("  ", ()),
        (None, ()),
        ({"text": "what is it?", "pictures": [URL]}, (PICTURE, TextPart("what is it?"))),
        ({"text": " ", "pictures": [URL, URL]}, (PICTURE, PICTURE)),
        ({"pictures": []}, ()),
    ],
)
def test_words_and_pictures(sent: Any, parts: tuple[Any, ...]) -> None:
    assert message_of(sent) == Message("user", parts)


def test_pictures_stay_with_an_edited_question() -> None:
    assert message_of("and this?", (PICTURE,)).parts == (PICTURE, TextPart("and this?"))


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ("x" * (MOST_TEXT + 1), "in parts"),
        ({"pictures": [URL] * 5}, "at most"),
        ({"pictures": ["http://example.com/cat.png"]}, "fetches nothing"),
        ({"pictures": ["data:text/html;base64,AAAA"]}, "data: URL"),
        ({"pictures": ["data:image/png;base64,?"]}, "base64"),
        ({"pictures": [7]}, "list of data: URLs"),
        ({"pictures": "no"}, "list of data: URLs"),
    ],
)
def test_what_is_refused(sent: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        message_of(sent)
