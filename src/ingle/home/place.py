"""The home: its place, and the contents of its folders.

bases/DIGEST/         original files of a model, never written again, and base.json
models/NAME.json      a kept model: a base and its deltas
parts/NAME.json       a kept part: a base that hears, speaks or sees
deltas/DIGEST/        a delta: delta.json, tensors.safetensors and its report
packs/DIGEST/         packed weights, one folder per base (with merged deltas); may be deleted at any time
tuning/               unfinished training
cache/jit             compiled kernels; may be deleted
cache/downloads       unfinished downloads; may be deleted
cache/speed.json      how fast this machine decodes (engine/bandwidth.py); may be deleted, it is then measured again
cache/groups          groups that conversions to hybrids found; may be deleted, they are then searched again
guards/               what the judges of guards were taught, and the home's own judge, if it made one
federated/KEY/        what this home learned together with others, and how far it is (federated/standing.py)
scaling/NAME/         a sweep of trainings, one file a run (scaling/sweep.py)
labels/               energy labels of models, by the digest of base and deltas (energy/label.py)
states/               saved states of kept conversations; may be deleted, the text is then read again
staging/              unfinished downloads and models
keys/                 the ledger's key and its signed head, the key of the answers' digests, and the key that signs for others
locks/                one file per lock
ingle.db              facts (SQLite, unless INGLE_DATABASE_URL says otherwise)
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ingle.core.errors import HomeError
from ingle.core.files import os_errors
from ingle.core.process import file_lock


@dataclass(frozen=True, slots=True)
class Home:
    """The folder that holds everything Ingle keeps. Making the value touches no disk."""

    root: Path  # absolute
    other_database: str = ""  # URL of a database elsewhere; empty = the file in this home

    @property
    def bases(self) -> Path:
        """Folder of bases, one per digest."""
        return self.root / "bases"

    @property
    def models(self) -> Path:
        """Folder of kept models, one file per name."""
        return self.root / "models"

    @property
    def deltas(self) -> Path:
        """Folder of deltas, one per digest."""
        return self.root / "deltas"

    @property
    def packs(self) -> Path:
        """Folder of packed weights, one folder per base digest."""
        return self.root / "packs"

    @property
    def tuning(self) -> Path:
        """Folder of training that is not finished."""
        return self.root / "tuning"

    @property
    def jit(self) -> Path:
        """Folder of compiled kernels."""
        return self.root / "cache" / "jit"

    @property
    def downloads(self) -> Path:
        """Folder of unfinished downloads."""
        return self.root / "cache" / "downloads"

    @property
    def states(self) -> Path:
        """Folder of the saved states of kept conversations."""
        return self.root / "states"

    @property
    def history(self) -> Path:
        """File of the lines typed in `ingle chat`."""
        return self.root / "history"

    @property
    def config(self) -> Path:
        """File of the owner's settings."""
        return self.root / "config.toml"

    @property
    def policy(self) -> Path:
        """File of the owner's policy for candidates and requests; see gate/check.py and safety/policy.py."""
        return self.root / "policy.toml"

    @property
    def federated(self) -> Path:
        """Folder of what is being learned together with other homes, one folder per federation."""
        return self.root / "federated"

    @property
    def scaling(self) -> Path:
        """Folder of sweeps, one folder per name."""
        return self.root / "scaling"

    @property
    def labels(self) -> Path:
        """Folder of energy labels."""
        return self.root / "labels"

    @property
    def staging(self) -> Path:
        """Folder of unfinished work; on one file system with `bases`, so that a rename moves it there."""
        return self.root / "staging"

    @property
    def keys(self) -> Path:
        """Folder of the ledger's key and signed head."""
        return self.root / "keys"

    @property
    def database_file(self) -> Path:
        """The database file, unless the database is elsewhere."""
        return self.root / "ingle.db"

    @property
    def database_url(self) -> str:
        """The URL for `open_database`."""
        return self.other_database or f"sqlite:///{self.database_file}"

    def base_folder(self, digest: str) -> Path:
        """Folder of one base."""
        return self.bases / digest

    def delta_folder(self, digest: str) -> Path:
        """Folder of one delta."""
        return self.deltas / digest

    def pack_folder(self, digest: str) -> Path:
        """Folder of everything derived from one base or stack; deleted with it."""
        return self.packs / digest

    def create(self) -> "Home":
        """Make the folders, for their owner alone (mode 700).

        Raises HomeError if they can't be made or written.
        """
        for folder in (self.root, self.bases, self.models, self.deltas, self.packs, self.jit, self.downloads, self.staging, self.keys):
            with os_errors(folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Permission bits say nothing to an administrator or about a read-only mount, a real write does.
        with os_errors(self.root), tempfile.TemporaryFile(dir=self.root):
            pass
        return self

    @contextmanager
    def lock(self, name: str, waiting: Callable[[str], None] = lambda _: None, timeout_s: float | None = None) -> Iterator[None]:
        """Hold the lock `name` against other processes; see `core.process.file_lock`."""
        with file_lock(self.root / "locks" / f"{name}.lock", waiting, timeout_s):
            yield


def find_home(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Home:
    """Return the home: INGLE_HOME, else the platform's folder for user data. Touches no disk.

    Raises HomeError if no user folder is known.
    """
    return Home(_root(environ, platform), environ.get("INGLE_DATABASE_URL", ""))


def _root(environ: Mapping[str, str], platform: str) -> Path:
    if chosen := environ.get("INGLE_HOME"):
        return _user_folder(chosen).absolute()
    if platform == "win32":
        local = environ.get("LOCALAPPDATA")
        return Path(local) / "ingle" if local else _user_folder("~") / "AppData" / "Local" / "ingle"
    if platform == "darwin":
        return _user_folder("~") / "Library" / "Application Support" / "ingle"
    data = environ.get("XDG_DATA_HOME", "")
    # The XDG base directory specification: a relative path is to be ignored.
    return Path(data) / "ingle" if data.startswith("/") else _user_folder("~") / ".local" / "share" / "ingle"


def _user_folder(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise HomeError("INGLE_HOME", "must be set where the user has no home folder", error, "Set it to a folder of yours.") from error
