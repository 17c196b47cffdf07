"""Faults of a disk, injected into this process: the N-th time that anything below a folder is changed, that fails.

Counted are: making, writing, flushing, renaming, linking, cutting and deleting files and folders, whoever asks: Python's `os` and `open`,
SQLite (through its own table of system calls, made for this), and safetensors (whose writes are Rust's: its files come out cut).
SQLite's fsync is not in its table, and what a worker process does is not seen.

Modes: `once` the N-th fails and the next ones work (a bad sector); `full` the N-th and all after it fail (a full disk: what only deletes
goes on); `kill` the process ends in the middle of the N-th. Writes that fail have written half.
"""

import _sqlite3
import builtins
import ctypes
import errno
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KILLED = 77
"""Exit code of a process that a fault killed."""
_DELETING = {"unlink", "remove", "rmdir"}
_SIMPLE = ("mkdir", "chmod", "unlink", "remove", "rmdir", "truncate")
_OF_TWO = ("rename", "replace", "link", "symlink")
_OF_HANDLE = ("fsync", "fdatasync", "ftruncate", "fchmod")
_cut = os.truncate
_CHANGING = os.O_CREAT | os.O_TRUNC


@dataclass
class Injector:
    """Counts what is done below `root`, and lets the `nth` fail (0 = none)."""

    root: str
    nth: int = 0
    mode: str = "once"
    seen: list[str] = field(default_factory=list)
    """Everything counted, in order: act and path."""
    _kept: list[Any] = field(default_factory=list)

    def install(self) -> "Injector":
        """Put the counting functions in their places, for the rest of this process."""
        for name in _SIMPLE:
            self._wrap(name, 0)
        for name in _OF_TWO:
            self._wrap(name, 1)
        for name in _OF_HANDLE:
            self._wrap(name, 0)
        self._wrap_open()
        self._wrap_write()
        self._wrap_files()
        self._wrap_sqlite()
        self._wrap_safetensors()
        return self

    def due(self, act: str, where: Any) -> int:
        """Count one act. Returns the error number if it must fail, else 0. Within a kill it returns the number too: see `fail`."""
        path = self._path(where)
        if not path.startswith(self.root) or (act == "mkdir" and Path(path).is_dir()) or (act in _DELETING and not os.path.lexists(path)):
            return 0
        self.seen.append(f"{act} {path[len(self.root) :]}")
        now = len(self.seen)
        if not self.nth or now < self.nth or (self.mode != "full" and now > self.nth) or (self.mode == "full" and act in _DELETING):
            return 0
        return errno.ENOSPC if self.mode == "full" or act in ("write", "open", "mkdir") else errno.EIO

    def fail(self, number: int, where: Any) -> OSError:
        """End the process, or return the error to raise."""
        if self.mode == "kill":
            os._exit(KILLED)
        return OSError(number, os.strerror(number), self._path(where))

    def _path(self, where: Any) -> str:
        if isinstance(where, int):
            try:
                return os.readlink(f"/proc/self/fd/{where}").removesuffix(" (deleted)")  # noqa: PTH115 - the same
            except OSError:
                return ""
        path = os.fsdecode(where) if isinstance(where, bytes) else os.fspath(where) if isinstance(where, os.PathLike) else where
        return os.path.abspath(path) if isinstance(path, str) else ""  # noqa: PTH100 - a Path would do more

    def _wrap(self, name: str, which: int) -> None:
        real: Callable[..., Any] = getattr(os, name)

        def act(*given: Any, **named: Any) -> Any:
            where = given[which]
            if named.get("dir_fd") is not None:  # as rmtree names files: by their folder
                where = f"{self._path(named['dir_fd'])}/{given[0]}"
            if number := self.due(name, where):
                raise self.fail(number, where)
            return real(*given, **named)

        setattr(os, name, act)

    def _wrap_open(self) -> None:
        real = os.open

        def act(path: Any, flags: int, *given: Any, **named: Any) -> int:
            if flags & _CHANGING and (number := self.due("open", path)):
                raise self.fail(number, path)
            return real(path, flags, *given, **named)

        os.open = act  # type: ignore[assignment]

    def _wrap_write(self) -> None:
        real = os.write

        def act(handle: int, data: Any) -> int:
            if number := self.due("write", handle):
                real(handle, bytes(data)[: len(data) // 2])
                raise self.fail(number, handle)
            return real(handle, data)

        os.write = act

    def _wrap_files(self) -> None:
        injector, real = self, io.open

        class Counted(io.FileIO):
            """A file whose writes are counted. As on a disk that is full, one that fails says first that half went in."""

            owed = 0

            def write(self, data: Any, /) -> int:
                if self.owed:
                    number, self.owed = self.owed, 0
                    raise injector.fail(number, self.fileno())
                if number := injector.due("write", self.fileno()):
                    first = len(injector.seen) == injector.nth
                    half = super().write(bytes(data)[: len(data) // 2 * first]) or 0
                    if injector.mode == "kill" or not half:
                        raise injector.fail(number, self.fileno())
                    self.owed = number
                    return half
                return super().write(data)

        def act(
            file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None, newline: Any = None,
            closefd: bool = True, opener: Any = None,
        ) -> Any:  # fmt: skip
            path = self._path(file)
            if not set("wax+") & set(mode) or not path.startswith(self.root):
                return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
            if not isinstance(file, int) and (set("wax") & set(mode)) and (number := self.due("open", path)):
                raise self.fail(number, path)
            raw = Counted(file, mode.replace("b", "").replace("t", ""), closefd, opener)
            if buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

        io.open = builtins.open = act  # type: ignore[assignment]

    def _wrap_safetensors(self) -> None:
        import safetensors
        import safetensors.numpy

        def wrapped(real: Callable[..., None]) -> Callable[..., None]:
            def act(tensors: Any, filename: Any, *given: Any, **named: Any) -> None:
                number = self.due("write", filename)
                real(tensors, filename, *given, **named)
                if number:
                    _cut(filename, Path(filename).stat().st_size // 2)
                    self.fail(number, filename)
                    raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

            return act

        safetensors.numpy.save_file = wrapped(safetensors.numpy.save_file)
        try:
            import safetensors.torch
        except ImportError:
            return
        safetensors.torch.save_file = wrapped(safetensors.torch.save_file)

    def _wrap_sqlite(self) -> None:
        library = ctypes.CDLL(_sqlite3.__file__)
        find = library.sqlite3_vfs_find
        find.restype, find.argtypes = ctypes.POINTER(_Vfs), [ctypes.c_char_p]
        vfs = find(None)
        get, put = vfs.contents.xGetSystemCall, vfs.contents.xSetSystemCall

        def replace(name: bytes, of_handle: bool, result: Any, *arguments: Any) -> None:
            address = get(vfs, name)
            if not address:
                return
            kind = ctypes.CFUNCTYPE(result, *arguments, use_errno=True)
            real, act_name = kind(address), {b"open": "open", b"unlink": "unlink", b"ftruncate": "ftruncate"}.get(name, "write")

            def act(*given: Any) -> Any:
                counts = name != b"open" or given[1] & _CHANGING
                if counts and (number := self.due(act_name, given[0])):
                    if act_name == "write" and given[2] > 1:
                        real(*given[:2], given[2] // 2, *given[3:])
                    self.fail(number, given[0])
                    ctypes.set_errno(number)
                    return -1
                return real(*given)

            kept = kind(act)
            self._kept.append(kept)
            assert put(vfs, name, ctypes.cast(kept, ctypes.c_void_p)) == 0

        replace(b"open", False, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_int)
        replace(b"unlink", False, ctypes.c_int, ctypes.c_char_p)
        replace(b"ftruncate", True, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
        replace(b"write", True, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
        for name in (b"pwrite", b"pwrite64"):
            replace(name, True, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64)


class _Vfs(ctypes.Structure):
    """sqlite3_vfs, version 3."""


_POINTERS = (
    "xOpen", "xDelete", "xAccess", "xFullPathname", "xDlOpen", "xDlError", "xDlSym", "xDlClose", "xRandomness", "xSleep", "xCurrentTime",
    "xGetLastError", "xCurrentTimeInt64",
)  # fmt: skip
_Vfs._fields_ = [
    ("iVersion", ctypes.c_int), ("szOsFile", ctypes.c_int), ("mxPathname", ctypes.c_int), ("pNext", ctypes.c_void_p),
    ("zName", ctypes.c_char_p), ("pAppData", ctypes.c_void_p),
    *((name, ctypes.c_void_p) for name in _POINTERS),
    ("xSetSystemCall", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Vfs), ctypes.c_char_p, ctypes.c_void_p)),
    ("xGetSystemCall", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_Vfs), ctypes.c_char_p)),
    ("xNextSystemCall", ctypes.c_void_p),
]  # fmt: skip
