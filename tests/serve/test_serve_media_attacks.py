"""Cheap files of one key, many at once: another key's tokens, keys and health go on, and nothing of it is left when the sender hangs up."""

import base64
import json
import select
import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from ingle.core.media import Sound
from ingle.home.parts import list_parts
from ingle.media.speech import Speech
from ingle.serve.realtime import IDLE_S
from tests.cli.place import ingle
from tests.media.bombs import looped, scans, silence
from tests.media.smolvlm import save
from tests.parts import PARTS, bring_parts
from tests.serve.conftest import copied
from tests.serve.meanwhile import Meanwhile
from tests.serve.servers import BY_HAND, Server, dial, head, memory, serving
from tests.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.journey

ATTACKERS, IN_WORK = 16, 8
STILL = f"""{BY_HAND}
from ingle.safety.policy import USUAL
from ingle.serve.service import Service
Service.__init__.__defaults__ = (USUAL, hand.clock)
"""


@dataclass
class Watched:
    """A server, and the headers of three keys."""

    server: Server
    attacker: dict[str, str]
    user: dict[str, str]
    talker: dict[str, str]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, kept_home: Path) -> Iterator[Watched]:
    home, folder = copied(kept_home, tmp_path_factory.mktemp("watched") / "home"), tmp_path_factory.mktemp("seer")
    save(folder, "SmolVLM", older=True)
    ingle(home, "pull", str(folder), "--name", "seer")
    source = bring_parts()
    (home / "parts").mkdir()
    for part in list_parts(source):
        if part.name in PARTS:
            (home / "bases" / part.base).symlink_to(source.root / "bases" / part.base)
            shutil.copy(source.root / "parts" / f"{part.name}.json", home / "parts")
    keys = [{"Authorization": f"Bearer {ingle(home, 'key', 'add', name).stdout.strip()}"} for name in ("attacker", "user", "talker")]
    with serving(home, "--set", "chat.model=tiny", "--set", "serve.require_key=true", before=STILL) as server:
        server.chat("warm", keys[1], model="seer", max_tokens=1)
        server.chat("warm", keys[1], model="tiny", max_tokens=1)
        yield Watched(server, *keys)


@pytest.fixture(scope="module")
def speech_of_minutes(watched: Watched) -> bytes:
    """Twenty minutes of words in a megabyte."""
    voice = Speech(watched.server.home)
    said = list(voice.speak("The train to Berlin leaves at nine, and the ticket costs twelve dollars. Nobody knew where the cat went."))
    voice.close()
    from ingle.media.sound import joined, resampled

    sound: Sound = resampled(joined(iter(said)), 16_000)
    return looped(sound.samples, sound.rate, 1200)


class Attack:
    """Requests that are sent at once, each on a wire of its own."""

    def __init__(self, server: Server, requests: Sequence[bytes]) -> None:
        self._wires = [dial(server) for _ in requests]
        self._statuses: dict[socket.socket, int] = {}
        for wire, data in zip(self._wires, requests, strict=True):
            wire.sendall(data)

    def statuses(self) -> list[int]:
        """Of those that are answered."""
        ready, _, _ = select.select([wire for wire in self._wires if wire not in self._statuses], [], [], 0)
        self._statuses |= {wire: int(wire.recv(20).split()[1]) for wire in ready}
        return list(self._statuses.values())

    def hang_up(self) -> None:
        for wire in self._wires:
            wire.close()


def raw(watched: Watched, path: str, **body: Any) -> bytes:
    """A request of the attacker as it goes over the wire."""
    asked = httpx.Request("POST", watched.server.url + path, headers=watched.attacker, **body)
    content = asked.read()
    return head(watched.server, path, "POST", [f"{name}: {value}" for name, value in asked.headers.items()]) + b"\r\n" + content


def shown(data: bytes) -> dict[str, Any]:
    url = "data:image/jpeg;base64," + base64.b64encode(data).decode()
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]
    return {"model": "seer", "messages": [{"role": "user", "content": parts}], "max_tokens": 2}


def heard(watched: Watched, headers: dict[str, str]) -> int:
    """The status of a small file, once it is decoded and heard."""
    sent = {"file": ("a", silence(1, 16_000))}
    return httpx.post(watched.server.url + "/v1/audio/transcriptions", files=sent, headers=headers, timeout=PATIENCE_S).status_code


@pytest.mark.parametrize("kind", ["hear", "silence", "see"])
def test_one_keys_media_delay_nobody(watched: Watched, speech_of_minutes: bytes, kind: str) -> None:
    server = watched.server
    sound = silence(1200, 192_000) if kind == "silence" else speech_of_minutes
    bomb = scans(600)

    def made(number: int) -> bytes:
        if kind == "see":
            return raw(watched, "/v1/chat/completions", json=shown(bomb + bytes(number)))
        return raw(watched, "/v1/audio/transcriptions", files={"file": ("a", sound)})

    requests = [made(number) for number in range(ATTACKERS)]
    assert heard(watched, watched.user) == 200
    with Meanwhile(server, watched.user) as other:
        before = memory(server)
        attack = Attack(server, requests)
        wait_until(lambda: attack.statuses().count(429) >= ATTACKERS - IN_WORK, "a key has eight in work")
        assert heard(watched, watched.user) == 200
        other.goes_on()
        others = [status for status in attack.statuses() if status != 429]
        assert len(others) < IN_WORK, "another's came before the last of those that were in work"
    server_holds = memory(server) - before
    assert server_holds < 150 << 20, "and the server holds none of it"
    attack.hang_up()
    wait_until(lambda: heard(watched, watched.attacker) == 200, "what the sender had in work has ended")


def test_a_key_has_three_talks_and_the_fourth_is_told_when_to_come_again(watched: Watched) -> None:
    url = watched.server.url.replace("http", "ws") + "/v1/realtime?model=tiny"

    def talk(headers: dict[str, str]) -> ClientConnection:
        return connect(url, additional_headers=headers, open_timeout=PATIENCE_S)

    with ExitStack() as talks:
        mine = [talks.enter_context(talk(watched.attacker)) for _ in range(3)]
        with pytest.raises(InvalidStatus) as refused:
            talk(watched.attacker)
        response = refused.value.response
        assert response.status_code == 429 and int(response.headers["Retry-After"]) >= 1 and b"3 talks" in (response.body or b"")
        with talk(watched.talker) as other:
            assert "session.created" in str(other.recv(PATIENCE_S))
        for one in mine:  # nobody says anything: they end, and say why
            messages = list[str]()
            with suppress(ConnectionClosed):
                while True:
                    try:
                        messages.append(str(one.recv(1)))
                    except TimeoutError:
                        watched.server.move(IDLE_S)
            assert "session.created" in messages[0] and "Nobody has said anything" in messages[-1]
    with talk(watched.attacker):
        pass


def test_words_of_a_talk_have_a_requests_limits_and_a_pace(watched: Watched) -> None:
    """Its share is eight megabytes at once, and two each second: two events, and one more after two seconds."""
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x" * 3_900_000}]}
    event = json.dumps({"type": "conversation.item.create", "item": item}).encode()
    frame = b"\x81\xff" + len(event).to_bytes(8) + bytes(4) + event
    upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    said = bytearray()

    def refused() -> int:
        if select.select([wire], [], [], 0)[0]:
            said.extend(wire.recv(1 << 16))
        return said.count(b"must leave at most")

    def flood() -> None:
        with suppress(OSError):
            while True:
                wire.sendall(frame)

    with dial(watched.server) as wire:
        key = [f"{name}: {value}" for name, value in watched.talker.items()]
        wire.sendall(head(watched.server, "/v1/realtime?model=tiny", "GET", [*upgrade, *key]) + b"\r\n")
        assert wire.recv(1 << 16).startswith(b"HTTP/1.1 101")
        wire.sendall(frame)
        wait_until(lambda: refused() == 1, "an item that no request could hold is refused")
        before = memory(watched.server)
        flooding = threading.Thread(target=flood)
        flooding.start()
        with Meanwhile(watched.server, watched.user) as other:
            wait_until(lambda: refused() == 2, "eight megabytes may come at once")
            other.goes_on()
            assert refused() == 2, "what comes too fast waits where it is sent"
            watched.server.move(2)
            wait_until(lambda: refused() == 3, "after two seconds, one more")
            other.goes_on()
        assert refused() == 3
        assert memory(watched.server) - before < 150 << 20
        wire.shutdown(socket.SHUT_RDWR)
        flooding.join()
        watched.server.move(60)  # it reads on, and finds nobody there
