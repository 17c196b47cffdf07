"""Pictures over the API: OpenAI's own client draws them, the ledger has their facts, and words stay words."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ingle.home.deltas import put_delta
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.media.painter import CODES
from ingle.model.checkpoint import open_checkpoint
from tests.cli.place import ingle
from tests.engine.test_delta_kinds import random_change
from tests.media.test_painter import random_hand_tensors
from tests.serve.servers import Server, error_of, serving
from tests.tuning.test_tuning_painter import write_worded_model

Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"


def put_painter(home: Home, model: str, name: str = "painter") -> None:
    """Keep a painter of noise for a model."""
    kept = get_kept(home, model)
    change = random_change(open_checkpoint(home.base_folder(kept.base)).config, "lora", 0, (Q, DOWN))
    tensors = {**random_hand_tensors(palette=range(300, 300 + CODES)), **change.tensors}
    put_delta(home, name, "painter", kept.digest, tensors, {"seed": "0"})


@pytest.fixture(scope="module")
def painting_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a model that paints noise."""
    home = tmp_path_factory.mktemp("painting")
    ingle(home, "pull", str(write_worded_model(tmp_path_factory.mktemp("models") / "worded")), "--name", "tiny")
    put_painter(Home(home), "tiny")
    return home


@pytest.fixture(scope="module")
def studio(painting_home: Path) -> Iterator[Server]:
    """A server whose model paints noise."""
    with serving(painting_home) as running:
        yield running


def test_openais_client_draws(studio: Server) -> None:
    reply = studio.openai().images.generate(model="tiny+painter", prompt="a red apple", n=2, size="256x256", extra_body={"seed": 4})
    assert reply.data is not None
    pictures = [Image.open(io.BytesIO(base64.b64decode(one.b64_json or ""))) for one in reply.data]
    assert [(one.format, one.size) for one in pictures] == [("PNG", (256, 256))] * 2
    assert reply.data[0].b64_json != reply.data[1].b64_json
    assert reply.usage is not None
    assert reply.usage.output_tokens == 128
    again = studio.openai().images.generate(model="tiny+painter", prompt="draw a red apple", extra_body={"seed": 4})
    assert again.data is not None
    assert again.data[0].b64_json == reply.data[0].b64_json
    rows = [row for row in studio.facts("answer") if row.subject == "tiny+painter"]
    assert len(rows) == 3
    assert {row.values["completion_tokens"] for row in rows} == {64}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"response_format": "url"}, "no picture is kept to be fetched by a URL"),
        ({"size": "100x200"}, "must be a square of 64 to 1024 pixels"),
        ({"size": "4096x4096"}, "must be a square"),
        ({"size": "９９x９９"}, "must be a square"),
        ({"prompt": "draw a"}, None),
        ({"prompt": "  "}, "must name what to draw"),
        ({"prompt": "x" * 500}, "at most 200 characters"),
        ({"n": 0}, "n"),
        ({"prompt": None}, "prompt"),
    ],
)
def test_what_cannot_be_drawn_is_refused(studio: Server, change: dict[str, Any], said: str | None) -> None:
    body = {"model": "tiny+painter", "prompt": "an owl", "seed": 1} | change
    response = studio.post("/v1/images/generations", body)
    if said is None:
        assert response.status_code == 200
        return
    assert response.status_code == 400, response.text
    assert said in error_of(response)["message"]


def test_edits_are_refused_with_a_reason(studio: Server) -> None:
    response = studio.post("/v1/images/edits", {})
    assert response.status_code == 400
    assert "draws from words alone" in error_of(response)["message"]


def test_words_stay_words(studio: Server) -> None:
    bodies = [{"model": model, "prompt": "an owl", "max_tokens": 12, "seed": 1, "temperature": 1.0} for model in ("tiny", "tiny+painter")]
    plain, with_painter = (studio.post("/v1/completions", body).json()["choices"][0]["text"] for body in bodies)
    assert plain == with_painter


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of a picture's file."""
    with Image.open(path) as picture:
        return picture.size


def test_ingle_draw_writes_a_file_and_a_fact(painting_home: Path, tmp_path: Path) -> None:
    out = tmp_path / "owl.png"
    done = ingle(painting_home, "draw", "an owl", "tiny+painter", "-n", "3", "-o", str(out), "--seed", "2", "--json")
    told = json.loads(done.stdout)
    assert told["file"] == str(out)
    assert [len(one["words"].split()) for one in told["pictures"]] == [64] * 3
    assert [one["likeness"] for one in told["pictures"]] == sorted((one["likeness"] for one in told["pictures"]), reverse=True)
    assert size_of(out) == (256, 256)
    sheet = tmp_path / "sheet.png"
    ingle(painting_home, "draw", "an owl in the style of fluent", "-n", "2", "-o", str(sheet), "--sheet", "--size", "64")
    assert size_of(sheet) == (132, 64)
    for wrong, said in (("--style", "--style must be one of"), ("--size", "--size must be between"), ("-n", "-n must be between")):
        done = ingle(painting_home, "draw", "an owl", wrong, "5000" if wrong != "--style" else "dali", code=2)
        assert said in done.stderr
    assert "tiny can't paint" in ingle(painting_home, "draw", "an owl", "tiny", code=2).stderr


def shown(answer: Any) -> bytes:
    """The one picture in a chat's answer."""
    [picture] = answer.choices[0].message.model_extra["images"]
    return base64.b64decode(picture["image_url"]["url"].partition(",")[2])


def test_a_conversation_that_asks_for_a_drawing_gets_one_and_goes_on(studio: Server) -> None:
    client, asked = studio.openai(), {"role": "user", "content": "Draw me a red apple, please."}
    answer = client.chat.completions.create(model="tiny+painter", messages=[asked], seed=3, store=True)  # type: ignore[list-item]
    assert Image.open(io.BytesIO(shown(answer))).size == (256, 256)
    assert answer.choices[0].message.content == "" and answer.choices[0].finish_reason == "stop"
    again = client.chat.completions.create(model="tiny+painter", messages=[asked], seed=3)  # type: ignore[list-item]
    assert shown(again) == shown(answer)
    streamed = client.chat.completions.create(model="tiny+painter", messages=[asked], seed=3, stream=True)  # type: ignore[list-item]
    deltas = [chunk.choices[0].delta.model_extra or {} for chunk in streamed if chunk.choices]
    [picture] = [one["images"] for one in deltas if "images" in one]
    assert base64.b64decode(picture[0]["image_url"]["url"].partition(",")[2]) == shown(answer)
    assert ingle(studio.home.root, "replay", answer.id).stdout.count("yes") == 4
    stored = client.responses.create(model="tiny+painter", input="Draw a tree.", store=True)
    [drawn] = stored.output
    assert drawn.type == "image_generation_call" and drawn.result
    assert client.responses.retrieve(stored.id).output[0].result == drawn.result  # type: ignore[union-attr]
    after = client.responses.create(model="tiny+painter", input="Was it good?", previous_response_id=stored.id, max_output_tokens=4)
    assert after.output_text, "a model that can't see reads that there was a picture"


@pytest.mark.parametrize("text", ["What does it mean to draw?", "Draw a conclusion from this.", "draw", "Tell me a story."])
def test_who_asks_for_words_gets_words(studio: Server, text: str) -> None:
    answer = studio.openai().chat.completions.create(
        model="tiny+painter", messages=[{"role": "user", "content": text}], max_tokens=4, seed=1
    )
    assert not (answer.choices[0].message.model_extra or {}).get("images")
    assert answer.choices[0].message.content


def test_the_painter_that_is_kept_for_a_model_draws_for_it(studio: Server) -> None:
    for wish, drawn in (("Draw a red apple.", True), ("Draw a conclusion.", False)):
        asked: Any = [{"role": "user", "content": wish}]
        said = studio.openai().chat.completions.create(model="tiny", messages=asked, max_tokens=4, seed=1).choices[0].message
        assert bool((said.model_extra or {}).get("images")) is drawn and bool(said.content) is not drawn
