"""EU AI Act, Annex XII: information for those who build on a general-purpose model, Article 53(1)(b)."""

from ingle.ethics.card import Clause

TITLE = "EU AI Act, Annex XII: information for those who build on the model"
SOURCE = "Regulation (EU) 2024/1689, Annex XII; clauses in our words"
ITEMS = (
    Clause("1(a)", "tasks it is meant for, and systems that it can become part of", ("stated:purpose", "stated:users")),
    Clause("1(b)", "acceptable use", ("stated:forbidden", "enforced")),
    Clause("1(c)", "release and distribution", ("name", "source", "stated:distribution")),
    Clause("1(d)", "how it works with hardware and software around it", ("software", "formats")),
    Clause("1(e)", "versions of software", ("software",)),
    Clause("1(f)", "architecture and number of parameters", ("architecture", "parameters")),
    Clause("1(g)", "modality and format of inputs and outputs", ("modality",)),
    Clause("1(h)", "licence", ("licence",)),
    Clause("2(a)", "what is needed to build it into a system", ("software", "formats")),
    Clause("2(b)", "largest inputs and outputs", ("modality",)),
    Clause("2(c)", "data of training, testing and validation", ("training", "deltas", "measure:xsum-bits", "measure:wiki-bits")),
)
