"""The message and the buttons in the place of an answer that is missing."""

import re
from collections.abc import Sequence

from ingle.app.conversation import Cure
from ingle.core.errors import Busy, Closing, ContextError, IngleError, NotKept, NotLearnt
from ingle.safety.middleware import Blocked

_AGAIN = Cure("again", "Try again")
_NEW = Cure("new", "New conversation")
_SETTINGS = Cure("settings", "Open the settings")
_SAFETY = Cure("safety", "Settings → Safety")

# Kind of error, message, buttons. The first row that fits counts.
_TABLE: Sequence[tuple[type[Exception], str, tuple[Cure, ...]]] = (
    (Closing, "The server is stopping. Your question is saved; ask it again when the server is back.", (_AGAIN,)),
    (Busy, "The server is busy.", (_AGAIN,)),
    (ContextError, "This conversation is too long for the model.", (_NEW, _SETTINGS)),
    (Blocked, "A rule of this house kept this from the model.", (_SAFETY,)),
    (NotLearnt, "I can't draw that yet.", ()),
    (NotKept, "The model can't answer.", (_SETTINGS, _AGAIN)),
    (IngleError, "The model could not answer.", (_AGAIN,)),
)


# The folders of a file on this machine.
_PATH = re.compile(r"(?<![\w:/.~-])(?:/(?!v1/)(?:[^\s/:;,\"'`()]+/)+|[A-Za-z]:\\(?:[^\s\\:;,\"'`()]+\\)*)")


def said(error: Exception | str) -> str:
    """Return what an error says, for a page: files by their names alone. Where they lie is their machine's business."""
    return _PATH.sub("", str(error))


def trouble(error: Exception | None, stopped: bool) -> tuple[str, tuple[Cure, ...]]:
    """Return the message and the buttons for a question without an answer.

    `stopped`: whether the user stopped it; if neither, the reason is unknown, such as a stopped server.
    """
    if error is None:
        return "Stopped before the answer began." if stopped else "This question has no answer yet.", (_AGAIN,)
    for kind, message, cures in _TABLE:
        if isinstance(error, kind):
            return (message if isinstance(error, Closing) else f"{message} {said(error)}"), cures
    return "This is a bug in Ingle. The server's log says more.", (_AGAIN,)
