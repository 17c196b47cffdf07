"""NVIDIA's GPU counters, where the optional `pynvml` (package nvidia-ml-py) is installed."""

import contextlib
from collections.abc import Sequence
from typing import Any


class Gpus:
    """The GPUs that a program computes on. Volta and later count millijoules since the driver was loaded."""

    def __init__(self, uuids: Sequence[str], library: Any = None) -> None:
        """`uuids`: as the driver writes them, `GPU-…`. `library`: a substitute for `pynvml`; None = the installed one."""
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
        """Whether all of them can be read."""
        return len(self._handles) == len(self.wanted) > 0

    def read(self) -> tuple[int, ...] | None:
        """Return the counters in mJ; None without GPUs, or where they can't be read."""
        if not self.readable:
            return None
        try:
            return tuple(int(self._library.nvmlDeviceGetTotalEnergyConsumption(handle)) for handle in self._handles)
        except Exception:  # see above
            return None


def joules(first: Sequence[int], last: Sequence[int]) -> float | None:
    """Return the joules between two readings; None if the driver was reloaded meanwhile."""
    steps = [after - before for before, after in zip(first, last, strict=True)]
    return None if min(steps) < 0 else sum(steps) / 1e3


def _installed() -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml
