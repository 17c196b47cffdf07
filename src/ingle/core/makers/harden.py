"""Training against attacks: refusals of harmful requests, whatever they are dressed in."""

from ingle.core.maker import Maker

MAKER = Maker(
    noun="a hardening",
    sentences={"harden": lambda facts: f"was hardened against attacks ({facts.get('harmful')} requests, {facts.get('rounds')} rounds)"},
    limits={"bits": {"most_rise_percent": 2.0}},  # it learns to refuse, and nothing else
)
