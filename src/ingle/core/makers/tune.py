"""Tuning on the owner's examples."""

from collections.abc import Mapping

from ingle.core.event import Fact
from ingle.core.maker import Maker


def _tuned(subject: str, facts: Mapping[str, Fact]) -> str:
    return f"was tuned: {subject} ({facts.get('method')}, {facts.get('examples')} examples)"


def _judged(subject: str, facts: Mapping[str, Fact]) -> str:
    loss, change = facts.get("held_out_loss"), facts.get("held_out_loss_change")
    if not isinstance(loss, float) or not isinstance(change, float):
        return f"was measured: {subject}"
    return f"was measured: {subject} (loss of held-out examples {loss:.3f}, was {loss - change:.3f})"


MAKER = Maker(
    noun="a tuning",
    sentences={"tune": _tuned, "tune.judge": _judged},
    limits={"bits": {"most_rise_percent": 15.0}},  # it may turn to its own kind of text
)
