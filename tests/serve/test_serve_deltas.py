"""Deltas that come and go while a server runs: offered at once, gone at once, and nobody else notices."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ingle.home.deltas import put_delta
from ingle.home.kept import get_kept, remove
from ingle.home.place import Home
from ingle.model.checkpoint import open_checkpoint
from tests.engine.test_delta_kinds import random_change
from tests.serve.servers import Server, error_of, serving
from tests.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.journey

FREE = {"temperature": 2.0, "seed": 7, "max_tokens": 40}
Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"


HOLDS = """
import os, time, ingle.serve.model_registry as registry
init, home = registry.ModelRegistry.__init__, os.environ["INGLE_HOME"]
def holding(self, *given, **named):
    init(self, *given, **named)
    opens = self.open
    def held(*which):
        while os.path.exists(home + "/hold"):
            open(home + "/held", "w").close()
            time.sleep(0.01)
        return opens(*which)
    self.open = held
registry.ModelRegistry.__init__ = holding
"""
"""Has the opening of a model wait while there is a file `hold` in the home. While it waits there is one that is named `held`."""


@pytest.fixture
def running(served_home: Path) -> Iterator[Server]:
    """A server that nobody else uses."""
    with serving(served_home, before=HOLDS) as server:
        yield server


def put(home: Home, model: str, name: str, kind: str = "lora", seed: int = 0) -> str:
    """Keeps a random delta; returns what to ask for."""
    kept = get_kept(home, model)
    config = open_checkpoint(home.base_folder(kept.base)).config
    put_delta(home, name, kind, kept.digest, random_change(config, kind, seed, (Q, DOWN)).tensors, {"seed": str(seed)})
    return f"{model}+{name}"


def told(server: Server, model: str, **changes: Any) -> dict[str, Any]:
    """An answer with its log-probabilities, without what is different each time."""
    response = server.chat("the same question", model=model, logprobs=True, top_logprobs=3, **{**FREE, **changes})
    assert response.status_code == 200, response.text
    choice: dict[str, Any] = response.json()["choices"][0]
    return {"message": choice["message"], "logprobs": choice["logprobs"], "usage": response.json()["usage"]["prompt_tokens"]}


class Stream(threading.Thread):
    """A long answer that is read as it comes."""

    def __init__(self, server: Server, model: str, seed: int, tokens: int) -> None:
        super().__init__()
        self._ask = {"model": model, "temperature": 2.0, "seed": seed, "max_tokens": tokens, "logit_bias": {"2": -100}, "stream": True}
        self._server = server
        self.pieces: list[str] = []
        self.finish = ""
        self.start()

    def run(self) -> None:
        """Reads to the end."""
        asked: Any = self._server.openai().chat.completions
        for chunk in asked.create(messages=[{"role": "user", "content": "a story"}], **self._ask):
            self.pieces.append(chunk.choices[0].delta.content or "" if chunk.choices else "")
            self.finish = (chunk.choices and chunk.choices[0].finish_reason) or self.finish

    def ended(self) -> str:
        """The text, once it is whole."""
        self.join(PATIENCE_S)
        assert self.finish in ("length", "stop")
        return "".join(self.pieces)


def test_a_delta_is_offered_at_once_and_gone_at_once(running: Server) -> None:
    home, before = running.home, told(running, "tiny")
    assert error_of(running.chat(model="tiny+x"))["message"].endswith("Offered: tiny.")
    names = [put(home, "tiny", "x"), put(home, "tiny", "y", seed=1), put(home, "tiny+x", "z", "ia3")]
    answers = [told(running, name) for name in names]
    for i, one in enumerate([before, *answers]):
        assert all(one["message"] != other["message"] for other in answers[i:])
    listed = running.get("/v1/models").json()["data"]
    assert [model["id"] for model in listed] == ["tiny", "tiny+x", "tiny+x+z", "tiny+y"]
    assert [len(model["ingle"]["deltas"]) for model in listed] == [0, 1, 2, 1]
    assert running.openai().models.retrieve("tiny+x+z").id == "tiny+x+z"
    assert told(running, "tiny") == before, "the base is what it was, to the last bit"
    remove(home, "tiny+x+z")
    remove(home, "tiny+x")
    gone = running.chat(model="tiny+x")
    assert gone.status_code == 404
    assert "Offered: tiny, tiny+y" in error_of(gone)["message"]
    assert running.get("/v1/models/tiny+x").status_code == 404
    assert told(running, "tiny") == before
    assert told(running, "tiny+y") == answers[1]
    put(home, "tiny", "x")
    assert told(running, "tiny+x") == answers[0], "the same delta once more is the same model"


def test_another_delta_of_the_same_name_is_another_model(running: Server) -> None:
    home = running.home
    put(home, "tiny", "x")
    first = told(running, "tiny+x")
    remove(home, "tiny+x")
    put(home, "tiny", "x", seed=5)
    assert told(running, "tiny+x") != first


@pytest.mark.parametrize("kind", ["lora", "full", "bottleneck"])
def test_streams_go_on_while_deltas_come_and_go(running: Server, kind: str) -> None:
    home = running.home
    put(home, "tiny", "old", seed=3)
    wanted = {seed: Stream(running, "tiny" if seed % 2 else "tiny+old", seed, 300).ended() for seed in range(4)}
    streams = [Stream(running, "tiny" if seed % 2 else "tiny+old", seed, 300) for seed in range(4)]
    wait_until(lambda: all(len(stream.pieces) > 5 for stream in streams), "all streams have begun")
    (home.root / "hold").touch()
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(told, running, put(home, "tiny", "new", kind), max_tokens=3)
        wait_until((home.root / "held").exists, "the new one is being opened")
        remove(home, "tiny+old")
        assert running.chat(model="tiny+old").status_code == 404
        assert [stream.ended() for stream in streams] == list(wanted.values()), "answers that were begun end as if nothing had happened"
        assert not opening.done(), "and none of them waited for an opening to end"
        (home.root / "hold").unlink()
        assert opening.result()["message"]
    remove(home, "tiny+new")
    assert running.chat(model="tiny+new").status_code == 404


def test_only_what_is_named_is_offered_with_what_deltas_make_of_it(served_home: Path) -> None:
    home = Home(served_home)
    put(home, "tiny", "x")
    put(home, "tiny", "y", seed=1)
    with serving(served_home, "tiny+x") as server:
        put(home, "tiny+x", "z", seed=2)
        assert [model["id"] for model in server.get("/v1/models").json()["data"]] == ["tiny+x", "tiny+x+z"]
        assert server.chat().json()["model"] == "tiny+x"
        assert server.chat(model="tiny+x+z").status_code == 200
        for name in ("tiny", "tiny+y"):
            assert server.chat(model=name).status_code == 404


def test_a_damaged_model_takes_nothing_but_itself_away(running: Server) -> None:
    home, before = running.home, told(running, "tiny")
    put(home, "tiny", "x")
    (home.models / "broken.json").write_text("{")
    assert [model["id"] for model in running.get("/v1/models").raise_for_status().json()["data"]] == ["tiny", "tiny+x"]
    assert told(running, "tiny") == before
    assert told(running, "tiny+x")
    assert running.chat(model="broken").status_code >= 500
    assert running.chat(model="nobody").status_code == 404
    health = running.health()
    assert (health["status"], health["damaged_models"]) == ("ok", 1)
    wait_until(lambda: "broken.json" in running.log, "the log tells of it")
    assert running.log.count('"damaged"') == 1
    (home.models / "broken.json").unlink()
    assert running.health()["damaged_models"] == 0


def test_a_home_that_is_gone_is_named(running: Server) -> None:
    home, elsewhere = running.home, running.home.root.with_name("elsewhere")
    home.root.rename(elsewhere)
    response = running.chat()
    assert response.status_code == 503 and f"home {home.root} is gone" in error_of(response)["message"]
    assert (running.get("/health").status_code, running.get("/health").json()["status"]) == (503, "no home")
    assert running.get("/v1/models").status_code == 503
    assert not home.root.exists(), "nothing makes an empty one in its place"
    elsewhere.rename(home.root)
    assert running.health()["status"] == "ok" and running.chat().status_code == 200


def test_a_damaged_delta_takes_nothing_but_itself_away(running: Server) -> None:
    home = running.home
    for name, seed in (("x", 0), ("y", 1)):
        put(home, "tiny", name, seed=seed)
    [digest] = get_kept(home, "tiny+x").deltas
    path = home.delta_folder(digest) / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert running.chat(model="tiny+x").status_code >= 500
    assert told(running, "tiny+y")["message"] != told(running, "tiny")["message"]


def test_a_delta_that_cannot_be_served_says_why(running: Server) -> None:
    home = running.home
    put(home, "tiny", "b", "bottleneck")
    name = put(home, "tiny+b", "x")
    response = running.chat(model=name)
    assert response.status_code == 409
    assert "bottleneck" in error_of(response)["message"]
    assert running.chat(model="tiny+b").status_code == 200
