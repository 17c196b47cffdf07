"""`ingle chat --voice`, with real ears and a real voice. The microphone and the loudspeaker are programs that read and write files."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ingle.home.place import Home
from ingle.media.sound import pcm16_of, resampled
from ingle.media.speech import Speech
from tests.cli.place import COMMAND, environment
from tests.homes import lent
from tests.parts import with_parts
from tests.serve.servers import facts_in

QUESTION = "What is the capital of France?"


@pytest.fixture
def home(tmp_path: Path, smollm2_home: Home) -> Home:
    return with_parts(lent(smollm2_home, tmp_path / "home"))


def program(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport sys, shutil, time, pathlib\n{body}\n")
    path.chmod(0o755)


def chat(home: Home, programs: Path, typed: str, *options: str) -> "subprocess.CompletedProcess[str]":
    changes = {"PATH": f"{programs}{os.pathsep}/nowhere"}
    brief = ("--system", "Answer in one short English sentence.", "--temperature", "0", "--max-tokens", "24")
    return subprocess.run(
        [*COMMAND, "chat", "smollm2", *brief, *options], env=environment(home.root, changes), input=typed, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip


def test_a_spoken_question_is_heard_and_its_answer_is_spoken(home: Home, tmp_path: Path) -> None:
    speech = Speech(home)
    said = np.concatenate([sound.samples for sound in speech.speak(QUESTION, "joe")])
    rate = next(iter(speech.speak("Yes.", "joe"))).rate
    speech.close()
    from ingle.core.media import Sound

    breath = bytes(16_000)
    (tmp_path / "question.raw").write_bytes(breath + pcm16_of(resampled(Sound(said, rate), 16_000)) + breath * 4)
    record = f"assert sys.argv[-1] == '16000'\nsys.stdout.buffer.write(pathlib.Path({str(tmp_path / 'question.raw')!r}).read_bytes())"
    program(tmp_path, "arecord", record + "\nsys.stdout.flush()\ntime.sleep(60)")
    program(tmp_path, "aplay", f"shutil.copyfileobj(sys.stdin.buffer, open({str(tmp_path / 'answer.raw')!r}, 'wb'))")
    result = chat(home, tmp_path, "\n", "--voice")
    assert result.returncode == 0, result.stderr
    assert QUESTION in result.stdout and "Paris" in result.stdout and "Listening" in result.stderr
    assert 24_000 < (tmp_path / "answer.raw").stat().st_size < 24_000 * 2 * 20
    [heard], [spoken] = facts_in(home, "hear"), facts_in(home, "speak")
    assert heard.values["joules"] and spoken.values["ended"] == "stop" and "France" not in f"{heard.values}{spoken.values}"


def test_silence_is_no_question(home: Home, tmp_path: Path) -> None:
    program(tmp_path, "arecord", "sys.stdout.buffer.write(bytes(32_000 * 12))\nsys.stdout.flush()\ntime.sleep(60)")
    program(tmp_path, "aplay", "sys.stdin.buffer.read()")
    result = chat(home, tmp_path, "\n", "--voice")
    assert "Nothing was said" in result.stdout and not facts_in(home, "answer")


def test_what_is_missing_is_said(home: Home, smollm2_home: Home, tmp_path: Path) -> None:
    result = chat(home, tmp_path, "\n", "--voice")
    assert result.returncode == 2 and "no program to record sound" in result.stderr and "alsa-utils" in result.stderr
    program(tmp_path, "arecord", "sys.exit('arecord: no soundcards found')")
    program(tmp_path, "aplay", "sys.stdin.buffer.read()")
    result = chat(home, tmp_path, "\n", "--voice")
    assert "no soundcards found" in result.stderr and "microphone" in result.stderr
    deaf = lent(smollm2_home, tmp_path / "deaf")
    shutil.rmtree(deaf.root / "parts", ignore_errors=True)
    result = chat(deaf, tmp_path, "\n", "--voice")
    assert result.returncode == 3 and "ingle pull voice" in result.stderr
