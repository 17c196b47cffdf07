"""A stranger's tokenizer and chat template in a process of their own.

Both come with a model and work on what people type, so what they will do can't be known beforehand: a regular expression that never ends, a
text that grows a thousandfold, a table within a table within a table. In the server's own process, one such call could hold the
interpreter, or end it. Here a call takes its time and memory in another process (tokenizer_worker.py), which is ended at the limit; the
request gets an error, and nobody else waits. The server reads a table of the tokens' bytes, and no file of the model.
"""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ingle.core.apart import ONE_THREAD, Answer, ApartError, ProcessApart, ProcessBusy
from ingle.core.clock import REAL, Clock
from ingle.core.config import from_table
from ingle.core.errors import CheckpointError, RequestError, TemplateError
from ingle.model.tokenizer import ControlToken, Tokenizer, TokenizerFacts

ANSWER_S = 10.0  # seconds for one text or conversation; a thousand messages take some hundredths
START_S = 60.0  # seconds until a worker is ready: half a second on a quiet machine


class TokenizerApart(Tokenizer):
    """A tokenizer whose work is done by another process. Safe to use from several threads, which take turns."""

    def __init__(self, folder: Path, answer_s: float = ANSWER_S, clock: Clock = REAL) -> None:
        """`folder`: as for `open_tokenizer`. Raises CheckpointError for a tokenizer that can't be opened within the limits."""
        apart = ProcessApart("ingle.model.tokenizer_worker", answer_s, None, START_S, answer_s, ONE_THREAD, clock)
        self.__dict__.update(_apart=apart, _folder=str(folder))
        about, data = self._open()
        sizes, words = np.split(np.frombuffer(data, np.uint8), [4 * about["tokens"]])
        object.__setattr__(self, "facts", from_table(TokenizerFacts, about["facts"]))
        self.__dict__.update(control=about["control"], longest_token=about["longest_token"])
        self.__dict__.update(vocab_size=about["tokens"], _ends=np.cumsum(sizes.view(np.int32), dtype=np.int64), _bytes=words.tobytes())

    def _open(self) -> Answer:
        """Have the files read. Beginning a process takes longer than a text may, so this comes first in each."""
        try:
            answer: Answer = self.__dict__["_apart"].ask("open", {"folder": self.__dict__["_folder"]})
        except ProcessBusy:  # others have it opened just now
            raise
        except ApartError as error:
            raise CheckpointError("tokenizer", "can't be opened", error, "Remove this model: it is damaged, or means harm.") from error
        return answer

    @property
    def fast(self) -> Any:
        """Nothing: the library's tokenizer lies in the other process."""
        raise AssertionError("this tokenizer lies in another process")

    @property
    def apart(self) -> "TokenizerApart":
        return self

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """The ids of the control tokens."""
        return frozenset(self.control.values())

    def call(self, name: str, *arguments: Any) -> Any:
        """Return what the worker's function gives. Raises what it raises; TemplateError where it breaks off, or takes too long."""
        apart: ProcessApart = self.__dict__["_apart"]
        try:
            if apart.pid is None:
                self._open()
            header, ids = apart.ask(name, {"folder": self.__dict__["_folder"], "arguments": arguments})
        except ProcessBusy:
            raise TemplateError("tokenizer", "is busy with another text", "", "Try again in some seconds.") from None
        except ApartError as error:
            rule = "This model's tokenizer or chat template can't read this text"
            raise TemplateError("tokenizer", rule, error, "Ask in other words.") from None
        except (TypeError, ValueError, RecursionError) as error:  # of JSON, before anything is sent
            raise RequestError("messages", "must hold strings, numbers, lists and tables", error) from error
        if "pieces" in header:
            return tuple(ControlToken(piece[0]) if isinstance(piece, list) else piece for piece in header["pieces"])
        return np.frombuffer(ids, np.int32).tolist()

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
