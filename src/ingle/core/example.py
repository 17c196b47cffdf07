"""Taught examples: a correction, a fact to remember, or a rating. Every change to a model on a user's behalf begins as one."""

from dataclasses import dataclass
from typing import Literal

from ingle.core.errors import shortened

Kind = Literal["correction", "fact", "rating"]  # the kinds: another answer to a question; words to remember; a thumb up or down
State = Literal["pending", "learning", "learned", "refused", "kept", "superseded", "undone"]
# `pending`: waiting for the learner. `learned`: a lesson holds it. `refused`: the gate rejected it; see the reasons. `kept`: only
# remembered, the weights don't learn from it. `superseded`: a later example of the same question replaced it. `undone`: it counted once,
# and the user undid it.
STATES: tuple[State, ...] = ("pending", "learning", "learned", "refused", "kept", "superseded", "undone")


@dataclass(frozen=True, slots=True)
class Example:
    """One thing that a user taught. Its words lie in the home's database and nowhere else."""

    id: str
    owner: str  # id of an API key; "" for somebody on this machine who needs none
    model: str  # name of the kept model that it is about
    kind: Kind
    question: str  # the user's question; "" for a fact
    answer: str  # the right answer, or the fact itself; for a rating, the answer that was rated
    refused: str = ""  # the model's earlier answer, which the user corrected
    before: tuple[tuple[str, str], ...] = ()  # (role, text) of the turns before the question, the first one first
    rating: int = 0  # −1, 1, or 0 for none
    comment: str = ""
    completion: str = ""  # id of the answer that it is about
    picture: str = ""  # the look of the picture that the question was about (`core.media.PictureLook.text`); "" = none
    learn: bool = True  # whether the weights may learn from it, beside the memory
    state: State = "pending"
    reasons: tuple[str, ...] = ()  # why the gate refused it, in words that a person can read
    lesson: str = ""  # digest of the delta that holds it
    at: str = ""  # UTC, ISO 8601 with microseconds
    seq: int = 0  # its number among its owner's examples, from 1: the order of arrival, whatever the clocks say

    @property
    def counts(self) -> bool:
        """Whether it acts, or will."""
        return self.state not in ("superseded", "undone")

    @property
    def in_short(self) -> str:
        """One line: question → answer, or the fact."""
        return f"{shortened(self.question)} → {shortened(self.answer)}" if self.question else shortened(self.answer)
