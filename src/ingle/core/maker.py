"""Makers are the procedures that change models: tuning, pruning, lessons. To add one, put a file into core/makers, named after it.

The file holds `MAKER`: the maker's words for people, and the gate's usual limits for it. The policy, the gate, the ledger's sentences, the
energy account and the page read the folder; none of them names a maker. The work itself is in the maker's own room, which hands a
`core.candidate.Candidate` to the gate under this name (train/making.py does the rest).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ingle.core import registry
from ingle.core.report import Fact

Sentence = Callable[[Mapping[str, Fact]], str]  # facts' values → what `ingle log` says behind the subject's name: "was pruned (wanda)"


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


def makers() -> Mapping[str, Maker]:
    """Return every maker by name, alphabetically."""
    return {name: file.MAKER for name, file in registry.modules("ingle.core.makers").items()}


def gated_makers() -> tuple[str, ...]:
    """Return the makers whose candidates the gate judges: the sections that a policy may have."""
    return tuple(name for name, maker in makers().items() if maker.gated)


def find_maker(name: str) -> Maker:
    """Return the maker of that name. Raises ConfigError with the known ones."""
    known = makers()
    registry.check_known(name, known, "maker", "is not known")
    return known[name]


def sentence_of(kind: str) -> Sentence | None:
    """Return the log's sentence for a fact of this kind; None if no maker records it."""
    for name, maker in makers().items():
        if kind in maker.sentences:
            return maker.sentences[kind]
        if kind == name:
            return lambda _facts: f"was made: {maker.noun}"
    return None
