"""A server on a small machine: little memory, and whoever asks for what it does without is told so."""

from pathlib import Path
from typing import Any

import pytest

from ingle.app.settings import Settings, read_settings, serve_settings
from ingle.core.errors import ConfigError
from ingle.home.place import Home
from tests.cli.place import ingle
from tests.serve.servers import Server, error_of, memory, serving

MOST_IDLE_MB = 230
"""Of the tiny model: twice the 115 that Python and the libraries take. `bench/small.py` has the figures."""
STATES_MB = 64
LEFT_OUT = ("numba", "torch", "ingle.page.mount", "rich.markdown")
MODULES = f"import atexit, sys; atexit.register(lambda: print('LOADED', *[m for m in {LEFT_OUT} if m in sys.modules], file=sys.stderr))"


def megabytes(server: Server) -> float:
    return memory(server) / (1 << 20)


def test_it_says_what_it_does_without(served_home: Path, long_folder: Path) -> None:
    ingle(served_home, "pull", str(long_folder), "--name", "other")
    with serving(served_home, "--small", "tiny", before=MODULES) as server:
        assert server.process.stdout is not None
        said = server.process.stdout.readline().decode()
        assert said.startswith("Small: models tiny; no page; no learner; keys and values in int8; ")
        assert "4 answers at once, 16 waiting" in said
        health = server.health()
        assert (health["small"], health["page"], health["learner"], health["most_state_bytes"]) == (True, False, False, STATES_MB << 20)
        page = server.get("/")
        assert page.status_code == 404 and "has no page" in error_of(page)["message"]
        assert "/" not in server.get("/openapi.json").json()["paths"]
        other = server.chat(model="other")
        assert other.status_code == 404 and "Offered: tiny" in error_of(other)["message"]
        assert [one["id"] for one in server.get("/v1/models").json()["data"]] == ["tiny"]
        long = server.chat("word " * 2000, max_tokens=30000)
        assert long.status_code in (200, 400)
        if long.status_code == 400:
            assert "serve.state_mb" in error_of(long)["message"]
        server.stop()
        assert "LOADED\n" in server.log


def test_it_takes_little_memory(served_home: Path) -> None:
    """It grows by the states that it may remember, and by no more than that again, however long it talks."""
    with serving(served_home, "--small") as server:
        assert megabytes(server) < MOST_IDLE_MB
        talk: list[dict[str, str]] = []
        server.chat("word " * 1500).raise_for_status()  # the guards' encoder is loaded, and buffers for long prompts are there
        warm = megabytes(server)
        for turn in range(20):
            talk.append({"role": "user", "content": f"turn {turn} " + "word " * 20})
            answer: Any = server.post("/v1/chat/completions", {"messages": talk, "max_tokens": 40, "seed": turn}).raise_for_status().json()
            talk.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})
        assert answer["usage"]["total_tokens"] > 2000
        for turn in range(4):  # others' prompts, of which it may not remember all
            server.chat(f"{turn} " + "other " * 1500).raise_for_status()
        assert server.health()["state_bytes"] <= STATES_MB << 20
        assert megabytes(server) - warm < 2 * STATES_MB, warm


def test_what_the_owner_names_himself_holds(tmp_path: Path) -> None:
    home = Home(tmp_path)
    (tmp_path / "config.toml").write_text('[serve]\nsmall = true\nplaces = 7\n[chat]\ncache = "float32"\n')
    small = serve_settings(home, ("serve.queue=9",), {"serve.page": True, "chat.threads": None})
    assert (small.serve.places, small.serve.queue, small.serve.page, small.chat.cache) == (7, 9, True, "float32")
    assert (small.serve.state_mb, small.learn.worker) == (64, False) and small.chat.threads in (1, 2)
    assert read_settings(home).chat.threads is None, "only a server is small"
    assert serve_settings(home, (), {"serve.small": False}).serve.page
    assert serve_settings(Home(tmp_path / "nobody")) == Settings()


@pytest.mark.parametrize("line", ["[serve]\nsmall = 3\n", "[serve]\nsmal = true\n", "serve = 3\n"])
def test_a_setting_that_can_not_be_names_its_file(tmp_path: Path, line: str) -> None:
    (tmp_path / "config.toml").write_text(line)
    with pytest.raises(ConfigError, match=r"config\.toml"):
        serve_settings(Home(tmp_path))
