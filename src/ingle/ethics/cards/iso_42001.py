"""ISO/IEC 42001:2023, Annex A: controls that records of a home can speak to. Titles in our words; the standard's text is not here."""

from ingle.ethics.card import Clause

TITLE = "ISO/IEC 42001:2023, Annex A: evidence from records"
SOURCE = "ISO/IEC 42001:2023, Annex A; titles in our words, only controls that records can speak to"
ITEMS = (
    Clause("A.2.2", "a policy", ("stated:purpose", "stated:forbidden", "policies")),
    Clause("A.2.4", "the policy is looked at again", ("policies",)),
    Clause("A.3.3", "a way to report concerns", ("stated:contact",)),
    Clause("A.4.2", "resources are documented", ("parameters", "software")),
    Clause("A.4.3", "data", ("training", "source")),
    Clause("A.4.4", "tools", ("software",)),
    Clause("A.4.5", "computing", ("formats", "energy")),
    Clause("A.4.6", "people", ("stated:oversight",)),
    Clause("A.5.4", "effects on individuals and groups", ("audit", "measure:crows-pairs", "measure:bbq")),
    Clause("A.5.5", "effects on society", ("energy", "training_energy")),
    Clause("A.6.2.2", "requirements", ("stated:purpose", "stated:limits")),
    Clause("A.6.2.3", "design and development", ("architecture", "deltas", "training")),
    Clause("A.6.2.4", "verification and validation", ("gate", "measure:xsum-bits", "measure:hellaswag", "measure:piqa", "attack")),
    Clause("A.6.2.5", "deployment", ("guards", "formats")),
    Clause("A.6.2.6", "operation and monitoring", ("record",)),
    Clause("A.6.2.7", "technical documentation", ("name", "architecture", "modality")),
    Clause("A.6.2.8", "event logs", ("record",)),
    Clause("A.7.2", "data for development", ("training",)),
    Clause("A.7.4", "quality of data", ("audit",)),
    Clause("A.7.5", "origin of data", ("source", "training")),
    Clause("A.8.2", "information for users", ("stated:users", "stated:limits", "modality")),
    Clause("A.8.3", "reports from outside", ("stated:contact",)),
    Clause("A.9.2", "responsible use", ("guards", "enforced")),
    Clause("A.9.4", "intended use", ("stated:purpose", "stated:forbidden", "enforced")),
    Clause("A.10.3", "suppliers", ("source", "licence")),
)
