"""Stop strings: an answer ends before the first of them, however its tokens are cut."""

from collections.abc import Sequence


class StopStrings:
    """Passes text on until a stop string appears. A possible start of one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.hit = False

    def feed(self, text: str) -> str:
        """Take in text and return what can be shown."""
        if not self._stops or self.hit:
            return "" if self.hit else text
        self._held += text
        places = [at for at in (self._held.find(stop) for stop in self._stops) if at >= 0]
        if places:
            self.hit = True
            return self._held[: min(places)]
        keep = max(self._overlap(stop) for stop in self._stops)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def flush(self) -> str:
        """Return the held text that turned out to be no stop string."""
        rest, self._held = ("" if self.hit else self._held), ""
        return rest

    def _overlap(self, stop: str) -> int:
        """Return the length of the longest end of the held text with which `stop` begins."""
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if stop.startswith(self._held[-n:])), 0)
