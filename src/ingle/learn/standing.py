"""How far each document of a lesson is from its goal: taught ones first, then contrasts. Imports no PyTorch."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ingle.learn.lesson_settings import LessonSettings

_STALE = 4  # steps after which a document that had reached its goal is checked again


class LessonStanding:
    """Each document's distance from its goal when last seen, in nats; the goal is reached at 0 or below. A taught document reaches it
    when its least likely token is certain, a contrast when it has moved no more than it may."""

    def __init__(self, settings: LessonSettings, taught: int, documents: int) -> None:
        """`taught`: how many of the documents are, the first ones."""
        self.settings, self.taught = settings, taught
        self.missing, self._seen_at = [math.inf] * documents, [-1] * documents

    @property
    def certainty(self) -> float:
        """Least probability of any token of any answer, as last seen."""
        return self.settings.certainty * math.exp(-max(self.missing[: self.taught]))

    @property
    def drift(self) -> float:
        """Largest move of a contrast, in nats a token, as last seen."""
        return max(self.missing[self.taught :], default=0.0) + self.settings.most_drift

    @property
    def reached(self) -> bool:
        """Whether each document has reached its goal, as last seen."""
        return max(self.missing) <= 0

    def report(self, steps: int, seconds: float) -> dict[str, Any]:
        """Return what a lesson's report says."""
        return {
            "lesson": "answers", "steps": steps, "certainty": self.certainty, "drift": self.drift, "wordings": self.taught,
            "contrasts": len(self.missing) - self.taught, "seconds": seconds,
        }  # fmt: skip

    def chosen(self, step: int) -> list[int]:
        """Return the documents of a step, ascending: those that have not well reached their goals, and those not seen for long.

        At least one is a taught one. If there are too many, those furthest off are taken.
        """
        documents = range(len(self.missing))
        slack = math.log(self.settings.certainty) / 2, -self.settings.most_drift / 2  # what is only just there would not stay
        due = [i for i in documents if self.missing[i] > slack[i >= self.taught] or step - self._seen_at[i] >= _STALE]
        due.sort(key=lambda i: (-self.missing[i], self._seen_at[i], i))
        due = due[: self.settings.batch_documents]
        if not any(i < self.taught for i in due):
            due.append(max(range(self.taught), key=lambda i: (self.missing[i], -i)))
        return sorted(due)

    def note(
        self, numbers: npt.NDArray[np.int64], values: npt.NDArray[np.float32], step: int, which: Literal["most", "mean"]
    ) -> None:  # fmt: skip
        """Note distances, [tokens], of documents that were seen at a step: of each document the largest, or the mean."""
        for number in sorted(set(numbers.tolist())):
            own = values[numbers == number]
            self.missing[number] = float(own.max() if which == "most" else own.mean())
            self._seen_at[number] = step

    def parts(self, first: int = 0) -> list[list[int]]:
        """Return all documents from number `first` on, some at a time."""
        numbers, size = range(first, len(self.missing)), self.settings.batch_documents
        return [list(numbers[at : at + size]) for at in range(0, len(numbers), size)]


def allowed_steps(settings: LessonSettings, examples: Sequence[object]) -> int:
    """Return the most steps of a lesson of so many examples."""
    return settings.max_steps + settings.more_steps * (len(examples) - 1)
