"""ISO/IEC 42001:2023, Annex A: controls that records of a home can speak to. Titles in our words; the standard's text is not here."""

from ingle.ethics.card import Item

TITLE = "ISO/IEC 42001:2023, Annex A: evidence from records"
SOURCE = "ISO/IEC 42001:2023, Annex A; titles in our words, only controls that records can speak to"
ITEMS = (
    Item("A.2.2", "a policy", ("stated:purpose", "stated:forbidden", "policies")),
    Item("A.2.4", "the policy is looked at again", ("policies",)),
    Item("A.3.3", "a way to report concerns", ("stated:contact",)),
    Item("A.4.2", "resources are documented", ("parameters", "software")),
    Item("A.4.3", "data", ("training", "source")),
    Item("A.4.4", "tools", ("software",)),
    Item("A.4.5", "computing", ("formats", "energy")),
    Item("A.4.6", "people", ("stated:oversight",)),
    Item("A.5.4", "effects on individuals and groups", ("audit", "measure:crows-pairs", "measure:bbq")),
    Item("A.5.5", "effects on society", ("energy", "training_energy")),
    Item("A.6.2.2", "requirements", ("stated:purpose", "stated:limits")),
    Item("A.6.2.3", "design and development", ("architecture", "deltas", "training")),
    Item("A.6.2.4", "verification and validation", ("gate", "measure:xsum-bits", "measure:hellaswag", "measure:piqa", "attack")),
    Item("A.6.2.5", "deployment", ("guards", "formats")),
    Item("A.6.2.6", "operation and monitoring", ("record",)),
    Item("A.6.2.7", "technical documentation", ("name", "architecture", "modality")),
    Item("A.6.2.8", "event logs", ("record",)),
    Item("A.7.2", "data for development", ("training",)),
    Item("A.7.4", "quality of data", ("audit",)),
    Item("A.7.5", "origin of data", ("source", "training")),
    Item("A.8.2", "information for users", ("stated:users", "stated:limits", "modality")),
    Item("A.8.3", "reports from outside", ("stated:contact",)),
    Item("A.9.2", "responsible use", ("guards", "enforced")),
    Item("A.9.4", "intended use", ("stated:purpose", "stated:forbidden", "enforced")),
    Item("A.10.3", "suppliers", ("source", "licence")),
)
