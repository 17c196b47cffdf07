"""EU AI Act, Annex XII: information for those who build on a general-purpose model, Article 53(1)(b)."""

from ingle.ethics.card import Item

TITLE = "EU AI Act, Annex XII: information for those who build on the model"
SOURCE = "Regulation (EU) 2024/1689, Annex XII; clauses in our words"
ITEMS = (
    Item("1(a)", "tasks it is meant for, and systems that it can become part of", ("stated:purpose", "stated:users")),
    Item("1(b)", "acceptable use", ("stated:forbidden", "enforced")),
    Item("1(c)", "release and distribution", ("name", "source", "stated:distribution")),
    Item("1(d)", "how it works with hardware and software around it", ("software", "formats")),
    Item("1(e)", "versions of software", ("software",)),
    Item("1(f)", "architecture and number of parameters", ("architecture", "parameters")),
    Item("1(g)", "modality and format of inputs and outputs", ("modality",)),
    Item("1(h)", "licence", ("licence",)),
    Item("2(a)", "what is needed to build it into a system", ("software", "formats")),
    Item("2(b)", "largest inputs and outputs", ("modality",)),
    Item("2(c)", "data of training, testing and validation", ("training", "deltas", "measure:xsum-bits", "measure:wiki-bits")),
)
