"""EU AI Act, Annex XI: technical documentation of providers of general-purpose models, Article 53(1)(a). Section 2 is for systemic risk."""

from ingle.ethics.card import Clause

TITLE = "EU AI Act, Annex XI: technical documentation of a general-purpose model"
SOURCE = "Regulation (EU) 2024/1689, Annex XI; clauses in our words"
ITEMS = (
    Clause("1(1)(a)", "tasks it is meant for, and systems that it can become part of", ("stated:purpose", "stated:users")),
    Clause("1(1)(b)", "acceptable use", ("stated:forbidden", "enforced")),
    Clause("1(1)(c)", "release and distribution", ("name", "source", "stated:distribution")),
    Clause("1(1)(d)", "architecture and number of parameters", ("architecture", "parameters")),
    Clause("1(1)(e)", "modality and format of inputs and outputs", ("modality",)),
    Clause("1(1)(f)", "licence", ("licence",)),
    Clause("1(2)(a)", "what is needed to build it into a system", ("software", "formats")),
    Clause("1(2)(b)", "design and training: methods, choices, what is optimised", ("deltas", "training")),
    Clause(
        "1(2)(c)",
        "data of training, testing and validation; measures to find biases",
        ("training", "measure:xsum-bits", "measure:wiki-bits", "audit"),
    ),
    Clause("1(2)(d)", "computation of the training", ("training",)),
    Clause("1(2)(e)", "energy, known or estimated", ("training_energy", "energy")),
    Clause("2(1)", "evaluation: methods and results", ("measure:hellaswag", "measure:piqa", "measure:recall-1k", "gate")),
    Clause("2(2)", "adversarial testing, alignment and fine-tuning", ("attack", "gate", "guards")),
    Clause("2(3)", "how parts of the system build on each other", ("guards", "software")),
)
