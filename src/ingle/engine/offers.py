"""Models that Ingle knows by name, as offers to this machine: size, memory, the speed predicted here, and whether there is room."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingle.core.errors import HomeError, PullError
from ingle.core.process import free_bytes, memory_bytes
from ingle.engine.bandwidth import Bandwidth
from ingle.home.base import read_base
from ingle.home.catalogue import CATALOGUE, CatalogueEntry
from ingle.home.fetch import SPARE_BYTES
from ingle.home.hub_models import CONTEXT, GUARD_MODELS, ON_HUB, PROCESS_BYTES, HubModel
from ingle.home.kept import list_kept
from ingle.home.model_size import cache_bytes, read_bytes
from ingle.home.place import Home
from ingle.home.source import find_source, source_id

FLUENT = 8.0
"""Tokens a second of a model that is offered unasked: somewhat faster than one reads."""

_LEAST_BYTES = 200_000_000
"""Least bytes that a token reads for its speed to be foretold: with fewer, a token takes its arithmetic's time (docs/catalogue.md)."""


@dataclass(frozen=True, slots=True)
class ModelOffer:
    """A known model, and what it would be on this machine. Sizes are about, until it is pulled."""

    name: str
    title: str
    licence: str
    source: str
    """Where it comes from."""
    parameters: int
    file_bytes: int
    disk_bytes: int
    """File and pack."""
    memory_bytes: int
    """While it answers in a conversation of `CONTEXT` tokens."""
    tokens_per_s: float | None
    """Predicted for this machine; None = not measured yet, or a model too small to be bound by reading."""
    fits: bool
    """Whether there is room now: memory, and disk unless it is kept."""
    why: str = ""
    """The lack, as a sentence."""
    kept: str = ""
    """Its name in this home; "" = it is not kept."""
    note: str = ""
    """A remark for whoever pulls it."""


@dataclass(frozen=True, slots=True)
class MachineRoom:
    """Room on this machine."""

    memory: int
    """Bytes that this process may use at most."""
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
    known: list[CatalogueEntry | HubModel] = [*CATALOGUE.values(), *ON_HUB.values()]
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


def _offer(one: "CatalogueEntry | HubModel", bandwidth: Bandwidth | None, room: MachineRoom, kept: dict[str, str]) -> ModelOffer:
    assert one.shape is not None
    if isinstance(one, HubModel):
        size, note, source = one.nbytes, one.note, f"{one.repo}/{one.file}".rstrip("/")
    else:
        size, note, source = one.file.size, "", f"{one.package} {one.version}"
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
