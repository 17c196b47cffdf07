"""What a user taught: a correction, something to remember, or a rating. All that ever moves a model on a user's behalf begins as one."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["correction", "fact", "rating"]
"""An answer that should have been another; words to be remembered; a thumb up or down."""
State = Literal["pending", "learning", "learned", "refused", "kept", "superseded", "undone"]
STATES: tuple[State, ...] = ("pending", "learning", "learned", "refused", "kept", "superseded", "undone")
"""`pending`: the learner has not come to it yet. `learned`: a lesson holds it. `refused`: the gate would not have it, see the reasons.
`kept`: remembered only, the weights don't learn from it. `superseded`: a later one of the same question stands in its place. `undone`:
it was learned, and taken back."""


@dataclass(frozen=True, slots=True)
class Example:
    """One thing that a user taught. Its words lie in the home's database and nowhere else."""

    id: str
    owner: str
    """Id of an API key; "" for somebody on this machine who needs none."""
    model: str
    """Name of the kept model that it is about."""
    kind: Kind
    question: str
    """What was asked; "" for a fact."""
    answer: str
    """What should be said, or the fact itself; of a rating, the answer that was rated."""
    refused: str = ""
    """What the model had said instead."""
    before: tuple[tuple[str, str], ...] = ()
    """(role, text) of the turns before the question, the first one first."""
    rating: int = 0
    """−1, 1, or 0 for none."""
    comment: str = ""
    completion: str = ""
    """Id of the answer that it is about."""
    learn: bool = True
    """Whether the weights may learn from it, beside the memory."""
    state: State = "pending"
    reasons: tuple[str, ...] = ()
    """Why it was refused, in words that a person can read."""
    lesson: str = ""
    """Digest of the delta that holds it."""
    at: str = ""
    """UTC, ISO 8601 with microseconds."""
    seq: int = 0
    """Its place among its owner's examples, from 1: the order in which they came, whatever clocks say."""
