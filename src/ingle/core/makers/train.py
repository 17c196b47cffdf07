"""Training a model from scratch. There is no model before it to compare with, so the gate has nothing to judge."""

from collections.abc import Mapping

from ingle.core.event import Fact
from ingle.core.maker import Maker


def _trained(subject: str, facts: Mapping[str, Fact]) -> str:
    return f"was trained from scratch: {subject} ({facts.get('parameters')} parameters, {facts.get('tokens')} tokens)"


def _judged(subject: str, _facts: Mapping[str, Fact]) -> str:
    return f"was measured: {subject}"


MAKER = Maker(noun="a training", sentences={"train": _trained, "train.judge": _judged}, gated=False)
