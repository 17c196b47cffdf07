"""The models that this server offers: kept ones, opened when they are first asked for, swapped when what is kept changes."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ingle.core.errors import NotKept
from ingle.engine.language_model import LanguageModel
from ingle.home.kept import Kept, get_kept, list_kept
from ingle.home.place import Home

Opener = Callable[[Home, Kept], LanguageModel]


@dataclass
class Shelf:
    """Models by name. Answers that are being written keep the model that they began with, so a swap falls between two answers."""

    home: Home
    open: Opener
    """Takes seconds: called in a thread of its own."""
    default: str
    """Answers where a request names no model."""
    only: tuple[str, ...] = ()
    """Names that are offered; empty = all that are kept."""
    _opened: dict[str, tuple[Kept, LanguageModel]] = field(default_factory=dict)
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    def names(self) -> Sequence[str]:
        """What may be asked for, the default first."""
        known = [kept.name for kept in list_kept(self.home) if not self.only or kept.name in self.only]
        return sorted(known, key=lambda name: (name != self.default, name))

    def kept(self, name: str) -> Kept:
        """What a name stands for now. Raises NotKept with those that are offered."""
        name = name or self.default
        if name not in self.names():
            raise NotKept("model", "must be one that is offered here", name, f"Offered: {', '.join(self.names()) or 'none'}.")
        return get_kept(self.home, name)

    async def get(self, name: str) -> LanguageModel:
        """The model, opened. Raises NotKept, and what opening raises."""
        kept = self.kept(name)
        async with self._locks.setdefault(kept.name, asyncio.Lock()):
            known = self._opened.get(kept.name)
            if known is None or (known[0].base, known[0].deltas) != (kept.base, kept.deltas):
                model = await asyncio.to_thread(self.open, self.home, kept)
                self.put(kept, model)
            return self._opened[kept.name][1]

    def put(self, kept: Kept, model: LanguageModel) -> None:
        """Offers `model` under the name of `kept` from the next answer on."""
        self._opened[kept.name] = (kept, model)
