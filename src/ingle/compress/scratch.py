"""A scratch home beside a home: the same bases, models and data, but deltas and packs of its own, which are deleted with its folder.

A search makes and serves its models here by the same code as everywhere. Nothing is kept unless the gate admits it.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from ingle.core.files import os_errors
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.home.staging import discard


@dataclass(frozen=True)
class Scratch(Home):
    """A scratch home. Made by `scratch_of`."""

    folder: Path = Path()

    @property
    def deltas(self) -> Path:
        """Folder of its own deltas."""
        return self.folder / "deltas"

    @property
    def packs(self) -> Path:
        """Folder of its own packs."""
        return self.folder / "packs"

    @property
    def tuning(self) -> Path:
        """Folder of its own unfinished work."""
        return self.folder / "tuning"


def scratch_of(home: Home, kept: Kept, folder: Path) -> Scratch:
    """Make a scratch home in which `kept` can be opened. Raises HomeError."""
    scratch = Scratch(home.root, home.other_database, folder)
    for digest in kept.deltas:
        target = scratch.delta_folder(digest)
        if not target.exists():
            part = target.with_name(f".{target.name}.part")
            with os_errors(target):
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                shutil.rmtree(part, ignore_errors=True)
                shutil.copytree(home.delta_folder(digest), part)
                part.replace(target)
    return scratch


def let_packs_go(home: Scratch, kept: Kept) -> None:
    """Delete the packed weights of a model that was tried: they can be made again."""
    discard(home, home.pack_folder(kept.digest))
