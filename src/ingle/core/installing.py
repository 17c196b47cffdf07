"""How to install what an extra of Ingle needs into this environment: the exact command and its download size.

The requirements are those that the installed package states. The command names them and not the package itself: no index need know it.
"""

import importlib.util
import os
import re
import shlex
import shutil
import sys
from importlib import metadata

from ingle.core.errors import ConfigError

_FETCHES = {"measure": "65 MB", "plot": "7 MB", "postgres": "4 MB", "timestamp": "3 MB"}
"""Measured for Python 3.11 in November 2026, on top of Ingle's own requirements."""
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([\w-]+)['\"]")


def requirements() -> dict[str, dict[str, str]]:
    """Return each extra's requirements by package name. Ingle's own stand under ""."""
    needs: dict[str, dict[str, str]] = {"": {}}
    for line in metadata.requires("ingle") or ():
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        name, extra = _NAME.match(requirement), _EXTRA.search(marker)
        if name:
            needs.setdefault(extra[1] if extra else "", {})[name[0]] = requirement
    return needs


def installed(name: str) -> str:
    """Return the version of an installed package; empty if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def not_installed(module: str) -> ConfigError | None:
    """Return what to say where a module can't be imported; None if no extra brings it."""
    name = module.partition(".")[0]
    bring = {extra: needs for extra, needs in requirements().items() if name.replace("_", "-") in needs}
    if not bring:
        return None
    smallest = min(bring, key=lambda extra: len(bring[extra]))
    return ConfigError(name, f"This needs {name}, which is not installed", "", how_to_install(smallest))


def install_command(extra: str) -> str:
    """Return the shell command that installs the missing packages of an extra ("" = Ingle itself) into this environment."""
    needs = requirements().get(extra, {})
    lacking = [requirement for name, requirement in needs.items() if not installed(name)] or list(needs.values())
    if importlib.util.find_spec("pip") is None and shutil.which("uv"):
        return _quoted("uv", "pip", "install", "--python", sys.executable, *lacking)
    return _quoted(sys.executable, "-m", "pip", "install", *lacking)


def how_to_install(extra: str) -> str:
    """Return a sentence or two: the command and its download size."""
    return f"Run: {install_command(extra)} ({fetches(extra)})"


def fetches(extra: str, system: str = sys.platform) -> str:
    """Return how much an installation downloads, in words."""
    if extra != "learn":
        return f"fetches about {_FETCHES[extra]}" if extra in _FETCHES else "fetches what is missing"
    if system.startswith("linux"):
        return "fetches about 2.7 GB, because PyTorch's usual build for Linux brings CUDA; the CPU build on pytorch.org, 160 MB, is enough"
    return "fetches about 130 MB"


def _quoted(*words: str) -> str:
    if os.name == "nt":
        return " ".join(f'"{word}"' if set(word) & set(' <>=&|^[]"') else word for word in words)
    return shlex.join(words)
