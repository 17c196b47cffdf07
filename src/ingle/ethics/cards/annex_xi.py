"""EU AI Act, Annex XI: technical documentation of providers of general-purpose models, Article 53(1)(a). Section 2 is for systemic risk."""

from ingle.ethics.card import Item

TITLE = "EU AI Act, Annex XI: technical documentation of a general-purpose model"
SOURCE = "Regulation (EU) 2024/1689, Annex XI; clauses in our words"
ITEMS = (
    Item("1(1)(a)", "tasks it is meant for, and systems that it can become part of", ("stated:purpose", "stated:users")),
    Item("1(1)(b)", "acceptable use", ("stated:forbidden", "enforced")),
    Item("1(1)(c)", "release and distribution", ("name", "source", "stated:distribution")),
    Item("1(1)(d)", "architecture and number of parameters", ("architecture", "parameters")),
    Item("1(1)(e)", "modality and format of inputs and outputs", ("modality",)),
    Item("1(1)(f)", "licence", ("licence",)),
    Item("1(2)(a)", "what is needed to build it into a system", ("software", "formats")),
    Item("1(2)(b)", "design and training: methods, choices, what is optimised", ("deltas", "training")),
    Item(
        "1(2)(c)",
        "data of training, testing and validation; measures to find biases",
        ("training", "measure:xsum-bits", "measure:wiki-bits", "audit"),
    ),
    Item("1(2)(d)", "computation of the training", ("training",)),
    Item("1(2)(e)", "energy, known or estimated", ("training_energy", "energy")),
    Item("2(1)", "evaluation: methods and results", ("measure:hellaswag", "measure:piqa", "measure:recall-1k", "gate")),
    Item("2(2)", "adversarial testing, alignment and fine-tuning", ("attack", "gate", "guards")),
    Item("2(3)", "how parts of the system build on each other", ("guards", "software")),
)
