"""EU AI Act, Annex IV: technical documentation of a high-risk system, Article 11. For owners whose use of the model is one."""

from ingle.ethics.card import Clause

TITLE = "EU AI Act, Annex IV: technical documentation of a high-risk system"
SOURCE = "Regulation (EU) 2024/1689, Annex IV; clauses in our words"
ITEMS = (
    Clause("1(a)", "purpose, provider, version", ("stated:purpose", "stated:contact", "name")),
    Clause("1(b)", "how it works with hardware and software around it", ("software", "formats")),
    Clause("1(c)", "versions of software", ("software",)),
    Clause("1(d)", "forms in which it is given to others", ("stated:distribution", "formats")),
    Clause("1(h)", "instructions for use", ("stated:users", "stated:forbidden", "stated:limits")),
    Clause("2(a)", "methods and steps of its making, models made by others", ("source", "deltas", "training")),
    Clause("2(b)", "design: logic, choices, what is optimised", ("architecture", "deltas")),
    Clause("2(c)", "architecture of the system, computation", ("architecture", "parameters", "guards", "training")),
    Clause("2(d)", "data: origin, scope, selection", ("training", "source")),
    Clause("2(e)", "human oversight", ("stated:oversight",)),
    Clause("2(f)", "changes foreseen, and how they are kept within bounds", ("gate",)),
    Clause(
        "2(g)",
        "validation and testing: accuracy, robustness, effects on groups, logs",
        ("measure:xsum-bits", "measure:hellaswag", "measure:piqa", "audit", "attack", "gate"),
    ),
    Clause("2(h)", "security", ("guards", "attack")),
    Clause(
        "3", "capabilities and limits, accuracy for groups, foreseeable harm", ("audit", "measure:bbq", "stated:limits", "stated:oversight")
    ),
    Clause("4", "why these measures", ("gate", "audit")),
    Clause("5", "risk management", ("enforced", "guards", "gate")),
    Clause("6", "changes through its life", ("deltas", "policies")),
    Clause("9", "what is watched after it is in use", ("record", "retention")),
)
