"""NIST AI RMF 1.0 and its profile for generative AI (NIST AI 600-1): the subcategories and risks that records of a home can speak to."""

from ingle.ethics.card import Clause

TITLE = "NIST AI RMF 1.0 with the generative AI profile: evidence from records"
SOURCE = "NIST AI 100-1 and NIST AI 600-1; outcomes in our words, only those that records can speak to"
ITEMS = (
    Clause("GOVERN 1.4", "transparent policies for risks", ("policies", "guards", "retention")),
    Clause("GOVERN 1.6", "an inventory of systems", ("name", "deltas")),
    Clause("GOVERN 6.1", "parts made by others", ("source", "licence", "software")),
    Clause("MAP 1.1", "purpose, users, context", ("stated:purpose", "stated:users", "stated:forbidden")),
    Clause("MAP 2.1", "tasks and methods", ("architecture", "parameters", "modality")),
    Clause("MAP 2.2", "limits of knowledge, oversight", ("stated:limits", "stated:oversight")),
    Clause(
        "MEASURE 2.1",
        "test sets and metrics are documented",
        ("measure:xsum-bits", "measure:wiki-bits", "measure:hellaswag", "measure:piqa"),
    ),
    Clause("MEASURE 2.4", "watched in use", ("record",)),
    Clause("MEASURE 2.5", "valid and reliable", ("measure:hellaswag", "measure:piqa", "measure:recall-1k", "gate")),
    Clause("MEASURE 2.6", "safety", ("attack", "gate", "guards")),
    Clause("MEASURE 2.7", "security and resilience", ("attack", "guards")),
    Clause("MEASURE 2.8", "transparency and accountability", ("record", "policies")),
    Clause("MEASURE 2.9", "explained", ("record",)),
    Clause("MEASURE 2.10", "privacy", ("guards", "retention")),
    Clause("MEASURE 2.11", "fairness and bias", ("audit", "measure:crows-pairs", "measure:stereoset-intra", "measure:bbq")),
    Clause("MEASURE 2.12", "environment", ("energy", "training_energy")),
    Clause("MANAGE 2.4", "ways to switch off or undo", ("record", "deltas")),
    Clause("MANAGE 4.1", "appeal, override, change management", ("stated:contact", "stated:oversight", "record")),
    Clause("GAI dangerous or hateful content", "generative AI profile, risk 3", ("attack", "guards", "gate")),
    Clause("GAI confabulation", "generative AI profile, risk 2", ("measure:bbq", "measure:recall-1k")),
    Clause("GAI data privacy", "generative AI profile, risk 4", ("guards", "retention")),
    Clause("GAI environmental impacts", "generative AI profile, risk 5", ("energy", "training_energy")),
    Clause(
        "GAI harmful bias",
        "generative AI profile, risk 6",
        ("audit", "measure:crows-pairs", "measure:stereoset-intra", "measure:stereoset-inter"),
    ),
    Clause("GAI information security", "generative AI profile, risk 9", ("attack", "guards")),
    Clause("GAI value chain", "generative AI profile, risk 12", ("source", "licence", "deltas", "software")),
)
