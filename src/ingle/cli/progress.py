"""Shows progress on standard error: bars at a terminal, a few plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ingle.cli.output import colourful, note, printable
from ingle.core.errors import size
from ingle.core.progress import Watcher

if TYPE_CHECKING:
    from rich.progress import TaskID

_LINE_EVERY_S = 5.0
_SAY_LEFT_AFTER_S = 20.0
_LINE_EVERY_SHARE = 0.05  # of the time since it began


@contextmanager
def watching() -> Iterator[Watcher]:
    """Yield a watcher for the block."""
    if not colourful(sys.stderr):
        yield Lines()
        return
    bars = Bars()
    try:
        yield bars
    finally:
        bars.stop()


class Lines:
    """Prints a line at the beginning, one every few seconds (minutes for long work), and one at the end."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self._began: dict[str, tuple[float, int]] = {}  # when it began, and what was done before: that took no time

    def bytes(self, label: str, done_bytes: int, total_bytes: int | None) -> None:
        """See `Watcher`."""
        self._show(label, done_bytes, total_bytes, size(done_bytes), size(total_bytes) if total_bytes else "")

    def pieces(self, label: str, done: int, total: int, detail: str = "") -> None:
        """See `Watcher`."""
        if total:
            self._show(label, done, total, str(done), str(total), detail)

    def say(self, text: str) -> None:
        """See `Watcher`."""
        note(text)

    def _show(self, label: str, done: int, total: int | None, done_text: str, total_text: str, detail: str = "") -> None:
        now = time.monotonic()
        begins = label not in self._last
        ends = total is not None and done >= total > 0
        began, before = self._began.setdefault(label, (now, done))
        if not begins and not ends and now - self._last[label] < max(_LINE_EVERY_S, _LINE_EVERY_SHARE * (now - began)):
            return
        self._last[label] = now
        if not detail and total and before < done < total and now - began > _SAY_LEFT_AFTER_S:
            left_s = (now - began) / (done - before) * (total - done)
            detail = f"about {left_s:.0f} s left" if left_s < 120 else f"about {left_s / 60:.0f} minutes left"
        more = f"; {detail}" if detail else ""
        if ends:
            del self._last[label], self._began[label]
            note(f"{label}: {total_text}, done{more}")
        elif begins and not done:
            note(f"{label}: {total_text}" if total_text else f"{label} …")
        else:
            note(f"{label}: {done_text}" + (f" of {total_text}" if total_text else "") + more)


class Bars:
    """Shows rich's bars. They are made when needed, because importing rich takes a tenth of a second."""

    def __init__(self) -> None:
        self._tasks: dict[str, TaskID] = {}
        self._totals: dict[str, int | None] = {}

    def bytes(self, label: str, done_bytes: int, total_bytes: int | None) -> None:
        """See `Watcher`."""
        self._show(label, done_bytes, total_bytes, "bytes")

    def pieces(self, label: str, done: int, total: int, detail: str = "") -> None:
        """See `Watcher`."""
        if total and (done < total or label in self._tasks):
            self._show(label, done, total, "pieces", detail)

    def say(self, text: str) -> None:
        """See `Watcher`."""
        if self._tasks:
            self._progress.console.print(printable(text), style="dim", markup=False, highlight=False)
        else:
            note(text)

    def stop(self) -> None:
        """Ends the bars as they are."""
        if self._tasks:
            self._progress.stop()

    def _show(self, label: str, done: int, total: int | None, unit: str, detail: str = "") -> None:
        if not self._tasks:
            self._start()
        if label not in self._tasks or (done == 0 and self._totals[label] != total):
            for other, task in self._tasks.items():
                if self._totals[other] is None:  # nobody tells when a question is answered: it is when the next thing begins
                    self._progress.update(task, total=1, completed=1)
            self._tasks[label] = self._progress.add_task(printable(label), total=total, unit=unit)
        self._totals[label] = total
        text = printable(f"{label}: {detail}" if detail else label)
        self._progress.update(self._tasks[label], completed=done, total=total, description=text)

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
        from rich.text import Text

        class Amount(ProgressColumn):
            """A column of bytes with their speed, or of pieces."""

            def render(self, task: Task) -> Text:
                if task.total is None:
                    return Text("")
                if task.fields["unit"] == "pieces":
                    return Text(f"{task.completed:.0f}/{task.total:.0f}", style="green")
                speed = task.finished_speed or task.speed
                done = "" if task.finished else f"{size(task.completed)} of "
                text = f"{done}{size(task.total)}" + (f", {size(speed)}/s" if speed else "")
                return Text(text if task.total > 1 else "", style="green", no_wrap=True)

        columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=16), Amount(), TimeRemainingColumn(compact=True))
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._progress.start()
