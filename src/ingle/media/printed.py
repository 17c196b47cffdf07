"""Words in pictures, read by Tesseract (github.com/tesseract-ocr/tesseract) where it is installed: a program in a process of its own.

They stand behind the picture as a part of their own that comes from a document, so the guards read them like any text that a user quotes.
"""

import csv
import io
import os
import shutil
import subprocess
from contextlib import suppress

from ingle.core.apart import StopFlag
from ingle.core.media import Picture
from ingle.core.message import Part, TextPart

_LEAST_SURE = 60.0  # per cent from which a word counts: below, Tesseract sees letters in leaves and hair
_MOST_WORDS = 200
_LONGEST_S = 20.0


def reads_print() -> bool:
    """Return whether words in pictures are read here."""
    return shutil.which("tesseract") is not None


def printed_words(picture: Picture, stop: StopFlag) -> str:
    """Return the words in a picture; none where the program breaks off. Raises Interrupted where nobody waits any more."""
    height, width, _ = picture.pixels.shape
    command, pipe = ["tesseract", "stdin", "stdout", "--psm", "11", "tsv"], subprocess.PIPE
    environment, table = {"PATH": os.environ.get("PATH", ""), "OMP_THREAD_LIMIT": "1"}, b""
    with (
        suppress(OSError, subprocess.SubprocessError),  # without it the picture is shown all the same
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment) as process,
    ):
        try:
            with stop.ending(process.kill):
                table, _ = process.communicate(b"P6 %d %d 255\n" % (width, height) + picture.pixels.tobytes(), _LONGEST_S)
        finally:
            process.kill()
    stop.check()
    rows = csv.DictReader(io.StringIO(table.decode("utf-8", "replace")), delimiter="\t", quoting=csv.QUOTE_NONE)
    words = [word for row in rows if float(row["conf"]) >= _LEAST_SURE and any(map(str.isalnum, word := row["text"].strip()))]
    return " ".join(words[:_MOST_WORDS]).replace('"', "'")


def quoted(words: str) -> Part:
    """Return a picture's words as they stand behind it."""
    return TextPart(f'(In the picture stands: "{words}") ', "document")
