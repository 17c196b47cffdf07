"""Families of guard models: how each is asked, and which of its words say what. A family is a row; its template comes with its weights.

Facts are those of the model cards: Qwen/Qwen3Guard-Gen-0.6B, meta-llama/Llama-Guard-3-1B, ibm-granite/granite-guardian-3.1-2b. DuoGuard
is left out: it speaks by a head of twelve classes in the place of the words' matrix, which no model here has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ingle.core.errors import GuardError


@dataclass(frozen=True, slots=True)
class GuardLabel:
    """A word that a guard model may say."""

    word: str
    weight: float  # its share in the risk


@dataclass(frozen=True, slots=True)
class GuardFamily:
    """How the models of one family are asked."""

    name: str
    marks: tuple[str, ...]  # texts that all stand in its chat template, by which the family is known
    lead: str  # the beginning of its answer, behind which a label comes; it is not repeated where the template ends with it
    labels: tuple[GuardLabel, ...]
    variables: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))  # switches of its template


FAMILIES = (
    GuardFamily(
        "Qwen3Guard", ("Safety: Safe", "Safety: Controversial"), "Safety:",
        (GuardLabel(" Safe", 0.0), GuardLabel(" Controversial", 0.5), GuardLabel(" Unsafe", 1.0)),
    ),
    GuardFamily("Granite Guardian", ("guardian_config",), "", (GuardLabel("No", 0.0), GuardLabel("Yes", 1.0)),
                MappingProxyType({"guardian_config": {"risk_name": "harm"}})),
    GuardFamily("Llama Guard", ("UNSAFE CONTENT CATEGORIES", "S1", "S13"), "\n\n", (GuardLabel("safe", 0.0), GuardLabel("unsafe", 1.0))),
)  # fmt: skip


def family_of(template: str, model: str, families: Sequence[GuardFamily] = FAMILIES) -> GuardFamily:
    """Return the family of a chat template. Raises GuardError for one of none."""
    found = next((family for family in families if all(mark in template for mark in family.marks)), None)
    if found is None:
        known = ", ".join(family.name for family in families)
        cure = f"Known families: {known}. For example: ingle pull guard"
        raise GuardError(f"guard model {model}", f"The chat template of {model} is none of a guard that Ingle knows how to ask", "", cure)
    return found
