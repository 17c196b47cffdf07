"""Backends: they make states, and read tokens into any number of states in one call."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ContextError, KernelError, RequestError
from ingle.core.media import NO_VECTORS, Vectors
from ingle.core.spec import ModelConfig
from ingle.core.state import STEP_TOKENS
from ingle.engine.adapter import Additions


class AnyState(Protocol):
    """The interface of a state; `core.state.State` is the CPU's, the PyTorch backend has its own."""

    @property
    def length(self) -> int:
        """Tokens read so far."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        ...

    @property
    def earliest_rewind(self) -> int:
        """The smallest length above 0 that `rewind` accepts."""
        ...

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Identity and bytes of each piece of memory; forks share pieces."""
        ...

    def fork(self) -> "AnyState":
        """Return an independent copy."""
        ...

    def rewind(self, length: int) -> None:
        """Go back to the first `length` tokens, or raise CannotRewind."""
        ...

    def rollback_point(self, earlier: Any = None) -> Any:
        """Return the present position, for `rollback`. An `earlier` point is no longer needed and may be reused."""
        ...

    def rollback(self, length: int, point: Any) -> None:
        """Go back to the first `length` tokens; the last step since `point` read some of them. If a recurrent memory has taken in a token
        since, go back to the point itself: `length` then says so."""
        ...


@dataclass(frozen=True, slots=True)
class Segment:
    """The next tokens of one sequence, and which of them need logits."""

    state: Any
    ids: Sequence[int]
    logits: Literal["none", "last", "all"] = "last"
    adapter: Any = None
    """An adapter from `Backend.adapter`. A state is read with the same adapter from its beginning."""
    vectors: Vectors = field(default_factory=lambda: NO_VECTORS)
    """Vectors of ids beyond the vocabulary. It may hold vectors of other ids, too."""


class NotFinite(KernelError):
    """A step gave NaN or infinity in the recurrent memories of some segments. Their states and logits are unusable."""

    def __init__(self, results: list[npt.NDArray[np.float32]], broken: Sequence[int]) -> None:
        """results: logits of the whole step, good for all but the segments numbered in `broken`."""
        cure = "Run `ingle verify --models`; if all is whole, the model itself (or what was added to it) is broken."
        super().__init__("recurrent memory", "must give numbers", "NaN or infinity", cure)
        self.results, self.broken = results, frozenset(broken)


class Backend(Protocol):
    """A model that can be run. Contract tests in `tests/contracts` hold for all backends."""

    @property
    def config(self) -> ModelConfig:
        """The model's shape."""
        ...

    @property
    def digest(self) -> str:
        """Digest of everything beside the request that answers depend on."""
        ...

    @property
    def exact_cuts(self) -> bool:
        """Whether logits are equal to the last bit however a sequence is cut into segments."""
        ...

    @property
    def runner(self) -> "Backend":
        """The backend that takes the steps: this one, or the one it wraps. Sequences of one runner may share a step."""
        ...

    def lower(self, segment: Segment) -> Segment:
        """Return the segment in the runner's terms."""
        ...

    def new_state(self) -> Any:
        """Return a state that has read nothing."""
        ...

    def state_bytes(self, tokens: int) -> int:
        """Return the bytes of a state that has read so many tokens and shares nothing."""
        ...

    def adapter(self, additions: Additions, digest: str) -> Any:
        """Prepare additions to linears (see engine/adapter.py), which segments may name from the next step on. Raises DeltaError."""
        ...

    def save_state(self, state: Any, path: Path, digest: str = "") -> None:
        """Write a state to a file, whole or not at all. `digest` names the model if it is more than this backend. Raises HomeError."""
        ...

    def load_state(self, path: Path, digest: str = "") -> Any:
        """Read a state from a file. Raises CheckpointError for a damaged file, or one of another model."""
        ...

    def forward(self, segments: Sequence[Segment]) -> list[npt.NDArray[np.float32]]:
        """Read the tokens of every segment into its state; return logits [rows asked for, vocabulary] for each.

        At most `STEP_TOKENS` tokens a segment. The arrays are valid until the next call from any thread: several callers share one
        scheduler.
        Raises ContextError beyond the model's context, RequestError for an id that is neither a token nor has a vector (states are then
        untouched), NotFinite for a broken recurrent memory (CPU backend).
        """
        ...


class Runner(Backend, Protocol):
    """A backend that takes its steps itself."""

    def filled_state(self, keys: npt.NDArray[Any], values: npt.NDArray[Any]) -> Any:
        """Return a state of n tokens with these keys (turned by RoPE for positions 0 … n − 1) and values [layers, groups, n, D]."""
        ...


def check_segment(config: ModelConfig, segment: Segment) -> None:
    """Raise ContextError or RequestError for tokens that can't be read into a state."""
    count, length = len(segment.ids), segment.state.length
    if not 0 < count <= STEP_TOKENS:
        raise RequestError("ids", f"must be 1 to {STEP_TOKENS} tokens", count, "Read longer prompts with `prefill`.")
    if length + count > config.context_length:
        raise ContextError("prompt", f"must fit the model's context of {config.context_length} tokens", length + count)
    if min(segment.ids) < 0 or max(segment.ids) >= config.vocab_size:
        for id_ in segment.ids:
            _check_id(config, segment.vectors, id_)


def _check_id(config: ModelConfig, vectors: Vectors, id_: int) -> None:
    if 0 <= id_ < config.vocab_size:
        return
    if id_ not in vectors:
        raise RequestError("ids", f"must be between 0 and {config.vocab_size - 1}, or stand for a vector that is given", id_)
    row = vectors[id_]
    if row.shape != (config.hidden_size,) or row.dtype != np.float32 or not np.isfinite(row).all():
        got = f"{list(row.shape)} {row.dtype}" if row.shape != (config.hidden_size,) or row.dtype != np.float32 else "NaN or infinity"
        raise RequestError("vectors", f"must be finite float32 [{config.hidden_size}]", got)


def forward_whole(runner: Backend, segments: Sequence[Segment]) -> tuple[list[npt.NDArray[np.float32]], dict[int, NotFinite]]:
    """Return a step's logits, and the error of each broken segment; the others are unaffected. Raises what else `forward` raises."""
    try:
        return runner.forward(segments), {}
    except NotFinite as error:
        return error.results, dict.fromkeys(error.broken, error)


def prefill(
    backend: Backend, ids: Sequence[int], state: Any, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> npt.NDArray[np.float32]:
    """Read a whole prompt in chunks and return the logits [vocabulary] after its last token. `progress` gets tokens read, of all."""
    logits = np.zeros((0,), np.float32)
    for start in range(0, len(ids), STEP_TOKENS):
        chunk = ids[start : start + STEP_TOKENS]
        last = start + len(chunk) == len(ids)
        [rows] = backend.forward([Segment(state, chunk, "last" if last else "none")])
        logits = rows[-1] if last else logits
        progress(start + len(chunk), len(ids))
    return logits


def step(backend: Backend, batch: Sequence[tuple[Any, int]]) -> list[npt.NDArray[np.float32]]:
    """Read one more token for each (state, token) of a batch; return logits [vocabulary] for each."""
    return [rows[0] for rows in backend.forward([Segment(state, (token,)) for state, token in batch])]
