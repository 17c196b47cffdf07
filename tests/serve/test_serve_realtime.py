"""`/v1/realtime`: a talk over a WebSocket, by OpenAI's own client and by clients that no well-behaved one is."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from ingle.home.place import Home
from tests.cli.place import ingle
from tests.homes import lent
from tests.parts import with_parts
from tests.serve.servers import Server, serving
from tests.waiting import PATIENCE_S, for_a_while, wait_until

QUESTION = "What is the capital of France?"
SECOND = 48_000
"""Bytes."""
STEP = SECOND * 6 // 5
PATH = "/v1/realtime?model=smollm2"
GARDEN = "I have a small garden behind my house, and there are apples, pears, plums and cherries in it. What is a plum?"
BRIEF = "Answer in one short English sentence."
TELLS = """
import os, ingle.serve.listening as listening
hear = listening._Turn._hear
async def telling(turn, *how):
    try:
        await hear(turn, *how)
    finally:
        os.write(2, b"HEARD so far\\n")
listening._Turn._hear = telling
"""


@pytest.fixture(scope="module")
def talking_server(tmp_path_factory: pytest.TempPathFactory, smollm2_home: Home) -> Iterator[Server]:
    """A server that answers in words, hears and speaks."""
    home = with_parts(lent(smollm2_home, tmp_path_factory.mktemp("talking") / "home"))
    with serving(home.root, before=TELLS) as running:
        yield running


@pytest.fixture(scope="module")
def spoken(talking_server: Server) -> bytes:
    """The question as plain samples."""
    return say(talking_server, QUESTION)


def say(server: Server, text: str) -> bytes:
    return server.openai().audio.speech.create(model="tts-1", voice="alloy", input=text, response_format="pcm").content


@contextmanager
def talk(
    server: Server, headers: dict[str, str] | None = None, path: str = "/v1/realtime?model=smollm2", protocols: Any = None
) -> Iterator["Wire"]:
    url = server.url.replace("http", "ws") + path
    with connect(url, additional_headers=headers, subprotocols=protocols, open_timeout=PATIENCE_S, max_size=1 << 24) as socket:
        yield Wire(socket)


class Wire:
    """A connection, and what came over it."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self.events = socket, list[dict[str, Any]]()

    def send(self, type_: str, **fields: Any) -> None:
        self.socket.send(json.dumps({"type": type_, **fields}))

    def sound(self, data: bytes) -> None:
        for i in range(0, len(data), SECOND // 10):
            self.send("input_audio_buffer.append", audio=base64.b64encode(data[i : i + SECOND // 10]).decode())

    def until(self, type_: str) -> dict[str, Any]:
        """The next event of this type."""
        while True:
            event = json.loads(self.socket.recv(timeout=PATIENCE_S))
            self.events.append(event)
            assert event["type"] != "error" or type_ == "error", event
            if event["type"] == type_:
                return dict(event)

    def types(self) -> list[str]:
        return [event["type"] for event in self.events]


def test_a_spoken_question_gets_a_spoken_answer_by_openais_client(talking_server: Server, spoken: bytes) -> None:
    url = talking_server.url.replace("http", "ws")
    client = openai.AsyncOpenAI(base_url=f"{talking_server.url}/v1", websocket_base_url=f"{url}/v1", api_key="none")

    async def run() -> tuple[list[str], str, str, float]:
        types, heard, said, seconds = list[str](), "", "", 0.0
        async with client.realtime.connect(model="smollm2") as talk:
            settings: Any = {
                "type": "realtime",
                "instructions": BRIEF,
                "max_output_tokens": 24,
                "temperature": 0.0,
            }
            await talk.session.update(session=settings)

            async def speak() -> AsyncIterator[None]:
                for i in range(0, len(stream := bytes(SECOND // 2) + spoken + bytes(2 * SECOND)), SECOND // 10):
                    await talk.input_audio_buffer.append(audio=base64.b64encode(stream[i : i + SECOND // 10]).decode())
                    await asyncio.sleep(0)
                    yield

            async def whole() -> None:
                async for _ in speak():
                    pass

            speaking = asyncio.create_task(whole())
            async for event in talk:
                types.append(event.type)
                assert event.type != "error", event
                if event.type == "conversation.item.input_audio_transcription.completed":
                    heard = event.transcript
                if event.type == "response.output_audio.delta":
                    seconds += len(base64.b64decode(event.delta)) / SECOND
                if event.type == "response.output_audio_transcript.done":
                    said = event.transcript
                if event.type == "response.done":
                    break
            await speaking
        return types, heard, said, seconds

    types, heard, said, seconds = asyncio.run(run())
    assert heard == QUESTION and "Paris" in said and 0.8 < seconds < 15
    order = ["session.created", "session.updated", "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped",
             "input_audio_buffer.committed", "conversation.item.input_audio_transcription.completed", "response.created",
             "response.output_item.added", "response.content_part.added", "response.output_audio_transcript.delta",
             "response.output_audio.delta",
             "response.output_audio.done", "response.output_item.done", "response.done"]  # fmt: skip
    assert [types.index(one) for one in order] == sorted(types.index(one) for one in order)
    assert talking_server.facts("hear")[-1].values["joules"] and talking_server.facts("speak")[-1].values["ended"] == "stop"


def test_speech_during_an_answer_ends_it_and_cuts_what_was_said(talking_server: Server, spoken: bytes) -> None:
    with talk(talking_server) as wire:
        wire.send("session.update", session={"type": "realtime", "max_output_tokens": 300})
        wire.send("conversation.item.create", item={
            "type": "message", "role": "user", "content": [{"type": "input_text", "text": "Tell me a very long story about a fox."}],
        })  # fmt: skip
        wire.send("response.create")
        wire.until("response.output_audio.delta")
        for_a_while(0.1)  # some of it is heard
        wire.sound(bytes(SECOND // 5) + spoken[:SECOND])
        done = wire.until("response.done")
        assert done["response"]["status"] == "cancelled" and done["response"]["status_details"]["reason"] == "turn_detected"
        cut = wire.until("conversation.item.truncated")
        said = [event["delta"] for event in wire.events if event["type"] == "response.output_audio_transcript.delta"]
        wire.send("conversation.item.retrieve", item_id=cut["item_id"])
        left = wire.until("conversation.item.retrieved")["item"]["content"][0]["transcript"]
        assert "".join(said).startswith(left) and len(left) < len("".join(said))
        made = [event["delta"] for event in wire.events if event["type"] == "response.output_audio.delta"]
        assert 0 < cut["audio_end_ms"] <= 1000 * sum(len(base64.b64decode(one)) for one in made) / SECOND
        wire.sound(spoken[SECOND:] + bytes(2 * SECOND))
        answer = wire.until("response.done")
        assert answer["response"]["status"] in ("completed", "incomplete")
    assert "cancelled" in {row.values["ended"] for row in talking_server.facts("speak")}


def test_a_client_may_end_turns_itself_in_the_trial_version_too(talking_server: Server, spoken: bytes) -> None:
    with talk(talking_server, {"OpenAI-Beta": "realtime=v1"}) as wire:
        wire.send("session.update", session={"turn_detection": None, "modalities": ["text", "audio"], "voice": "alloy",
                                             "instructions": BRIEF, "max_response_output_tokens": 20})  # fmt: skip
        updated = wire.until("session.updated")["session"]
        assert updated["turn_detection"] is None and updated["input_audio_format"] == "pcm16"
        wire.sound(spoken)
        wire.send("input_audio_buffer.commit")
        wire.send("response.create")
        wire.until("response.done")
        types = wire.types()
        assert "response.audio.delta" in types and "response.audio_transcript.delta" in types and "conversation.item.created" in types
        assert not [one for one in types if "output_audio" in one or one == "conversation.item.added"]
        heard = [event for event in wire.events if event["type"].endswith("transcription.completed")]
        assert [event["transcript"] for event in heard] == [QUESTION]
        wire.send("session.update", session={"modalities": ["text"]})
        wire.until("session.updated")
        wire.send("response.create")
        wire.until("response.done")
        assert "response.text.delta" in wire.types()


def test_what_is_certain_is_read_while_one_still_speaks(talking_server: Server) -> None:
    long = say(talking_server, GARDEN)
    with talk(talking_server) as wire:
        wire.send("session.update", session={"type": "realtime", "output_modalities": ["text"], "max_output_tokens": 8})
        wire.sound(bytes(SECOND // 2) + long[: 2 * SECOND])
        wire.until("input_audio_buffer.speech_started")
        for i in range(2 * SECOND, len(long) - STEP, STEP):  # it is heard again after each second
            heard = talking_server.log.count("HEARD so far")
            wire.sound(long[i : i + STEP])
            wait_until(lambda: talking_server.log.count("HEARD so far") > heard, "it is heard so far")  # noqa: B023
            talking_server.idle()  # and read
        wire.sound(long[i + STEP :] + bytes(SECOND))
        done = wire.until("response.done")
    partial = [event["delta"] for event in wire.events if event["type"].endswith("transcription.delta")]
    whole = next(event["transcript"] for event in wire.events if event["type"].endswith("transcription.completed"))
    assert partial and "".join(partial).startswith("I have a small garden") and whole.startswith("I have a small garden")
    usage = done["response"]["usage"]
    assert usage["input_token_details"]["cached_tokens"] > 0.3 * usage["input_tokens"]


@pytest.mark.parametrize(
    ("event", "param"),
    [
        ("{", "event"), ("[]", "event"), ("{}", "event"), ('{"type": "x"}', "type"), ('{"type": "session.update"}', "session"),
        ('{"type": "session.update", "session": {"turn_detection": {"type": "semantic_vad"}}}', "session.turn_detection"),
        ('{"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/pcmu"}}}}}', "session.audio.format"),
        ('{"type": "session.update", "session": {"tools": [{}]}}', "session.tools"),
        ('{"type": "session.update", "session": {"audio": []}}', "session.audio"),
        ('{"type": "session.update", "session": {"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 7}}}}}',
         "session.threshold"),
        ('{"type": "session.update", "session": {"output_modalities": ["video"]}}', "session.output_modalities"),
        ('{"type": "session.update", "session": {"audio": {"output": {"voice": "nobody"}}}}', "voice nobody"),
        ('{"type": "input_audio_buffer.append", "audio": "%%"}', "audio"), ('{"type": "input_audio_buffer.append"}', "audio"),
        ('{"type": "input_audio_buffer.commit"}', "input_audio_buffer"), ('{"type": "response.cancel"}', "response.cancel"),
        ('{"type": "response.create"}', "response"), ('{"type": "conversation.item.delete", "item_id": "x"}', "item_id"),
        ('{"type": "conversation.item.create", "item": {"type": "function_call_output"}}', "item"),
        ('{"type": "conversation.item.create", "item": {"role": "user", "content": [7]}}', "item.content"),
        ('{"type": "conversation.item.truncate", "item_id": 7}', "item_id"),
    ],
)  # fmt: skip
def test_a_wrong_event_is_an_error_and_the_talk_goes_on(talking_server: Server, event: str, param: str) -> None:
    with talk(talking_server) as wire:
        wire.until("session.created")
        wire.socket.send(event)
        error = wire.until("error")["error"]
        assert error["param"] == param and len(error["message"]) > 15, error
        wire.send("input_audio_buffer.clear")
        wire.until("input_audio_buffer.cleared")
    assert "Traceback" not in talking_server.log


def test_without_parts_and_for_strangers_there_is_no_talk(server: Server, talking_server: Server, tmp_path: Path) -> None:
    with talk(server, path="/v1/realtime") as wire, pytest.raises(ConnectionClosed) as closed:
        assert "ingle pull voice" in wire.until("error")["error"]["message"]
        wire.until("session.created")
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008
    with pytest.raises(InvalidStatus), talk(talking_server, {"Origin": "https://elsewhere.example"}):
        pass
    with pytest.raises(InvalidStatus), talk(talking_server, {"Authorization": "Bearer ingle-0000"}):
        pass


def test_a_key_comes_as_a_header_or_as_a_protocol(tmp_path: Path, smollm2_home: Home) -> None:
    home = with_parts(lent(smollm2_home, tmp_path / "home"))
    key = ingle(home.root, "key", "add", "phone").stdout.strip()
    with serving(home.root, "--set", "serve.require_key=true") as server:
        with pytest.raises(InvalidStatus), talk(server):
            pass
        with talk(server, {"Authorization": f"Bearer {key}"}) as wire:
            wire.until("session.created")
        with talk(server, protocols=["realtime", f"openai-insecure-api-key.{key}", "openai-beta.realtime-v1"]) as wire:
            assert wire.until("session.created")["session"]["modalities"] == ["audio", "text"]
            assert wire.socket.subprotocol == "realtime"
        slow = ingle(home.root, "key", "add", "slow", "--requests-per-minute", "1").stdout.strip()
        with talk(server, {"Authorization": f"Bearer {slow}"}) as wire:
            wire.until("session.created")  # that was this minute's request
            part = {"type": "input_text", "text": "Hello"}
            wire.send("conversation.item.create", item={"type": "message", "role": "user", "content": [part]})
            wire.send("response.create")
            assert "1 times a minute" in wire.until("error")["error"]["message"]


def test_guards_stand_before_a_talk_too(tmp_path: Path, smollm2_home: Home) -> None:
    home = with_parts(lent(smollm2_home, tmp_path / "home"))
    (home.root / "policy.toml").write_text('[guards.pii]\nmode = "block"\nkinds = ["e-mail"]\n')
    with serving(home.root) as server, talk(server) as wire:
        part = {"type": "input_text", "text": "Write to jane@example.org."}
        wire.send("conversation.item.create", item={"type": "message", "role": "user", "content": [part]})
        wire.send("response.create")
        done = wire.until("response.done")["response"]
        assert done["status"] == "failed" and "personal data" in done["status_details"]["error"]["message"]
