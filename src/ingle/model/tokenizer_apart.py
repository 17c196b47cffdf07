"""A stranger's tokenizer and chat template in a process of their own.

Both come with a model and work on what people type, so what they will do can't be known beforehand: a regular expression that never ends, a
text that grows a thousandfold, a table within a table within a table. In the server's own process, one such call could hold the
interpreter, or end it. Here a call takes its time and memory in another process (tokenizer_worker.py), which is ended at the limit; the
request gets an error, and nobody else waits. The server reads a table of the tokens' bytes, and no file of the model.
"""

import json
import os
import subprocess
import sys
import weakref
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from threading import Lock, Timer
from typing import Any

import numpy as np

from ingle.core.config import from_table
from ingle.core.errors import CheckpointError, RequestError, TemplateError, raised
from ingle.core.process import end_worker, read_message
from ingle.model.tokenizer import ControlToken, Tokenizer, TokenizerFacts

ANSWER_S = 10.0
"""Seconds for one text or conversation; a thousand messages take some hundredths."""
START_S = 60.0
"""Seconds until a worker is ready: half a second on a quiet machine."""
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


class TokenizerApart(Tokenizer):
    """A tokenizer whose work is done by another process. Safe to use from several threads, which take turns."""

    def __init__(self, folder: Path, answer_s: float = ANSWER_S) -> None:
        """`folder`: as for `open_tokenizer`. Raises CheckpointError for a tokenizer that can't be opened within the limits."""
        worker = _Worker(folder, answer_s)
        about, sizes, blob = worker.greeting()
        object.__setattr__(self, "facts", from_table(TokenizerFacts, about["facts"]))
        self.__dict__.update(_worker=worker, control=about["control"], longest_token=about["longest_token"], _bytes=blob)
        self.__dict__.update(vocab_size=len(sizes), _ends=np.cumsum(sizes, dtype=np.int64))

    @property
    def fast(self) -> Any:
        """Nothing: the library's tokenizer lies in the other process."""
        raise AssertionError("this tokenizer lies in another process")

    @property
    def apart(self) -> "TokenizerApart":
        """This tokenizer."""
        return self

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """The ids of the control tokens."""
        return frozenset(self.control.values())

    def call(self, name: str, *arguments: Any) -> Any:
        """Return what the worker's function gives. Raises what it raises; TemplateError where it breaks off, or takes too long."""
        worker: _Worker = self.__dict__["_worker"]
        return worker.ask(name, arguments)

    def encode(self, text: str) -> list[int]:
        """Return the ids of untrusted text; see `Tokenizer.encode`."""
        ids: list[int] = self.call("encode", text)
        return ids

    def encode_trusted(self, text: str) -> list[int]:
        """Return the ids of our own text; see `Tokenizer.encode_trusted`."""
        ids: list[int] = self.call("encode_trusted", text)
        return ids

    def encode_pieces(self, pieces: Iterable[str | ControlToken]) -> list[int]:
        """Return the ids of control tokens and the text between them; see `Tokenizer.encode_pieces`."""
        ids: list[int] = self.call("encode_pieces", [[piece.name] if isinstance(piece, ControlToken) else piece for piece in pieces])
        return ids

    def encode_prompt(self, text: str) -> list[int]:
        """Return the ids of an untrusted prompt; see `Tokenizer.encode_prompt`."""
        ids: list[int] = self.call("encode_prompt", text)
        return ids

    def token_bytes(self, token: int) -> bytes:
        """Return the exact bytes of a token; see `Tokenizer.token_bytes`."""
        ends, data = self.__dict__["_ends"], self.__dict__["_bytes"]
        if not 0 <= token < len(ends):
            return b""
        found: bytes = data[int(ends[token - 1]) if token else 0 : int(ends[token])]
        return found


class _Worker:
    """The process, started at need, and ended at a limit."""

    def __init__(self, folder: Path, answer_s: float) -> None:
        self._folder, self._answer_s = folder, answer_s
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._greeting: tuple[dict[str, Any], Any, bytes] | None = None

    def greeting(self) -> tuple[dict[str, Any], Any, bytes]:
        """Return what the tokenizer is: its facts, and the sizes and bytes of its tokens."""
        with self._lock:
            self._started()
            assert self._greeting is not None
            greeting, self._greeting = self._greeting, None
            return greeting

    def ask(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """Return what a function of the worker gives."""
        try:
            line = json.dumps({"call": name, "arguments": arguments, "seconds": self._answer_s}).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise RequestError("messages", "must hold strings, numbers, lists and tables", error) from error
        if not self._lock.acquire(timeout=self._answer_s):
            raise TemplateError("tokenizer", "is busy with another text", "", "Try again in some seconds.")
        try:
            header, ids = self._exchange(self._started(), line)
        finally:
            self._lock.release()
        if fault := header.get("fault"):
            raise raised(fault)
        if "pieces" in header:
            return tuple(ControlToken(piece[0]) if isinstance(piece, list) else piece for piece in header["pieces"])
        return np.frombuffer(ids, np.int32).tolist()

    def _exchange(self, process: "subprocess.Popen[bytes]", line: bytes) -> tuple[dict[str, Any], bytes]:
        assert process.stdin is not None
        assert process.stdout is not None
        timer = Timer(self._answer_s, process.kill)
        timer.start()
        try:
            with suppress(OSError):
                process.stdin.write(line)
                process.stdin.flush()
                return read_message(process.stdout)
        except EOFError:
            pass
        finally:
            timer.cancel()
        self._end()
        what = f"it took more than {self._answer_s:g} seconds, or more memory than it may"
        raise TemplateError("tokenizer", "This model's tokenizer or chat template can't read this text", what, "Ask in other words.")

    def _started(self) -> "subprocess.Popen[bytes]":
        """Return the running process; start one if there is none."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        command = [sys.executable, "-P", "-m", "ingle.model.tokenizer_worker", str(self._folder)]
        environment, pipe = {**os.environ, **_ENVIRONMENT}, subprocess.PIPE
        process = self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment)
        weakref.finalize(self, end_worker, process)
        assert process.stdout is not None
        timer = Timer(START_S, process.kill)
        timer.start()
        try:
            about, data = read_message(process.stdout)
        except (EOFError, OSError) as error:
            self._end()
            what = f"it took more than {START_S:g} seconds, or more memory than it may"
            raise CheckpointError("tokenizer", "can't be opened", what, "Remove this model: it is damaged, or means harm.") from error
        finally:
            timer.cancel()
        if fault := about.get("fault"):
            self._end()
            raise raised(fault)
        count = int(about["tokens"])
        self._greeting = about, np.frombuffer(data[: 4 * count], np.int32), data[4 * count :]
        return process

    def _end(self) -> None:
        if self._process is not None:
            end_worker(self._process)
        self._process = None
