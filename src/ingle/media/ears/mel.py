"""The picture that Whisper hears: the logarithm of a sound's energy in 80 bands, a hundred times a second.

Source: arXiv 2212.04356, section 2.2, and its published code; the bands are Slaney's, as in librosa. Compared with the feature extractor of
the transformers library in the tests.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

RATE = 16_000
FFT = 400
HOP = 160
_BLOCK_FRAMES = 3000  # frames whose spectra are computed at once: 30 s take 5 MB


def log_mel(samples: npt.NDArray[np.float32], bands: int = 80) -> npt.NDArray[np.float32]:
    """Return float32 [bands, n // 160] of n samples at 16 kHz; the loudest point is between 0.25 (silence: −1.5) and 2."""
    padded = np.pad(samples.astype(np.float32, copy=False), FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::HOP][: len(samples) // HOP]
    energy = np.empty((bands, len(frames)), np.float32)
    window, filters = _window(), mel_filters(bands)
    for first in range(0, len(frames), _BLOCK_FRAMES):
        spectrum = np.fft.rfft(frames[first : first + _BLOCK_FRAMES] * window, axis=1)  # [T, 201]
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
        energy[:, first : first + len(power)] = filters @ power.T
    logs = np.log10(np.maximum(energy, 1e-10))
    picture: npt.NDArray[np.float32] = (np.maximum(logs, logs.max(initial=-10.0) - 8.0) + 4.0) / 4.0
    return picture


@cache
def mel_filters(bands: int) -> npt.NDArray[np.float32]:
    """Return triangles over the FFT's lines, float32 [bands, 201]: equally wide to the ear, and each of the same area."""
    lines = np.fft.rfftfreq(FFT, 1 / RATE)
    edges = _hertz(np.linspace(0.0, _mel(RATE / 2), bands + 2))
    widths = np.diff(edges)
    slopes = edges[:, None] - lines[None, :]
    triangles = np.maximum(0.0, np.minimum(-slopes[:-2] / widths[:-1, None], slopes[2:] / widths[1:, None]))
    return (triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


@cache
def _window() -> npt.NDArray[np.float32]:
    return np.hanning(FFT + 1)[:-1].astype(np.float32)  # periodic


def _hertz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Slaney's scale: linear up to 1,000 Hz (15 mel), then 27 mel for each factor of 6.4."""
    return np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * np.exp((mel - 15.0) * np.log(6.4) / 27.0))


def _mel(hertz: float) -> float:
    return float(15.0 + np.log(hertz / 1000.0) * 27.0 / np.log(6.4))
