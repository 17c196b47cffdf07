"""Leaving parts of a model out."""

from collections.abc import Mapping

from ingle.core.maker import Maker
from ingle.core.report import Fact


def _pruned(facts: Mapping[str, Fact]) -> str:
    return f"was pruned ({facts.get('method')}, {facts.get('structure')}, {facts.get('share')})"


# Whoever prunes means to lose something, and says how much (`ingle prune --quality-loss`).
MAKER = Maker(noun="a pruning", sentences={"prune": _pruned}, limits={"bits": {"most_rise_percent": 25.0}})
