"""How the judges of requests read a text: every view of it whole, and the pieces in which a request may hide.

Pieces are its sentences, lines, fields and quotations, and windows of twelve words. A linear judge scores every piece of a text of any
length in one pass: sums of its weights along the text tell the score of any stretch.

`harm` goes by meaning, which is read of the pieces that n-grams find worst, since that takes milliseconds. `attack` goes by n-grams: it
is a matter of form.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from ingle.safety.features import WORD, Sparse, gram_runs, grams, vector
from ingle.safety.views import views

if TYPE_CHECKING:
    from ingle.safety.judge import Judge

WINDOW_WORDS, WINDOW_STEP = 12, 6
FEWEST_WORDS, MOST_CHARACTERS = 3, 400  # words of a piece at the fewest, and its characters at the most: what is longer is read by windows
_PIECES = re.compile(r"[^.!?\n。！？]+[.!?。！？]*|[^\n]+")
# Behind a colon, in a cell, between tags, in a comment.
_FIELDS = tuple(map(re.compile, (r"(?<=[:=]) [^\n]+", r"[^|;\n\t]{8,}", r"(?<=>)[^<>\n]{8,}(?=<)", r"(?<=<!--)[^\n]{3,400}?(?=-->)")))
_QUOTES = re.compile(
    r"\"([^\"\n]{2,400})\"|“([^”\n]{2,400})”|«([^»\n]{2,400})»|„([^“”\n]{2,400})[“”]|`([^`\n]{2,400})`|"
    r"(?<!\w)'([^'\n]{2,400})'(?!\w)"
)
_ALIKE = 0.85  # share of the characters of either from which two stretches say the same
Stretch = tuple[int, int]  # where a piece begins and ends


def normal(text: str) -> str:
    """Return a text as its pieces are cut: in lower case, with single spaces, lines kept."""
    lines = (" ".join(line.split()) for line in text.lower().replace("’", "'").splitlines())
    return "\n".join(line for line in lines if line)


def pieces_of(text: str) -> list[Stretch]:
    """Return where the sentences, lines, fields and quotations of a normal text lie, each once; not the whole."""
    found = dict[Stretch, None]()
    for pattern in (_QUOTES, *_FIELDS, _PIECES):
        for match in pattern.finditer(text):
            found[_bare(text, *match.span(match.lastindex or 0))] = None
    return _usable(text, found)


def windows_of(text: str, words: int = WINDOW_WORDS, step: int = WINDOW_STEP) -> list[Stretch]:
    """Return where the windows of so many words of a normal text lie; not the whole."""
    places = [match.span() for match in re.finditer(r"\S+", text)]
    starts = range(0, max(1, len(places) - words + step), step) if places else ()
    return _usable(text, dict.fromkeys((places[first][0], places[min(len(places), first + words) - 1][1]) for first in starts))


def _usable(text: str, found: Iterable[Stretch]) -> list[Stretch]:
    return [one for one in found if one[1] - one[0] <= MOST_CHARACTERS and one != (0, len(text)) and _words(text, one) >= FEWEST_WORDS]


def worst_apart(where: Sequence[Stretch], scores: npt.NDArray[np.float64], most: int, taken: Sequence[Stretch] = ()) -> list[Stretch]:
    """Return so many stretches with the highest scores, none of which says the same as a worse one, or as one taken."""
    found = list[Stretch]()
    for number in np.argsort(-scores).tolist():
        if len(found) == most:
            break
        start, end = where[number]
        if all(min(end, b) - max(start, a) < _ALIKE * (max(end, b) - min(start, a)) for a, b in (*taken, *found)):
            found.append(where[number])
    return found


def joined_quotations(text: str) -> Iterator[str]:
    """Yield what quotations say together, where there are several: a sentence may be dealt out to variables."""
    said = [match[match.lastindex or 0] for match in _QUOTES.finditer(text)]
    if 2 <= len(said) <= 40:
        yield " ".join(" ".join(said).split())


def stretch_scores(weights: npt.NDArray[np.float32], bias: float, text: str, where: list[Stretch]) -> npt.NDArray[np.float64]:
    """Return a linear judge's log-odds of stretches of a normal text [len(where)].

    They are those of the stretches by themselves (judge.request_vector), but for n-grams that come twice in one, which count twice here.
    """
    if not where:
        return np.zeros(0)
    padded = f" {text} ".replace("\n", " ")  # a piece is read with the spaces around it
    starts, ends = (np.array(side, np.int64) for side in zip(*where, strict=True))
    letters = np.frombuffer(padded.encode("utf-32-le", "replace"), np.uint32).astype(np.uint64)
    sums, counts = np.zeros(len(where)), np.zeros(len(where))
    for size in (3, 4, 5):
        along = np.concatenate([[0.0], np.cumsum(weights[gram_runs(letters, size, "c")], dtype=np.float64)])
        last = np.maximum(starts, ends + 3 - size)
        sums += along[np.minimum(last, len(along) - 1)] - along[np.minimum(starts, len(along) - 1)]
        counts += last - starts
    tokens = list(WORD.finditer(padded))
    hashes = np.array([crc32(match[0].encode("utf-8", "replace")) for match in tokens], np.uint64)
    begins, closes = (np.array([place(match) for match in tokens], np.int64) for place in (re.Match.start, re.Match.end))
    first, behind = np.searchsorted(begins, starts + 1), np.searchsorted(closes, ends + 1, "right")
    for size in (1, 2):
        along = np.concatenate([[0.0], np.cumsum(weights[gram_runs(hashes, size, "w")], dtype=np.float64)])
        last = np.maximum(first, behind + 1 - size)
        sums += along[np.minimum(last, len(along) - 1)] - along[np.minimum(first, len(along) - 1)]
        counts += last - first
    return sums / np.sqrt(np.maximum(counts, 1)) + bias


def _bare(text: str, start: int, end: int) -> Stretch:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())


def _words(text: str, where: Stretch) -> int:
    return text.count(" ", *where) + text.count("\n", *where) + 1


REQUESTS = ("harm", "attack")  # judges of a request: of its content, and of its form
MOST_WHOLE, MOST_PIECES, MOST_WINDOWS = 3, 5, 2  # views, pieces and windows of a text whose meaning is read: those that n-grams find worst
# Words of a judge's windows, and how far the next one begins.
_WINDOWS: Mapping[str, tuple[int, int]] = {"harm": (WINDOW_WORDS, WINDOW_STEP), "attack": (16, 8)}


class ReadPart(NamedTuple):
    """A view or a piece of a text, as one judge sees it."""

    judge: str
    whole: bool
    text: str
    vector: Sparse
    words: float  # log-odds by n-grams
    meaning: float | None  # log-odds by the encoder; None where it was not asked
    score: float  # compared with the judge's threshold: meaning where it is known, else words, and what was taught


def request_vector(text: str) -> Sparse:
    """Return what n-grams see of one view or piece."""
    return vector(grams(text))


def read_text(judge: "Judge", text: str, with_meaning: bool = True) -> list[ReadPart]:
    """Return the parts of a text with their scores. `with_meaning`: whether the encoder is asked, if the judge has one."""
    seen = views(text)
    return [
        part for name in REQUESTS for part in _by_judge(judge, name, seen, with_meaning and name == "harm" and judge.meaning is not None)
    ]


def _by_judge(judge: "Judge", name: str, seen: tuple[str, ...], with_meaning: bool) -> list[ReadPart]:
    pieces = dict.fromkeys(piece for view in seen for piece in _pieces(judge, name, view))
    whole, small = _scored(judge, name, seen), _scored(judge, name, [piece for piece in pieces if piece not in seen])
    parts = [(True, *one) for one in whole[:MOST_WHOLE]] + [(False, *one) for one in small[: MOST_PIECES + MOST_WINDOWS]]
    return [_part(judge, name, *one, with_meaning) for one in parts]


def _pieces(judge: "Judge", name: str, view: str) -> list[str]:
    """Return the pieces of a view that n-grams find worst, and what its quotations say together."""
    plain = normal(view)
    said, windows = (pieces_of(plain) if name == "harm" else []), windows_of(plain, *_WINDOWS[name])
    scores = stretch_scores(judge.weights[name], judge.biases[name], plain, [*said, *windows])
    worst = worst_apart(said, scores[: len(said)], MOST_PIECES)
    worst += worst_apart(windows, scores[len(said) :], MOST_WINDOWS, worst)
    return [*joined_quotations(plain), *(plain[slice(*one)] for one in worst)]


def _scored(judge: "Judge", name: str, texts: list[str] | tuple[str, ...]) -> list[tuple[str, Sparse, float]]:
    """Return texts with vectors and log-odds, the worst first."""
    found = [(text, one := request_vector(text), judge.log_odds(name, one)) for text in texts]
    return sorted(found, key=lambda row: -row[2])


def _part(judge: "Judge", name: str, whole: bool, text: str, vector: Sparse, words: float, with_meaning: bool) -> ReadPart:
    meaning = judge.meaning.read(text) if with_meaning and judge.meaning is not None else None
    score = words if meaning is None else meaning
    return ReadPart(name, whole, text, vector, words, meaning, score + judge.taught(name, vector))
