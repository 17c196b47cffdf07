"""A lesson gives way while answers are written beside it: it works a part of the time, and in the pauses the lent core is the server's
again. On two cores one thread writes as little as 0.6 times as fast as two; so a lent core alone may cost an answer more than a quarter
of its speed."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ingle.learn.worker import Signals

WORKS = 0.33  # share of the time that a lesson works in while answers are written
_LEAST_S, _LOOK_S = 0.05, 0.05


@dataclass
class Breath:
    """Called between any two pieces of a lesson's work, some tenths of a second apart."""

    signals: Signals
    busy: Callable[[bool], None]  # tells the server whether the learner needs the lent core
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _since: float = field(default=float("-inf"))

    def __call__(self) -> None:
        """Pause as long as is due; while the learner is held, until it is not."""
        worked = min(1.0, self.clock() - self._since)
        if self.signals.held or (self.signals.beside and worked >= _LEAST_S):
            self.busy(False)
            until = self.clock() + worked * (1 / WORKS - 1)
            while not self.signals.ended and (self.signals.held or (self.signals.beside and self.clock() < until)):
                self.sleep(_LOOK_S)
            self.busy(True)
            self._since = self.clock()
        elif not self.signals.beside:
            self._since = self.clock()
