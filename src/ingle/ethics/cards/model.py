"""Model card: what it is, what it is for, how it was made, what was measured (after Mitchell et al., arXiv 1810.03993)."""

from ingle.ethics.card import Clause

TITLE = "Model card"
SOURCE = "Sections after arXiv 1810.03993"
ITEMS = (
    Clause(
        "Model details",
        "name, version, kind, size, licence, origin",
        ("name", "architecture", "parameters", "modality", "licence", "source"),
    ),
    Clause("Changes", "every change since its base, and how it was made", ("deltas", "training")),
    Clause(
        "Intended use",
        "what it is for, for whom, what it must not be used for",
        ("stated:purpose", "stated:users", "stated:forbidden", "enforced"),
    ),
    Clause("Limits", "what it is known not to do well", ("stated:limits",)),
    Clause(
        "Quality",
        "loss on general text, facts far back, common sense",
        ("measure:xsum-bits", "measure:wiki-bits", "measure:recall-1k", "measure:hellaswag", "measure:piqa"),
    ),
    Clause(
        "Groups",
        "differences between groups of people",
        ("audit", "measure:crows-pairs", "measure:stereoset-intra", "measure:stereoset-inter", "measure:wino-pronouns", "measure:bbq"),
    ),
    Clause("Safety", "harmful requests, attacks, guards around it", ("attack", "gate", "guards")),
    Clause("Energy", "joules of answers and of its making", ("energy", "training_energy")),
    Clause("Record", "what happened here", ("record",)),
    Clause("Contact", "whom to ask, and where to contest an answer", ("stated:contact", "stated:oversight")),
)
