"""Putting weights into fewer bits."""

from collections.abc import Mapping

from ingle.core.event import Fact
from ingle.core.maker import Maker


def _quantised(subject: str, facts: Mapping[str, Fact]) -> str:
    return f"was put into {facts.get('bits'):.2f} bits a weight: {subject} ({facts.get('method')})"


MAKER = Maker(noun="fewer bits", sentences={"quantise": _quantised})
