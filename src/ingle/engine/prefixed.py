"""A model that has something before every text: virtual tokens, of which nothing is left but their keys and values.

Prefix tuning (arXiv 2101.00190) and prompt tuning (arXiv 2104.08691) come to this once they are trained. To everybody else the
virtual tokens are not there: states begin after them, count from there, and go back no further; the context is shorter by them.
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
    """Has read the virtual tokens, and nothing else."""
    inner: AnyState
    """The state that the runner knows."""

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
        """A copy that goes its own way."""
        return PrefixedState(self.beginning, self.inner.fork())

    def rewind(self, length: int) -> None:
        """Goes back to the first `length` tokens after the virtual ones, or raises CannotRewind."""
        if length == 0:
            self.inner = self.beginning.fork()
        else:
            self.inner.rewind(length + self.beginning.length)

    def rollback_point(self, earlier: Any = None) -> Any:
        """Where it is; see `AnyState.rollback_point`."""
        return self.inner.rollback_point(earlier)

    def rollback(self, length: int, point: Any) -> None:
        """Takes back some of what was read since; see `AnyState.rollback`."""
        self.inner.rollback(length + self.beginning.length, point)


class Prefixed:
    """A backend with virtual tokens before every text; see `engine.backend.Backend` for the contract."""

    def __init__(self, backend: Runner, keys: npt.NDArray[Any], values: npt.NDArray[Any], digest: str) -> None:
        """keys and values [layers, groups, n, D] (see `engine.changes.virtual_of`); `digest` is that of the delta that they come from."""
        self._inner, self._beginning = backend, backend.filled_state(keys, values)
        self.virtual_tokens: int = keys.shape[2]
        self.config: ModelConfig = replace(backend.config, context_length=backend.config.context_length - self.virtual_tokens)
        self.digest = digest_json([backend.digest, digest])

    @property
    def exact_cuts(self) -> bool:
        """Whether they are the runner's."""
        return self._inner.exact_cuts

    @property
    def runner(self) -> Backend:
        """The backend that this one stands before."""
        return self._inner

    def lower(self, segment: Segment) -> Segment:
        """The segment with the state that the runner knows."""
        return replace(segment, state=segment.state.inner)

    def new_state(self) -> PrefixedState:
        """A state that has read nothing but the virtual tokens."""
        return PrefixedState(self._beginning, self._beginning.fork())

    def state_bytes(self, tokens: int) -> int:
        """Bytes of a state that has read so many tokens beside the virtual ones."""
        return self._inner.state_bytes(tokens + self.virtual_tokens)

    def adapter(self, additions: Additions, digest: str) -> Any:
        """Additions to linears; see `Backend.adapter`."""
        return self._inner.adapter(additions, digest)

    def save_state(self, state: PrefixedState, path: Path, digest: str = "") -> None:
        """Writes a state with its virtual tokens; see `Backend.save_state`."""
        self._inner.save_state(state.inner, path, digest or self.digest)

    def load_state(self, path: Path, digest: str = "") -> PrefixedState:
        """Reads a state back; see `Backend.load_state`."""
        return PrefixedState(self._beginning, self._inner.load_state(path, digest or self.digest))

    def forward(self, segments: Sequence[Segment]) -> list[npt.NDArray[np.float32]]:
        """Reads the tokens of every segment; see `Backend.forward`."""
        for segment in segments:
            check_segment(self.config, segment)
        return self._inner.forward([self.lower(segment) for segment in segments])
