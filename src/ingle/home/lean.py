"""Lean bases: a GGUF file whose matrices lie on disk once, as the kernels' panels, and which is made again from them bit for bit.

lean.json     this manifest
rest.bin      what of the file is no panel, piece after piece; its header comes first
pack.json, weights.bin, tokenizer.json, tokenizer_facts.json    the pack of format `auto` (engine/packs.py), here for good

While a GGUF file is there, too, it counts, and these are leftovers of something that was interrupted.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from ingle.core.config import from_table
from ingle.core.errors import ConfigError, HomeError
from ingle.home.kept_file import KeptFile

LEAN, REST, WEIGHTS = "lean.json", "rest.bin", "weights.bin"  # the manifest, what is no panel, and the panels
CURE = "Remove the model and pull it again, or restore a backup."  # for whatever is wrong with a lean base: its file is nowhere else
_VERSION = 1
_PLAIN = re.compile(r"[^/\\:\x00-\x1f.][^/\\:\x00-\x1f]*")  # a file's name in its folder, on any system


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of the file that `rest.bin` holds."""

    begin: int
    size: int


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix of the file that is made again from its panels: see `kernels.panels`."""

    name: str  # ours
    begin: int  # its first byte in the file
    kind: str  # GGML's name for its blocks
    rows: int
    columns: int
    planes: tuple[tuple[int, int], ...]  # (offset, bytes) in `weights.bin`


@dataclass(frozen=True, slots=True)
class Lean:
    """The manifest of a lean base."""

    file: KeptFile  # the file that is made again
    pieces: tuple[Piece, ...]  # in the file's order; with the matrices, every byte of it once
    matrices: tuple[Matrix, ...]
    parts: tuple[KeptFile, ...]  # the files that lie here instead, beside this manifest
    version: int = _VERSION


def is_lean(folder: Path) -> bool:
    """Return whether a base's folder has no file as it came, but what it is made again from. Reads nothing."""
    return (folder / LEAN).exists() and not any(folder.glob("*.gguf"))


def read_lean(folder: Path) -> Lean | None:
    """Return the manifest of a base's folder; None if its file lies there as it came. Raises HomeError for a manifest that is none."""
    if not is_lean(folder):
        return None
    path = folder / LEAN
    try:
        lean = from_table(Lean, json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, ConfigError) as error:
        raise HomeError(str(path), "must be the manifest of a lean base", error, CURE) from error
    if lean.version != _VERSION:
        raise HomeError(str(path), f"must have version {_VERSION}", lean.version, "Another version of Ingle wrote it: use that one.")
    strange = [file.name for file in (lean.file, *lean.parts) if not _PLAIN.fullmatch(file.name)]
    if strange or not lean.file.name.lower().endswith(".gguf") or not lean.parts:
        raise HomeError(str(path), "must name files of its own folder", ", ".join(strange) or lean.file.name, CURE)
    return lean
