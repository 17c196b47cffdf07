"""Where the state of a prompt is kept on the way: a recurrent memory can't go back, so whoever edits or asks again begins there."""

from dataclasses import dataclass

from ingle.core.spec import ModelConfig

CHECKPOINT_TOKENS = 512
"""Tokens of a prompt after which its state is kept: as much is read again at the most. A state with windows of 64 tokens takes a few MB."""
WORTH_KEEPING = 64
"""Tokens that it has to spare."""


def needs_checkpoints(config: ModelConfig) -> bool:
    """Whether states of this model can't go back, once they have read a little."""
    return any(spec.remembering(config.num_kv_heads) for spec in config.layers)


@dataclass
class Checkpoints:
    """Of one prompt: every CHECKPOINT_TOKENS, and one token before its end, which is where the same prompt is begun again."""

    last: int
    """How much of the prompt has been read in the state that was kept last."""
    prompt_tokens: int
    needed: bool

    @property
    def next(self) -> int | None:
        """Where the next one is; None if there is none."""
        return self._after(self.last) if self.needed else None

    def due(self, length: int) -> bool:
        """Whether the state, with so many tokens read, is to be kept now; it counts as kept then."""
        if length != self.next:
            return False
        self.last = length
        return True

    def within(self, common: int) -> int:
        """How much of a prompt with the same first `common` tokens will be spared by what is kept of this one."""
        if not self.needed:
            return common
        kept, place = 0, None if self.last > common else self.last
        while place is not None and place <= common:
            kept, place = place, self._after(place)
        return kept

    def _after(self, place: int) -> int | None:
        following = min(place + CHECKPOINT_TOKENS, self.prompt_tokens - 1)
        return following if following - place >= WORTH_KEEPING else None
