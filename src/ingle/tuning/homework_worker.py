"""The process behind `homework.do_apart`: does the task in a folder, writes the result there, and answers with an error or null.

`python -P -m ingle.tuning.homework_worker FOLDER`. It ends when its standard input does. One such process learns on a machine at a time:
each takes as much memory as the model several times over.
"""

import json
import os
import sys
import tempfile
import threading
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

from ingle.core.errors import IngleError, fault_of
from ingle.core.process import file_lock
from ingle.tuning.homework import DONE, FACTORS, read_task, write_done

_NICE = 19


def main() -> None:
    """Do the task in the folder that the first argument names."""
    folder = Path(sys.argv[1])
    threading.Thread(target=_end_with_input, name="listening", daemon=True).start()
    if os.name == "posix":
        os.nice(_NICE)
    fault: dict[str, str] | None = None
    try:
        with alone():
            # PyTorch is loaded when it is this process's turn.
            from safetensors.numpy import load_file

            from ingle.tuning.homework_training import do_homework

            write_done(folder / DONE, do_homework(read_task(folder), load_file(folder / FACTORS), folder))
    except IngleError as error:
        fault = fault_of(error)
    print(json.dumps(fault))


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


def _end_with_input() -> None:
    """End this process when the one that asked is gone, or wants no answer any more."""
    while os.read(0, 4096):  # not by sys.stdin, whose lock this thread would hold at the end of the process
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
