"""Finds the model that a name means, and opens it."""

from contextlib import suppress
from typing import TYPE_CHECKING

from ingle.app.settings import ChatSettings
from ingle.core.errors import ConfigError, HomeError
from ingle.core.progress import Watcher
from ingle.home.base import read_base
from ingle.home.catalogue import GUARD_MODELS
from ingle.home.kept import Kept, get_kept, list_kept
from ingle.home.place import Home

if TYPE_CHECKING:
    from ingle.engine.language_model import LanguageModel

DEFAULT = "smollm2"


def choose(home: Home, asked: str) -> Kept:
    """Return the model of that name; without a name, smollm2 or the only model.

    Raises NotKept, HomeError if its file is damaged, or ConfigError if there are several to choose from.
    """
    if asked:
        return get_kept(home, asked)
    faults: list[HomeError] = []
    kept = list_kept(home, lambda _name, error: faults.append(error))
    if faults and not kept:
        raise faults[0]
    candidates = [one for one in kept if one.name == DEFAULT] or [one for one in kept if not _is_guard(home, one)] or kept
    if not candidates:
        return get_kept(home, DEFAULT)
    if len(candidates) > 1:
        names = ", ".join(one.name for one in candidates)
        raise ConfigError("model", f"Several models are kept, so say which one: {names}", "", "Or set chat.model in config.toml.")
    return candidates[0]


def _is_guard(home: Home, kept: Kept) -> bool:
    """Return whether it is a guard model of the catalogue: those are no models to talk with."""
    with suppress(HomeError):  # whoever opens it says so
        return read_base(home, kept.base).source in {f"hub:{guard.repo}" for guard in GUARD_MODELS.values()}
    return False


def open_kept(home: Home, kept: Kept, settings: ChatSettings, watch: Watcher, think: bool = False) -> "LanguageModel":
    """Open a model for answering. Kernels or weights may have to be made ready first.

    `think`: whether it is asked to think aloud. Raises RequestError if it can't.
    """
    from ingle.engine.language_model import check_thinking
    from ingle.engine.loading import open_model
    from ingle.engine.packs import kept_source

    opened = open_model(kept_source(home, kept), settings.format, settings.threads, settings.cache, progress=watch.pieces)
    check_thinking(opened, think, "--think")
    return opened
