"""Training a model from scratch. There is no model before it to compare with, so the gate has nothing to judge."""

from collections.abc import Mapping

from ingle.core.maker import Maker
from ingle.core.report import Fact


def _trained(facts: Mapping[str, Fact]) -> str:
    return f"was trained from scratch ({facts.get('parameters')} parameters, {facts.get('tokens')} tokens)"


MAKER = Maker(noun="a training", sentences={"train": _trained}, gated=False)
