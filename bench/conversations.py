"""How long lists, searches and readings of many conversations take: 1,000 of 100 turns each, by HTTP on loopback.

.venv/bin/python -m bench.conversations
"""

import json
import random
import statistics
import tempfile
import time
from pathlib import Path

import httpx

from ingle.app.house import open_rooms
from ingle.core.message import Message
from ingle.home.conversations import create_conversation
from ingle.home.place import Home
from ingle.home.turns import keep
from tests.cli.place import ingle
from tests.serve.servers import serving, write_long_model

CONVERSATIONS, TURNS, WORDS, TIMES = 1_000, 100, 40, 15
VOCABULARY = [f"word{number}" for number in range(5_000)]


def fill(home: Home) -> str:
    """Store the conversations, and return the id of the last one."""
    draw, engine = random.Random(1), open_rooms(home)
    for number in range(CONVERSATIONS):
        made = create_conversation(engine, "", f"Conversation {number}")
        said = [Message.of("user" if i % 2 == 0 else "assistant", " ".join(draw.choices(VOCABULARY, k=WORDS))) for i in range(TURNS)]
        keep(engine, "", said, "", made.id)
    engine.dispose()
    return made.id


def main() -> None:
    """Measure and print, in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        ingle(home, "pull", str(write_long_model(Path(folder) / "model")), "--name", "tiny")
        last = fill(Home(home))
        paths = {
            "list 50": "/v1/conversations",
            "list 1,000": "/v1/conversations?limit=1000",
            "search, common word": "/v1/conversations?words=word17",
            "search, no match": "/v1/conversations?words=nowhere",
            "read 80 turns, shown": f"/v1/conversations/{last}?last=80&shown=true",
        }
        with serving(home) as server, httpx.Client(base_url=server.url, timeout=60) as client:
            for name, path in paths.items():
                client.get(path)
                taken = []
                for _ in range(TIMES):
                    began = time.perf_counter()
                    client.get(path).raise_for_status()
                    taken.append(1000 * (time.perf_counter() - began))
                print(
                    json.dumps(
                        {
                            "what": name,
                            "median_ms": round(statistics.median(taken), 1),
                            "range": [round(min(taken), 1), round(max(taken), 1)],
                        }
                    )
                )


if __name__ == "__main__":
    main()
