"""Bytes become sound: every kind of WAV and what soundfile reads, within limits that the header is held to before anything is decoded."""

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import ConfigError, IngleError, RequestError
from ingle.core.media import Sound
from ingle.media import sound as sounds
from ingle.media.sound import FORMATS, encoded, joined, pcm16_of, read_sound, resampled, wav_header, wav_of
from tests.examples import examples


def tone(rate: int = 16_000, seconds: float = 0.5, hertz: float = 440.0) -> Sound:
    return Sound((0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype(np.float32), rate)


def wav(raw: bytes, bits: int = 16, channels: int = 1, rate: int = 16_000, kind: int = 1, size: int | None = None) -> bytes:
    frame = channels * bits // 8
    about = struct.pack("<HHIIHH", kind, channels, rate, rate * frame, frame, bits)
    head = b"RIFF" + struct.pack("<I", 36 + len(raw)) + b"WAVE" + b"fmt " + struct.pack("<I", 16) + about
    return head + b"data" + struct.pack("<I", len(raw) if size is None else size) + raw


def as_bytes(samples: np.ndarray, bits: int, kind: int = 1) -> bytes:
    if kind == 3:
        return samples.astype(f"<f{bits // 8}").tobytes()
    if bits == 8:
        return np.round(samples * 127 + 128).astype(np.uint8).tobytes()
    whole = np.round(samples.astype(np.float64) * (2.0 ** (bits - 1) - 1)).astype("<i4")
    return whole.view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes()


@pytest.mark.parametrize(("bits", "kind"), [(8, 1), (16, 1), (24, 1), (32, 1), (32, 3), (64, 3)])
def test_every_kind_of_wav_is_read(bits: int, kind: int) -> None:
    want = tone()
    got = read_sound(wav(as_bytes(want.samples, bits, kind), bits, kind=kind))
    assert (got.rate, got.samples.dtype, len(got.samples)) == (16_000, np.float32, 8000)
    assert np.abs(got.samples - want.samples).max() < 1.1 / 2 ** (min(bits, 20) - 1)


def test_a_wav_is_read_as_soundfile_reads_it(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    stereo = np.stack([tone().samples, tone(hertz=700).samples], axis=1)
    for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"):
        for kind in ("WAV", "WAVEX"):
            path = tmp_path / "a.wav"
            soundfile.write(path, stereo, 48_000, format=kind, subtype=subtype)
            want, rate = soundfile.read(path, dtype="float32")
            got = read_sound(path.read_bytes())
            assert got.rate == rate
            assert np.abs(got.samples - want.mean(axis=1)).max() < 1e-6, (kind, subtype)


def test_a_wav_whose_writer_did_not_know_the_length() -> None:
    want = tone()
    streamed = wav_header(want.rate) + pcm16_of(want)
    assert len(read_sound(streamed).samples) == len(want.samples)
    with_zero = wav(pcm16_of(want), size=0)
    assert len(read_sound(with_zero).samples) == len(want.samples)


def test_chunks_before_and_after_the_samples_are_passed_over() -> None:
    raw = pcm16_of(tone())
    whole = wav(raw)
    listed = whole[:36] + b"LIST" + struct.pack("<I", 5) + b"INFOx\0" + whole[36:] + b"PK\x03\x04 a zip file behind it"
    assert len(read_sound(listed).samples) == len(raw) // 2


BAD = {
    "nothing": (b"", "sound must not be empty"),
    "text": (b"hello there, this is no sound", "must be WAV, FLAC, Ogg"),
    "webm": (b"\x1a\x45\xdf\xa3" + bytes(100), "must be WAV, FLAC, Ogg"),
    "a zip that calls itself nothing": (b"PK\x03\x04" + bytes(100), "must be WAV, FLAC, Ogg"),
    "an HTML page with a WAV inside": (b"<html>" + wav(bytes(200)), "must be WAV, FLAC, Ogg"),
    "only a header": (wav(bytes(200))[:36], "header without samples"),
    "half a header": (wav(bytes(200))[:20], "header without samples"),
    "0 seconds": (wav(b""), "must have sound in it, not 0 seconds"),
    "3 hours by its header": (wav(bytes(200), size=3 * 3600 * 32_000), "must be at most 2 hours long, not 3.0 hours"),
    "10 hours by its header": (wav(bytes(200), bits=8, rate=8000, size=10 * 3600 * 8000), "must be at most 2 hours long, not 10.0 hours"),
    "cut off": (wav(bytes(200), size=4000), "must be whole: 200 of 4,000 bytes"),
    "no channels": (wav(bytes(200), channels=0), "must have 1 to 8 channels, not 0"),
    "64 channels": (wav(bytes(2560), channels=64), "must have 1 to 8 channels, not 64"),
    "1 sample a second": (wav(bytes(200), rate=1), "must have 4,000 to 192,000 samples per second, not 1"),
    "1 GHz": (wav(bytes(200), rate=10**9), "must have 4,000 to 192,000"),
    "12 bits": (wav(bytes(200), bits=12), "must be PCM of 8, 16, 24 or 32 bits"),
    "a-law": (wav(bytes(200), bits=8, kind=6), "must be PCM of 8, 16, 24 or 32 bits"),
    "NaN": (wav(np.full(50, np.nan, "<f4").tobytes(), 32, kind=3), "must hold numbers only, not NaN or infinity"),
    "infinity": (wav(np.full(50, np.inf, "<f4").tobytes(), 32, kind=3), "must hold numbers only"),
    "a double beyond floats": (wav(np.full(50, 1e300, "<f8").tobytes(), 64, kind=3), "must hold numbers only"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_sound_is_refused_in_a_sentence_at_once(what: str) -> None:
    data, message = BAD[what]
    read_sound(wav(bytes(200)))
    tracemalloc.start()
    try:
        with pytest.raises(RequestError) as caught:
            read_sound(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20, "nothing is decoded first, whatever the header says"
    finally:
        tracemalloc.stop()
    assert message in str(caught.value)


def test_what_is_odd_and_good_all_the_same() -> None:
    loud = read_sound(wav(np.full(50, 7.0, "<f4").tobytes(), 32, kind=3))
    assert loud.samples.max() == 1.0
    assert read_sound(wav(bytes(1920), rate=96_000)).rate == 96_000
    assert not read_sound(wav(bytes(200))).samples.any()
    assert len(read_sound(wav(bytes(199), size=200)).samples) == 99


@given(st.binary(max_size=300), st.sampled_from([b"", b"RIFF\0\0\0\0WAVE", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", wav(bytes(20))[:40]]))
@examples(300)
def test_whatever_comes_is_sound_or_an_error_of_ours(tail: bytes, head: bytes) -> None:
    try:
        got = read_sound(head + tail)
    except IngleError:
        return
    assert np.isfinite(got.samples).all()
    assert len(got.samples)


@pytest.mark.parametrize("format_", [name for name in FORMATS if name != "pcm"])
def test_what_is_written_is_read_again(format_: str) -> None:
    pytest.importorskip("soundfile")
    want = tone(24_000, 1.0)
    got = read_sound(encoded(want, format_))
    assert got.rate == want.rate
    assert abs(got.seconds - want.seconds) < 0.1
    spectrum = np.abs(np.fft.rfft(got.samples[: 24_000 // 2]))
    assert abs(int(spectrum.argmax()) * 2 - 440) <= 4, "the tone is what it was"


@pytest.mark.parametrize("format_", ["flac", "opus", "mp3"])
def test_other_kinds_cut_off_or_too_long(format_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("soundfile")
    data = encoded(tone(24_000, 3.0), format_)
    with pytest.raises(RequestError):
        read_sound(data[:60])
    monkeypatch.setattr(sounds, "MAX_S", 2)
    with pytest.raises(RequestError, match="must be at most"):
        read_sound(data)


def test_unknown_formats_and_a_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match="format must be one of wav, pcm, flac, opus, mp3, not aac"):
        encoded(tone(), "aac")
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(ConfigError, match=r"soundfile, which is not installed\. Send WAV, or install it\. Run: "):
        read_sound(b"OggS" + bytes(100))
    assert read_sound(wav_of(tone())).rate == 16_000, "WAV needs no library"


@pytest.mark.parametrize(
    "rates", [(44_100, 16_000), (22_050, 16_000), (48_000, 16_000), (8_000, 16_000), (96_000, 16_000), (22_050, 24_000)]
)
def test_resampling_keeps_what_both_rates_can_hold_and_nothing_else(rates: tuple[int, int]) -> None:
    have, want = rates
    low = resampled(tone(have, 1.0, 700.0), want)
    assert len(low.samples) == want
    assert np.abs(low.samples - tone(want, 1.0, 700.0).samples)[400:-400].max() < 1e-4
    if have > want:  # what would come back as another tone is gone
        assert np.abs(resampled(tone(have, 1.0, want / 2 + 1000), want).samples)[400:-400].max() < 1e-3


def test_resampling_agrees_with_the_convolution_that_it_stands_for() -> None:
    """The naive twin: put zeros between the samples, convolve with the whole filter, keep every third."""
    scipy = pytest.importorskip("scipy.signal")
    noise = Sound(np.random.default_rng(1).standard_normal(3000).astype(np.float32) * 0.1, 48_000)
    fast = resampled(noise, 32_000)
    filters, half = sounds._filters(2, 3)
    whole = np.zeros((2 * half + 1) * 2)
    for phase in range(2):
        at = phase * 3 % 2
        whole[at::2] = filters[phase][::-1]
    spread = np.zeros(6000)
    spread[::2] = noise.samples
    naive = scipy.fftconvolve(spread, whole)[2 * half : 2 * half + 6000][::3]
    assert np.abs(fast.samples - naive)[100:-100].max() < 1e-5


def test_pieces_are_joined() -> None:
    assert joined(iter([tone(), tone()])).seconds == 1.0
    with pytest.raises(RequestError, match="must hold something that can be spoken"):
        joined(iter([Sound(np.zeros(0, np.float32), 16_000)]))
