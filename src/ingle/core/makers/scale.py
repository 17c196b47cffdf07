"""A sweep of trainings from scratch. Its models are not kept, so the gate has nothing to judge."""

from collections.abc import Mapping

from ingle.core.maker import Maker
from ingle.core.report import Fact

Facts = Mapping[str, Fact]


def _run(facts: Facts) -> str:
    return f"trained a run of {facts.get('parameters')} parameters on {facts.get('tokens')} tokens, loss {_short(facts.get('loss'))}"


def _foretold(facts: Facts) -> str:
    return f"foretold a loss of {_short(facts.get('loss'))} ({_short(facts.get('low'))} to {_short(facts.get('high'))}) for a larger run"


def _checked(facts: Facts) -> str:
    where = "inside" if facts.get("inside") else "outside"
    return f"trained the run that was foretold: {_short(facts.get('came'))}, {where} the interval"


def _short(value: Fact) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


MAKER = Maker(
    noun="a sweep",
    sentences={
        "scale": _run, "scale.predict": _foretold, "scale.begin": lambda _: "began the run that was foretold", "scale.check": _checked,
    },
    gated=False,
)  # fmt: skip
