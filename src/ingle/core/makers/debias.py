"""Debiasing: who is spoken of changes less of what the model finds likely."""

from ingle.core.maker import Maker

MAKER = Maker(
    noun="a debiasing",
    sentences={"debias": lambda facts: f"was taught not to judge by group ({facts.get('counterfactuals')} counterfactuals)"},
    limits={"bits": {"most_rise_percent": 1.0}},  # it is to lose a preference, and nothing else
)
