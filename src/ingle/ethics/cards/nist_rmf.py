"""NIST AI RMF 1.0 and its profile for generative AI (NIST AI 600-1): the subcategories and risks that records of a home can speak to."""

from ingle.ethics.card import Item

TITLE = "NIST AI RMF 1.0 with the generative AI profile: evidence from records"
SOURCE = "NIST AI 100-1 and NIST AI 600-1; outcomes in our words, only those that records can speak to"
ITEMS = (
    Item("GOVERN 1.4", "transparent policies for risks", ("policies", "guards", "retention")),
    Item("GOVERN 1.6", "an inventory of systems", ("name", "deltas")),
    Item("GOVERN 6.1", "parts made by others", ("source", "licence", "software")),
    Item("MAP 1.1", "purpose, users, context", ("stated:purpose", "stated:users", "stated:forbidden")),
    Item("MAP 2.1", "tasks and methods", ("architecture", "parameters", "modality")),
    Item("MAP 2.2", "limits of knowledge, oversight", ("stated:limits", "stated:oversight")),
    Item(
        "MEASURE 2.1",
        "test sets and metrics are documented",
        ("measure:xsum-bits", "measure:wiki-bits", "measure:hellaswag", "measure:piqa"),
    ),
    Item("MEASURE 2.4", "watched in use", ("record",)),
    Item("MEASURE 2.5", "valid and reliable", ("measure:hellaswag", "measure:piqa", "measure:recall-1k", "gate")),
    Item("MEASURE 2.6", "safety", ("attack", "gate", "guards")),
    Item("MEASURE 2.7", "security and resilience", ("attack", "guards")),
    Item("MEASURE 2.8", "transparency and accountability", ("record", "policies")),
    Item("MEASURE 2.9", "explained", ("record",)),
    Item("MEASURE 2.10", "privacy", ("guards", "retention")),
    Item("MEASURE 2.11", "fairness and bias", ("audit", "measure:crows-pairs", "measure:stereoset-intra", "measure:bbq")),
    Item("MEASURE 2.12", "environment", ("energy", "training_energy")),
    Item("MANAGE 2.4", "ways to switch off or undo", ("record", "deltas")),
    Item("MANAGE 4.1", "appeal, override, change management", ("stated:contact", "stated:oversight", "record")),
    Item("GAI dangerous or hateful content", "generative AI profile, risk 3", ("attack", "guards", "gate")),
    Item("GAI confabulation", "generative AI profile, risk 2", ("measure:bbq", "measure:recall-1k")),
    Item("GAI data privacy", "generative AI profile, risk 4", ("guards", "retention")),
    Item("GAI environmental impacts", "generative AI profile, risk 5", ("energy", "training_energy")),
    Item(
        "GAI harmful bias",
        "generative AI profile, risk 6",
        ("audit", "measure:crows-pairs", "measure:stereoset-intra", "measure:stereoset-inter"),
    ),
    Item("GAI information security", "generative AI profile, risk 9", ("attack", "guards")),
    Item("GAI value chain", "generative AI profile, risk 12", ("source", "licence", "deltas", "software")),
)
