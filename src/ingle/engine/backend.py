"""What runs a model: states, and one call that reads tokens into any number of them at once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ContextError, KernelError, RequestError
from ingle.core.spec import ModelConfig
from ingle.core.state_layout import STEP_TOKENS
from ingle.core.vectors import NO_VECTORS, Vectors
from ingle.engine.adapter import Additions


class AnyState(Protocol):
    """What the engine needs of a state; `core.state.State` is the CPU's, the PyTorch backend has its own."""

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
        """A copy that goes its own way."""
        ...

    def rewind(self, length: int) -> None:
        """Goes back to the first `length` tokens, or raises CannotRewind."""
        ...

    def rollback_point(self, earlier: Any = None) -> Any:
        """Where it is, so that some of what the next step reads may be taken back. An `earlier` point is not needed any more."""
        ...

    def rollback(self, length: int, point: Any) -> None:
        """Goes back to the first `length` tokens, of which the last step since `point` read some; or to the point itself, where a memory
        has taken in a token since: `length` says where it is then.
        """
        ...


@dataclass(frozen=True, slots=True)
class Segment:
    """The next tokens of one sequence, and of which of them logits are wanted."""

    state: Any
    ids: Sequence[int]
    logits: Literal["none", "last", "all"] = "last"
    adapter: Any = None
    """What `Backend.adapter` made, for a sequence that is read with it; its state belongs to it from the beginning."""
    vectors: Vectors = field(default_factory=lambda: NO_VECTORS)
    """What its ids beyond the vocabulary stand for; others may be in there, too."""


class NotFinite(KernelError):
    """A recurrent memory of some segments of a step gave what is no number: their states and their logits are of no use now."""

    def __init__(self, results: list[npt.NDArray[np.float32]], broken: Sequence[int]) -> None:
        """results: those of the whole step, good for all but the segments numbered in `broken`."""
        cure = "Run `ingle verify --models`; if all is whole, the model itself (or what was added to it) is broken."
        super().__init__("recurrent memory", "must give numbers", "NaN or infinity", cure)
        self.results, self.broken = results, frozenset(broken)


class Backend(Protocol):
    """A model that can be run. Contract tests in `tests/contracts` hold for all of them."""

    @property
    def config(self) -> ModelConfig:
        """The model's shape."""
        ...

    @property
    def digest(self) -> str:
        """What the answer depends on beside the request."""
        ...

    @property
    def exact_cuts(self) -> bool:
        """Whether logits are the same, to the last bit, however a sequence is cut into segments."""
        ...

    @property
    def runner(self) -> "Backend":
        """What takes the steps: itself, or the one that it stands before. Sequences of one runner may share a step."""
        ...

    def lower(self, segment: Segment) -> Segment:
        """The same segment as its runner wants it."""
        ...

    def new_state(self) -> Any:
        """A state that has read nothing."""
        ...

    def state_bytes(self, tokens: int) -> int:
        """Bytes of a state that has read so many tokens, and shares nothing."""
        ...

    def adapter(self, additions: Additions, digest: str) -> Any:
        """Additions to linears (see engine/adapter.py) that segments may name from the next step on. Raises DeltaError."""
        ...

    def save_state(self, state: Any, path: Path, digest: str = "") -> None:
        """Writes a state, whole or not at all. `digest`: of the model that made it, if that is more than this backend. Raises HomeError."""
        ...

    def load_state(self, path: Path, digest: str = "") -> Any:
        """Reads a state back. Raises CheckpointError for a damaged file, or one of another model."""
        ...

    def forward(self, segments: Sequence[Segment]) -> list[npt.NDArray[np.float32]]:
        """Reads the tokens of every segment into its state; returns logits [wanted rows, vocabulary] for each.

        At most `STEP_TOKENS` tokens a segment. The arrays are valid until the next call, whichever thread makes it: where several ask,
        all go through one scheduler.
        Raises ContextError beyond the model's context, RequestError for an id that is neither a token nor has a vector; states are then
        untouched.
        NotFinite once a recurrent memory is broken (the CPU backend).
        """
        ...


class Runner(Backend, Protocol):
    """A backend that takes its steps itself."""

    def filled_state(self, keys: npt.NDArray[Any], values: npt.NDArray[Any]) -> Any:
        """A state that remembers n tokens by these keys (turned by RoPE for positions 0 … n − 1) and values [layers, groups, n, D]."""
        ...


def check_segment(config: ModelConfig, segment: Segment) -> None:
    """Raises ContextError or RequestError for tokens that can't be read into a state."""
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
    """What comes of a step, and the error of each segment that is broken: it takes nobody with it. Raises what else `forward` raises."""
    try:
        return runner.forward(segments), {}
    except NotFinite as error:
        return error.results, dict.fromkeys(error.broken, error)


def prefill(
    backend: Backend, ids: Sequence[int], state: Any, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> npt.NDArray[np.float32]:
    """Reads a whole prompt in chunks and returns the logits [vocabulary] after its last token. `progress` is told tokens read, of all."""
    logits = np.zeros((0,), np.float32)
    for start in range(0, len(ids), STEP_TOKENS):
        chunk = ids[start : start + STEP_TOKENS]
        last = start + len(chunk) == len(ids)
        [rows] = backend.forward([Segment(state, chunk, "last" if last else "none")])
        logits = rows[-1] if last else logits
        progress(start + len(chunk), len(ids))
    return logits


def step(backend: Backend, batch: Sequence[tuple[Any, int]]) -> list[npt.NDArray[np.float32]]:
    """One more token for each (state, token) of a batch; returns logits [vocabulary] for each."""
    return [rows[0] for rows in backend.forward([Segment(state, (token,)) for state, token in batch])]
