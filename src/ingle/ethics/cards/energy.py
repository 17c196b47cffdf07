"""Energy card: what answers and changes took."""

from ingle.ethics.card import Item

TITLE = "Energy card"
SOURCE = "Unit of AI Energy Score: energy of 1,000 queries"
ITEMS = (
    Item("Answers", "energy of 1,000 answers on this machine, with what the meter can't know", ("energy",)),
    Item("Making", "energy of every training in this home", ("training_energy",)),
    Item("Model", "size and format, which decide it", ("parameters", "formats", "architecture")),
    Item("Software", "versions", ("software",)),
)
