"""Another size, with as much text as the budget leaves."""

from ingle.scaling.lever import TrainingLever

LEVER = TrainingLever("train another size", sizes="others")
