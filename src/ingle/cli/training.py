"""What verbs that train have in common: the bar of a training, and facts that are told once."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ingle.cli.house import open_ledger
from ingle.cli.progress import Watcher
from ingle.core.event import Event, Sink
from ingle.home.place import Home

if TYPE_CHECKING:
    from ingle.train.settings import Progress


def train_progress(watch: Watcher) -> "Callable[[Progress], None]":
    """The bar, as a training tells it: loss, speed, time left."""

    def trained(at: "Progress") -> None:
        held_out = "" if at.held_out is None else f", held out {at.held_out:.3f}"
        left = f", {at.seconds_left:.0f} s left" if at.seconds_left < 120 else f", {at.seconds_left / 60:.0f} min left"
        watch.pieces("training", at.step, at.steps, f"loss {at.loss:.3f}{held_out}, {at.tokens_per_s:.0f} tokens/s{left}")

    return trained


def recorder(home: Home, key: str) -> Sink:
    """Puts facts into the ledger, each once: a run that goes on tells them again. `key`: the fact that says what came of a run."""

    def sink(event: Event) -> None:
        with open_ledger(home) as ledger:
            before = next(iter(ledger.read(event.kind, event.subject, 1)), None)
            if before is None or before.values.get(key) != event.facts.get(key):
                ledger.append(event)

    return sink
