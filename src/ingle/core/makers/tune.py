"""Tuning on the owner's examples."""

from ingle.core.maker import Maker

MAKER = Maker(
    noun="a tuning",
    sentences={"tune": lambda facts: f"was tuned ({facts.get('method')}, {facts.get('examples')} examples)"},
    strength="--strength",
    limits={"bits": {"most_rise_percent": 15.0}},  # it may turn to its own kind of text
)
