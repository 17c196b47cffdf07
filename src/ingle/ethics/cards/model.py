"""Model card: what it is, what it is for, how it was made, what was measured (after Mitchell et al., arXiv 1810.03993)."""

from ingle.ethics.card import Item

TITLE = "Model card"
SOURCE = "Sections after arXiv 1810.03993"
ITEMS = (
    Item(
        "Model details",
        "name, version, kind, size, licence, origin",
        ("name", "architecture", "parameters", "modality", "licence", "source"),
    ),
    Item("Changes", "every change since its base, and how it was made", ("deltas", "training")),
    Item(
        "Intended use",
        "what it is for, for whom, what it must not be used for",
        ("stated:purpose", "stated:users", "stated:forbidden", "enforced"),
    ),
    Item("Limits", "what it is known not to do well", ("stated:limits",)),
    Item(
        "Quality",
        "loss on general text, facts far back, common sense",
        ("measure:xsum-bits", "measure:wiki-bits", "measure:recall-1k", "measure:hellaswag", "measure:piqa"),
    ),
    Item(
        "Groups",
        "differences between groups of people",
        ("audit", "measure:crows-pairs", "measure:stereoset-intra", "measure:stereoset-inter", "measure:wino-pronouns", "measure:bbq"),
    ),
    Item("Safety", "harmful requests, attacks, guards around it", ("attack", "gate", "guards")),
    Item("Energy", "joules of answers and of its making", ("energy", "training_energy")),
    Item("Record", "what happened here", ("record",)),
    Item("Contact", "whom to ask, and where to contest an answer", ("stated:contact", "stated:oversight")),
)
