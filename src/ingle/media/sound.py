"""Bytes → sound, and back. WAV is read and written here; FLAC, Ogg (Vorbis, Opus) and MP3 by the library soundfile.

The first bytes say what a file is, and its name doesn't matter. Length, rate and channels are checked in the header, before anything is
decoded; a header that says less than follows is caught while decoding.
"""

import io
import struct
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ConfigError, RequestError
from ingle.core.files import how_to_install
from ingle.core.media import Sound

MAX_S = 2 * 3600
MAX_CHANNELS = 8
MIN_RATE, MAX_RATE = 4_000, 192_000
_KINDS = "WAV, FLAC, Ogg (Vorbis or Opus) or MP3"
_BLOCK = 1 << 18
# Samples that are read and dropped: a frame of an MP3 takes bits from those before it, and the library searches anew for each read.
_RUN_UP = 1 << 14
_UNKNOWN_SIZE = (0, 0xFFFFFFFF, 0x7FFFFFFF)  # sizes that programs write into the header of a WAV before they know it
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_HALF_WIDTH = 24  # zero crossings of the resampling filter on each side
# Formats that can be written, with their media types.
FORMATS = {"wav": "audio/wav", "pcm": "audio/pcm", "flac": "audio/flac", "opus": "audio/ogg", "mp3": "audio/mpeg"}
_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)


@dataclass(frozen=True, slots=True)
class _WavHeader:
    format: int
    channels: int
    rate: int
    bits: int
    start: int  # where the samples begin
    size: int | None  # their bytes; None = to the end of the file


class Recording:
    """A file of sound, read piece by piece: of its samples no more is held than a piece."""

    def __init__(self, data: bytes) -> None:
        """Reads the header.

        Raises RequestError for what is no sound, is empty, damaged, too long or of a rate that we don't read; ConfigError where soundfile
        is needed and missing.
        """
        if not data:
            raise _fault("must not be empty", "0 bytes")
        if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
            self._file: _Wav | _Other = _Wav(data)
        elif data[:4] in (b"fLaC", b"OggS") or data[:3] == b"ID3" or (data[0] == 0xFF and data[1:2] and data[1] & 0xE0 == 0xE0):
            self._file = _Other(data)
        else:
            raise _fault(f"must be {_KINDS}", f"bytes that begin with {data[:8]!r}", "Convert it first, for example to WAV.")
        self.rate = self._file.rate
        self.frames = self._file.frames  # samples of each channel; None = nothing says it before the end

    def read(self, start: int, count: int) -> npt.NDArray[np.float32]:
        """Return samples, the channels mixed into one; fewer than `count` at the end. Raises RequestError where the file is damaged."""
        if self.frames is None and start > MAX_S * self.rate:
            raise _too_long(start / self.rate)
        pieces = [self._file.read(at, min(_BLOCK, start + count - at)) for at in range(start, start + count, _BLOCK)]
        samples = np.concatenate(pieces) if pieces else np.empty(0, np.float32)
        if not np.isfinite(samples).all():
            raise _fault("must hold numbers only", "NaN or infinity", "The file is damaged; export it again.")
        return np.clip(samples, -1.0, 1.0, out=samples)

    def piece(self, start: int, count: int, rate: int) -> npt.NDArray[np.float32]:
        """Return `count` samples from number `start` on, as if all of it had been resampled to `rate`; fewer at the end."""
        return resampled_piece(self.read, self.rate, rate, start, count)


def read_sound(data: bytes) -> Sound:
    """Return a whole recording, its channels mixed into one. Raises what `Recording` raises."""
    recording, pieces = Recording(data), list[npt.NDArray[np.float32]]()
    while len(piece := recording.read(sum(map(len, pieces)), _BLOCK)):
        pieces.append(piece)
    samples = np.concatenate(pieces) if pieces else np.empty(0, np.float32)
    _check(1, recording.rate, len(samples))
    return Sound(samples, recording.rate)


def _fault(rule: str, got: object, cure: str = "") -> RequestError:
    return RequestError("sound", rule, got, cure)


def _check(channels: int, rate: int, frames: int) -> None:
    if not 1 <= channels <= MAX_CHANNELS:
        raise _fault(f"must have 1 to {MAX_CHANNELS} channels", channels)
    if not MIN_RATE <= rate <= MAX_RATE:
        raise _fault(f"must have {MIN_RATE:,} to {MAX_RATE:,} samples per second", f"{rate:,}")
    if frames <= 0:
        raise _fault("must have sound in it", "0 seconds")
    if frames > MAX_S * rate:
        raise _too_long(frames / rate)


def _too_long(seconds: float) -> RequestError:
    return _fault(f"must be at most {MAX_S // 3600} hours long", f"{seconds / 3600:.1f} hours", "Cut it into parts.")


class _Wav:
    """A WAV, read here."""

    def __init__(self, data: bytes) -> None:
        self._data, self._header = data, _wav_header(data)
        header = self._header
        if (header.format, header.bits) not in {(_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32), (_FLOAT, 64)}:
            raise _fault("must be PCM of 8, 16, 24 or 32 bits, or floats of 32 or 64", f"WAV format {header.format}, {header.bits} bits")
        self._frame = header.bits // 8 * max(1, header.channels)
        there = len(data) - header.start
        size = there if header.size is None else header.size
        _check(header.channels, header.rate, size // self._frame)
        if size > there + 1:  # some programs leave out the last byte, which fills up to an even number
            raise _fault("must be whole", f"{there:,} of {size:,} bytes", "The file was cut off; get it again.")
        self.rate, self.frames = header.rate, min(size, there) // self._frame

    def read(self, start: int, count: int) -> npt.NDArray[np.float32]:
        header, count = self._header, max(0, min(count, self.frames - start))
        raw = np.frombuffer(self._data, np.uint8, count * self._frame, header.start + start * self._frame if count else 0)
        samples: npt.NDArray[np.float32] = _samples(raw, header.format, header.bits // 8).reshape(-1, header.channels).mean(1, np.float32)
        return samples


def _wav_header(data: bytes) -> _WavHeader:
    about: tuple[int, ...] | None = None
    place = 12
    while place + 8 <= len(data):
        name, size = data[place : place + 4], struct.unpack_from("<I", data, place + 4)[0]
        place += 8
        if name == b"fmt " and size >= 16 and place + 16 <= len(data):
            about = struct.unpack_from("<HHIIHH", data, place)
            if about[0] == _EXTENSIBLE and size >= 26 and place + 26 <= len(data):
                about = (struct.unpack_from("<H", data, place + 24)[0], *about[1:])
        if name == b"data" and about is not None:
            kind, channels, rate, _, _, bits = about
            return _WavHeader(kind, channels, rate, bits, place, None if size in _UNKNOWN_SIZE and len(data) > place else size)
        place += size + size % 2
    raise _fault("must be a whole WAV file", "a header without samples", "The file is damaged or was cut off; get it again.")


def _samples(raw: npt.NDArray[np.uint8], kind: int, width: int) -> npt.NDArray[np.float32]:
    if kind == _FLOAT:
        with np.errstate(over="ignore", invalid="ignore"):
            return raw.view(f"<f{width}").astype(np.float32)
    if width == 1:
        return (raw.astype(np.float32) - 128.0) / 128.0
    if width == 3:
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = raw.reshape(-1, 3)
        return wide.view("<i4").reshape(-1).astype(np.float32) / 2.0**31
    return raw.view(f"<i{width}").astype(np.float32) / np.float32(2.0 ** (8 * width - 1))


class _Other:
    """A FLAC, Ogg or MP3, read by the library."""

    def __init__(self, data: bytes) -> None:
        self._library = _library()
        with self._faults():
            self._sound = self._library.SoundFile(io.BytesIO(data))
            channels, self.rate, frames = int(self._sound.channels), int(self._sound.samplerate), int(self._sound.frames)
            # MP3 without a table of contents has no length in its header; then what comes is counted.
            self.frames = frames if 0 < frames < 1 << 50 else None
            _check(channels, self.rate, 1 if self.frames is None else frames)
            self._end = self.frames or 1 << 50

    def read(self, start: int, count: int) -> npt.NDArray[np.float32]:
        if start >= self._end:
            return np.empty(0, np.float32)
        with self._faults():
            before = min(start, _RUN_UP)
            self._sound.seek(start - before)
            read = self._sound.read(before + count, dtype="float32", always_2d=True)[before:]
            block: npt.NDArray[np.float32] = read.mean(axis=1, dtype=np.float32)
        if len(block) < count:
            self._end = start + len(block)
        return block

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except self._library.LibsndfileError as error:
            raise _fault(f"must be whole {_KINDS}", error, "The file is damaged, was cut off or is of another kind.") from error


def _library() -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:
        rule = "Sound other than WAV needs soundfile, which is not installed"
        raise ConfigError("soundfile", rule, "", f"Send WAV, or install it. {how_to_install('speech')}") from error
    return soundfile


def resampled(sound: Sound, rate: int) -> Sound:
    """Return a sound at another rate, by a windowed sinc: what lies above half the lower rate is taken away first."""
    up, down = _ratio(sound.rate, rate)
    count = -(-len(sound.samples) * up // down)
    return sound if sound.rate == rate else Sound(resampled_piece(_reader(sound), sound.rate, rate, 0, count), rate)


def piece_of(sound: Sound, start: int, count: int, rate: int) -> npt.NDArray[np.float32]:
    """Return `count` samples from number `start` on, as if all of a sound had been resampled to `rate`; fewer at the end."""
    return resampled_piece(_reader(sound), sound.rate, rate, start, count)


Reader = Callable[[int, int], npt.NDArray[np.float32]]  # returns so many samples from a place on; fewer at the end


def _reader(sound: Sound) -> Reader:
    return lambda start, count: sound.samples[start : start + count]


def resampled_piece(read: Reader, from_rate: int, rate: int, start: int, count: int) -> npt.NDArray[np.float32]:
    """Return `count` samples from number `start` on of what `read` reads, resampled; fewer at the end."""
    up, down = _ratio(from_rate, rate)
    if up == down:
        return read(start, count)
    filters, half = _filters(up, down)
    first, last = start * down // up - half, (start + count - 1) * down // up + half
    there = read(max(0, first), last + 1 - max(0, first))
    whole = max(0, first) + len(there)  # samples up to here; it ends here if fewer came than were wanted
    count = min(count, max(0, -(-whole * up // down) - start))
    padded = np.pad(there, (max(0, -first), max(0, last + 1 - whole)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, filters.shape[1])
    out = np.empty(count, np.float32)
    for place in range(min(up, count)):
        number = start + place
        begin = number * down // up - half - first
        out[place::up] = windows[begin::down][: len(out[place::up])] @ filters[number % up]
    return out


# 11,025 to 16,000 a second takes as many. Other rates are taken for the nearest ratio with no more: three millionths off at most.
_MOST_PHASES = 640


def _ratio(from_rate: int, rate: int) -> tuple[int, int]:
    """Return how many samples at `rate` go for how many at `from_rate`."""
    exact = Fraction(rate, from_rate)
    near = exact if exact.numerator <= _MOST_PHASES else 1 / Fraction(from_rate, rate).limit_denominator(_MOST_PHASES)
    return near.numerator, near.denominator


@lru_cache(maxsize=8)
def _filters(up: int, down: int) -> tuple[npt.NDArray[np.float32], int]:
    """Return one filter for each of `up` places between two samples, and how many samples each begins before its own."""
    cut = min(1.0, up / down) * 0.95
    half = int(np.ceil(_HALF_WIDTH / cut))
    offsets = (np.arange(up) * down % up / up)[:, None] - (np.arange(2 * half + 1) - half)[None, :]
    window = np.i0(9.0 * np.sqrt(np.clip(1.0 - (offsets / (half + 1)) ** 2, 0.0, 1.0))) / np.i0(9.0)
    filters = cut * np.sinc(cut * offsets) * window
    return (filters / filters.sum(axis=1, keepdims=True)).astype(np.float32), half


def pcm16_of(sound: Sound) -> bytes:
    """Return the samples as whole numbers of 16 bits, little-endian."""
    return np.round(np.clip(sound.samples, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()


def wav_header(rate: int, nbytes: int | None = None) -> bytes:
    """Return the head of a WAV file with `nbytes` of 16-bit samples; None = as many as will follow."""
    size = 0xFFFFFFFF if nbytes is None else nbytes
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", min(0xFFFFFFFF, size + 36), b"WAVE", b"fmt ", 16, _PCM, 1, rate, 2 * rate, 2, 16, b"data", size
    )


def wav_of(sound: Sound) -> bytes:
    """Return a WAV file of 16-bit samples."""
    samples = pcm16_of(sound)
    return wav_header(sound.rate, len(samples)) + samples


def encoded(sound: Sound, format_: str) -> bytes:
    """Return a file of one of FORMATS. Raises RequestError for another one, ConfigError where soundfile is needed and missing."""
    if format_ not in FORMATS:
        raise RequestError("format", f"must be one of {', '.join(FORMATS)}", format_)
    if format_ == "pcm":
        return pcm16_of(sound)
    if format_ == "wav":
        return wav_of(sound)
    library, file = _library(), io.BytesIO()
    if format_ == "opus" and sound.rate not in _OPUS_RATES:
        sound = resampled(sound, 24_000)
    kind, coding = {"flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III")}[format_]
    library.write(file, sound.samples, sound.rate, format=kind, subtype=coding)
    return file.getvalue()


def joined(sounds: Iterator[Sound]) -> Sound:
    """Return sounds of one rate as one. Raises RequestError if there are none."""
    pieces = [sound for sound in sounds if len(sound.samples)]
    if not pieces:
        raise RequestError("text", "must hold something that can be spoken", "nothing")
    return Sound(np.concatenate([piece.samples for piece in pieces]), pieces[0].rate)


# Whose turn it is: finds where somebody begins and ends to speak, by the energy in the band of voices above the noise of the room.
# The noise of the room is the level below which a tenth of the last seconds lies, so a steady fan is no speech for longer than that. A
# click is too short to begin a turn. It knows voices from silence, not from music.


FRAME_S = 0.02
_BAND_HZ = (200.0, 4000.0)
_FLOOR_S, _FLOOR_SHARE = 4.0, 0.1  # seconds over which the noise is judged, and the share of them that is taken to be noise
# Noise of the room (dB below full scale) before anything was heard, and for how many frames it counts.
_FIRST_FLOOR, _FIRST_FRAMES = -62.0, 8
_LEAST_DB = -52.0  # level below which nothing is speech, however quiet the room is
_EASIEST_DB, _HARDEST_DB = 3.0, 21.0  # distance from the noise at threshold 0 and 1
_HOLDS_DB = 3.0  # once somebody speaks, so much less is still speech
_BEGIN_FRAMES, _OF_FRAMES = 4, 6
QUIET_S = 0.2  # a pause after which it is worth listening ahead: it may be the end


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """When a turn begins and ends."""

    threshold: float = 0.5  # 0 = every sound is speech, 1 = only a loud voice
    prefix_s: float = 0.3  # sound before the beginning that belongs to it
    silence_s: float = 0.5  # a pause that ends a turn

    def __post_init__(self) -> None:
        limits = {"threshold": (0.0, 1.0), "prefix_s": (0.0, 5.0), "silence_s": (0.1, 10.0)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise RequestError(f"turn_detection.{name}", f"must be between {low} and {high}", getattr(self, name))


@dataclass(frozen=True, slots=True)
class TurnChange:
    """Something that changed."""

    kind: Literal["began", "quiet", "ended"]  # `quiet`: a pause that may become the end
    at_s: float  # from the beginning of the stream: where the turn begins with its prefix, or where its last sound ended


class TurnDetector:
    """Listens to a stream of sound."""

    def __init__(self, rate: int, settings: TurnSettings = TurnSettings()) -> None:
        self.settings, self._rate, self._frame = settings, rate, round(rate * FRAME_S)
        self._window = np.hanning(self._frame).astype(np.float32)
        self._full_scale = self._frame * float(np.square(self._window).sum()) / 2
        hertz = np.fft.rfftfreq(self._frame, 1 / rate)
        self._band = (hertz >= _BAND_HZ[0]) & (hertz <= _BAND_HZ[1])
        self._levels: deque[float] = deque([_FIRST_FLOOR] * _FIRST_FRAMES, maxlen=round(_FLOOR_S / FRAME_S))
        self._lately: deque[bool] = deque(maxlen=_OF_FRAMES)
        self._rest = np.empty(0, np.float32)
        self._frames, self._spoke = 0, 0
        self._speaking = self._quiet = False

    @property
    def speaking(self) -> bool:
        """Whether it is the speaker's turn."""
        return self._speaking

    def feed(self, samples: npt.NDArray[np.float32]) -> list[TurnChange]:
        """Take more of the stream; returns what changed in it."""
        waiting = np.concatenate([self._rest, samples])
        count = len(waiting) // self._frame
        self._rest = waiting[count * self._frame :]
        if not count:
            return []
        frames = waiting[: count * self._frame].reshape(count, self._frame) * self._window
        power = np.square(np.abs(np.fft.rfft(frames, axis=1))[:, self._band]).sum(axis=1) / (
            self._frame * np.square(self._window).sum() / 2
        )
        levels = 10 * np.log10(power + 1e-10)
        return [change for level in levels for change in self._take(float(level))]

    def _take(self, level: float) -> list[TurnChange]:
        self._frames += 1
        self._levels.append(level)
        above = _EASIEST_DB + (_HARDEST_DB - _EASIEST_DB) * self.settings.threshold - (_HOLDS_DB if self._speaking else 0.0)
        floor = sorted(self._levels)[int(len(self._levels) * _FLOOR_SHARE)]
        voiced = level > max(floor + above, _LEAST_DB)
        self._lately.append(voiced)
        if not self._speaking:
            if voiced and sum(self._lately) >= _BEGIN_FRAMES:
                self._speaking, self._quiet, self._spoke = True, False, self._frames
                return [TurnChange("began", max(0.0, self._now - _OF_FRAMES * FRAME_S - self.settings.prefix_s))]
            return []
        if voiced:
            self._spoke, self._quiet = self._frames, False
            return []
        silent_s, ended_s = (self._frames - self._spoke) * FRAME_S, self._spoke * FRAME_S
        if silent_s >= self.settings.silence_s - FRAME_S / 2:
            self._speaking = False
            self._lately.clear()
            return [TurnChange("ended", ended_s)]
        if silent_s >= QUIET_S - FRAME_S / 2 and not self._quiet:
            self._quiet = True
            return [TurnChange("quiet", ended_s)]
        return []

    @property
    def _now(self) -> float:
        return self._frames * FRAME_S
