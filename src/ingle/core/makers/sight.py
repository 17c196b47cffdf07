"""Learning to see: what the model reads in the place of a picture. Answers to words alone stay as they are, to the bit."""

from ingle.core.maker import Maker

MAKER = Maker(
    noun="a sight",
    sentences={"sight": lambda facts: f"learned to see ({facts.get('pictures')} pictures, {facts.get('names')} names)"},
    # Its weights are the incumbent's own, so these would ask the same model twice.
    limits={"refusals": {"on": False}, "attacks": {"on": False}, "bias": {"on": False}, "looks": {"on": True}},
)
