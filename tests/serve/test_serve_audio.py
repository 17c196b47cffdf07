"""`/v1/audio` and recordings in conversations: without parts, with evil files, and by OpenAI's own client with real ears and voices."""

import base64
import io
import os
import signal
import struct
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from ingle.home.place import Home
from tests.homes import lent
from tests.parts import with_parts
from tests.serve.servers import Server, error_of, facts_in, serving
from tests.waiting import PATIENCE_S, wait_until

QUESTION = "What is the capital of France?"


def wav(seconds: float, rate: int = 16_000, channels: int = 1, hertz: float = 0.0) -> bytes:
    """Silence, or a tone."""
    out = io.BytesIO()
    samples = np.round(np.sin(np.arange(round(seconds * rate)) * 2 * np.pi * hertz / rate) * 12_000).astype("<i2")
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes() * channels)
    return out.getvalue()


@pytest.fixture(scope="module")
def talking_server(tmp_path_factory: pytest.TempPathFactory, smollm2_home: Home) -> Iterator[Server]:
    """A server that answers in words, hears and speaks."""
    home = with_parts(lent(smollm2_home, tmp_path_factory.mktemp("talking") / "home"))
    with serving(home.root) as running:
        yield running


@pytest.fixture(scope="module")
def spoken(talking_server: Server) -> bytes:
    """The question, spoken by a voice of this home."""
    return talking_server.openai().audio.speech.create(model="tts-1", voice="alloy", input=QUESTION, response_format="wav").content


def recording(sound: bytes, format_: str = "wav") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(sound).decode(), "format": format_}}


def transcribe(server: Server, sound: bytes, **fields: str) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/audio/transcriptions", files={"file": ("a.wav", sound)}, data=fields, timeout=PATIENCE_S)


def test_without_parts_every_door_names_the_command(server: Server) -> None:
    refused = [
        server.post("/v1/audio/speech", {"input": "Hello", "voice": "alloy", "model": "tts-1"}),
        server.chat(modalities=["text", "audio"]),
        server.chat(modalities=["text", "audio"], stream=True),
    ]
    for response in refused:
        assert response.status_code == 404 and "ingle pull voice" in error_of(response)["message"]
    heard = [
        transcribe(server, wav(0.5)),
        server.chat(messages=[{"role": "user", "content": [recording(wav(0.5))]}]),
        server.post("/v1/responses", {"input": [{"role": "user", "content": [recording(wav(0.5))]}]}),
    ]
    for response in heard:
        assert response.status_code == 404 and "ingle pull hearing" in error_of(response)["message"]
    assert server.get("/v1/audio/voices").json() == server.get("/v1/audio/models").json() == {"object": "list", "data": []}


EVIL: dict[str, bytes] = {
    "nothing": b"",
    "words": b"This is no sound at all.",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "a head alone": wav(0.5)[:44],
    "half a head": wav(0.5)[:20],
    "cut off": wav(2.0)[:9_000],
    "ten hours in the head": wav(1.0)[:40] + struct.pack("<I", 10 * 3600 * 32_000) + bytes(1000),
    "no channels": wav(0.5)[:22] + b"\0\0" + wav(0.5)[24:],
    "no rate": wav(0.5)[:24] + bytes(4) + wav(0.5)[28:],
    "a rate of millions": wav(0.5)[:24] + struct.pack("<I", 10**8) + wav(0.5)[28:],
    "7 bits": wav(0.5)[:34] + b"\7\0" + wav(0.5)[36:],
    "an MP3 of zeros": b"ID3\4" + bytes(1000),
    "an Ogg of zeros": b"OggS" + bytes(1000),
    "a FLAC of zeros": b"fLaC" + bytes(1000),
    "numbers that are none": wav(0.5)[:20]
    + b"\3\0"
    + wav(0.5)[22:34]
    + b"\x20\0"
    + wav(0.5)[36:44]
    + np.full(4000, np.nan, "<f4").tobytes(),
}


@pytest.mark.parametrize("name", EVIL)
def test_evil_files_get_a_clear_error_at_once(server: Server, name: str) -> None:
    response = transcribe(server, EVIL[name])
    assert response.status_code == 400, response.text
    error = error_of(response)
    assert error["param"] == "file" and len(error["message"]) > 20
    assert "more time or memory" not in error["message"], "it is not decoded until a limit ends that"
    inside = server.chat(messages=[{"role": "user", "content": [{"type": "text", "text": "Hear:"}, recording(EVIL[name])]}])
    assert inside.status_code == 400 and error_of(inside)["param"] == "messages[0].content[1].input_audio"


def test_what_is_too_large_is_not_read(server: Server) -> None:
    response = transcribe(server, bytes(9 << 20))
    assert response.status_code == 413 and "serve.body_bytes" in error_of(response)["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "  "}, "input"), ({"input": "x" * 65_537}, "input"), ({"input": "Hi", "response_format": "aac"}, "response_format"),
        ({"input": "Hi", "speed": 9}, "speed"), ({"voice": "joe"}, "input"), ({"input": "Hi", "stream_format": "x"}, "stream_format"),
    ],
)  # fmt: skip
def test_a_wrong_wish_is_named(server: Server, body: dict[str, Any], param: str) -> None:
    response = server.post("/v1/audio/speech", body)
    assert response.status_code == 400 and error_of(response)["param"] == param


def test_wrong_wishes_of_hearers_and_listeners_are_named(server: Server) -> None:
    assert error_of(transcribe(server, wav(0.5), response_format="xml"))["param"] == "response_format"
    assert error_of(httpx.post(f"{server.url}/v1/audio/transcriptions", data={"model": "whisper-1"}, timeout=PATIENCE_S))["param"] == "file"
    assert error_of(server.chat(modalities=["text", "audio"], n=2))["param"] == "n"
    assert error_of(server.chat(modalities=["text", "audio"], audio={"voice": "x", "format": "aac"}))["param"] == "audio.format"
    assert error_of(server.chat(modalities=["text", "audio"], stream=True, audio={"format": "mp3"}))["param"] == "audio.format"
    unknown = server.chat(messages=[{"role": "assistant", "audio": {"id": "audio_1"}}, {"role": "user", "content": "Go on"}])
    assert unknown.status_code == 404 and error_of(unknown)["param"] == "messages[0].audio.id"


def test_a_text_is_spoken_in_every_format_and_heard_again(talking_server: Server, spoken: bytes) -> None:
    client = talking_server.openai()
    assert spoken[:4] == b"RIFF"
    assert client.audio.transcriptions.create(model="whisper-1", file=("a.wav", spoken)).text == QUESTION
    for format_ in ("mp3", "opus", "flac"):
        sound = client.audio.speech.create(model="tts-1", voice="alloy", input=QUESTION, response_format=format_).content
        assert client.audio.transcriptions.create(model="whisper-1", file=(f"a.{format_}", sound)).text == QUESTION, format_
    quick = client.audio.speech.create(model="tts-1", voice="joe", input=QUESTION, response_format="wav", speed=2.0).content
    assert 0.35 < len(quick) / len(spoken) < 0.7


def test_plain_samples_come_clause_by_clause(talking_server: Server) -> None:
    text = "First comes one clause. Then comes a second one, which is a little longer. And at last there is the third one of them. "
    asking = talking_server.openai().audio.speech.with_streaming_response
    with asking.create(model="tts-1", voice="alloy", input=text, response_format="pcm") as response:
        whole = b"".join(response.iter_bytes())
    assert 5.0 < len(whole) / 48_000 < 15.0
    before = len(talking_server.facts("speak"))
    with asking.create(model="tts-1", voice="alloy", input=text * 20, response_format="pcm") as response:
        assert next(response.iter_bytes())
    wait_until(lambda: len(talking_server.facts("speak")) > before, "what was spoken is a fact")
    assert talking_server.facts("speak")[before].values["ended"] == "cancelled", "the first clause came before the last one was made"
    response = talking_server.post("/v1/audio/speech", {"input": text, "stream_format": "sse", "response_format": "pcm"})
    kinds = [line.removeprefix("event: ") for line in response.text.splitlines() if line.startswith("event: ")]
    assert kinds[-1] == "speech.audio.done" and len(kinds) > 3 and set(kinds[:-1]) == {"speech.audio.delta"}


def test_transcripts_have_times_and_leave_a_fact(talking_server: Server, spoken: bytes) -> None:
    wanted: Any = ["word", "segment"]
    verbose = talking_server.openai().audio.transcriptions.create(
        model="whisper-1", file=("a.wav", spoken), response_format="verbose_json", timestamp_granularities=wanted, language="en"
    )
    assert verbose.text == QUESTION and verbose.language == "en" and 1.0 < verbose.duration < 4.0
    assert [word.word for word in verbose.words or ()] == QUESTION.split()
    times = [(word.start, word.end) for word in verbose.words or ()]
    assert all(start <= end for start, end in times) and times == sorted(times) and times[-1][1] <= verbose.duration + 0.3
    assert verbose.segments and verbose.segments[0].text == QUESTION
    plain = transcribe(talking_server, spoken, response_format="text")
    assert plain.text.strip() == QUESTION and plain.headers["content-type"].startswith("text/plain")
    [fact] = [row for row in talking_server.facts("hear") if row.seq == int(plain.headers["x-ingle-event"])]
    assert fact.subject == "whisper-tiny.en" and fact.values["joules"] and fact.values["seconds"] and len(str(fact.values["model"])) == 64
    assert "France" not in str(fact.values)
    [said, *_] = talking_server.facts("speak")
    assert said.subject == "joe" and said.values["joules"] and "France" not in str(said.values)


def test_silence_has_no_words(talking_server: Server) -> None:
    assert transcribe(talking_server, wav(2.0)).json()["text"] == ""
    response = talking_server.chat(messages=[{"role": "user", "content": [recording(wav(2.0))]}])
    assert response.status_code == 400 and "no words" in error_of(response)["message"]


def test_a_recording_in_a_question_is_the_question(talking_server: Server, spoken: bytes) -> None:
    client = talking_server.openai()
    messages: Any = [{"role": "user", "content": [recording(spoken)]}]
    asked = client.chat.completions.create(model="smollm2", messages=messages, max_tokens=12, temperature=0)
    typed = client.chat.completions.create(model="smollm2", messages=[{"role": "user", "content": QUESTION}], max_tokens=12, temperature=0)
    assert asked.choices[0].message.content == typed.choices[0].message.content
    about = (asked.model_extra or {})["ingle"]["heard"]
    assert [(one["message"], one["part"], one["text"]) for one in about] == [(0, 0, QUESTION)]
    [fact] = [row for row in talking_server.facts("hear") if row.seq == about[0]["event"]]
    assert fact.values["id"] == asked.id
    response = client.responses.create(
        model="smollm2", input=[{"role": "user", "content": [recording(spoken)]}], max_output_tokens=12, temperature=0
    )
    assert response.output_text == typed.choices[0].message.content
    again = (response.model_extra or {})["ingle"]["heard"][0]
    assert again["text"] == QUESTION and again["event"] == about[0]["event"]  # it was heard once


def test_an_answer_is_spoken_and_can_be_named_later(talking_server: Server) -> None:
    client = talking_server.openai()
    told: list[Any] = [{"role": "system", "content": "Answer in one short English sentence."}, {"role": "user", "content": QUESTION}]
    ask: dict[str, Any] = {"model": "smollm2", "messages": told, "max_tokens": 24, "temperature": 0}
    written = client.chat.completions.create(**ask).choices[0].message.content
    aloud = client.chat.completions.create(**ask, modalities=["text", "audio"], audio={"voice": "alloy", "format": "wav"})
    audio = aloud.choices[0].message.audio
    assert audio is not None and aloud.choices[0].message.content is None
    assert audio.transcript == written and audio.expires_at > aloud.created + 3000
    heard = transcribe(talking_server, base64.b64decode(audio.data)).json()["text"]
    words = set((written or "").lower().replace(",", "").replace(".", "").split())
    assert len(words & set(heard.lower().replace(",", "").replace(".", "").split())) >= len(words) / 2
    follow: list[Any] = [*ask["messages"], {"role": "assistant", "audio": {"id": audio.id}}, {"role": "user", "content": "Really?"}]
    spelt: list[Any] = [*ask["messages"], {"role": "assistant", "content": written}, {"role": "user", "content": "Really?"}]
    answers = [client.chat.completions.create(**{**ask, "messages": one}).choices[0].message.content for one in (follow, spelt)]
    assert answers[0] == answers[1]
    streamed: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}, "audio": {"voice": "alloy", "format": "pcm16"}}
    pieces = list(client.chat.completions.create(**ask, modalities=["text", "audio"], **streamed))
    deltas = [piece.choices[0].delta.model_dump(exclude_none=True).get("audio") or {} for piece in pieces if piece.choices]
    assert "".join(delta.get("transcript", "") for delta in deltas) == written
    assert sum("data" in delta for delta in deltas) >= 1 and sum("id" in delta for delta in deltas) == 1
    assert [piece.choices[0].finish_reason for piece in pieces if piece.choices][-1] in ("length", "stop")
    event = (pieces[-1].model_extra or {})["ingle"]["spoken"]["event"]
    assert [row.values["ended"] for row in talking_server.facts("speak") if row.seq == event] == ["stop"]


def test_who_hangs_up_ends_the_answer_and_the_voice(talking_server: Server) -> None:
    before = len(talking_server.facts("speak"))
    ask: dict[str, Any] = {"messages": [{"role": "user", "content": "Tell me a very long story about a fox."}], "max_tokens": 900,
                           "modalities": ["text", "audio"], "stream": True}  # fmt: skip
    with httpx.stream("POST", f"{talking_server.url}/v1/chat/completions", json=ask, timeout=PATIENCE_S) as response:
        next(line for line in response.iter_lines() if '"data"' in line and '"audio"' in line)
    talking_server.idle()
    facts = wait_until(lambda: talking_server.facts("speak")[before:], "the voice has ended")
    assert [fact.values["ended"] for fact in facts] == ["cancelled"]


def test_a_process_that_is_killed_while_it_speaks_is_started_again_and_nothing_is_lost(talking_server: Server) -> None:
    text = "First comes one clause. Then comes a second one, which is longer. The third one is here. And that was the fourth of them."
    body = {"input": text, "response_format": "pcm"}
    whole = len(talking_server.post("/v1/audio/speech", body).content)
    with httpx.stream("POST", f"{talking_server.url}/v1/audio/speech", json=body, timeout=PATIENCE_S) as response:
        pieces = response.iter_bytes()
        got = len(next(pieces))
        numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
        [worker] = [pid for pid in numbers if speaks_for(talking_server, pid)]
        os.kill(worker, signal.SIGKILL)
        got += sum(map(len, pieces))
    assert 0.7 < got / whole < 1.4  # a voice draws its melody anew each time


def speaks_for(server: Server, pid: int) -> bool:
    try:
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        return int(parent) == server.process.pid and b"speech_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_guards_look_at_what_is_spoken_and_heard(tmp_path: Path, smollm2_home: Home, spoken: bytes) -> None:
    home = with_parts(lent(smollm2_home, tmp_path / "home"))
    (home.root / "policy.toml").write_text('[guards.pii]\nmode = "block"\nkinds = ["e-mail"]\n[guards.topics]\nmode = "block"\n')
    with serving(home.root) as server:
        response = server.post("/v1/audio/speech", {"input": "Write to jane@example.org.", "response_format": "pcm"})
        assert response.status_code == 400 and "personal data" in error_of(response)["message"], response.text
        [block] = facts_in(home, "guard.block")
        assert block.subject == "joe" and "jane" not in str(block.values) and not facts_in(home, "speak")
        assert server.post("/v1/audio/speech", {"input": "Write to her.", "response_format": "pcm"}).status_code == 200
