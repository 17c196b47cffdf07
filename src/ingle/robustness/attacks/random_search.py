"""Random search for a suffix on log-probabilities, blind to guards. See robustness/attack.py."""

from ingle.robustness.attack import Kit, Steps, search
from ingle.robustness.prompts import LabelledPrompt

NAME = "random_search"
SENTENCE = "searches a suffix that makes obeying likelier than refusing, by log-probabilities"
ADAPTIVE = True


def make(goal: LabelledPrompt, kit: Kit) -> Steps:
    return search(goal, kit, kit.random(NAME, goal.id), 0.0, learns=False)
