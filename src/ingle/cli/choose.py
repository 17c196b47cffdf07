"""Models at a terminal: one that is missing is offered, and opening shows its progress."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from ingle.app.choose import DEFAULT, choose, open_kept
from ingle.app.house import House
from ingle.app.settings import ChatSettings, Settings
from ingle.cli.output import confirm, is_terminal
from ingle.cli.progress import watching
from ingle.core.errors import NotKept
from ingle.home.catalogue import CATALOGUE, ON_HUB, SHIPPED, Archived, HubModel
from ingle.home.kept import Kept
from ingle.home.place import Home

if TYPE_CHECKING:
    from ingle.app.here import Here
    from ingle.engine.language_model import LanguageModel


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
            entry = offer if isinstance(offer, Archived) else offer.base
            about = f"{offer.title}, {entry.licence}, {entry.fetched_bytes / 1e6:.0f} MB"
        if not confirm(f"{offer.name} is not kept here yet. Pull it now ({about})?"):
            raise
    from ingle.app.bringing import bring

    with watching() as watch:
        return bring(home, asked or DEFAULT, watch, format_=format_).kept


def open_watched(home: Home, kept: Kept, settings: ChatSettings, think: bool = False) -> "LanguageModel":
    """Open a model for answering, as `open_kept` does, and show the progress."""
    with watching() as watch:
        return open_kept(home, kept, settings, watch, think)


def answer_here(home: Home, settings: Settings, say: Callable[[str], object] = lambda _text: None) -> "Here":
    """Return this process as the place where requests are answered. `say` hears why a lesson can't act."""
    from ingle.app.here import Here

    return Here(House(home), lambda kept: open_watched(home, kept, settings.chat), settings.serve.drafts, say)
