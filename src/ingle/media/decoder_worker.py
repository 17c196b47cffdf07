"""The process behind `MediaDecoder`. `python -P -m ingle.media.decoder_worker`; it ends with its standard input."""

from collections import OrderedDict
from typing import Any

import numpy as np

from ingle.core.apart import Answer, answer_calls
from ingle.core.process import memory_bytes
from ingle.media.picture import read_picture
from ingle.media.sound import Recording

# Address space: the largest picture that may be sent takes two thirds of the first number. Where there is little memory, a share of it.
_MOST_BYTES, _LEAST_BYTES, _SHARE = 512 << 20, 128 << 20, 6
_CPU_S = 12  # processor time for one file or piece: the largest pictures take two seconds
_NICE = 10
# Recordings that are open, the last one last: the next piece then needs no search in the file.
_OPEN: "OrderedDict[str, Recording]" = OrderedDict()
_MOST_OPEN = 2


def main() -> None:
    """Answer until standard input ends."""
    more = max(_LEAST_BYTES, min(_MOST_BYTES, memory_bytes() // _SHARE))
    answer_calls({"picture": _picture, "piece": _piece}, more, _NICE, _CPU_S)


def _picture(_question: dict[str, Any], data: bytes) -> Answer:
    pixels = read_picture(data).pixels
    return {"height": pixels.shape[0], "width": pixels.shape[1]}, pixels.tobytes()


def _piece(question: dict[str, Any], data: bytes) -> Answer:
    digest = question["digest"]
    recording = _OPEN.pop(digest, None) or Recording(data)
    samples = recording.piece(question["start"], question["count"], question["rate"])
    _OPEN[digest] = recording
    while len(_OPEN) > _MOST_OPEN:
        _OPEN.popitem(last=False)
    return {}, np.ascontiguousarray(samples).tobytes()


if __name__ == "__main__":
    main()
