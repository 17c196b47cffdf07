"""Whether it looks: answers about pictures must change with the picture, and must not be those about a blank one.

The pictures are drawn here, forms in colours on white, so that none of them was ever learnt from. How well it describes held-out pictures
is its maker's figure, and must be better than what it says of a blank one.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from ingle.core.config import Count, check_bounds
from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.core.media import Picture
from ingle.core.message import ImagePart, Message, Request, TextPart
from ingle.core.report import Report
from ingle.engine.answer import write
from ingle.gate.trial import Finding, Trial
from ingle.measure.intervals import wilson
from ingle.media.picture import png_of

SIDE = 96
COLOURS = {"red": (210, 30, 30), "green": (30, 150, 60), "blue": (40, 80, 210), "yellow": (240, 210, 40)}
FORMS = ("disc", "square", "triangle")
QUESTION = "Describe the picture."


@dataclass(frozen=True, slots=True)
class Limits:
    on: bool = True  # whether this check is run
    least_changed: float = 0.9  # least share of answers that must change when another picture, or a blank one, takes the picture's place
    max_tokens: Count = 24  # most tokens of an answer

    def __post_init__(self) -> None:
        if not 0 <= self.least_changed <= 1:
            raise ConfigError("policy looks.least_changed", "must be a share between 0 and 1", self.least_changed)
        check_bounds(self, "policy looks.")


def check(trial: Trial, limits: Limits) -> Finding | None:
    """See `gate.check.Check`; does not apply to candidates that don't see."""
    if trial.candidate.kind != "sight":
        return None
    pictures = [png_of(Picture(drawn(form, colour))) for form, colour in product(FORMS, COLOURS.values())]
    blank = png_of(Picture(np.full((SIDE, SIDE, 3), 255, np.uint8)))
    said = answers(trial, [*pictures, blank], limits.max_tokens)
    shown, nothing = said[:-1], said[-1]
    # Each answer beside that about the next picture (another colour), about one of another form, and about the blank one.
    pairs = [(shown[i], other) for i in range(len(shown)) for other in (shown[i - 1], shown[i - len(COLOURS)], nothing)]
    changed, n = sum(first != second for first, second in pairs), len(pairs)
    interval, told = wilson(changed, n), (trial.candidate.report or {}).get("described")
    digest = trial.challenger.digest
    reports = [Report("changed", changed / n, "share", interval.low, interval.high, n, digest, digest_json(QUESTION), interval.method)]
    passed = changed / n >= limits.least_changed
    reason = f"{changed} of {n} answers change with the picture (at least {limits.least_changed:.0%} must)"
    if told is not None:
        passed = passed and told["words"] > told["blank_words"]
        reason += (
            f"; words for {told['n']} held-out pictures fit by {told['words']:.2f} (F1), those for a blank one by {told['blank_words']:.2f}"
        )
    return Finding("looks", passed, reason, tuple(reports), asdict(limits))


def drawn(form: str, colour: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Return a form in a colour on white: uint8 [SIDE, SIDE, 3]."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1) * 2 - 1
    inside = {"disc": x**2 + y**2 < 0.5, "square": np.maximum(abs(x), abs(y)) < 0.6, "triangle": (abs(x) < (y + 0.7) / 2) & (y < 0.6)}[form]
    pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
    pixels[inside] = colour
    return pixels


def answers(trial: Trial, pictures: Sequence[bytes], max_tokens: int) -> list[str]:
    """Return the candidate's answers about these pictures, in order."""
    asked = [
        Request((Message("user", (ImagePart(data, "image/png"), TextPart(QUESTION))),), max_tokens=max_tokens) for data in pictures
    ]  # fmt: skip
    by_number = dict(write(trial.candidate_model, asked, trial.stopped))
    return [by_number.get(number, "") for number in range(len(pictures))]
