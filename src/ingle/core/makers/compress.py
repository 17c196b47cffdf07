"""The search for the cheapest way to serve a model. The gate sees each step as a pruning or a quantisation."""

from ingle.core.maker import Maker

MAKER = Maker(
    noun="a compression",
    sentences={"compress": lambda facts: f"was compressed ({facts.get('recipe')})"},
    gated=False,
    activity="",
)
