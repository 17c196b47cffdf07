"""The models that this server offers: kept ones, opened when they are first asked for, swapped when what is kept changes.

What is kept is looked up at every request, so a delta that comes while the server runs is offered at once, and one that goes is gone.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from ingle.core.errors import DeltaError, HomeError, NotKept
from ingle.engine.language_model import LanguageModel
from ingle.home.kept import Kept, get_kept, list_models
from ingle.home.place import Home
from ingle.serve.logs import log

_NICE = 10
"""How much an opening gives way. Without this, the system lets it have the core of a computing thread for as long as it takes, and the
other threads wait for that one: every stream then stands still."""
Opener = Callable[[Home, Kept], LanguageModel]


@dataclass
class ModelRegistry:
    """Models by name. Answers that are being written keep the model that they began with, so a swap falls between two answers."""

    home: Home
    open: Opener
    """Takes up to some seconds: called in a thread of its own, which gives way to those that compute."""
    default: str
    """Answers where a request names no model."""
    only: tuple[str, ...] = ()
    """Names that are offered, with all that deltas make of them; empty = all that are kept."""
    faults: dict[str, str] = field(default_factory=dict)
    """What is wrong with kept models that can't be offered, by name, as of the last listing."""
    _opened: dict[str, tuple[Kept, LanguageModel]] = field(default_factory=dict)
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    _opening: Executor = field(default_factory=lambda: ThreadPoolExecutor(4, "opening", _give_way))

    @property
    def there(self) -> bool:
        """Whether the home is: nobody has deleted or moved it under the server."""
        return self.home.root.is_dir()

    def offered(self) -> list[Kept]:
        """What may be asked for, the default first. What was opened and is not kept any more is let go with the last of its answers.

        A damaged file takes nothing but its own model away; it is told in the log, once. Raises HomeError if the home can't be read, or is
        gone: one that is not there holds no models, and it is not they that are to be looked for.
        """
        if not self.there:
            raise HomeError("home", f"The home {self.home.root} is gone", "", "Bring it back, or end this server.")
        faults: dict[str, str] = {}
        found = [kept for kept in list_models(self.home, lambda name, error: faults.update({name: str(error)})) if self._offers(kept.name)]
        for name in faults.keys() - self.faults.keys():
            log("damaged", {"model": name, "fault": faults[name]})
        self.faults = faults
        for name in self._opened.keys() - {kept.name for kept in found} - faults.keys():
            self._opened.pop(name, None)
        return sorted(found, key=lambda kept: (kept.name != self.default, kept.name))

    def names(self) -> Sequence[str]:
        """The names of all that may be asked for, the default first."""
        return [kept.name for kept in self.offered()]

    def kept(self, name: str) -> Kept:
        """What a name stands for now. Raises NotKept with those that are offered, HomeError if its own file is damaged."""
        name = name or self.default
        try:
            if self._offers(name):
                return get_kept(self.home, name)
        except (NotKept, DeltaError):  # a delta of that name may be another model's: it is not offered under this name
            pass
        raise NotKept("model", f"There is no model {name} here", "", f"Offered: {', '.join(self.names()) or 'none'}.")

    async def get(self, name: str) -> LanguageModel:
        """The model, opened. Raises NotKept, and what opening raises."""
        return (await self.find(name))[1]

    async def find(self, name: str) -> tuple[Kept, LanguageModel]:
        """The same, and what it was opened from."""
        kept = await asyncio.to_thread(self.kept, name)  # a manifest that is new takes 10 ms to read
        async with self._locks.setdefault(kept.name, asyncio.Lock()):
            known = self._opened.get(kept.name)
            if known is not None and (known[0].base, known[0].deltas) == (kept.base, kept.deltas):
                return known
            await asyncio.to_thread(self.offered)  # lets go what is gone, before more comes
            model = await asyncio.get_running_loop().run_in_executor(self._opening, self.open, self.home, kept)
            self.put(kept, model)
            return kept, model

    def put(self, kept: Kept, model: LanguageModel) -> None:
        """Offers `model` under the name of `kept` from the next answer on."""
        self._opened[kept.name] = (kept, model)

    def damaged(self) -> int:
        """Kept models that can't be offered now because their files are damaged."""
        with suppress(HomeError):  # then nothing can be said of them
            self.offered()
        return len(self.faults)

    def _offers(self, name: str) -> bool:
        return not self.only or any(name == one or name.startswith(f"{one}+") for one in self.only)


def _give_way() -> None:
    """Lowers the priority of this thread, where a thread has one of its own (Linux), and so of what it starts."""
    if sys.platform == "linux":
        me = threading.get_native_id()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, me, os.getpriority(os.PRIO_PROCESS, me) + _NICE)
