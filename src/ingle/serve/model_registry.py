"""The models that this server offers. Each is opened at its first request and swapped when its files change.

Every request looks the model up in the home, so new deltas are offered at once and deleted ones are gone.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from ingle.core.config import read_table
from ingle.core.errors import DeltaError, HomeError, IngleError, NotKept
from ingle.core.message import Request
from ingle.engine.language_model import LanguageModel, lacks
from ingle.home.kept import Kept, able, get_kept, list_models
from ingle.home.place import Home
from ingle.home.toml_file import read_bytes, rewritten, with_value
from ingle.serve.logs import log

# Niceness of the thread that opens a model. Without it, opening takes the core of a computing thread, and all others wait for that one:
# every stream then stands still.
_NICE = 10
Opener = Callable[[Home, Kept], LanguageModel]


@dataclass
class ModelRegistry:
    """Models by name. A running answer keeps the model that it began with."""

    home: Home
    # Opens a model. It may take seconds, so it is called in a thread of low priority.
    open: Opener
    default: str  # name of the model for requests that name none
    only: tuple[str, ...] = ()  # names that are offered, with all their deltas; empty = all models of the home
    faults: dict[str, str] = field(default_factory=dict)  # faults of damaged models, by name, as of the last listing
    _opened: dict[str, tuple[Kept, LanguageModel]] = field(default_factory=dict)
    _own: set[str] = field(default_factory=set)  # names of models that this server uses itself, offered or not
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    _opening: Executor = field(default_factory=lambda: ThreadPoolExecutor(4, "opening", _give_way))

    @property
    def there(self) -> bool:
        """Whether the home still exists."""
        return self.home.root.is_dir()

    def offered(self) -> list[Kept]:
        """Return the models on offer, the default first. An opened model that was deleted is freed after its last answer.

        A damaged file hides only its own model; the log says so once. Raises HomeError if the home is gone or can't be read.
        """
        if not self.there:
            raise HomeError("home", f"The home {self.home.root} is gone", "", "Bring it back, or end this server.")
        faults: dict[str, str] = {}
        models = [kept for kept in list_models(self.home, lambda name, error: faults.update({name: str(error)})) if self._offers(kept.name)]
        for name in faults.keys() - self.faults.keys():
            log("damaged", {"model": name, "fault": faults[name]})
        self.faults = faults
        for name in self._opened.keys() - {kept.name for kept in models} - faults.keys() - self._own:
            self._opened.pop(name, None)
        return sorted(models, key=lambda kept: (kept.name != self.default, kept.name))

    def names(self) -> Sequence[str]:
        """Return the names of the models on offer, the default first."""
        return [kept.name for kept in self.offered()]

    def kept(self, name: str) -> Kept:
        """Return the model of that name, unopened. Raises NotKept with the names on offer, HomeError if its file is damaged."""
        name = name or self.default
        try:
            if self._offers(name):
                return get_kept(self.home, name)
        except (NotKept, DeltaError):  # a delta of that name may be another model's: it is not offered under this name
            pass
        raise NotKept("model", f"There is no model {name} here", "", f"Offered: {', '.join(self.names()) or 'none'}.")

    async def get(self, name: str) -> LanguageModel:
        """Return the opened model. Raises NotKept and the errors of opening."""
        return (await self.find(name))[1]

    async def find(self, name: str) -> tuple[Kept, LanguageModel]:
        """Return the model's entry in the home, and the opened model. Raises as `get` does."""
        return await self._find(await asyncio.to_thread(self.kept, name))  # a manifest that is new takes 10 ms to read

    async def able(self, name: str, lacks: Callable[[LanguageModel], Sequence[str]]) -> tuple[Kept, LanguageModel]:
        """Return what `find` returns, with what is kept for that model of the kinds of deltas that it `lacks`."""
        kept, model = await self.find(name)
        for kind in lacks(model):
            more = await asyncio.to_thread(able, self.home, kept, kind)
            if more is not None:
                kept, model = await self._find(more)
        return kept, model

    async def acting(self, name: str, request: Request) -> LanguageModel:
        """Return the model that answers a request: with what is kept for it, where its own can't see or draw. Raises as `get` does."""
        return (await self.able(name, lambda one: lacks(one, request)))[1]

    async def own(self, name: str) -> LanguageModel:
        """Return the opened model of that name for the server's own use, as guards have, offered or not. Raises as `get` does."""
        self._own.add(name)
        try:
            kept = await asyncio.to_thread(get_kept, self.home, name)
        except IngleError:
            self._own.discard(name)
            self._opened.pop(name, None)
            raise
        return (await self._find(kept))[1]

    async def _find(self, kept: Kept) -> tuple[Kept, LanguageModel]:
        async with self._locks.setdefault(kept.name, asyncio.Lock()):
            opened = self._opened.get(kept.name)
            if opened is not None and (opened[0].base, opened[0].deltas) == (kept.base, kept.deltas):
                return opened
            await asyncio.to_thread(self.offered)  # lets go what is gone, before more comes
            model = await asyncio.get_running_loop().run_in_executor(self._opening, self.open, self.home, kept)
            self.put(kept, model)
            return kept, model

    def put(self, kept: Kept, model: LanguageModel) -> None:
        """Offers `model` under the name of `kept` from the next answer on."""
        self._opened[kept.name] = (kept, model)

    def make_default(self, name: str) -> None:
        """Let a model on offer answer those who name none, from now on and when the server begins anew: config.toml of the home keeps it.

        Raises NotKept for a model that isn't offered, ConfigError for a file that can't be changed without changing more.
        """
        kept = self.kept(name)
        with self.home.lock("config"):
            path = self.home.config.resolve()  # of a link, the file that it leads to
            old = read_bytes(path)
            with rewritten(path, old, with_value(old or b"", ("chat", "model"), kept.name, self.home.config.name)):
                read_table(path)
        self.default = kept.name

    def damaged(self) -> int:
        """Return how many models can't be offered because their files are damaged."""
        with suppress(HomeError):  # then nothing can be said of them
            self.offered()
        return len(self.faults)

    def _offers(self, name: str) -> bool:
        return not self.only or any(name == one or name.startswith(f"{one}+") for one in self.only)


def _give_way() -> None:
    """Lower the priority of this thread and of those it starts, where threads have their own (Linux)."""
    if sys.platform == "linux":
        me = threading.get_native_id()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, me, os.getpriority(os.PRIO_PROCESS, me) + _NICE)
