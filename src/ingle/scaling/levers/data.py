"""More text for the size that is best now."""

from ingle.scaling.lever import TrainingLever

LEVER = TrainingLever("give the best size more text", sizes="same")
