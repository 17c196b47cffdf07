"""The process behind `homework.do_apart`: does the task in a folder, and writes the result there. It ends with its standard input.

One such process learns on a machine at a time: each takes as much memory as the model several times over.
"""

import os
import tempfile
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

from ingle.core.apart import Answer, answer_calls
from ingle.core.process import file_lock
from ingle.tuning.homework import DONE, FACTORS, read_task, write_done

_NICE = 19


def _learn(question: dict[str, Any], _data: bytes) -> Answer:
    folder = Path(question["folder"])
    with alone():
        # PyTorch is loaded when it is this process's turn.
        from safetensors.numpy import load_file

        from ingle.tuning.homework_training import do_homework

        write_done(folder / DONE, do_homework(read_task(folder), load_file(folder / FACTORS), folder))
    return {}, b""


def alone() -> AbstractContextManager[None]:
    """Hold this user's lock on learning on this machine. Where nobody can vouch for its folder there is none."""
    if not hasattr(os, "getuid"):
        return file_lock(Path(tempfile.gettempdir()) / "ingle-learning.lock")
    folder = Path(tempfile.gettempdir()) / f"ingle-{os.getuid()}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
    with suppress(OSError):
        found = folder.lstat()
        # Somebody else may have made it, or made it point elsewhere.
        if found.st_uid == os.getuid() and not found.st_mode & 0o077 and not folder.is_symlink():
            return file_lock(folder / "learning.lock")
    return nullcontext()


if __name__ == "__main__":
    answer_calls({"learn": _learn}, nice=_NICE)
