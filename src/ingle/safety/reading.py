"""How the judges of requests read a text: every view of it whole, and the pieces in which a request may hide.

`harm` goes by meaning, which is read of the pieces that n-grams find worst, since that takes milliseconds. `attack` goes by n-grams: it
is a matter of form.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from ingle.safety.features import Sparse, grams, vector
from ingle.safety.spans import (
    WINDOW_STEP,
    WINDOW_WORDS,
    joined_quotations,
    normal,
    pieces_of,
    stretch_scores,
    windows_of,
    worst_apart,
)
from ingle.safety.views import views

if TYPE_CHECKING:
    from ingle.safety.judge import Judge

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
