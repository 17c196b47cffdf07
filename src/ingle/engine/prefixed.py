"""A model with virtual tokens before every text, of which only keys and values are left.

Trained prefixes (arXiv 2101.00190) and prompts (arXiv 2104.08691) are served this way. The virtual tokens are invisible: states begin after
them, count from there, and go back no further; the context is shorter by them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_json
from ingle.core.spec import ModelConfig
from ingle.engine.adapter import Additions
from ingle.engine.backend import AnyState, Backend, Runner, Segment, check_segment


@dataclass
class PrefixedState:
    """A state that began after the virtual tokens."""

    beginning: AnyState
    """A state that has read the virtual tokens only."""
    inner: AnyState
    """The runner's own state."""

    @property
    def length(self) -> int:
        """Tokens read so far, without the virtual ones."""
        return self.inner.length - self.beginning.length

    @property
    def nbytes(self) -> int:
        """Bytes held, the virtual tokens' too."""
        return self.inner.nbytes

    @property
    def earliest_rewind(self) -> int:
        """The smallest length above 0 that `rewind` accepts."""
        return max(0, self.inner.earliest_rewind - self.beginning.length)

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Identity and bytes of each piece of memory."""
        return self.inner.pieces()

    def fork(self) -> "PrefixedState":
        """Return an independent copy."""
        return PrefixedState(self.beginning, self.inner.fork())

    def rewind(self, length: int) -> None:
        """Go back to the first `length` tokens after the virtual ones, or raise CannotRewind."""
        if length == 0:
            self.inner = self.beginning.fork()
        else:
            self.inner.rewind(length + self.beginning.length)

    def rollback_point(self, earlier: Any = None) -> Any:
        """Return the present position; see `AnyState.rollback_point`."""
        return self.inner.rollback_point(earlier)

    def rollback(self, length: int, point: Any) -> None:
        """Undo some of the last step; see `AnyState.rollback`."""
        self.inner.rollback(length + self.beginning.length, point)


class Prefixed:
    """A backend with virtual tokens before every text; see `engine.backend.Backend` for the contract."""

    def __init__(self, backend: Runner, keys: npt.NDArray[Any], values: npt.NDArray[Any], digest: str) -> None:
        """keys and values [layers, groups, n, D] (see `engine.delta_kinds.virtual_of`); `digest`: of the delta that they come from."""
        self._inner, self._beginning = backend, backend.filled_state(keys, values)
        self.virtual_tokens: int = keys.shape[2]
        self.config: ModelConfig = replace(backend.config, context_length=backend.config.context_length - self.virtual_tokens)
        self.digest = digest_json([backend.digest, digest])

    @property
    def exact_cuts(self) -> bool:
        """Whether the runner's cuts are exact."""
        return self._inner.exact_cuts

    @property
    def runner(self) -> Backend:
        """The wrapped backend."""
        return self._inner

    def lower(self, segment: Segment) -> Segment:
        """Return the segment with the runner's own state."""
        return replace(segment, state=segment.state.inner)

    def new_state(self) -> PrefixedState:
        """Return a state that has read the virtual tokens only."""
        return PrefixedState(self._beginning, self._beginning.fork())

    def state_bytes(self, tokens: int) -> int:
        """Return the bytes of a state of so many tokens beside the virtual ones."""
        return self._inner.state_bytes(tokens + self.virtual_tokens)

    def adapter(self, additions: Additions, digest: str) -> Any:
        """Prepare additions to linears; see `Backend.adapter`."""
        return self._inner.adapter(additions, digest)

    def save_state(self, state: PrefixedState, path: Path, digest: str = "") -> None:
        """Write a state with its virtual tokens to a file; see `Backend.save_state`."""
        self._inner.save_state(state.inner, path, digest or self.digest)

    def load_state(self, path: Path, digest: str = "") -> PrefixedState:
        """Read a state from a file; see `Backend.load_state`."""
        return PrefixedState(self._beginning, self._inner.load_state(path, digest or self.digest))

    def forward(self, segments: Sequence[Segment]) -> list[npt.NDArray[np.float32]]:
        """Read the tokens of every segment; see `Backend.forward`."""
        for segment in segments:
            check_segment(self.config, segment)
        return self._inner.forward([self.lower(segment) for segment in segments])
