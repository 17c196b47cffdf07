"""Junk suffixes: those that gradient searches found on other models, and words drawn at random."""

from ingle.robustness.attack import Kit, Steps, saying
from ingle.robustness.prompts import LabelledPrompt

NAME = "suffix"
SENTENCE = "adds junk that turned other models, or random words"
ADAPTIVE = False
_WORDS = 24
_RANDOM = 20
_SIGNS = tuple("!?*[]{}()<>/\\|~^=+;:#@")


def make(goal: LabelledPrompt, kit: Kit) -> Steps:
    """Yield the goal with known suffixes and random ones, by turns, in an order drawn for the goal."""
    random = kit.random(NAME, goal.id)
    words = kit.vocabulary or _SIGNS
    known = random.sample(kit.material.suffixes, len(kit.material.suffixes))
    for number in range(_RANDOM):
        if number < len(known):
            yield saying(f"{goal.text} {known[number]}")
        yield saying(goal.text + " " + "".join(random.choice(words) for _ in range(_WORDS)))
