"""The search for the cheapest way to serve a model. Each of its steps comes to the gate as what it is: a pruning, or fewer bits."""

from ingle.core.maker import Maker

MAKER = Maker(
    noun="a compression",
    sentences={"compress": lambda facts: f"was compressed ({facts.get('recipe')})"},
    gated=False,
    activity="",
)
