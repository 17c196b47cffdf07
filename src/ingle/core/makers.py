"""Makers are the procedures that change models: tuning, pruning, lessons. To add one, add it to `MAKERS`.

A maker's words for people stand here, and the gate's usual limits for it. The policy, the gate, the ledger's sentences, the energy account
and the page read the table; none of them names a maker. The work itself is in the maker's own room, which hands a
`core.candidate.Candidate` to the gate under this name (train/making.py does the rest).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ingle.core import registry
from ingle.core.report import Fact

Facts = Mapping[str, Fact]
Sentence = Callable[[Facts], str]  # facts' values → what `ingle log` says behind the subject's name: "was pruned (wanda)"


@dataclass(frozen=True, slots=True)
class Maker:
    """The words and usual limits of one maker."""

    noun: str  # names one result on the page: `a tuning`
    # Sentences by kind of fact; the maker's main fact has its name as its kind. Without one, the log says `made` and the noun.
    sentences: Mapping[str, Sentence] = field(default_factory=lambda: MappingProxyType({}))
    # Limits of the gate's checks where they differ from a check's own defaults, by check.
    limits: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))
    gated: bool = True  # false for a maker that hands the gate nothing under its own name; the policy then has no section for it
    personal: bool = False  # true if each result belongs to one user, and the page shows it to nobody else
    strength: str = ""  # the option by which a weaker result is kept, without making it again; empty = there is none
    activity: str = "trainings"  # the line of the energy account that its facts add to; empty = none


def _round(facts: Facts) -> str:
    ended = "took over" if facts.get("accepted") else "dropped"
    return f"{ended} round {facts.get('round')} of {facts.get('homes')} homes ({facts.get('yes')} said yes, {facts.get('no')} no)"


def _suspended(facts: Facts) -> str:
    key, times = str(facts.get("key"))[:12], facts.get("refused")
    return f"left out the home with the key {key} from round {facts.get('round')} on (only in refused groups, {times} times in a row)"


def _spent(facts: Facts) -> str:
    whom = "a record's" if facts.get("unit") == "record" else "this home's"
    return f"spent {whom} privacy: ε {facts.get('epsilon')} of {facts.get('of_epsilon')} in {facts.get('rounds')} rounds"


def _pruned(facts: Facts) -> str:
    return f"was pruned ({facts.get('method')}, {facts.get('structure')}, {facts.get('share')})"


def _quantised(facts: Facts) -> str:
    bits = facts.get("bits")
    return f"was quantised to {f'{bits:.2f}' if isinstance(bits, float) else 'fewer'} bits a weight ({facts.get('method')})"


def _swept(facts: Facts) -> str:
    return f"trained a run of {facts.get('parameters')} parameters on {facts.get('tokens')} tokens, loss {_short(facts.get('loss'))}"


def _foretold(facts: Facts) -> str:
    return f"foretold a loss of {_short(facts.get('loss'))} ({_short(facts.get('low'))} to {_short(facts.get('high'))}) for a larger run"


def _checked(facts: Facts) -> str:
    where = "inside" if facts.get("inside") else "outside"
    return f"trained the run that was foretold: {_short(facts.get('came'))}, {where} the interval"


def _short(value: Fact) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _trained(facts: Facts) -> str:
    return f"was trained from scratch ({facts.get('parameters')} parameters, {facts.get('tokens')} tokens)"


# By name, in alphabetical order: the section of the policy, the `maker` of every decision, the kind of its fact.
MAKERS: dict[str, Maker] = {
    # The search for the cheapest way to serve a model. The gate sees each step as a pruning or a quantisation.
    "compress": Maker(
        noun="a compression",
        sentences={"compress": lambda facts: f"was compressed ({facts.get('recipe')})"},
        gated=False,
        activity="",
    ),
    # Debiasing: who is spoken of changes less of what the model finds likely.
    "debias": Maker(
        noun="a debiasing",
        sentences={"debias": lambda facts: f"was taught not to judge by group ({facts.get('counterfactuals')} counterfactuals)"},
        limits={"bits": {"most_rise_percent": 1.0}},  # it is to lose a preference, and nothing else
    ),
    # A delta that several homes learned together: each of them judges it by its own gate.
    "federate": Maker(
        noun="something learned together",
        sentences={
            "federate.join": lambda facts: f"lends {facts.get('examples')} examples to a federation of {facts.get('homes')} homes",
            "federate.round": _round,
            "federate.spent": _spent,
            "federate.suspended": _suspended,
            "federate.leave": lambda _facts: "lends its examples no more",
        },
        limits={"bits": {"most_rise_percent": 15.0}},  # as a tuning: it may turn to its own kind of text
    ),
    # Training against attacks: refusals of harmful requests, whatever they are dressed in.
    "harden": Maker(
        noun="a hardening",
        sentences={"harden": lambda facts: f"was hardened against attacks ({facts.get('harmful')} requests, {facts.get('rounds')} rounds)"},
        limits={"bits": {"most_rise_percent": 2.0}},  # it learns to refuse, and nothing else
    ),
    # Turning a transformer into a hybrid.
    "hybridize": Maker(
        noun="a hybrid",
        sentences={"hybridize": lambda _facts: "was made: a hybrid"},
        # What it lost shows only in texts longer than its window, and in facts behind it.
        limits={"bits": {"suite": "xsum-bits"}, "recall": {"on": True}},
    ),
    # An adapter that another program made.
    "import": Maker(
        noun="an import",
        sentences={"pull.delta": lambda _facts: "came here from a folder of the PEFT library"},
        limits={"bits": {"most_rise_percent": 15.0}},
        activity="",
    ),
    # Corrections that a user taught, learned into the weights. A lesson is kept from other questions by its scope, so `bits` only bounds
    # what it would do where the scope errs: a harmless one alone comes to 2 to 6 %. `refusals`, `attacks` and `bias` would cost more
    # seconds than the lesson itself, and `safety` looks at what is taught.
    "lesson": Maker(
        noun="a lesson",
        limits={
            "bits": {"most_rise_percent": 12.0},
            "sense": {"on": True},
            "refusals": {"on": False},
            "attacks": {"on": False},
            "bias": {"on": False},
        },
        personal=True,
        activity="",
    ),
    # Teaching a model to paint.
    "painter": Maker(
        noun="a painter",
        sentences={"painter": lambda facts: f"learnt to paint ({facts.get('concepts')} things, {facts.get('pictures')} pictures)"},
        limits={"bits": {"most_rise_percent": 0.0}},  # it acts on pictures only
    ),
    # Leaving parts of a model out.
    # Whoever prunes means to lose something, and says how much (`ingle make prune --quality-loss`).
    "prune": Maker(noun="a pruning", sentences={"prune": _pruned}, limits={"bits": {"most_rise_percent": 25.0}}),
    # Putting weights into fewer bits.
    "quantise": Maker(noun="fewer bits", sentences={"quantise": _quantised}),
    # A sweep of trainings from scratch. Its models are not kept, so the gate has nothing to judge.
    "scale": Maker(
        noun="a sweep",
        sentences={
            "scale": _swept,
            "scale.predict": _foretold,
            "scale.begin": lambda _: "began the run that was foretold",
            "scale.check": _checked,
        },
        gated=False,
    ),
    # Learning to see: what the model reads in the place of a picture. Answers to words alone stay as they are, to the bit.
    "sight": Maker(
        noun="a sight",
        sentences={"sight": lambda facts: f"learned to see ({facts.get('pictures')} pictures, {facts.get('names')} names)"},
        # Its weights are the incumbent's own, so these would ask the same model twice.
        limits={"refusals": {"on": False}, "attacks": {"on": False}, "bias": {"on": False}, "looks": {"on": True}},
    ),
    # A style learned from answers that a user rated.
    "style": Maker(
        noun="a style",
        limits={"sense": {"on": True}, "refusals": {"on": False}, "attacks": {"on": False}, "bias": {"on": False}},
        personal=True,
        activity="",
    ),
    # Training a model from scratch. There is no model before it to compare with, so the gate has nothing to judge.
    "train": Maker(noun="a training", sentences={"train": _trained}, gated=False),
    # Tuning on the owner's examples.
    "tune": Maker(
        noun="a tuning",
        sentences={"tune": lambda facts: f"was tuned ({facts.get('method')}, {facts.get('examples')} examples)"},
        strength="--strength",
        limits={"bits": {"most_rise_percent": 15.0}},  # it may turn to its own kind of text
    ),
}


def gated_makers() -> tuple[str, ...]:
    """Return the makers whose candidates the gate judges: the sections that a policy may have."""
    return tuple(name for name, maker in MAKERS.items() if maker.gated)


def find_maker(name: str) -> Maker:
    """Return the maker of that name. Raises ConfigError with the known ones."""
    registry.check_known(name, MAKERS, "maker", "is not known")
    return MAKERS[name]


def sentence_of(kind: str) -> Sentence | None:
    """Return the log's sentence for a fact of this kind; None if no maker records it."""
    for name, maker in MAKERS.items():
        if kind in maker.sentences:
            return maker.sentences[kind]
        if kind == name:
            return lambda _facts: f"was made: {maker.noun}"
    return None
