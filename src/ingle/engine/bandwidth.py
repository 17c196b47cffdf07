"""How fast this machine reads weights while it decodes, and the speed that follows for a model of any shape.

A token of a model beyond the caches takes as long as reading its weights. So what is timed is the decoder itself, on a few layers of chance
weights, once for each kind of blocks. Of a model of smaller layers, what remains is what a layer takes beside reading: threads meet, norms,
attention.
"""

import json
import math
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ingle.core.clock import REAL, Clock
from ingle.core.config import from_table, to_table
from ingle.core.errors import ConfigError, HomeError, PullError
from ingle.core.files import os_errors, write_atomic
from ingle.core.process import free_bytes, memory_bytes, usable_cores
from ingle.core.progress import Progress, silent
from ingle.core.spec import LayerSpec, ModelConfig
from ingle.energy.meter import busy_s, find_machine
from ingle.engine.backend import Backend, Segment
from ingle.engine.packs import VECTOR, PackedPlace, PackInfo
from ingle.engine.threads import Cores
from ingle.home.base import read_base
from ingle.home.catalogue import CATALOGUE, CONTEXT, GUARD_MODELS, ON_HUB, PROCESS_BYTES, Archived, HubModel
from ingle.home.fetch import SPARE_BYTES
from ingle.home.kept import list_kept
from ingle.home.kept_file import KeptFile
from ingle.home.lean import WEIGHTS
from ingle.home.model_size import BITS, ModelShape, cache_bytes, read_bytes
from ingle.home.place import Home
from ingle.home.source import find_source, source_id
from ingle.home.staging import staging
from ingle.kernels import formats, panels
from ingle.kernels.jit import build, needed
from ingle.model.tensor import expected_shapes

KINDS = ("Q4_K", "Q5_K", "Q6_K", "Q8_0", "Q4_1")
_VERSION = 2
_BUSY = 0.2  # share of the cores from which on other programs make a measurement one for the time being
_WORDS = 256
# Hidden size and MLP of the layers by which reading is measured, and of those that take longer than their reading.
_LARGE, _SMALL = (2048, 8192), (1024, 2560)
_LARGE_BYTES = 150_000_000  # least bytes of the large layers: beyond any cache of a machine for one person
_SMALL_LAYERS = 16
_HEAD_DIM = 64
_FIRST, _STEPS = 3, 24  # tokens before time is taken, and tokens of which it is taken
LENGTH = 256  # tokens of the conversation for which speed is stated


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """The decoder's speed on one machine."""

    version: int
    cpu: str  # the CPU's own name
    cores: int  # cores that could be used when it was measured
    threads: int
    measured_at: str  # UTC, ISO 8601
    bytes_per_s: Mapping[str, float]  # of weights, by the kind of their blocks
    layer_s: float  # seconds of a layer beside reading
    others: float = 0.0  # share of the cores that other programs took meanwhile

    @property
    def provisional(self) -> bool:
        """Whether it is to be measured again, since others took much of the cores."""
        return self.others > _BUSY

    def token_s(self, shape: ModelShape, quantisation: str, context: int = LENGTH) -> float:
        """Return the seconds of a token after so many others. Weights of a kind that was not measured are read like the fastest."""
        fastest = max(self.bytes_per_s.values())
        read = sum(count / self.bytes_per_s.get(kind, fastest) for kind, count in read_bytes(shape, quantisation).items())
        cache = cache_bytes(shape, context) / fastest
        return read + cache + shape.layers * self.layer_s


def bandwidth_of(
    home: Home, threads: int | None = None, told: Progress = silent, waiting: Callable[[str], None] = lambda _: None, again: bool = False,
    clock: Clock = REAL,
) -> Bandwidth:  # fmt: skip
    """Return the bandwidth that the home keeps for this machine; measure and keep it where there is none, or `again`.

    Of two provisional ones the faster is kept. `waiting` hears of another process that measures: two at once would halve each other's.
    `clock`: see `measure`.
    Raises HomeError, KernelError.
    """
    if not again and (kept := read_bandwidth(home, threads)) is not None:
        return kept
    home.create()
    with home.lock("speed", waiting):
        if not again and (kept := read_bandwidth(home, threads)) is not None:
            return kept
        with staging(home) as folder:
            measured = measure(folder, threads, told, clock)
        if (kept := read_bandwidth(home, threads)) is not None and kept.provisional and measured.provisional:
            measured = max(kept, measured, key=lambda one: sum(one.bytes_per_s.values()))
        write_atomic(_file(home), json.dumps(to_table(measured), indent=1).encode(), mode=0o600)
    return measured


def read_bandwidth(home: Home, threads: int | None = None) -> Bandwidth | None:
    """Return the bandwidth that the home keeps; None where it is damaged, of another machine, or never was measured.

    `threads`: those that it must be of; None = any number.
    """
    try:
        kept = from_table(Bandwidth, json.loads(_file(home).read_bytes()))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, ConfigError):
        return None
    sound = 0 <= kept.others <= 1 and all(math.isfinite(rate) and rate > 0 for rate in kept.bytes_per_s.values()) and 0 <= kept.layer_s < 1
    now = (_VERSION, find_machine().name, usable_cores(), threads or kept.threads, set(KINDS))
    return kept if sound and (kept.version, kept.cpu, kept.cores, kept.threads, set(kept.bytes_per_s)) == now else None


def _file(home: Home) -> Path:
    return home.root / "cache" / "speed.json"


def measure(folder: Path, threads: int | None = None, told: Progress = silent, clock: Clock = REAL) -> Bandwidth:
    """Measure this machine: about two seconds, and 200 MB of memory and disk. Missing kernels are compiled first, some seconds each.

    `folder`: an empty one, for weights. `threads`: None = one for each usable core. `clock`: the wall's, unless one thread's own time is
    to be counted on a busy machine. Raises KernelError, HomeError.
    """
    threads = threads or usable_cores()
    _build(told)
    used, worked, began = busy_s(), time.process_time(), time.monotonic()
    label, steps = "measuring this machine's speed", len(KINDS) + 1
    told(label, 0, steps)
    small_bytes, small_s = _step_s(folder, "Q4_K", _SMALL, _SMALL_LAYERS, threads, clock)
    rates = dict[str, float]()
    layer_s = 0.0
    for done, kind in enumerate(KINDS, 1):
        told(label, done, steps)
        layers = 1 + int(_LARGE_BYTES / (BITS[kind] / 8 * _layer_weights(*_LARGE)))
        nbytes, seconds = _step_s(folder, kind, _LARGE, layers, threads, clock)
        if not rates:
            layer_s = max(0.0, small_s - small_bytes / (nbytes / seconds)) / _SMALL_LAYERS
        rates[kind] = nbytes / max(seconds - layers * layer_s, seconds / 2)
    told(label, steps, steps)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    others = _others(used, time.process_time() - worked, time.monotonic() - began)
    return Bandwidth(_VERSION, find_machine().name, usable_cores(), threads, now, rates, layer_s, others)


def _others(used: float | None, worked: float, elapsed: float) -> float:
    """Return the share of the cores that other programs took, while this one worked so many CPU-seconds; 0 where nobody tells.

    used: CPU-seconds of all programs before.
    """
    now = busy_s()
    if used is None or now is None or elapsed <= 0:
        return 0.0
    return min(1.0, max(0.0, (now - used - worked) / (elapsed * (os.cpu_count() or 1))))


def _build(told: Progress) -> None:
    reached = {f"linear_{name}" for name in ("int4", "int8", *(kind.lower() for kind in formats.KINDS))}
    names = [name for name in needed("decoder_step") if name in reached or name in ("attention_f16", "decoder_step")]
    build(names, lambda done, of: told("compiling kernels", done, of) if of else None)


def _layer_weights(hidden: int, mlp: int) -> int:
    return 4 * hidden * hidden + 3 * hidden * mlp


def _step_s(folder: Path, kind: str, size: tuple[int, int], layers: int, threads: int, clock: Clock) -> tuple[int, float]:
    """Return the bytes of weights that a token of a model of chance reads, and its seconds: the median of some tokens."""
    info, nbytes = _written(folder, kind, size, layers)
    backend = Backend(folder, info, Cores(threads))
    state, times = backend.new_state(), list[float]()
    for token in range(_STEPS + _FIRST):
        began = clock.now()
        backend.forward([Segment(state, [token])])
        times.append(clock.now() - began)
    return nbytes, statistics.median(times[_FIRST:])


def _written(folder: Path, kind: str, size: tuple[int, int], layers: int) -> tuple[PackInfo, int]:
    """Write a packed model of chance; return its description, and its bytes of weights."""
    hidden, mlp = size
    heads = hidden // _HEAD_DIM
    spec = LayerSpec(tuple(range(heads)))
    config = ModelConfig("llama", _WORDS, hidden, mlp, heads, heads, _HEAD_DIM, (spec,) * layers, 2048, tie_embeddings=True)
    panels = {columns: _panels(kind, columns) for columns in {hidden, mlp}}
    places, offset, total = dict[str, PackedPlace](), 0, 0
    with os_errors(folder), (folder / WEIGHTS).open("wb") as file:
        for name, shape in expected_shapes(config).items():
            if len(shape) == 1:
                planes = [np.ones(shape[0], np.float32).tobytes()]
                kind_number, rows, columns = VECTOR, 1, shape[0]
            else:
                rows, columns = shape
                packed = panels[columns]
                planes = [plane.tobytes() * (rows // packed.rows) for plane in (packed.weights, packed.scales, packed.minima) if plane.size]
                kind_number, total = packed.kind, total + sum(map(len, planes))
            at = list[tuple[int, int]]()
            for plane in planes:
                at.append((offset, len(plane)))
                offset += file.write(plane)
            places[name] = PackedPlace(kind_number, rows, columns, tuple(at))
    return PackInfo(_VERSION, "auto", "", config, places, (KeptFile(WEIGHTS, offset, ""),)), total


def _panels(kind: str, columns: int) -> panels.PackedLinear:
    """Return two panels of weights by chance, small enough that no number overflows."""
    random = np.random.default_rng(columns)
    if kind not in formats.KINDS:
        matrix = random.standard_normal((32, columns), np.float32) * 0.02
        return panels.pack_int8_grouped(matrix) if kind == "Q8_0" else panels.pack_int4(matrix)
    raw = random.integers(0, 256, (32, columns // formats.K_COLUMNS, formats.K_BYTES[kind]), np.uint8)
    unit = np.frombuffer(np.float16(1e-4).tobytes(), np.uint8)
    if kind == "Q6_K":
        raw[..., -2:] = unit
    else:
        raw[..., :2] = raw[..., 2:4] = unit
    return panels.pack_k(kind, raw.reshape(32, -1))


# Models that Ingle knows by name, as offers to this machine: size, memory, the speed predicted here, and whether there is room.


FLUENT = 8.0  # tokens a second of a model that is offered unasked: somewhat faster than one reads

# Least bytes that a token reads for its speed to be foretold: with fewer, a token takes its arithmetic's time (docs/catalogue.md).
_LEAST_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class ModelOffer:
    """A known model, and what it would be on this machine. Sizes are about, until it is pulled."""

    name: str
    title: str
    licence: str
    source: str  # where it comes from
    parameters: int
    file_bytes: int
    disk_bytes: int  # file and pack
    memory_bytes: int  # while it answers in a conversation of `CONTEXT` tokens
    tokens_per_s: float | None  # predicted for this machine; None = not measured yet, or a model too small to be bound by reading
    fits: bool  # whether there is room now: memory, and disk unless it is kept
    why: str = ""  # the lack, as a sentence
    kept: str = ""  # its name in this home; "" = it is not kept
    note: str = ""  # a remark for whoever pulls it


@dataclass(frozen=True, slots=True)
class MachineRoom:
    memory: int  # bytes that this process may use at most
    free_memory: int
    free_disk: int


def room_of(home: Home, meminfo: Path = Path("/proc/meminfo")) -> MachineRoom:
    """Return the room on this machine and on the disk of the home, which need not exist yet. `meminfo`: where Linux tells what is free;
    where it says nothing, all memory counts as free."""
    place = next(path for path in (home.root, *home.root.parents) if path.exists())
    most, free = memory_bytes(), free_bytes(told=meminfo)
    return MachineRoom(most, most if free is None else min(most, free), shutil.disk_usage(place).free)


def offers(home: Home, bandwidth: Bandwidth | None, room: MachineRoom | None = None) -> list[ModelOffer]:
    """Return an offer for every known model, smallest first, and guards behind. Raises HomeError if the home can't be read."""
    room, kept = room or room_of(home), _kept_names(home)
    known: list[Archived | HubModel] = [*CATALOGUE.values(), *ON_HUB.values()]
    return [_offer(one, bandwidth, room, kept) for one in known if one.shape is not None]


def larger_offer(known: Sequence[ModelOffer], than: str) -> ModelOffer | None:
    """Return the largest model that fits here and writes fluently, where only `than`, the smallest, is kept; None if there is none.

    One with terms of its own (`note`) is not offered unasked, nor is a guard.
    """
    known = [one for one in known if one.name not in GUARD_MODELS]
    if any(one.kept and one.name != than for one in known):
        return None
    fluent = [one for one in known if one.fits and one.name != than and not one.note and (one.tokens_per_s or 0) >= FLUENT]
    return max(fluent, key=lambda one: one.memory_bytes, default=None)


def check_room(home: Home, what: str, force: bool = False, warn: Callable[[str], None] = lambda _: None) -> None:
    """Refuse a known model of the hub for which there is no room, before anything is downloaded; any other `what` passes.

    Raises PullError if it can't fit on the disk, or into the machine's memory unless `force`. Memory that others use now is only a warning.
    """
    model, room = ON_HUB.get(what), room_of(home)
    if model is None or source_id(find_source(what)) in _kept_names(home):
        return
    if lack := _disk_lack(model.disk_bytes, room):
        raise PullError(what, lack, "", "Free some disk space, or set INGLE_HOME to a larger disk. Nothing was downloaded.")
    if model.memory_bytes > room.memory and not force:
        cure = "Choose a smaller one (`ingle pull` lists them), or insist with --force. Nothing was downloaded."
        raise PullError(what, _memory_lack(model.memory_bytes, room), "", cure)
    if lack := _memory_lack(model.memory_bytes, room):
        warn(lack)


def _offer(one: "Archived | HubModel", bandwidth: Bandwidth | None, room: MachineRoom, kept: dict[str, str]) -> ModelOffer:
    assert one.shape is not None
    if isinstance(one, HubModel):
        size, note, source = one.nbytes, one.note, f"{one.repo}/{one.file}".rstrip("/")
    else:
        size, note, source = one.nbytes, "", f"{one.archives[0].package} {one.archives[0].version}"
    read = sum(read_bytes(one.shape, one.quantisation).values())
    memory = size + cache_bytes(one.shape, CONTEXT) + PROCESS_BYTES
    name = kept.get(source_id(find_source(one.name)), "")
    lack = _memory_lack(memory, room) or ("" if name else _disk_lack(size + read, room))
    speed = None if bandwidth is None or read < _LEAST_BYTES else 1 / bandwidth.token_s(one.shape, one.quantisation)
    return ModelOffer(
        one.name, one.title, one.licence, source, one.shape.parameters, size, size + read, memory, speed, not lack, lack, name, note
    )  # fmt: skip


def _memory_lack(nbytes: int, room: MachineRoom) -> str:
    if nbytes > room.memory:
        return f"It needs about {_gb(nbytes)} of memory; this machine has {_gb(room.memory)}"
    if nbytes > room.free_memory:
        return f"It needs about {_gb(nbytes)} of memory; {_gb(room.free_memory)} is free now"
    return ""


def _disk_lack(nbytes: int, room: MachineRoom) -> str:
    need = nbytes + SPARE_BYTES
    return f"It needs about {_gb(need)} of disk; {_gb(room.free_disk)} is free" if need > room.free_disk else ""


def _gb(nbytes: float) -> str:
    return f"{nbytes / 1e9:.1f} GB"


def _kept_names(home: Home) -> dict[str, str]:
    """Return the names of kept models without deltas, by their source."""
    return {base: name for base, name in _named(home)}


def _named(home: Home) -> Iterator[tuple[str, str]]:
    for kept in reversed(list_kept(home, lambda *_: None)):
        if not kept.deltas:
            try:
                yield read_base(home, kept.base).source, kept.name
            except HomeError:
                continue  # a damaged one is as good as none
