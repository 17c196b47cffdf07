"""A delta that several homes learned together: each of them judges it by its own gate."""

from collections.abc import Mapping

from ingle.core.maker import Maker
from ingle.core.report import Fact


def _round(facts: Mapping[str, Fact]) -> str:
    ended = "took over" if facts.get("accepted") else "dropped"
    return f"{ended} round {facts.get('round')} of {facts.get('homes')} homes ({facts.get('yes')} said yes, {facts.get('no')} no)"


def _suspended(facts: Mapping[str, Fact]) -> str:
    key, times = str(facts.get("key"))[:12], facts.get("refused")
    return f"left out the home with the key {key} from round {facts.get('round')} on (only in refused groups, {times} times in a row)"


def _spent(facts: Mapping[str, Fact]) -> str:
    whom = "a record's" if facts.get("unit") == "record" else "this home's"
    return f"spent {whom} privacy: ε {facts.get('epsilon')} of {facts.get('of_epsilon')} in {facts.get('rounds')} rounds"


MAKER = Maker(
    noun="something learned together",
    sentences={
        "federate.join": lambda facts: f"lends {facts.get('examples')} examples to a federation of {facts.get('homes')} homes",
        "federate.round": _round,
        "federate.spent": _spent,
        "federate.suspended": _suspended,
        "federate.leave": lambda _facts: "lends its examples no more",
    },
    limits={"bits": {"most_rise_percent": 15.0}},  # as a tuning: it may turn to its own kind of text
)
