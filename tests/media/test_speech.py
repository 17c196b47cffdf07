"""Hearing and speaking in their own process: what is said is heard; a killed process, silence, noise and nonsense do no harm."""

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pytest

from ingle.core.errors import ConfigError, HomeError, IngleError, MediaError, NotKept, RequestError
from ingle.core.media import Sound
from ingle.home.parts import find_part, list_parts, remove_part
from ingle.home.place import Home
from ingle.media import speech as module
from ingle.media.sound import joined, resampled
from ingle.media.speech import Speech
from tests.clocks import HandClock
from tests.homes import lent
from tests.limited import cpu_s
from tests.waiting import PATIENCE_S, wait_until

SENTENCE = "The train to Berlin leaves at nine, and the ticket costs twelve dollars."


@pytest.fixture(scope="module")
def speech(speech_home: Home) -> Iterator[Speech]:
    handle = Speech(speech_home)
    yield handle
    handle.close()


@pytest.fixture(scope="module")
def spoken(speech: Speech) -> Sound:
    return joined(speech.speak(SENTENCE))


def words(text: str) -> list[str]:
    numbers = {"9": "nine", "12": "twelve", "cost": "costs"}
    return [numbers.get(word, word) for word in re.findall(r"[a-z0-9]+", text.lower().replace("$12", "twelve dollars"))]


def alike(heard: str, said: str) -> bool:
    """Whether all but a word or two are the same: a voice differs each time."""
    return SequenceMatcher(None, words(heard), words(said)).ratio() > 0.8


@pytest.mark.parametrize("ears", ["whisper-tiny.en", "whisper-base"])
def test_what_is_spoken_is_heard(speech: Speech, spoken: Sound, ears: str) -> None:
    heard = speech.hear(spoken, model=ears)
    assert alike(heard.text, SENTENCE)
    assert heard.language == "en"
    assert heard.model == ears
    assert abs(heard.seconds - spoken.seconds) < 0.01
    assert heard.text == " ".join(segment.text for segment in heard.segments)


@pytest.mark.parametrize("rate", [8_000, 44_100, 96_000])
def test_any_rate_is_heard(speech: Speech, spoken: Sound, rate: int) -> None:
    assert alike(speech.hear(resampled(spoken, rate), model="whisper-base", language="en").text, SENTENCE)


def test_words_have_times_in_order_within_the_sound(speech: Speech, spoken: Sound) -> None:
    heard = speech.hear(spoken, words=True)
    timed = [word for segment in heard.segments for word in segment.words]
    assert alike(" ".join(word.text for word in timed), SENTENCE)
    assert words(" ".join(word.text for word in timed)) == words(heard.text)
    starts = [word.start_s for word in timed]
    assert starts == sorted(starts)
    assert all(0 <= word.start_s <= word.end_s <= spoken.seconds + 0.1 and 0 <= word.probability <= 1 for word in timed)
    # The silence after "nine," parts the halves. "And" is sometimes heard as another word.
    assert next(word for word in timed if "ticket" in word.text.lower()).start_s > spoken.seconds * 0.35


def test_a_long_recording_is_heard_window_by_window(speech: Speech) -> None:
    rivers = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    sentences = [f"Number {name} is a river in the north of the country." for name in rivers.split()]
    long, done = joined(speech.speak(" ".join(sentences))), list[float]()
    assert long.seconds > 40
    heard = speech.hear(long, model="whisper-tiny.en", progress=done.append)
    assert len(done) >= 2 and done == sorted(done) and done[-1] == pytest.approx(long.seconds, abs=0.1)
    starts = [segment.start_s for segment in heard.segments]
    assert starts == sorted(starts) and heard.segments[-1].end_s > 40
    assert 15 <= heard.text.lower().count("river") <= 17, "a voice differs each time, and so may a word"


@pytest.mark.parametrize("ears", ["whisper-tiny.en", "whisper-base"])
def test_silence_noise_and_music_say_nothing(speech: Speech, ears: str) -> None:
    random, t = np.random.default_rng(5), np.arange(16_000 * 4) / 16_000
    chord = sum(np.sin(2 * np.pi * f * t) * np.exp(-3 * (t % 0.5)) for f in (262, 330, 392)) * 0.1
    for sound in (np.zeros(64_000), 0.05 * random.standard_normal(64_000), chord, np.sin(2 * np.pi * 50 * t) * 0.2, np.zeros(1)):
        heard = speech.hear(Sound(sound.astype(np.float32), 16_000), model=ears)
        assert (heard.text, heard.segments, heard.language) == ("", (), "")


def test_clips_of_all_lengths_repeat_nothing(speech: Speech, spoken: Sound) -> None:
    """The short window's own fault, where it is not checked: a sentence that comes twice."""
    for share in (0.2, 0.35, 0.5, 0.65, 0.8, 1.0):
        clip = Sound(spoken.samples[: int(len(spoken.samples) * share)], spoken.rate)
        heard = words(speech.hear(clip, model="whisper-tiny.en").text)
        assert len(heard) <= len(words(SENTENCE)) * share + 4, heard
        assert heard.count("berlin") <= 1


def test_what_comes_after_a_long_pause_is_heard(speech: Speech, spoken: Sound) -> None:
    pause = np.zeros(spoken.rate * 4, np.float32)
    heard = speech.hear(Sound(np.concatenate([spoken.samples, pause, spoken.samples]), spoken.rate), model="whisper-tiny.en")
    assert alike(heard.text, f"{SENTENCE} {SENTENCE}")
    assert heard.segments[-1].end_s > spoken.seconds + 4


@pytest.mark.journey
def test_a_killed_process_is_started_again(speech: Speech, spoken: Sound) -> None:
    want = speech.hear(spoken).text
    assert speech.pid is not None
    os.kill(speech.pid, signal.SIGKILL)
    assert speech.hear(spoken).text == want
    pid = speech.pid
    assert pid is not None
    used = cpu_s(pid)

    def kill_it_when_it_is_at_it() -> None:
        wait_until(lambda: cpu_s(pid) > used + 0.05, "it hears")
        os.kill(pid, signal.SIGKILL)

    with ThreadPoolExecutor() as others:
        killed = others.submit(kill_it_when_it_is_at_it)
        assert speech.hear(spoken).text == want, "what it was at is asked once more"
        killed.result(PATIENCE_S)
    assert speech.pid != pid


def test_a_process_that_always_ends_is_an_error_and_no_loop(speech_home: Home, spoken: Sound, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Speech(speech_home, answer_s=0.001)
    with pytest.raises(MediaError, match=r"ended twice, or took more than 0\.001 seconds"):
        handle.hear(spoken)
    handle.close()


def test_an_idle_process_ends_and_comes_again(speech_home: Home) -> None:
    hand = HandClock()
    handle = Speech(speech_home, idle_s=300, clock=hand.clock)
    assert handle.pid is None, "nothing is started before it is used"
    assert len(list(handle.speak("Hello there. How are you?"))) == 2
    assert handle.pid is not None
    hand.move(299)
    assert handle.pid is not None
    hand.move(1)
    assert handle.pid is None
    assert joined(handle.speak("Hello again.")).seconds > 0.3
    handle.close()
    assert handle.pid is None


def test_the_first_piece_comes_before_the_text_ends(speech: Speech) -> None:
    given: list[str] = []

    def text() -> Iterator[str]:
        for sentence in ("It is five. ", "The second one. ", "The third one."):
            given.append(sentence)
            yield sentence

    pieces = speech.speak(text())
    assert next(pieces).seconds > 0.3
    assert given == ["It is five. "]
    assert len(list(pieces)) == 2


def test_speed_changes_the_length(speech: Speech) -> None:
    slow, fast = (joined(speech.speak(SENTENCE, speed=speed)).seconds for speed in (0.7, 1.5))
    assert slow > 1.5 * fast


def test_a_text_without_words_is_no_sound(speech: Speech) -> None:
    assert list(speech.speak("--- *** 日本")) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, x: s.hear(x, model="whisper-huge"), "model must be auto or one of whisper-tiny.en, whisper-base, not whisper-huge"),
        (lambda s, x: s.hear(x, model="whisper-tiny.en", language="de"), "whisper-tiny.en hears English only. Ask for whisper-base."),
        (lambda s, x: s.hear(x, language="klingon"), "language must be one that Whisper knows, by its code"),
        (lambda s, x: s.speak("a", speed=9.0), "speed must be between 0.25 and 4.0, not 9.0"),
        (lambda s, x: s.speak("a", speed=float("nan")), "speed must be between"),
    ],
)
def test_what_can_not_be_asked_for(speech: Speech, spoken: Sound, call: object, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        call(speech, spoken)  # type: ignore[operator]
    assert message in str(caught.value)
    assert speech.hear(spoken).text


def test_voices(speech: Speech) -> None:
    assert speech.voices()[0] == "joe"
    with pytest.raises(NotKept, match=r"voice zorg is not kept in this home\. Kept here: joe"):
        speech.speak("a", voice="zorg")


def test_missing_parts_name_the_command(tmp_path: Path) -> None:
    handle = Speech(Home(tmp_path))
    sound = Sound(np.zeros(100, np.float32), 16_000)
    with pytest.raises(NotKept, match=r"part whisper-tiny\.en is not kept in this home\. Whisper tiny\.en: .* Run: ingle pull hearing"):
        handle.hear(sound)
    with pytest.raises(NotKept, match="Run: ingle pull hearing"):
        handle.hear(sound, translate=True)
    for voice in ("auto", "joe", "af_heart"):
        with pytest.raises(NotKept, match="Run: ingle pull voice"):
            handle.speak("Hello", voice=voice)
    assert not any(tmp_path.iterdir())


def test_a_missing_extra_names_the_command(speech_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"need ctranslate2, which is not installed\. Run: "):
        Speech(speech_home).hear(Sound(np.zeros(100, np.float32), 16_000))
    with pytest.raises(ConfigError, match=r"need onnxruntime, which is not installed\. Run: "):
        Speech(speech_home).speak("Hello")


def test_damaged_files_are_told(speech_home: Home, tmp_path: Path) -> None:
    home = Home(tmp_path).create()
    kept = lent(speech_home, tmp_path / "lent")
    part = next(one for one in list_parts(kept) if one.name == "whisper-tiny.en")
    broken = home.base_folder(part.base)
    broken.mkdir()
    for file in kept.base_folder(part.base).iterdir():
        data = file.read_bytes() if file.stat().st_size < 1 << 20 else bytes(file.stat().st_size)  # its size, but zeros
        (broken / file.name).write_bytes(data)
    (home.root / "parts").mkdir()
    (home.root / "parts" / "whisper-tiny.en.json").write_bytes((kept.root / "parts" / "whisper-tiny.en.json").read_bytes())
    noise = Sound(np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * 0.1, 16_000)
    handle = Speech(home)
    with pytest.raises(IngleError, match=r"verify|ended twice"):
        handle.hear(noise)
    handle.close()
    (broken / "model.bin").unlink()
    with pytest.raises(HomeError, match=r"part whisper-tiny\.en has lost files"):
        Speech(home).hear(noise)
    remove_part(home, "whisper-tiny.en")
    assert not broken.exists() and not list_parts(home)
    with pytest.raises(NotKept):
        find_part(home, "whisper-tiny.en")
