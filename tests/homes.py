"""Homes that share a model."""

import shutil
from pathlib import Path

from ingle.home.place import Home


def lent(kept: Home, root: Path) -> Home:
    """A home with the models of another one, but with words, facts and keys of its own."""
    home = Home(root).create()
    for folder in (home.bases, home.packs):
        folder.rmdir()
        folder.symlink_to(kept.root / folder.name, target_is_directory=True)
    shutil.copytree(kept.models, home.models, dirs_exist_ok=True)
    if (kept.root / "parts").is_dir():
        shutil.copytree(kept.root / "parts", home.root / "parts")
    return home
