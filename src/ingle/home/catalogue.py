"""Models, parts and data sets that Ingle knows by name. The TOML files in `known/` hold them, with the digests that they must have.

What lies in archives (wheels, npm packages) of the owner's package indexes is pinned. Nobody knows the commit of a hub's model before it is
pulled: the first pull pins it, with the SHA-256 of the file, as for every other repository (home/hub.py). Some models are one of these with
a delta that comes with Ingle: it was made by the command which its origin records, and passed the gate there.
"""

import difflib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ingle.core.config import from_table
from ingle.home.base import base_digest
from ingle.home.kept_file import KeptFile
from ingle.home.model_size import ModelShape, cache_bytes, file_bytes, read_bytes

CONTEXT = 4096  # tokens of a conversation for which memory is stated
PROCESS_BYTES = 200_000_000  # memory of the program itself beside weights and cache (docs/catalogue.md)
_MOST_CLOSE, _LONGEST = 5, 100


@dataclass(frozen=True, slots=True)
class Archive:
    """A file of a package index: a wheel, or the .tgz of an npm package."""

    package: str
    version: str
    wheel: str  # file name
    wheel_size: int  # bytes
    wheel_sha256: str

    @property
    def is_npm(self) -> bool:
        """Whether npm brings it, and not pip."""
        return self.wheel.endswith(".tgz")


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A file that lies in archives."""

    name: str
    size: int  # bytes
    sha256: str
    pieces: tuple[tuple[int, str], ...]  # (number of the archive, path within it), to be joined in this order; "" = the archive itself

    @property
    def kept(self) -> KeptFile:
        """The file as a home keeps it."""
        return KeptFile(self.name, self.size, self.sha256)


@dataclass(frozen=True, slots=True)
class Archived:
    """A model, a part (an ear, a voice, an eye) or a data set, whose files lie in archives."""

    name: str
    title: str  # the title in listings
    licence: str  # SPDX
    archives: tuple[Archive, ...]
    files: tuple[PackedFile, ...]
    repo: str = ""  # a model's repository on the hub: the name that other libraries use
    shape: ModelShape | None = None  # none = unknown
    quantisation: str = ""  # see `model_size.QUANTISATIONS`

    @property
    def kept(self) -> tuple[KeptFile, ...]:
        """Its files as a home keeps them."""
        return tuple(one.kept for one in self.files)

    @property
    def digest(self) -> str:
        """Digest of the base that it becomes; known before anything is fetched."""
        return base_digest(self.kept)

    @property
    def nbytes(self) -> int:
        """Bytes of its files."""
        return sum(one.size for one in self.files)

    @property
    def fetched_bytes(self) -> int:
        """Bytes of all archives."""
        return sum(one.wheel_size for one in self.archives)


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model of the hub under a short name."""

    name: str
    title: str
    licence: str  # SPDX, or the licence's own name
    repo: str  # `org/name`
    quantisation: str  # see `model_size.QUANTISATIONS`
    shape: ModelShape
    file: str = ""  # path of the GGUF file in it; empty = its safetensors
    note: str = ""  # a remark for whoever pulls it

    @property
    def nbytes(self) -> int:
        """About the bytes of the file."""
        return file_bytes(self.shape, self.quantisation)

    @property
    def disk_bytes(self) -> int:
        """About the bytes on disk: the file, and its pack."""
        return self.nbytes + sum(read_bytes(self.shape, self.quantisation).values())

    @property
    def memory_bytes(self) -> int:
        """About the memory that an answer takes, with a conversation of `CONTEXT` tokens."""
        return self.nbytes + cache_bytes(self.shape, CONTEXT) + PROCESS_BYTES


@dataclass(frozen=True, slots=True)
class Shipped:
    """A model of the catalogue with a delta that comes with Ingle."""

    name: str
    of: str  # name of the model that the delta changes
    title: str  # the title in listings
    delta: str  # digest of the delta
    parts: tuple[str, ...] = ()  # that it needs. A delta that needs some adds an ability: the result is called `MODEL+NAME`.
    ability: bool = False  # whether it adds an ability although it needs no parts

    @property
    def base(self) -> Archived:
        """The model that the delta changes."""
        return CATALOGUE[self.of]

    @property
    def folder(self) -> Path:
        """The folder of its files."""
        return Path(__file__).parent / "shipped" / self.name


_T = TypeVar("_T")


def known(kind: type[_T], file: str) -> dict[str, _T]:
    """Return what a TOML file of the folder `known` names, by name."""
    table = tomllib.loads((Path(__file__).parent / "known" / file).read_text("utf-8"))
    return {name: from_table(kind, {"name": name, **one}) for name, one in table.items()}


CATALOGUE = known(Archived, "models.toml")
SHIPPED = known(Shipped, "shipped.toml")
HUB_MODELS = known(HubModel, "hub.toml")  # smallest first
# Models that judge (robustness/guard_model.py). They are never offered to talk with unasked.
GUARD_MODELS = known(HubModel, "guards.toml")
ON_HUB = HUB_MODELS | GUARD_MODELS  # all models of the hub that have a short name
PARTS = known(Archived, "parts.toml")
# Names that `ingle pull` takes for several parts at once.
SETS = {
    "hearing": ("whisper-tiny.en", "whisper-base"), "voice": ("voice-joe", "phonemes-en"), "kokoro": ("kokoro", "phonemes-en"),
    "sight": ("efficientnet-lite0",),
}  # fmt: skip


def known_names() -> tuple[str, ...]:
    """Return all names of the catalogue."""
    return (*CATALOGUE, *SHIPPED, *ON_HUB)


def close_names(name: str) -> list[str]:
    """Return known names that look like `name`, the closest first: the same letters and digits, a beginning, a part, or a misspelling."""
    asked, known = _plain(name), {one: _plain(one) for one in known_names()}
    if len(asked) < 2:
        return []
    lower, names = name.lower()[:_LONGEST], list(known)
    same = [one for one, plain in known.items() if plain == asked]
    beginning = [one for one, plain in known.items() if plain.startswith(asked)]
    misspelt = difflib.get_close_matches(lower, names, n=3, cutoff=0.8)
    inside = [one for one, plain in known.items() if asked in plain or asked.startswith(plain)]
    found = [*same, *beginning, *misspelt, *inside] or difflib.get_close_matches(lower, names, n=3, cutoff=0.5)
    return [*dict.fromkeys(found)][:_MOST_CLOSE]


def _plain(name: str) -> str:
    """Return the letters and digits of a name: so "Qwen3:8B" is "qwen3-8b"."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def parts_called(name: str) -> tuple[Archived, ...]:
    """Return the parts that a name of `ingle pull` stands for; none if it is no part's."""
    return tuple(PARTS[one] for one in SETS.get(name, (name,) if name in PARTS else ()))


def close_parts(name: str) -> list[str]:
    """Return names of parts and sets that look like `name`, the closest first."""
    return difflib.get_close_matches(name.lower(), [*SETS, *PARTS], n=3, cutoff=0.5)


def set_with(name: str) -> str:
    """Return what a user types to get a part: the first set that holds it, or its own name."""
    return next((one for one, names in SETS.items() if name in names), name)
