"""Random search by an attacker who has a copy of the guard: the suffix must turn the model and calm the guard at once."""

from ingle.robustness.attack import Kit, Steps, search
from ingle.robustness.prompts import LabelledPrompt

NAME = "guard_aware"
SENTENCE = "searches a suffix that turns the model and calms the guard, whose scores it knows"
ADAPTIVE = True
_WEIGHT = 2.0  # λ at the start: nats of the margin that one nat of the guard's alarm is worth


def make(goal: LabelledPrompt, kit: Kit) -> Steps:
    return search(goal, kit, kit.random(NAME, goal.id), _WEIGHT, learns=True)
