"""Teaching a model to paint."""

from ingle.core.maker import Maker

MAKER = Maker(
    noun="a painter",
    sentences={"painter": lambda facts: f"learnt to paint ({facts.get('concepts')} things, {facts.get('pictures')} pictures)"},
    limits={"bits": {"most_rise_percent": 0.0}},  # it acts on pictures only
)
