"""Strangers' files are decoded in another process: it has limits, and ends where nobody waits; this one grows by the result alone."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ingle.core.apart import StopFlag
from ingle.core.errors import Interrupted, RequestError
from ingle.media.decoder import MediaDecoder
from ingle.media.picture import KEPT_PIXELS, read_picture
from ingle.media.sound import Recording, read_sound, resampled
from tests.limited import cpu_s
from tests.media.bombs import scans, silence
from tests.waiting import PATIENCE_S, wait_until


@pytest.fixture(scope="module")
def decoder() -> Iterator[MediaDecoder]:
    handle = MediaDecoder(1)
    yield handle
    handle.close()


def peak_mb(decoder: MediaDecoder) -> int:
    """Most memory that its process ever held."""
    [pid] = decoder.pids
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) >> 10


def saved(image: Image.Image, format_: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def test_a_picture_is_the_same_as_here(decoder: MediaDecoder) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    data = saved(noise, "PNG")
    assert decoder.picture(data).digest == read_picture(data).digest
    with pytest.raises(RequestError, match="damaged") as refused:
        decoder.picture(data[:50], "messages[0]")
    assert refused.value.field == "messages[0]"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "scans"])
def test_the_largest_picture_takes_a_third_of_a_gigabyte(kind: str) -> None:
    whole = Image.new("RGBA" if kind == "PNG" else "RGB", (6300, 6300), (30, 60, 90))
    data = saved(whole, "PNG", compress_level=1) if kind == "PNG" else saved(whole, "JPEG", progressive=kind == "scans", subsampling=0)
    decoder = MediaDecoder(1)
    decoder.picture(saved(Image.new("RGB", (60, 60)), "PNG" if kind == "PNG" else "JPEG"))
    before = peak_mb(decoder)
    picture = decoder.picture(data)
    assert picture.pixels.shape == (3150, 3150, 3) and picture.pixels.size <= 3 * KEPT_PIXELS
    assert np.abs(picture.pixels[1000, 1000].astype(int) - (30, 60, 90)).max() <= 3
    assert peak_mb(decoder) - before < 360
    decoder.close()


def test_a_picture_that_takes_for_ever_ends_with_whoever_sent_it(decoder: MediaDecoder) -> None:
    data, stop = scans(3000), StopFlag()
    decoder.picture(saved(Image.new("RGB", (60, 60)), "JPEG"))
    [pid] = decoder.pids
    used = cpu_s(pid)

    def go_when_it_is_at_it() -> None:
        wait_until(lambda: cpu_s(pid) > used + 0.3, "it is being decoded")
        stop.set()

    with ThreadPoolExecutor() as others:
        gone = others.submit(go_when_it_is_at_it)
        with pytest.raises(Interrupted):
            decoder.picture(data, stop=stop)
        gone.result(PATIENCE_S)
    assert not decoder.pids


def test_twenty_minutes_of_silence_take_the_memory_of_a_piece() -> None:
    decoder = MediaDecoder(1)
    decoder.recording(silence(1, 192_000)).piece(0, 480_000, 16_000)
    before = peak_mb(decoder)
    recording = decoder.recording(silence(1200, 192_000))
    first = recording.piece(0, 480_000, 16_000)
    last = recording.piece(16_000 * 1190, 480_000, 16_000)
    assert len(first) == 480_000 and len(last) == 160_000 and not first.any()
    assert len(recording.piece(16_000 * 1300, 480_000, 16_000)) == 0
    assert peak_mb(decoder) - before < 150, "all of it would take 900"
    decoder.close()


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "MP3", "WAV"])
@pytest.mark.parametrize("rate", [48_000, 22_050, 16_000])
def test_pieces_make_the_whole(kind: str, rate: int) -> None:
    import soundfile

    time_s = np.arange(rate * 5) / rate
    samples = (0.4 * np.sin(2 * np.pi * (300 + 40 * time_s) * time_s)).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind)
    whole = resampled(read_sound(file.getvalue()), 16_000).samples
    recording, pieces, at = Recording(file.getvalue()), [], 0
    for size in (1, 7777, 30_001, 16_000, 480_000):
        pieces.append(recording.piece(at, size, 16_000))
        at += len(pieces[-1])
    together = np.concatenate(pieces)
    assert len(together) == len(whole) and np.abs(together - whole).max() < 1e-5
    again = recording.piece(20_000, 5000, 16_000)
    assert np.abs(again - whole[20_000:25_000]).max() < 1e-3, "whoever goes back finds the same"


def test_no_rate_leaves_much_behind() -> None:
    from ingle.media import sound as module

    for rate in range(190_001, 190_041):
        recording = Recording(wav(rate))
        assert 15_990 <= len(recording.piece(0, 20_000, 16_000)) <= 16_010
    kept = module._filters.cache_info()
    assert kept.currsize <= 8 and module._filters(*module._ratio(191_999, 16_000))[0].nbytes < 2_000_000


def wav(rate: int) -> bytes:
    from ingle.core.media import Sound
    from ingle.media.sound import wav_of

    return wav_of(Sound(np.zeros(rate, np.float32), rate))
