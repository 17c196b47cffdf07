"""What Whisper's encoder gets is what the transformers library gives it."""

import numpy as np
import pytest

from ingle.media.ears.mel import log_mel, mel_filters


def recording() -> np.ndarray:
    random, n = np.random.default_rng(3), 16_000 * 6
    t = np.arange(n) / 16_000
    sound = 0.3 * np.sin(2 * np.pi * (200 + 150 * t) * t) + 0.02 * random.standard_normal(n)
    sound[:16_000] = 0.0
    return sound.astype(np.float32)


def test_thirty_seconds_as_transformers_computes_them() -> None:
    transformers = pytest.importorskip("transformers")
    whole = np.zeros(480_000, np.float32)
    whole[: len(recording())] = recording()
    want = transformers.WhisperFeatureExtractor()(whole, sampling_rate=16_000, return_tensors="np").input_features[0]
    got = log_mel(whole)
    assert got.shape == want.shape == (80, 3000)
    assert got.dtype == np.float32
    assert np.abs(got - want).max() < 1e-5


def test_a_short_window_is_the_beginning_of_a_long_one() -> None:
    """Only the last two frames differ: there the short one has an end."""
    short = np.concatenate([recording(), np.zeros(16_000 * 4, np.float32)])
    long = np.concatenate([short, np.zeros(16_000 * 20, np.float32)])
    assert np.abs(log_mel(long)[:, : len(short) // 160 - 2] - log_mel(short)[:, :-2]).max() < 1e-6


def test_silence_and_an_empty_sound() -> None:
    assert (log_mel(np.zeros(1600, np.float32)) == log_mel(np.zeros(1600, np.float32))[0, 0]).all()
    assert mel_filters(80).shape == (80, 201)
    assert mel_filters(128).shape == (128, 201)
