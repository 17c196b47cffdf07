"""Data card: what was trained and measured on, and what is kept of users' words."""

from ingle.ethics.card import Clause

TITLE = "Data card"
SOURCE = "Questions after Datasheets for Datasets, arXiv 1803.09010"
ITEMS = (
    Clause("Origin", "where the base and its data come from", ("source", "licence")),
    Clause("Training data", "what each change was trained on, by digest", ("deltas", "training")),
    Clause(
        "Evaluation data",
        "what was measured on, by digest",
        ("measure:xsum-bits", "measure:wiki-bits", "measure:hellaswag", "measure:piqa", "measure:crows-pairs", "measure:bbq"),
    ),
    Clause("Groups", "biases that can be identified in what it says", ("audit",)),
    Clause("People's words", "what is kept of users' words, how long, and what was taught and forgotten", ("retention", "record")),
    Clause("Personal data", "guards around personal data", ("guards",)),
)
