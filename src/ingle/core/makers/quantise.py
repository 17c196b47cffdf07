"""Putting weights into fewer bits."""

from collections.abc import Mapping

from ingle.core.maker import Maker
from ingle.core.report import Fact


def _quantised(facts: Mapping[str, Fact]) -> str:
    bits = facts.get("bits")
    return f"was quantised to {f'{bits:.2f}' if isinstance(bits, float) else 'fewer'} bits a weight ({facts.get('method')})"


MAKER = Maker(noun="fewer bits", sentences={"quantise": _quantised})
