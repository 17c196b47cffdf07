"""Data card: what was trained and measured on, and what is kept of users' words."""

from ingle.ethics.card import Item

TITLE = "Data card"
SOURCE = "Questions after Datasheets for Datasets, arXiv 1803.09010"
ITEMS = (
    Item("Origin", "where the base and its data come from", ("source", "licence")),
    Item("Training data", "what each change was trained on, by digest", ("deltas", "training")),
    Item(
        "Evaluation data",
        "what was measured on, by digest",
        ("measure:xsum-bits", "measure:wiki-bits", "measure:hellaswag", "measure:piqa", "measure:crows-pairs", "measure:bbq"),
    ),
    Item("Groups", "biases that can be identified in what it says", ("audit",)),
    Item("People's words", "what is kept of users' words, how long, and what was taught and forgotten", ("retention", "record")),
    Item("Personal data", "guards around personal data", ("guards",)),
)
