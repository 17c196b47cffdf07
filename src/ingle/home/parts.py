"""Parts that this home keeps: bases with a name in the folder `parts`, which no model uses."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ingle.core.config import from_table, to_table
from ingle.core.digest import canonical_json
from ingle.core.errors import ConfigError, HomeError, NotKept
from ingle.core.files import os_errors, sync_folder, write_atomic
from ingle.core.report import Event
from ingle.home.base import Base, is_whole, read_base
from ingle.home.catalogue import PARTS, set_with
from ingle.home.deltas import LOCK
from ingle.home.place import Home
from ingle.home.staging import bytes_in, discard


@dataclass(frozen=True, slots=True)
class KeptPart:
    """A part that is kept."""

    name: str
    base: str  # digest of its base


def list_parts(home: Home) -> list[KeptPart]:
    """Return all parts that are kept, by name. A damaged note of one raises HomeError."""
    parts = list[KeptPart]()
    for path in sorted(_folder(home).glob("*.json")):
        with os_errors(path):
            data = path.read_bytes()
        try:
            parts.append(from_table(KeptPart, json.loads(data)))
        except (ValueError, TypeError, ConfigError) as error:
            raise HomeError(str(path), "must describe a part", error, f"Delete it, and run `ingle pull {path.stem}` again.") from error
    return parts


def is_kept(home: Home, name: str) -> bool:
    """Return whether a part is kept, with all of its files."""
    with suppress(NotKept, HomeError):
        find_part(home, name)
        return True
    return False


def find_part(home: Home, name: str) -> Path:
    """Return the folder of a part's files. Raises NotKept with the command that brings it, HomeError if files are missing."""
    for part in list_parts(home):
        if part.name == name:
            if not is_whole(home, read_base(home, part.base)):
                raise HomeError(f"part {name}", "has lost files", "", f"Run: ingle rm {name}; ingle pull {name}")
            return home.base_folder(part.base)
    about = f"{PARTS[name].title}. " if name in PARTS else ""
    raise NotKept(f"part {name}", "is not kept in this home", "", f"{about}Run: ingle pull {set_with(name)}")


def remove_part(home: Home, name: str, tell: Callable[[Event], object] = lambda _event: None) -> int:
    """Delete a part, and return the freed bytes.

    `tell` gets the fact before anything is deleted; if it raises, all stays. Raises NotKept, HomeError.
    """
    with home.lock(LOCK):
        part = next((one for one in list_parts(home) if one.name == name), None)
        if part is None:
            raise NotKept(f"part {name}", "is not kept in this home")
        folder = home.base_folder(part.base)
        freed = bytes_in(folder)
        tell(Event("rm", name, {"bases": 1, "base": part.base, "bytes": freed}))
        with os_errors(_folder(home)):
            (_folder(home) / f"{name}.json").unlink()
        discard(home, folder)
    return freed


def adopt_part(home: Home, folder: Path, base: Base, name: str) -> None:
    """Move a finished staging folder to the bases, then note its name."""
    target = home.base_folder(base.digest)
    with home.lock(LOCK):
        discard(home, target)
        if os.name != "nt":
            for path in folder.iterdir():
                path.chmod(0o444)
        with os_errors(target):
            folder.replace(target)
            sync_folder(home.bases)
        write_atomic(_folder(home) / f"{name}.json", canonical_json(to_table(KeptPart(name, base.digest))), mode=0o600)


def _folder(home: Home) -> Path:
    return home.root / "parts"
