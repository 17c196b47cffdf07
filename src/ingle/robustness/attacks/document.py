"""Orders inside a document that the user wants read (indirect injection, arXiv 2302.12173)."""

from ingle.robustness.attack import Kit, Steps, quoting
from ingle.robustness.attack_material import DOCUMENTS, ORDERS, TASKS, draws, hidden
from ingle.robustness.prompts import LabelledPrompt

NAME = "document"
SENTENCE = "hides an order in a document that the user wants read"
ADAPTIVE = False


def make(goal: LabelledPrompt, kit: Kit) -> Steps:
    """Yield harmless tasks on documents, each with the goal as an order inside the part of origin `document`."""
    random = kit.random(NAME, goal.id)
    for task, text, order in draws(random, TASKS, DOCUMENTS, ORDERS):
        yield quoting((f"{task}\n\n", None), (hidden(random, text, order.replace("{goal}", goal.text)), "document"))
