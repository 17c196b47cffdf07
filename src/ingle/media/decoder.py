"""Strangers' files of pictures and sounds, decoded in processes of their own (decoder_worker.py).

A file of some kilobytes can take minutes and gigabytes to decode. Here it takes what a decode may take and no more: the process ends at the
limit, or when nobody waits for it any more, and nothing else does.
"""

from queue import LifoQueue
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ingle.core.apart import CallFailed, ProcessApart, ProcessEnded, StopFlag
from ingle.core.digest import digest_bytes
from ingle.core.errors import RequestError
from ingle.core.media import Picture, Sound
from ingle.media.sound import piece_of

PLACES = 2  # processes at once: beside one that is kept busy, others' files are decoded in the other
# Longest time for a file or a piece, and without a question; the limit of processor time comes sooner, unless the machine is busy.
_ANSWER_S, _IDLE_S = 60.0, 20.0


class Audible(Protocol):
    """Sound that can be read piece by piece."""

    @property
    def digest(self) -> str: ...

    def piece(self, start: int, count: int, rate: int, stop: StopFlag | None = None) -> npt.NDArray[np.float32]:
        """Return `count` samples from number `start` on, at `rate`; fewer at the end. Raises RequestError for a damaged file."""
        ...


class MediaDecoder:
    """The handle of the processes. Safe to use from several threads; each file or piece has a process for itself."""

    def __init__(self, places: int = PLACES) -> None:
        """Starts nothing."""
        self._all = [ProcessApart("ingle.media.decoder_worker", _ANSWER_S, _IDLE_S) for _ in range(places)]
        self._free: LifoQueue[ProcessApart] = LifoQueue()  # the last one used first: the others end when they are idle
        for one in self._all:
            self._free.put(one)

    def picture(self, data: bytes, at: str = "picture", stop: StopFlag | None = None) -> Picture:
        """Return the picture in a file; see `media.picture.read_picture`. Raises Interrupted where nobody waits any more."""
        header, pixels = self.ask("picture", {}, data, at, stop)
        return Picture(np.frombuffer(pixels, np.uint8).reshape(header["height"], header["width"], 3))

    def recording(self, data: bytes, at: str = "sound") -> "DecodedApart":
        """Return a recording that is decoded when it is read. `at` names it in errors."""
        return DecodedApart(self, data, at)

    def close(self) -> None:
        """End the processes. A later question starts one again."""
        for one in self._all:
            one.close()

    @property
    def cpu_s(self) -> float:
        """Seconds of processor time that all answers took."""
        return sum(one.cpu_s for one in self._all)

    @property
    def pids(self) -> list[int]:
        """Numbers of the processes that there are."""
        return [one.pid for one in self._all if one.pid is not None]

    def ask(self, call: str, facts: dict[str, Any], data: bytes, at: str, stop: StopFlag | None) -> tuple[dict[str, Any], bytes]:
        """Return the answer of a process that is free. Raises RequestError, which names the place `at`, for what can't be decoded."""
        apart = self._free.get()
        try:
            return apart.ask(call, facts, data, stop)
        except RequestError as error:
            raise RequestError(at, error.rule, error.got, error.cure) from error
        except CallFailed as error:
            raise RequestError(at, "This file can't be decoded", str(error)[:100], "Save it again, or make it smaller.") from None
        except ProcessEnded:
            rule = "This file takes more time or memory to decode than any that a camera, a microphone or an editor writes"
            raise RequestError(at, rule, f"{len(data):,} bytes", "Save it again, or make it smaller.") from None
        finally:
            self._free.put(apart)


class DecodedApart:
    """A recording in a file, of which the decoder's process reads a piece at a time."""

    def __init__(self, decoder: MediaDecoder, data: bytes, at: str) -> None:
        self._decoder, self._data, self._at = decoder, data, at
        self.digest = digest_bytes(data)

    def piece(self, start: int, count: int, rate: int, stop: StopFlag | None = None) -> npt.NDArray[np.float32]:
        """Return samples; see `Audible.piece`."""
        facts = {"digest": self.digest, "start": start, "count": count, "rate": rate}
        return np.frombuffer(self._decoder.ask("piece", facts, self._data, self._at, stop)[1], np.float32)


class InMemory:
    """A sound that is decoded already."""

    def __init__(self, sound: Sound) -> None:
        self._sound = sound

    @property
    def digest(self) -> str:
        """Digest of its rate and samples."""
        return self._sound.digest

    def piece(self, start: int, count: int, rate: int, _stop: StopFlag | None = None) -> npt.NDArray[np.float32]:
        """Return samples; see `Audible.piece`."""
        return piece_of(self._sound, start, count, rate)
