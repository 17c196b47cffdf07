"""Checkpoints of a prompt's state. A recurrent memory can't go back, so an edited or repeated prompt continues from a checkpoint."""

from dataclasses import dataclass

from ingle.core.spec import ModelConfig

CHECKPOINT_TOKENS = 512
"""Prompt tokens between checkpoints: at most this many are read again. A state with windows of 64 tokens takes a few MB."""
WORTH_KEEPING = 64
"""A checkpoint must spare at least this many tokens."""


def needs_checkpoints(config: ModelConfig) -> bool:
    """Return whether states of this model can't go back, once they have read a little."""
    return config.is_recurrent


@dataclass
class Checkpoints:
    """The checkpoints of one prompt: every CHECKPOINT_TOKENS, and one token before the end, where the same prompt would continue."""

    last: int
    """Prompt tokens read at the latest checkpoint."""
    prompt_tokens: int
    needed: bool

    @property
    def next(self) -> int | None:
        """Position of the next checkpoint; None if there is none."""
        return self._after(self.last) if self.needed else None

    def due(self, length: int) -> bool:
        """Return whether the state is to be kept now, at `length` tokens; it then counts as kept."""
        if length != self.next:
            return False
        self.last = length
        return True

    def within(self, common: int) -> int:
        """Return how many tokens the checkpoints will spare another prompt with the same first `common` tokens."""
        if not self.needed:
            return common
        spared, place = 0, None if self.last > common else self.last
        while place is not None and place <= common:
            spared, place = place, self._after(place)
        return spared

    def _after(self, place: int) -> int | None:
        following = min(place + CHECKPOINT_TOKENS, self.prompt_tokens - 1)
        return following if following - place >= WORTH_KEEPING else None
