"""The counters of NVIDIA's GPUs, where `pynvml` (package nvidia-ml-py) is installed; nothing needs it."""

import contextlib
from collections.abc import Sequence
from typing import Any


class Gpus:
    """The GPUs that a program computes on. Volta and later count millijoules since the driver was loaded."""

    def __init__(self, uuids: Sequence[str], library: Any = None) -> None:
        """`uuids`: as the driver writes them, `GPU-…`. `library`: what stands in for `pynvml`; None = that, if it is installed."""
        self.wanted = tuple(uuids)
        self._library = library if library is not None or not uuids else _installed()
        self._handles: list[Any] = []
        if self._library is None or not uuids:
            return
        with contextlib.suppress(Exception):  # its errors are its own classes: whatever it says, we then have no counter
            self._library.nvmlInit()
            handles = [self._library.nvmlDeviceGetHandleByUUID(uuid) for uuid in uuids]
            for handle in handles:
                self._library.nvmlDeviceGetTotalEnergyConsumption(handle)
            self._handles = handles

    @property
    def readable(self) -> bool:
        """Whether all of them can be counted."""
        return len(self._handles) == len(self.wanted) > 0

    def read(self) -> tuple[int, ...] | None:
        """The counters in mJ now; None without GPUs, or where they can't be read."""
        if not self.readable:
            return None
        try:
            return tuple(int(self._library.nvmlDeviceGetTotalEnergyConsumption(handle)) for handle in self._handles)
        except Exception:  # see above
            return None


def joules(first: Sequence[int], last: Sequence[int]) -> float | None:
    """What was counted between two readings; None if the driver was loaded anew meanwhile."""
    found = [after - before for before, after in zip(first, last, strict=True)]
    return None if min(found) < 0 else sum(found) / 1e3


def _installed() -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml
