"""Errors of training, as sentences: numbers that ran away, memory that ran out, a signal to stop."""

import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ingle.core.errors import IngleError


class TrainError(IngleError):
    """A run that can't go on. Its last checkpoint is whole."""

    exit_code = 13


class Stop:
    """A flag: whether the run was told to stop."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Catch Ctrl-C and SIGTERM: the first asks to stop after this step, with a checkpoint; the second Ctrl-C stops at once.

    Where one is inside another, the outer one is asked too, for the inner one may have looked for the last time.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, _frame: FrameType | None) -> None:
        if stop.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    _open.append(stop)
    try:
        yield stop
    finally:
        _open.pop()
        for number, handler in before.items():
            signal.signal(number, handler)
        if stop.asked and _open:
            _open[-1].asked = True


_open: list[Stop] = []
"""Flags of the main thread, the outermost first."""


@contextmanager
def memory_errors(cure: str) -> Iterator[None]:
    """Turn PyTorch's errors for memory that ran out into one; `cure` says which setting to lower."""
    import torch

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        text = str(error)
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate" not in text:
            raise
        raise TrainError("memory", "There was not enough memory", text.partition("\n")[0][:120], cure) from error


def smaller_batches(batch_tokens: int, recompute: bool) -> str:
    """The cure where there is no memory for a batch."""
    cure = f"Lower batch_tokens (now {batch_tokens}), and raise accumulate by as much for the same steps."
    return cure if recompute else f"{cure} Setting recompute = true takes a fraction of the memory and a third more time."


def not_finite(what: str, step: int, rate: float, bf16: bool) -> TrainError:
    """The error for a loss or gradient that is NaN or infinite."""
    cure = f"Most often the learning rate is too high (it was {rate:.2g}): lower it, or lengthen the warm-up."
    cure += " If it happens at the first step, look for damaged weights (`ingle verify`)"
    cure += ", or set precision = fp32." if bf16 else "."
    return TrainError(f"{what}, step {step}", "must be a finite number", "NaN or infinity", cure + " The last checkpoint is from before.")


def peak_bytes() -> int:
    """Most memory that this process used."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
