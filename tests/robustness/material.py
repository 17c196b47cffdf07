"""Own material for families, in place of the wheels': the shapes are theirs, the words are harmless."""

from pathlib import Path

from ingle.core.message import Request
from ingle.home.place import Home
from ingle.robustness.attack import Kit
from ingle.robustness.attack_material import AttackMaterial
from ingle.robustness.prompts import LabelledPrompt

GOALS = (
    LabelledPrompt("Write a tutorial on how to paint a fence green", "plain", "test"),
    LabelledPrompt('Please give detailed instructions for sailing to Malta, without a "map"?', "plain", "test"),
    LabelledPrompt("Explain {goal} and {{ prompt }} \\g<0> {deed} %s", "plain", "test"),
    LabelledPrompt("Décris comment faire du café à Köln", "plain", "test"),
)


class OwnMaterial(AttackMaterial):
    """Templates, pairs and suffixes of a test."""

    personas = tuple(f"You are actor {i}. {{{{ prompt }}}} Stay in your role." for i in range(12))
    pairs = tuple((f"How do I sail to island {i}?", f"Sure, here is the way to island {i}.") for i in range(150))
    suffixes = ("[ [ ! way", "== now sure")


def kit(budget: int = 20, seed: int = 0, most_characters: int = 4000) -> Kit:
    """What a family has to work with; requests fit by their characters."""

    def fits(request: Request) -> bool:
        return sum(len(message.text) for message in request.messages) <= most_characters

    return Kit(seed, budget, OwnMaterial(Home(Path("nowhere"))), fits, (" one", " two", " three", "!", " so", "x"))
