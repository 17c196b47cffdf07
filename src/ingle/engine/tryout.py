"""Work on a model's files in a process of its own (tryout_worker.py): a stranger's first try, before it is kept, and packing.

A stranger's tokenizer and template read some words and conversations; its weights take some steps. What would end or freeze a server ends
this process, and `ingle pull` says so. Packing holds Python's lock for tens of milliseconds at a time, and each thread of a decoder step
needs that lock to begin: in the server's process every token would wait.
"""

from pathlib import Path
from typing import Any

from ingle.core.apart import ONE_THREAD, ApartError, ProcessApart
from ingle.core.config import to_table
from ingle.core.errors import CheckpointError, KernelError
from ingle.home.kept import Kept
from ingle.home.place import Home

_WORDS_S, _STEP_S, _STEP_S_PER_GB = 60, 120, 60
CURE = "Don't use this model: it is damaged, or means harm."


def try_words(folder: Path, seconds: float = _WORDS_S) -> None:
    """Try the tokenizer and the chat template of a folder of files, of any kind that `ingle pull` takes.

    Raises CheckpointError where they can't be read, or don't stay within the limits.
    """
    try:
        _ask("words", {"folder": str(folder)}, seconds)
    except ApartError as error:
        raise CheckpointError("tokenizer or chat template", "can't be used", error, CURE) from None


def try_step(home: Home, kept: Kept, format_: str, cache: str = "auto") -> None:
    """Let a kept model, packed already, write some tokens. Raises KernelError where it can't, CheckpointError for its files."""
    folder = home.pack_folder(kept.base)
    size = sum(path.stat().st_size for path in folder.glob("*/weights.bin")) if folder.is_dir() else 0
    try:
        _ask("step", _facts(home, kept, format_, cache), _STEP_S + _STEP_S_PER_GB * size / 1e9)
    except ApartError as error:
        raise KernelError(f"model {kept.name}", "can't take a first step", error, CURE) from None


def warm_apart(home: Home, kept: Kept, format_: str, cache: str) -> None:
    """Do `packs.warm` for a kept model in another process. Raises what that raises, KernelError if the process fails in another way."""
    try:
        _ask("pack", _facts(home, kept, format_, cache), None)
    except ApartError as error:
        raise KernelError(
            f"model {kept.name}", "must be packed before it can answer", error, "Try again; is there enough memory?"
        ) from None


def _facts(home: Home, kept: Kept, format_: str, cache: str) -> dict[str, Any]:
    return {"home": str(home.root), "kept": to_table(kept), "format": format_, "cache": cache}


def _ask(call: str, facts: dict[str, Any], seconds: float | None) -> None:
    apart = ProcessApart("ingle.engine.tryout_worker", seconds, environment=ONE_THREAD)
    try:
        apart.ask(call, facts)
    finally:
        apart.close()
