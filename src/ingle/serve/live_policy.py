"""The guards' policy of a running server: as policy.toml says when a request comes, whoever changed the file since."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ingle.core.errors import ConfigError, IngleError
from ingle.home.api_keys import list_keys
from ingle.safety.guard import guard_policy
from ingle.safety.policy import GuardPolicy
from ingle.serve.logs import log

if TYPE_CHECKING:
    from sqlalchemy import Engine

_AGAIN_S = 0.2  # pause before an empty or missing file is believed: some editors empty a file, or move it away, before they write it
_MOST_READINGS = 5  # readings of a file that changes all the time
_Mark = tuple[int, ...]


class LivePolicy:
    """Keeps a policy up to date. Looking whether the file changed takes microseconds; reading it is done in a thread.

    A file that can't be meant changes nothing: the log says so once, and what held before holds on.
    """

    def __init__(self, path: Path, policy: GuardPolicy, engine: "Callable[[], Engine]") -> None:
        """policy: what holds until the file is first looked at. engine: the home's database, which knows the keys."""
        self.now = policy
        self.changed: list[Callable[[], None]] = []  # called in the event loop after every change
        self._path, self._engine = path, engine
        self._mark: _Mark | None = None
        self._reading = asyncio.Lock()

    async def renewed(self) -> GuardPolicy:
        """Return the policy that holds now."""
        if _mark(self._path) != self._mark:
            async with self._reading:
                before = self.now
                if _mark(self._path) != self._mark:
                    await asyncio.to_thread(self._read)
            if (self.now.digest, self.now.judge) != (before.digest, before.judge):
                for call in self.changed:
                    call()
        return self.now

    def _read(self) -> None:
        for _ in range(_MOST_READINGS):
            mark = _mark(self._path)
            if self._mark is not None and (not mark or not mark[-1]):
                time.sleep(_AGAIN_S)
                mark = _mark(self._path)
            try:
                policy: GuardPolicy | None = guard_policy(self._path)
                check_keys(policy or self.now, self._engine())
            except (IngleError, OSError) as error:
                policy, fault = None, str(error)
            if mark == _mark(self._path):
                break
        self._mark = mark
        if policy is not None:
            self.now = policy
        else:
            log("policy", {"fault": fault})


def check_keys(policy: GuardPolicy, engine: "Engine") -> None:
    """Raise ConfigError for a policy that names a key which there never was."""
    for name in sorted(policy.keys - {key.name for key in list_keys(engine)}) if policy.keys else ():
        raise ConfigError(f"guards.keys.{name}", "names no key of this home", "", "`ingle home keys list` shows them.")


def _mark(path: Path) -> _Mark:
    """Return what changes with a file, its size last; nothing if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_mtime_ns, stat.st_ino, stat.st_size
