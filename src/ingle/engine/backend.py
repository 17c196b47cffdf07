"""The backend: packed weights, the decoder step in machine code, and any number of threads. It makes states, and reads tokens into any
number of states in one call. No PyTorch."""

import copy
import mmap
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ingle.core.config import to_table
from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError, ContextError, DeltaError, KernelError, RequestError
from ingle.core.media import NO_VECTORS, Vectors
from ingle.core.progress import Counted, silent
from ingle.core.spec import LayerSpec, ModelConfig
from ingle.core.state import STEP_TOKENS, State, StateLayout, largest
from ingle.engine.adapter import Adapter, Additions, pack_adapter
from ingle.engine.packs import PackInfo, cache_dtype, unreached
from ingle.engine.records import StepMemory, factors, model_records
from ingle.engine.threads import Cores, Team
from ingle.home.lean import WEIGHTS
from ingle.kernels import layout as at
from ingle.kernels.jit import ADAPTER_KERNELS, kernel
from ingle.model.hf_config import all_frequencies

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Segment:
    """The next tokens of one sequence, and which of them need logits."""

    state: State
    ids: Sequence[int]
    logits: Literal["none", "last", "all"] = "last"
    # An adapter from `Backend.adapter`. A state is read with the same adapter from its beginning.
    adapter: Adapter | None = None
    # Vectors of ids beyond the vocabulary. It may hold vectors of other ids, too.
    vectors: Vectors = field(default_factory=lambda: NO_VECTORS)


class NotFinite(KernelError):
    """A step gave NaN or infinity in the recurrent memories of some segments. Their states and logits are unusable."""

    def __init__(self, results: list[npt.NDArray[np.float32]], broken: Sequence[int]) -> None:
        """results: logits of the whole step, good for all but the segments numbered in `broken`."""
        cure = "Run `ingle verify --models`; if all is whole, the model itself (or what was added to it) is broken."
        super().__init__("recurrent memory", "must give numbers", "NaN or infinity", cure)
        self.results, self.broken = results, frozenset(broken)


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


class Backend:
    """A packed model on the CPU. Logits are equal to the last bit however a sequence is cut into segments, and whatever shares its step:
    every row is computed by itself, in one order."""

    config: ModelConfig  # the model's shape
    digest: str  # digest of everything beside the request that answers depend on

    def __init__(self, folder: Path, info: PackInfo, cores: Cores | None = None, cache: str = "float16") -> None:
        self.digest = info.digest if cache == cache_dtype("auto", info.format) else digest_json([info.digest, cache])
        self._info, self._cores = info, cores or Cores()
        with (folder / WEIGHTS).open("rb") as file:
            self._weights = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        self._factors, self._turns = factors(info.config), all_frequencies(info.config)
        self._unreached = unreached(info, cache)
        self._kernel = kernel("decoder_step", self._unreached | ADAPTER_KERNELS)
        self._team, self._lock = Team(self._cores.most), threading.Lock()
        self._runner: Backend | None = None
        self._beginning: State | None = None
        self._arrange(info.config, cache)

    def _arrange(self, config: ModelConfig, cache: str) -> None:
        """Set what follows from how its layers look back."""
        self.config = config
        self.layout = StateLayout.of(config, cache)
        self._remembers = self.layout.memory_floats > 0
        self._records, self._copied = model_records(self._info, config, self.layout, self._weights, self._factors)
        self._memory = self._new_memory(1, 1, 1, 0)

    def seeing(self, layers: tuple[LayerSpec, ...]) -> "Backend":
        """Return a backend with other layers over the same weights, which lie in memory once; it takes milliseconds.

        Its states and its digest are its own; adapters made by this backend serve both. Steps of the two wait for each other.
        Raises ConfigError for a memory that the weights don't have, and for layers that can't be.
        """
        config, had = self.config.with_layers(layers), [spec.remembering(self.config.num_kv_heads) for spec in self._info.config.layers]
        for i, spec in enumerate(layers):
            if lacking := set(spec.remembering(config.num_kv_heads)) - set(had[i]):
                raise ConfigError(f"layers[{i}].memory", "must be of groups that have learnt one", sorted(lacking))
        other = copy.copy(self)
        if layers != self.config.layers:
            other.digest = digest_json([self.digest, to_table(layers)])
        other._kernel = kernel("decoder_step", self._unreached)  # an adapter may come with any segment
        other._arrange(config, self.layout.dtype)
        return other

    def beginning_with(self, keys: Array, values: Array, digest: str) -> "Backend":
        """Return a backend with n virtual tokens before every text, of which only keys (turned by RoPE for positions 0 … n − 1) and values
        [layers, groups, n, D] are left; `digest`: of the delta that they come from. It takes its steps with this one.

        Trained prefixes (arXiv 2101.00190) and prompts (arXiv 2104.08691) are served this way. The virtual tokens are invisible: states
        begin after them, count from there, and go back no further; the context is shorter by them.
        Raises DeltaError for numbers that are too large, and for layers with recurrent memories, which take in keys before RoPE.
        """
        if self._remembers:
            cure = "Tune the weights instead, or put the prefix before the transformer that this model was made of."
            raise DeltaError("prefix", "can't stand before a model with recurrent memories", "virtual tokens", cure)
        if max(np.abs(keys).max(), np.abs(values).max()) > largest(self.layout.dtype):
            raise DeltaError("prefix", f"must hold numbers that {self.layout.dtype} can", "larger ones", "Set chat.cache to float32.")
        beginning = State(self.layout)
        for start in range(0, keys.shape[2], STEP_TOKENS):
            beginning.append(keys[:, :, start : start + STEP_TOKENS], values[:, :, start : start + STEP_TOKENS])
        other = copy.copy(self)
        other._runner, other._beginning, other.digest = self, beginning, digest_json([self.digest, digest])
        other.config = replace(self.config, context_length=self.config.context_length - beginning.length)
        del other._memory  # the runner's own, which grows
        return other

    @property
    def runner(self) -> "Backend":
        """The backend that takes the steps: this one, or the one without virtual tokens. Sequences of one runner may share a step."""
        return self._runner or self

    def new_state(self) -> State:
        """Return a state that has read nothing."""
        return State(self.layout) if self._beginning is None else self._beginning.begin()

    def state_bytes(self, tokens: int) -> int:
        """Return the bytes of a state that has read so many tokens and shares nothing."""
        return self.layout.nbytes(tokens + (self._beginning.length if self._beginning is not None else 0))

    def save_state(self, state: State, path: Path, digest: str = "") -> None:
        """Write a state to a file, whole or not at all. `digest` names the model if it is more than this backend. Raises HomeError."""
        state.save(path, digest or self.digest)

    def load_state(self, path: Path, digest: str = "") -> State:
        """Read a state from a file. Raises CheckpointError for a damaged file, or one of another model."""
        return State.load(path, self.layout, digest or self.digest, self._beginning)

    def forward(self, segments: Sequence[Segment]) -> list[npt.NDArray[np.float32]]:
        """Read the tokens of every segment into its state; return logits [rows asked for, vocabulary] for each.

        At most `STEP_TOKENS` tokens a segment. The arrays are valid until the next call from any thread: several callers share one
        scheduler.
        Raises ContextError beyond the model's context, RequestError for an id that is neither a token nor has a vector (states are then
        untouched), NotFinite for a broken recurrent memory.
        """
        for segment in segments:
            check_segment(self.config, segment)
        return self.runner._read(segments)

    def _read(self, segments: Sequence[Segment]) -> list[npt.NDArray[np.float32]]:
        with self._lock:
            longest = max((len(segment.ids) for segment in segments), default=0)
            results, broken = self._step(segments) if longest <= self.layout.step_tokens else self._steps(segments, longest)
            if broken:
                raise NotFinite(results, broken)
            return results

    def _step(self, segments: Sequence[Segment]) -> tuple[list[Array], list[int]]:
        """Run the kernel once: logits of every segment, and the numbers of segments whose memories are broken."""
        for segment in segments:
            segment.state.reserve(len(segment.ids))
        rows = sum(len(segment.ids) for segment in segments)
        threads = self._cores.threads(rows)
        row_counts, began = self._prepare(segments, threads), time.perf_counter()
        self._team.run(threads, self._kernel, self._records.ctypes.data, self._memory.record.ctypes.data)
        self._cores.saw(threads, rows, time.perf_counter() - began)
        results, row = [], 0
        for segment, count in zip(segments, row_counts, strict=True):
            segment.state.length += len(segment.ids)
            results.append(self._memory.logits[row : row + count, : self.config.vocab_size])
            row += count
        return results, np.flatnonzero(self._tables[0][:, at.BROKEN]).tolist()

    def _steps(self, segments: Sequence[Segment], longest: int) -> tuple[list[Array], list[int]]:
        """Do `_step` in several runs, for segments that are longer than the rings have room for."""
        size, parts, broken = self.layout.step_tokens, [list[Array]() for _ in segments], set[int]()
        for start in range(0, longest, size):
            turn = [i for i, segment in enumerate(segments) if len(segment.ids) > start]
            cut = []
            for segment in (segments[i] for i in turn):
                later = segment.logits == "last" and len(segment.ids) > start + size
                cut.append(replace(segment, ids=segment.ids[start : start + size], logits="none" if later else segment.logits))
            results, bad = self._step(cut)
            broken |= {turn[i] for i in bad}
            for i, rows in zip(turn, results, strict=True):
                parts[i].append(rows.copy())  # the next run writes over them
        return [np.concatenate(rows) for rows in parts], sorted(broken)

    def adapter(self, additions: Additions, digest: str) -> Adapter:
        """Prepare additions to linears (see engine/adapter.py), which segments may name from the next step on. The first adapter loads two
        small kernels. Raises DeltaError."""
        adapter, step_kernel = pack_adapter(self.config, additions, digest), kernel("decoder_step", self._unreached)
        with self._lock:
            self.runner._kernel = step_kernel
        return adapter

    def _new_memory(self, rows: int, outputs: int, parts: int, inner: int) -> StepMemory:
        return StepMemory(self.config, self.layout, self._cores.most, rows, outputs, parts, inner)

    def _prepare(self, segments: Sequence[Segment], threads: int) -> list[int]:
        """Fill the step's record and buffers; return the number of logit rows for each segment."""
        counts = [len(segment.ids) for segment in segments]
        row_counts = [{"none": 0, "last": 1, "all": count}[segment.logits] for segment, count in zip(segments, counts, strict=True)]
        rows, outputs = sum(counts), sum(row_counts)
        table, tasks, parts = self._share_out(segments, rows, threads)
        inner = max((segment.adapter.width for segment in segments if segment.adapter is not None), default=0)
        memory = self._memory
        if not memory.fits(rows, outputs, parts, inner):
            sizes = (max(rows, memory.rows), max(outputs, memory.outputs), max(parts, memory.parts), max(inner, memory.inner))
            self._memory = memory = self._new_memory(*sizes)
        row, output, stacked = 0, 0, list[Array]()
        for number, (segment, count, want) in enumerate(zip(segments, counts, row_counts, strict=True)):
            start = segment.state.end
            memory.tokens[row : row + count] = segment.ids
            if segment.vectors:
                stacked += _numbered(memory.tokens[row : row + count], self.config.vocab_size, segment.vectors, len(stacked))
            memory.owners[row : row + count] = number
            memory.positions[row : row + count] = range(start, start + count)
            memory.wanted[output : output + want] = range(row + count - want, row + count)
            row, output = row + count, output + want
        self._turn(memory, rows)
        memory.counters[:] = 0
        record = memory.record
        record[at.BATCH], record[at.OUTPUT_COUNT], record[at.TASK_COUNT] = rows, outputs, len(tasks)
        record[at.SEGMENT_COUNT], record[at.THREADS], record[at.BARRIER] = len(segments), threads, self._team.meeting(threads)
        vectors = np.stack(stacked) if stacked else None
        self._tables = table, tasks, vectors  # kept alive for the kernel
        record[at.SEGMENTS], record[at.TASKS] = table.ctypes.data, tasks.ctypes.data
        if vectors is not None:
            record[at.VECTORS] = vectors.ctypes.data
        return row_counts

    def _turn(self, memory: StepMemory, rows: int) -> None:
        """Compute the angles by which RoPE turns each row and turned the key that now leaves each window, and the share of tokens that have
        left."""
        positions = memory.positions[:rows]
        for kind, (frequencies, scale) in enumerate(self._turns):
            angles = positions[:, None].astype(np.float32) * frequencies
            np.multiply(np.cos(angles), scale, out=memory.cosine[:rows, kind])
            np.multiply(np.sin(angles), scale, out=memory.sine[:rows, kind])
        frequencies, scale = self._turns[0]  # of layers with memories
        for i, (window, sinks) in enumerate(memory.windows):
            count = np.maximum(positions + (1 - window - sinks), 1)  # read only where at least one has
            np.log(count / (count + window), out=memory.held[:rows, i], casting="same_kind")
            angles = (positions[:, None] - window).astype(np.float32) * frequencies
            np.divide(np.cos(angles), scale, out=memory.back_cosine[:rows, i])
            np.divide(np.sin(angles), -scale, out=memory.back_sine[:rows, i])

    def _share_out(self, segments: Sequence[Segment], rows: int, threads: int) -> tuple[Array, Array, int]:
        """Return the record of every segment, the attention tasks of the step, and the number of partial results."""
        shared, groups = self.config.queries_per_group, self.config.num_kv_heads
        table = np.zeros((len(segments), at.SEGMENT), np.int64)
        tasks: list[tuple[int, ...]] = []
        row, parts = 0, 0
        self._pages = []
        for number, segment in enumerate(segments):
            state, count = segment.state, len(segment.ids)
            pages = np.array(state.page_addresses, np.int64)
            self._pages.append(pages)
            splits = -(-(state.end + count) // at.SPLIT_TOKENS)
            tiles = -(-count * shared // at.TILE_ROWS)
            each = 1 if tiles * groups >= 4 * threads else splits  # few tiles: threads share the keys of each
            adapted = segment.adapter.record.ctypes.data if segment.adapter is not None else 0
            table[number] = pages.ctypes.data, state.rings.ctypes.data, row, count, parts, each, adapted, state.memories.ctypes.data, 0
            first, end = row * shared, (row + count) * shared
            tasks += [
                (number, group, tile, min(at.TILE_ROWS, end - tile), part * splits // each, (part + 1) * splits // each, part)
                for tile in range(first, end, at.TILE_ROWS)
                for group in range(groups)
                for part in range(each)
            ]
            row, parts = row + count, parts + count * shared * groups * each
        return table, np.array(tasks, np.int64), parts


def _numbered(tokens: Array, vocab_size: int, vectors: Vectors, first: int) -> list[Array]:
    """Replace the ids beyond the vocabulary in tokens int64 [n] by −1 − `first` and downwards; return their vectors in order."""
    beyond = np.flatnonzero(tokens >= vocab_size)
    rows = [vectors[int(id_)] for id_ in tokens[beyond]]
    tokens[beyond] = -1 - first - np.arange(len(rows))
    return rows


def forward_whole(runner: Backend, segments: Sequence[Segment]) -> tuple[list[npt.NDArray[np.float32]], dict[int, NotFinite]]:
    """Return a step's logits, and the error of each broken segment; the others are unaffected. Raises what else `forward` raises."""
    try:
        return runner.forward(segments), {}
    except NotFinite as error:
        return error.results, dict.fromkeys(error.broken, error)


def prefill(backend: Backend, ids: Sequence[int], state: State, progress: Counted = silent) -> npt.NDArray[np.float32]:
    """Read a whole prompt in chunks and return the logits [vocabulary] after its last token. `progress` gets tokens read, of all."""
    logits = np.zeros((0,), np.float32)
    for start in range(0, len(ids), STEP_TOKENS):
        chunk = ids[start : start + STEP_TOKENS]
        last = start + len(chunk) == len(ids)
        [rows] = backend.forward([Segment(state, chunk, "last" if last else "none")])
        logits = rows[-1] if last else logits
        progress(start + len(chunk), len(ids))
    return logits


def step(backend: Backend, batch: Sequence[tuple[State, int]]) -> list[npt.NDArray[np.float32]]:
    """Read one more token for each (state, token) of a batch; return logits [vocabulary] for each."""
    return [rows[0] for rows in backend.forward([Segment(state, (token,)) for state, token in batch])]
