"""Cheap files of one key, many at once: another key's tokens, keys and health go on, and nothing of it is left when the sender hangs up."""

import base64
import itertools
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from ingle.core.media import Sound
from ingle.home.parts import list_parts
from ingle.media.speech import Speech
from tests.cli.place import ingle
from tests.media.bombs import looped, scans, silence
from tests.media.smolvlm import save
from tests.parts import PARTS, bring_parts
from tests.serve.conftest import copied
from tests.serve.servers import Server, memory, serving

ATTACKERS = 16
LONGEST_S, OFTEN = 5.0, 3
"""Longest gap and wait: five seconds, and as many times the longest that came on this machine just before, for other tests run beside.
It was minutes; `bench/media_attack.py` measures it on a quiet machine."""


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
    idle = "import ingle.serve.realtime as talk; talk.IDLE_S = 3.0"
    with serving(home, "--set", "chat.model=tiny", "--set", "serve.require_key=true", before=idle) as server:
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


@dataclass
class Watch:
    """What another key sees meanwhile."""

    server: Server
    headers: dict[str, str]
    times: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Watch":
        self._threads = [threading.Thread(target=one) for one in (self._read, self._poll)]
        for thread in self._threads:
            thread.start()
        while len(self.times) < 30:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self._threads:
            thread.join()

    def _read(self) -> None:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 30_000, "seed": 1, "stream": True}
        with httpx.stream("POST", self.server.url + "/v1/chat/completions", json=body, headers=self.headers, timeout=60) as answer:
            for _line in answer.iter_lines():
                self.times.append(time.perf_counter())
                if self.ended.is_set():
                    return

    def _poll(self) -> None:
        while not self.ended.is_set():
            began = time.perf_counter()
            httpx.get(self.server.url + "/health", timeout=60)
            self.health.append(time.perf_counter() - began)
            time.sleep(0.05)

    @property
    def worst_s(self) -> float:
        """The longest gap between two lines, or wait for /health."""
        return max(*(after - before for before, after in itertools.pairwise(self.times)), *self.health)


def quiet_s(watched: Watched) -> float:
    """The longest gap or wait of two seconds without an attack."""
    with Watch(watched.server, watched.user) as watch:
        time.sleep(2)
    return watch.worst_s


def attack(send: Any) -> list[int]:
    """Statuses of sixteen requests at once; 0 = the sender hung up."""
    statuses = list[int]()

    def one(number: int) -> None:
        try:
            statuses.append(send(number).status_code)
        except httpx.TimeoutException:
            statuses.append(0)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(ATTACKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def shown(data: bytes) -> dict[str, Any]:
    url = "data:image/jpeg;base64," + base64.b64encode(data).decode()
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]
    return {"model": "seer", "messages": [{"role": "user", "content": parts}], "max_tokens": 2}


def heard_s(watched: Watched) -> float:
    """How long another key waits until its file is decoded and heard."""
    began = time.monotonic()
    sent = {"file": ("a", silence(1, 16_000))}
    heard = httpx.post(watched.server.url + "/v1/audio/transcriptions", files=sent, headers=watched.user, timeout=120)
    assert heard.status_code == 200
    return time.monotonic() - began


@pytest.mark.parametrize("kind", ["hear", "silence", "see"])
def test_one_keys_media_delay_nobody(watched: Watched, speech_of_minutes: bytes, kind: str) -> None:
    server = watched.server
    path = server.url + ("/v1/chat/completions" if kind == "see" else "/v1/audio/transcriptions")
    sound = silence(1200, 192_000) if kind == "silence" else speech_of_minutes
    bomb = scans(600)

    def send(number: int) -> httpx.Response:
        if kind == "see":
            return httpx.post(path, json=shown(bomb + bytes(number)), headers=watched.attacker, timeout=4)
        return httpx.post(path, files={"file": ("a", sound)}, headers=watched.attacker, timeout=4)

    alone = heard_s(watched)
    before, quiet = memory(server), quiet_s(watched)
    with Watch(server, watched.user) as watch:
        statuses = attack(send)
        assert heard_s(watched) < 15 + OFTEN * alone, "although the attacker's were so many"
    assert watch.worst_s < LONGEST_S + OFTEN * quiet
    assert 429 in statuses, "a key has eight in work"
    assert memory(server) - before < 150 << 20, "and the server holds none of it"


def test_a_key_has_three_talks_and_the_fourth_is_told_when_to_come_again(watched: Watched) -> None:
    url = watched.server.url.replace("http", "ws") + "/v1/realtime?model=tiny"

    def talk(headers: dict[str, str]) -> ClientConnection:
        return connect(url, additional_headers=headers, open_timeout=30)

    mine = [talk(watched.attacker) for _ in range(3)]
    with pytest.raises(InvalidStatus) as refused:
        talk(watched.attacker)
    response = refused.value.response
    assert response.status_code == 429 and int(response.headers["Retry-After"]) >= 1 and b"3 talks" in (response.body or b"")
    with talk(watched.talker) as other:
        assert "session.created" in str(other.recv(30))
    for one in mine:  # nobody says anything: they end, and say why
        messages = list[str]()
        with one, suppress(Exception):
            while True:
                messages.append(str(one.recv(30)))
        assert "Nobody has said anything" in messages[-1]
    with talk(watched.attacker):
        pass


def test_words_of_a_talk_have_a_requests_limits_and_a_pace(watched: Watched) -> None:
    url = watched.server.url.replace("http", "ws") + "/v1/realtime?model=tiny"
    import json

    text = "x" * 3_900_000
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    event = json.dumps({"type": "conversation.item.create", "item": item})
    before, quiet = memory(watched.server), quiet_s(watched)
    with Watch(watched.server, watched.user) as watch, connect(url, additional_headers=watched.talker, open_timeout=30) as wire:
        wire.recv(30)
        wire.send(event)
        assert "must leave at most" in str(wire.recv(30)), "an item that no request could hold is refused"
        ended, refused = time.monotonic() + 6, 1

        def flood() -> None:
            with suppress(Exception):
                while time.monotonic() < ended:
                    wire.send(event)

        flooding = threading.Thread(target=flood)
        flooding.start()
        with suppress(TimeoutError):
            while time.monotonic() < ended:
                refused += "must leave at most" in str(wire.recv(1))
        wire.close()
        flooding.join()
    assert refused < 10, "and what comes too fast waits where it is sent"
    assert watch.worst_s < LONGEST_S + OFTEN * quiet
    assert memory(watched.server) - before < 150 << 20
