"""Whose turn it is: made-up voices and rooms, with the places known."""

import numpy as np
import numpy.typing as npt
import pytest

from ingle.core.errors import RequestError
from ingle.media.sound import TurnChange, TurnDetector, TurnSettings

RATE = 24_000
Samples = npt.NDArray[np.float32]


def noise(seconds: float, loud: float, seed: int = 0) -> Samples:
    """A room."""
    return (np.random.default_rng(seed).normal(size=round(RATE * seconds)) * loud).astype(np.float32)


def voice(seconds: float, loud: float = 0.1) -> Samples:
    """A hum with the overtones and the syllables of a voice."""
    time = np.arange(round(RATE * seconds)) / RATE
    hum = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 20))
    return np.asarray(hum * (0.55 - 0.45 * np.cos(2 * np.pi * 4 * time)) * loud, np.float32)


def changes(samples: Samples, settings: TurnSettings = TurnSettings(), piece: int = 731) -> list[TurnChange]:  # noqa: B008 - frozen
    """All of it, in pieces of an odd length."""
    detector = TurnDetector(RATE, settings)
    return [change for i in range(0, len(samples), piece) for change in detector.feed(samples[i : i + piece])]


@pytest.mark.parametrize("room", [0.0, 0.0003, 0.003])
def test_two_turns_are_found_where_they_are(room: float) -> None:
    quiet = [noise(seconds, room, i) for i, seconds in enumerate((1.0, 1.2, 1.0))]
    turns = [voice(seconds) + noise(seconds, room, 9) for seconds in (1.5, 1.0)]
    found = changes(np.concatenate([quiet[0], turns[0], quiet[1], turns[1], quiet[2]]))
    assert [change.kind for change in found] == ["began", "quiet", "ended"] * 2
    for change, at in zip(found, (1.0 - 0.3, 2.5, 2.5, 3.7 - 0.3, 4.7, 4.7), strict=True):
        assert abs(change.at_s - at) < 0.15, change


def test_the_pieces_do_not_matter() -> None:
    stream = np.concatenate([noise(0.7, 0.001), voice(1.1), noise(0.9, 0.001, 1)])
    assert changes(stream, piece=731) == changes(stream, piece=10**9) == changes(stream, piece=7)


def test_a_room_a_click_and_a_steady_fan_are_no_turns() -> None:
    assert not changes(noise(5.0, 0.001))
    click = noise(3.0, 0.0003)
    click[RATE : RATE + 600] += 0.5
    assert not changes(click)
    fan = changes(np.concatenate([noise(3.0, 0.0003), noise(12.0, 0.02, 1)]))
    assert [change.kind for change in fan] in ([], ["began", "quiet", "ended"])  # it may be taken for a voice once, not for long
    assert not fan or fan[-1].at_s - fan[0].at_s < 6.0


def test_who_begins_at_once_is_heard_and_a_short_pause_is_no_end() -> None:
    found = changes(np.concatenate([voice(1.0), noise(0.3, 0.0002), voice(1.0), noise(1.0, 0.0002)]))
    assert [change.kind for change in found] == ["began", "quiet", "quiet", "ended"]
    assert found[0].at_s == 0.0 and abs(found[-1].at_s - 2.3) < 0.15


def test_the_settings_count() -> None:
    stream = np.concatenate([noise(1.0, 0.001), voice(1.0, 0.006), noise(1.5, 0.001, 1)])
    assert changes(stream, TurnSettings(threshold=0.2)) and not changes(stream, TurnSettings(threshold=1.0))
    patient = changes(np.concatenate([voice(0.5), noise(1.0, 0.0002), voice(0.5), noise(2.0, 0.0002)]), TurnSettings(silence_s=1.5))
    assert [change.kind for change in patient].count("ended") == 1
    for wrong in ({"threshold": 1.1}, {"prefix_s": -1.0}, {"silence_s": float("nan")}):
        with pytest.raises(RequestError, match="must be between"):
            TurnSettings(**wrong)
