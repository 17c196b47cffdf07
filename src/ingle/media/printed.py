"""Words in pictures, read by Tesseract (github.com/tesseract-ocr/tesseract) where it is installed: a program in a process of its own.

They stand behind the picture as a part of their own that comes from a document, so the guards read them like any text that a user quotes.
"""

import csv
import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache

from ingle.core.errors import ConfigError, RequestError
from ingle.core.message import ImagePart, Message, Part, Request, TextPart
from ingle.media.picture import png_of, read_picture

_LEAST_SURE = 60.0
"""Per cent from which a word counts: below, Tesseract sees letters in leaves and hair."""
_MOST_WORDS = 200
_LONGEST_S = 20.0


def reads_print() -> bool:
    """Return whether words in pictures are read here."""
    return shutil.which("tesseract") is not None


def with_printed_words(request: Request) -> Request:
    """Return the request with the words in its pictures behind them; unchanged where there are none, or no Tesseract."""
    if not reads_print() or not any(isinstance(part, ImagePart) for message in request.messages for part in message.parts):
        return request
    return replace(request, messages=tuple(map(message_with_printed_words, request.messages)))


def message_with_printed_words(message: Message) -> Message:
    """Return the message with the words in its pictures behind them."""
    if message.role != "user" or not reads_print():
        return message
    return replace(message, parts=tuple(part for one in message.parts for part in _with_words(one)))


def _with_words(part: Part) -> Iterator[Part]:
    yield part
    if isinstance(part, ImagePart) and (words := _printed_words(part.data)):
        yield TextPart(f'(In the picture stands: "{words}") ', "document")


@lru_cache(maxsize=256)
def _printed_words(data: bytes) -> str:
    """Return the words in a picture; none of one that can't be read, which whoever looks at it says better."""
    try:
        picture = png_of(read_picture(data))
    except (ConfigError, RequestError):
        return ""
    command = ["tesseract", "stdin", "stdout", "--psm", "11", "tsv"]
    environment = {"PATH": os.environ.get("PATH", ""), "OMP_THREAD_LIMIT": "1"}
    table = ""
    with suppress(OSError, subprocess.SubprocessError, UnicodeDecodeError):  # without it the picture is shown all the same
        done = subprocess.run(command, input=picture, capture_output=True, timeout=_LONGEST_S, env=environment, check=True)
        table = done.stdout.decode()
    rows = csv.DictReader(io.StringIO(table), delimiter="\t", quoting=csv.QUOTE_NONE)
    words = [word for row in rows if float(row["conf"]) >= _LEAST_SURE and any(map(str.isalnum, word := row["text"].strip()))]
    return " ".join(words[:_MOST_WORDS]).replace('"', "'")
