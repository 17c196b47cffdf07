"""Cheap hostile media of one key, sixteen requests at once, beside another key's answer; and then for minutes, in a container of 1 GB.

hear      Ogg (Opus) of twenty minutes of words, about 1 MB
silence   FLAC of twenty minutes of nothing at 192 kHz, 0.7 MB
see       JPEG of 6,300 × 6,300 whose last scan comes 600 times, 0.5 MB
talk      a talk over /v1/realtime that is sent items of 3.9 MB as fast as they go

Every sender hangs up after --patience. Meanwhile another key's answer comes as a stream, over and over, and /health is asked; told are the
longest gap between two lines, the longest wait for the first, and the longest wait for /health. The senders are another process.
With --group-mb (Linux, as root: a group of processes with so much memory), --clients senders of all kinds follow, --rounds times over; a
lone user asks every second. Told are whether the server lives, the user's first tokens, and the memory of all its processes before, at the
most, and a minute after.

Exit code 1: a bar was missed (a quiet machine: gap 0.5 s, health 0.2 s, first token 1.5 s, idle + 50 MB).
"""

import asyncio
import base64
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from harness import finish, show
from ingle.app.house import open_rooms
from ingle.home.api_keys import add_key
from ingle.home.place import Home
from servers import Server, ingle_command, say, scratch_home, start_bench, start_ingle, stopping

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.media.bombs import looped, scans, silence

EXAMPLES = """  python bench/media_attack.py
  python bench/media_attack.py --kinds see --patience 5
  python bench/media_attack.py --kinds --group-mb 1024 --rounds 3
"""
KINDS = ("hear", "silence", "see", "talk")
BARS = {"gap_s": 0.5, "health_s": 0.2, "first_s": 1.5, "left_mb": 50.0}
MODEL = "smollm2+sight"


def files(folder: Path, home: Home) -> None:
    """Write what is sent."""
    from contextlib import closing

    from ingle.media.sound import joined, resampled
    from ingle.media.speech import Speech

    with closing(Speech(home)) as speech:
        said = joined(
            speech.speak("The train to Berlin leaves at nine, and the ticket costs twelve dollars. Nobody knew where the cat went.")
        )
    sound = resampled(said, 16_000)
    (folder / "hear").write_bytes(looped(sound.samples, sound.rate, 1200))
    (folder / "silence").write_bytes(silence(1200, 192_000))
    (folder / "see").write_bytes(scans(600))


async def send(url: str, key: str, kind: str, folder: Path, number: int, patience: float) -> str:
    """Send one request, and hang up when patience ends. Returns its status, or why it ended."""
    head = {"Authorization": f"Bearer {key}"}
    try:
        if kind == "talk":
            return await talk(url, key, patience)
        async with httpx.AsyncClient(timeout=patience) as client:
            if kind != "see":
                sent = {"file": ("a", (folder / kind).read_bytes())}
                return str((await client.post(f"{url}/v1/audio/transcriptions", files=sent, headers=head)).status_code)
            data = "data:image/jpeg;base64," + base64.b64encode((folder / kind).read_bytes() + bytes(number)).decode()
            parts = [{"type": "image_url", "image_url": {"url": data}}, {"type": "text", "text": "What is it?"}]
            body = {"model": MODEL, "messages": [{"role": "user", "content": parts}], "max_tokens": 4}
            return str((await client.post(f"{url}/v1/chat/completions", json=body, headers=head)).status_code)
    except httpx.TimeoutException:
        return "hung up"
    except (httpx.TransportError, OSError) as error:
        return type(error).__name__


async def talk(url: str, key: str, patience: float) -> str:
    """Flood a talk with items that no request could hold."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    part = {"type": "input_text", "text": "x" * 3_900_000}
    event = json.dumps({"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": [part]}})
    head = {"Authorization": f"Bearer {key}"}
    try:
        async with asyncio.timeout(patience + 2):
            address = url.replace("http", "ws") + "/v1/realtime?model=smollm2"
            async with connect(address, additional_headers=head, open_timeout=30, close_timeout=1, ping_interval=None) as wire:
                with suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        while True:
                            await wire.send(event)
    except InvalidStatus as error:
        return str(error.response.status_code)
    except TimeoutError:
        return "hung up"
    except (OSError, ConnectionClosed) as error:
        return type(error).__name__
    return "talked"


async def attack(url: str, key: str, kinds: list[str], folder: Path, count: int, patience: float) -> Counter[str]:
    """Send so many requests at once, of these kinds in turn."""
    ways = itertools.islice(itertools.cycle(kinds), count)
    return Counter(await asyncio.gather(*(send(url, key, kind, folder, number, patience) for number, kind in enumerate(ways))))


@dataclass
class Watch:
    """What others see meanwhile."""

    server: Server
    key: str
    gaps_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    pause_s: float = 0.0
    """Between two answers."""
    ended: bool = False

    def __enter__(self) -> "Watch":
        self._threads = [threading.Thread(target=one) for one in (self._read, self._poll, self._weigh)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = True
        for thread in self._threads:
            thread.join()

    def _read(self) -> None:
        head = {"Authorization": f"Bearer {self.key}"}
        while not self.ended:
            body = {"messages": [{"role": "user", "content": f"Tell me about number {time.time()}."}], "max_tokens": 200, "stream": True}
            last, first = time.perf_counter(), True
            with (
                suppress(httpx.TransportError),
                httpx.stream("POST", self.server.url + "/v1/chat/completions", json=body, headers=head, timeout=120) as answer,
            ):
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        now = time.perf_counter()
                        (self.first_s if first else self.gaps_s).append(now - last)
                        last, first = now, False
                    if self.ended:
                        return
            time.sleep(self.pause_s)

    def _poll(self) -> None:
        while not self.ended:
            began = time.perf_counter()
            with suppress(httpx.TransportError):
                httpx.get(self.server.url + "/health", timeout=120)
            self.health_s.append(time.perf_counter() - began)
            time.sleep(0.1)

    def _weigh(self) -> None:
        while not self.ended:
            self.memory_mb.append(weight(self.server))
            time.sleep(0.25)


def weight(server: Server) -> float:
    """MB that all processes of a server hold for themselves alone."""
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(server.process.pid)], capture_output=True, text=True, check=False).stdout
    whole = 0
    for pid in (server.process.pid, *map(int, children.split())):
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            whole += sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
    return whole / 1024


def attacking(server: Server, key: str, kinds: list[str], folder: Path, count: int, patience: float) -> "subprocess.Popen[str]":
    """Begin an attack from another process."""
    words = [server.url, key, ",".join(kinds), str(folder), str(count), str(patience)]
    return subprocess.Popen([sys.executable, __file__, "--attack", *words], stdout=subprocess.PIPE, text=True)


def beside(server: Server, keys: list[str], kind: str, folder: Path, options: Any) -> dict[str, Any]:
    """One kind of attack beside another key's answers."""
    with Watch(server, keys[1]) as quiet:
        time.sleep(5)
    with Watch(server, keys[1]) as watch:
        time.sleep(1)
        done, _ = attacking(server, keys[0], [kind], folder, options.attackers, options.patience).communicate()
        time.sleep(2)
    return {
        "statuses": json.loads(done), "gap_s": max(watch.gaps_s), "first_s": max(watch.first_s), "health_s": max(watch.health_s),
        "quiet_gap_s": max(quiet.gaps_s), "quiet_health_s": max(quiet.health_s), "most_mb": max(watch.memory_mb),
    }  # fmt: skip


@contextmanager
def group(most_mb: int) -> Iterator[Path | None]:
    """A group of processes with so much memory; this one, and all that it starts, are in it only while they say so."""
    for limit, parent in {"memory.limit_in_bytes": Path("/sys/fs/cgroup/memory"), "memory.max": Path("/sys/fs/cgroup")}.items():
        place = parent / f"ingle-attack-{os.getpid()}"
        with suppress(OSError):
            place.mkdir()
            (place / limit).write_text(str(most_mb << 20))
            yield place
            with suppress(OSError):
                place.rmdir()
            return
    yield None


def contained(home: Home, keys: list[str], folder: Path, options: Any, started: Any) -> dict[str, Any]:
    """All kinds at once, again and again, in a container."""
    with group(options.group_mb) as place:
        if place is None:
            raise SystemExit("--group-mb needs the right to make a group of processes")
        server = started(start_ingle(home, "--set", "serve.require_key=true"))
        (place / "cgroup.procs").write_text(str(server.process.pid))
        rows = list[dict[str, Any]]()
        with Watch(server, keys[1]):
            time.sleep(3)
        idle_mb = weight(server)
        for number in range(options.rounds):
            with Watch(server, keys[1], pause_s=1.0) as watch:
                senders = [
                    attacking(server, key, list(KINDS), folder, options.clients // 3, options.patience) for key in keys[2:5]
                ]  # fmt: skip
                for sender in senders:
                    sender.communicate()
                time.sleep(2)
            rows.append({"first_s": max(watch.first_s, default=1e9), "most_mb": max(watch.memory_mb), "health_s": max(watch.health_s)})
            say(f"round {number + 1}: {rows[-1]}")
        time.sleep(60)
        alive = server.process.poll() is None
        found = {"alive": alive, "idle_mb": idle_mb, "after_mb": weight(server) if alive else 0.0, "rounds": rows}
        server.stop()
    return found


def main() -> None:
    if sys.argv[1:2] == ["--attack"]:
        url, key, kinds, place, count, patience = sys.argv[2:]
        print(json.dumps(asyncio.run(attack(url, key, kinds.split(","), Path(place), int(count), float(patience)))))
        return
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--attackers", type=int, default=16)
    parser.add_argument("--patience", type=float, default=20.0, help="seconds until a sender hangs up")
    parser.add_argument("--group-mb", type=int, default=0, help="memory of the container; 0 = none is tried")
    parser.add_argument("--clients", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with scratch_home() as home, stopping() as started:
        for part in ("hearing", "voice", "sight"):
            subprocess.run([ingle_command(), "pull", part], env=os.environ | {"INGLE_HOME": str(home.root)}, stdout=sys.stderr, check=True)
        database = open_rooms(home)
        keys = [add_key(database, f"key {number}")[1] for number in range(5)]
        database.dispose()
        folder = Path(home.root) / "sent"
        folder.mkdir()
        files(folder, home)
        found: dict[str, Any] = {}
        if options.kinds:
            server = started(start_ingle(home, "--set", "serve.require_key=true"))
            for kind in options.kinds:
                found[kind] = beside(server, keys, kind, folder, options)
                say(f"{kind}: {found[kind]}")
            server.stop()
        if options.group_mb:
            found["container"] = contained(home, keys, folder, options, started)
    report(found)


def report(found: dict[str, Any]) -> None:
    """The tables, the line for machines, and the exit code."""
    held = True
    rows: list[list[object]] = [["attack", "statuses", "longest gap, s (quiet)", "/health, s (quiet)", "first line, s", "most MB"]]
    for kind, one in found.items():
        if kind != "container":
            gap, health = (f"{one[name]:.2f} ({one[f'quiet_{name}']:.2f})" for name in ("gap_s", "health_s"))
            rows.append([kind, dict(one["statuses"]), gap, health, f"{one['first_s']:.2f}", f"{one['most_mb']:.0f}"])
            held &= one["gap_s"] <= BARS["gap_s"] and one["health_s"] <= BARS["health_s"]
    if len(rows) > 1:
        show("Sixteen requests of one key, beside another's answer", rows)
    if one := found.get("container"):
        left_mb = one["after_mb"] - one["idle_mb"]
        rows = [["", "figure"], ["the server lives", one["alive"]], ["idle, MB", f"{one['idle_mb']:.0f}"]]
        rows += [[f"round {n}: first token, most MB", f"{r['first_s']:.2f} s, {r['most_mb']:.0f}"] for n, r in enumerate(one["rounds"], 1)]
        rows += [["a minute after, beyond idle, MB", f"{left_mb:+.0f}"]]
        show("In a container", rows)
        held &= one["alive"] and left_mb <= BARS["left_mb"] and all(r["first_s"] <= BARS["first_s"] for r in one["rounds"])
    finish("media_attack", {"found": found, "bars": BARS, "held": held})
    sys.exit(not held)


if __name__ == "__main__":
    main()
