"""Small files that take long or much to decode."""

import io
from functools import cache

import numpy as np
from PIL import Image


@cache
def scans(count: int, side: int = 6300) -> bytes:
    """A JPEG in scans, the last of which comes again and again: 61 bytes and tens of milliseconds each."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (30, 60, 90)).save(file, "JPEG", progressive=True, subsampling=0)
    whole = file.getvalue()
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * count + b"\xff\xd9"


@cache
def silence(seconds: int, rate: int) -> bytes:
    """A FLAC of nothing."""
    import soundfile

    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate, 1, format="FLAC") as out:
        for _ in range(seconds):
            out.write(np.zeros(rate, np.float32))
    return file.getvalue()


def looped(samples: "np.ndarray[tuple[int], np.dtype[np.float32]]", rate: int, seconds: int) -> bytes:
    """An Ogg (Opus) that says the same for so long."""
    import soundfile

    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate, 1, format="OGG", subtype="OPUS", compression_level=1.0) as out:
        for _ in range(-(-seconds * rate // len(samples))):
            out.write(samples)
    return file.getvalue()
