"""Backends: they make states, and read tokens into any number of states in one call."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_json
from ingle.core.errors import ContextError, DeltaError, KernelError, RequestError
from ingle.core.media import NO_VECTORS, Vectors
from ingle.core.progress import Counted, silent
from ingle.core.spec import ModelConfig
from ingle.core.state import STEP_TOKENS
from ingle.kernels import layout as at
from ingle.model.tensor import expected_shapes

# Adapters beside packed weights, one for each sequence or none. LoRA: y = W x + B A x (arXiv 2106.09685). Bottleneck adapters (arXiv
# 1902.00751) become y = W x + B relu(A x + b); see engine/delta_kinds.py.
# A and B are rounded to int8 with one scale per row. Every sequence reads its own adapter again, so the cost is its bytes. The rounding
# moves logits less than the 4 bits of the base do. An adapter lies in one piece of memory, in the order in which a step reads it, so that
# the processor can prefetch.


Array = npt.NDArray[Any]

LINEARS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
"""Linears that can be adapted without merging, in the order of a layer's records. Other mixers and experts have none of them."""
_TOGETHER = ((0, 1, 2), (3,), (4, 5), (6,))
"""Numbers of the linears that read the same input."""


@dataclass(frozen=True, slots=True, eq=False)
class Addition:
    """One linear's adapter: it adds B A x, or with a bias B relu(A x + bias)."""

    a: Array
    """[rank, K]"""
    b: Array
    """[N, rank]; includes any common factor."""
    bias: Array | None = None
    """[rank]"""


Additions = Mapping[str, Addition]
"""By the name of a linear: `model.layers.0.self_attn.q_proj`."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter in the layout of the decoder step."""

    digest: str
    record: Array
    width: int
    """Largest rank, padded to 16."""
    nbytes: int
    memory: Array = field(repr=False)
    """The memory that the record's addresses point to."""


def linear_shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Return (outputs N, inputs K) of every linear that can be adapted."""
    names, shapes = (f"model.layers.{i}.{name}" for i in range(len(config.layers)) for name in LINEARS), expected_shapes(config)
    found = ((name, shapes.get(f"{name}.weight")) for name in names)
    return {name: (shape[0], shape[1]) for name, shape in found if shape is not None}


def check_additions(config: ModelConfig, additions: Additions) -> None:
    """Raise DeltaError for no additions, a linear that the model doesn't have, or shapes that don't fit."""
    shapes = linear_shapes(config)
    if not additions:
        raise DeltaError("adapter", "must touch at least one linear", "none")
    for name, addition in additions.items():
        if name not in shapes:
            raise DeltaError("adapter", "must name linears of this model's layers", name, f"For example {next(iter(shapes))}.")
        outputs, inputs = shapes[name]
        a, b, bias = addition.a, addition.b, addition.bias
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != inputs or b.shape != (outputs, a.shape[0]) or not a.shape[0]:
            rule = f"must have A of (rank, {inputs}) and B of ({outputs}, rank)"
            raise DeltaError(f"adapter, {name}", rule, f"{a.shape} and {b.shape}")
        if bias is not None and bias.shape != (a.shape[0],):
            raise DeltaError(f"adapter, {name}", f"must have a bias of ({a.shape[0]},), as its rank is", bias.shape)
        if not all(np.isfinite(values).all() for values in (a, b, bias) if values is not None):
            raise DeltaError(f"adapter, {name}", "must hold finite numbers", "NaN or infinity")


def pack_adapter(config: ModelConfig, additions: Additions, digest: str) -> Adapter:
    """Return the packed adapter. Raises DeltaError for additions that don't fit."""
    check_additions(config, additions)
    record = np.zeros((len(config.layers), len(LINEARS), at.ADAPTER), np.int64)
    planes: list[tuple[tuple[int, int, int], Array]] = []
    for i in range(len(config.layers)):
        for together in _TOGETHER:
            planes_of = {j: _planes(additions.get(f"model.layers.{i}.{LINEARS[j]}"), record[i, j]) for j in together}
            for half in (0, 1):  # what goes in, of all that are read together, and then what comes out
                planes += [((i, j, field), plane) for j in together for field, plane in planes_of[j][half]]
    memory = np.zeros(sum(_up(plane.nbytes, 64) for _, plane in planes) + 64, np.uint8)
    offset = -memory.ctypes.data % 64
    for place, plane in planes:
        memory[offset : offset + plane.nbytes] = plane.reshape(-1).view(np.uint8)
        record[place] = memory.ctypes.data + offset
        offset += _up(plane.nbytes, 64)
    width = int(record[..., at.ADAPTER_RANK].max())
    return Adapter(digest, record, width, memory.nbytes, memory)


def _planes(addition: Addition | None, record: Array) -> tuple[list[tuple[int, Array]], list[tuple[int, Array]]]:
    """Return the arrays read before and after the linear, each with its field of the record. Sizes are written to the record here."""
    if addition is None:
        return [], []
    rank = _up(len(addition.a), 16)
    record[:3] = rank, _up(addition.a.shape[1], 32), _up(len(addition.b), 16)
    first = list(zip((at.ADAPTER_A, at.ADAPTER_A_SCALES), _rounded(addition.a, 16, 32), strict=True))
    if addition.bias is not None:
        first.append((at.ADAPTER_BIAS, np.pad(addition.bias.astype(np.float32), (0, rank - len(addition.bias)))))
    return first, list(zip((at.ADAPTER_B, at.ADAPTER_B_SCALES), _rounded(addition.b, 16, 16), strict=True))


def _rounded(matrix: Array, rows_to: int, columns_to: int) -> tuple[Array, Array]:
    """Round [N, K] to bytes w + 128 in panels [N/16, K/4, 16, 4] and float32 scales [N], both padded with zeros."""
    whole = np.zeros((_up(matrix.shape[0], rows_to), _up(matrix.shape[1], columns_to)), np.float32)
    whole[: matrix.shape[0], : matrix.shape[1]] = matrix
    scale = np.abs(whole).max(axis=1) / 127
    q = np.rint(whole / np.where(scale > 0, scale, 1)[:, None]).astype(np.int8)
    panels = (q.view(np.uint8) ^ 128).reshape(-1, 16, whole.shape[1] // 4, 4).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(panels), scale.astype(np.float32)


def unpack_adapter(config: ModelConfig, additions: Additions) -> dict[str, tuple[Array, Array, Array | None]]:
    """Return A, B and the bias of every linear with the kernels' rounding, float64: the naive reference of the packing."""

    def rounded_as_packed(matrix: Array) -> Array:
        matrix = matrix.astype(np.float32)  # before it is rounded, as there: ties fall elsewhere in float64
        scale = np.abs(matrix).max(axis=1, keepdims=True) / 127
        rounded: Array = np.rint(matrix / np.where(scale > 0, scale, 1)) * scale
        return rounded.astype(np.float64)

    check_additions(config, additions)
    return {name: (rounded_as_packed(addition.a), rounded_as_packed(addition.b), addition.bias) for name, addition in additions.items()}


def _up(n: int, to: int) -> int:
    return -(-n // to) * to


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
        """Prepare additions to linears (see engine/backend.py), which segments may name from the next step on. Raises DeltaError."""
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


def prefill(backend: Backend, ids: Sequence[int], state: Any, progress: Counted = silent) -> npt.NDArray[np.float32]:
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


# A model with virtual tokens before every text, of which only keys and values are left.
# Trained prefixes (arXiv 2101.00190) and prompts (arXiv 2104.08691) are served this way. The virtual tokens are invisible: states begin
# after them, count from there, and go back no further; the context is shorter by them.


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
