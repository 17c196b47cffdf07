"""Energy card: what answers and changes took."""

from ingle.ethics.card import Clause

TITLE = "Energy card"
SOURCE = "Unit of AI Energy Score: energy of 1,000 queries"
ITEMS = (
    Clause("Answers", "energy of 1,000 answers on this machine, with what the meter can't know", ("energy",)),
    Clause("Making", "energy of every training in this home", ("training_energy",)),
    Clause("Model", "size and format, which decide it", ("parameters", "formats", "architecture")),
    Clause("Software", "versions", ("software",)),
)
