"""The goal as it is, undressed: what every other family is compared with."""

from ingle.robustness.attack import Kit, Steps, saying
from ingle.robustness.prompts import LabelledPrompt

NAME = "plain"
SENTENCE = "asks for it plainly, once: what every other family is compared with"
ADAPTIVE = False


def make(goal: LabelledPrompt, _kit: Kit) -> Steps:
    yield saying(goal.text)
