"""Messages as the browser sends them: words and pictures, checked."""

from typing import Any

from ingle.core.errors import RequestError
from ingle.core.message import ImagePart, Message, Part, TextPart
from ingle.serve.convert import image_of

MOST_TEXT = 400_000  # characters of a message
MOST_PICTURES = 4  # pictures of a message; the message box sends no more


def message_of(argument: Any, pictures: tuple[ImagePart, ...] = ()) -> Message:
    """Return the user's message; without parts if there is nothing in it. `argument`: words, or a table with `text` and `pictures` (data:
    URLs). `pictures` go before these.

    Raises RequestError for too much of either, and for anything but pictures.
    """
    table = argument if isinstance(argument, dict) else {"text": argument}
    given, sent = table.get("text"), table.get("pictures") or ()
    text = given.strip() if isinstance(given, str) else ""
    if len(text) > MOST_TEXT:
        raise RequestError("message", f"must have at most {MOST_TEXT:,} characters", f"{len(text):,}", "Send it in parts.")
    if not isinstance(sent, list | tuple) or not all(isinstance(url, str) for url in sent):
        raise RequestError("pictures", "must be a list of data: URLs", type(sent).__name__)
    parts: list[Part] = [*pictures, *(image_of(url, f"pictures[{i}]") for i, url in enumerate(sent))]
    if len(parts) > MOST_PICTURES:
        raise RequestError("pictures", f"A message takes {MOST_PICTURES} pictures at most", len(parts), "Send them in several messages.")
    return Message("user", tuple([*parts, TextPart(text)] if text else parts))
