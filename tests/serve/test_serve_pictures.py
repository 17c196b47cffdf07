"""Pictures through OpenAI's own package, on a tiny model that sees: read once, remembered over a restart, replayed to the bit."""

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from ingle.core.media import Picture
from ingle.media.picture import png_of
from tests.cli.place import ingle
from tests.media.smolvlm import picture, save
from tests.serve.servers import Server, serving


@pytest.fixture(scope="module")
def sighted_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, home = tmp_path_factory.mktemp("sighted"), tmp_path_factory.mktemp("kept")
    save(folder, "SmolVLM", older=True)
    (home / "config.toml").write_text("[serve]\ndrafts = false\n")
    ingle(home, "pull", str(folder), "--name", "seer")
    return home


@pytest.fixture(scope="module")
def sighted(sighted_home: Path) -> Iterator[Server]:
    with serving(sighted_home) as running:
        yield running


def url(pixels: np.ndarray) -> str:
    return "data:image/png;base64," + base64.b64encode(png_of(Picture(pixels))).decode()


def asking(*shapes: str, text: str = "What is in this picture?") -> Any:
    pictures = [{"type": "image_url", "image_url": {"url": url(picture(shape)), "detail": "auto"}} for shape in shapes]
    return [{"role": "user", "content": [*pictures, {"type": "text", "text": text}]}]


def said(server: Server, messages: Any, **changes: Any) -> Any:
    wishes = {"max_completion_tokens": 12, "seed": 1, "temperature": 1.5, "model": "seer"}
    return server.openai().chat.completions.create(messages=messages, **(wishes | changes))


def test_openais_package_shows_pictures_and_is_told_what_they_took(sighted: Server) -> None:
    answer = said(sighted, asking("wide"))
    assert answer.choices[0].message.content
    usage = answer.usage.prompt_tokens_details.model_dump()
    assert usage["image_tokens"] == 9 * 16, "eight tiles and the whole, of sixteen places each"
    assert said(sighted, asking("tall")).choices[0].message.content != answer.choices[0].message.content
    again = said(sighted, asking("wide"))
    assert again.choices[0].message.content == answer.choices[0].message.content
    assert again.usage.prompt_tokens_details.cached_tokens == answer.usage.prompt_tokens - 1
    streamed = said(sighted, asking("wide"), stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices) == answer.choices[0].message.content
    fact = sighted.answers()[-1].values
    assert len(str(fact["sight"])) == 64


def test_responses_show_pictures_too(sighted: Server) -> None:
    content = [{"type": "input_text", "text": "What is it?"}, {"type": "input_image", "image_url": url(picture("odd")), "detail": "auto"}]
    asked: Any = [{"role": "user", "content": content}]
    client = sighted.openai()
    answer = client.responses.create(model="seer", input=asked, max_output_tokens=8, store=True)
    after = client.responses.create(model="seer", input="Sure?", previous_response_id=answer.id, max_output_tokens=8)
    assert after.usage is not None and after.usage.input_tokens > answer.usage.input_tokens  # type: ignore[union-attr]
    assert after.usage.input_tokens_details.cached_tokens > 16


def test_a_second_turn_reads_no_picture_again_not_even_after_a_restart(sighted_home: Path, tmp_path: Path) -> None:
    from tests.serve.conftest import copied

    home, first = copied(sighted_home, tmp_path / "home"), asking("tall", "square")
    with serving(home) as server:
        answer = said(server, first, store=True)
        second = [*first, {"role": "assistant", "content": answer.choices[0].message.content}, {"role": "user", "content": "Sure?"}]
        quick = said(server, second)
        assert quick.usage.prompt_tokens_details.cached_tokens >= answer.usage.prompt_tokens
        # Two pictures more, each in a conversation of its own: what was read of the first two is shared.
        branch = [*second[:-1], asking("tiny", text="And this?")[0]]
        assert said(server, branch).usage.prompt_tokens_details.cached_tokens >= answer.usage.prompt_tokens
    with serving(home) as server:
        slow = said(server, second)
        assert slow.usage.prompt_tokens_details.cached_tokens >= answer.usage.prompt_tokens - 1, "of the state on disk"
        assert slow.choices[0].message.content == quick.choices[0].message.content
    replayed = ingle(home, "replay", answer.id)
    assert replayed.returncode == 0 and replayed.stdout.count("yes") == 4


def test_side_by_side_as_one_by_one(sighted: Server) -> None:
    shapes = ["tall", "wide", "tiny", "square", "odd", "one tile"]
    alone = [said(sighted, asking(shape), temperature=1.0, seed=7).choices[0].message.content for shape in shapes]
    with ThreadPoolExecutor(6) as pool:
        messages = [asking(shape, text="What is in this picture? ") for shape in shapes]
        fresh = list(pool.map(lambda one: said(sighted, one, temperature=1.0, seed=7).choices[0].message.content, messages))
        together = list(pool.map(lambda shape: said(sighted, asking(shape), temperature=1.0, seed=7).choices[0].message.content, shapes))
    assert together == alone
    assert [said(sighted, one, temperature=1.0, seed=7).choices[0].message.content for one in messages] == fresh


NOISE = png_of(Picture(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("https://example.com/cat.png", "fetches nothing"),
        ("file:///etc/passwd", "fetches nothing"),
        ("data:image/png;base64,AAAA", "no picture"),
        ("data:image/png;base64,%%%", "base64"),
        ("data:text/html;base64,AAAA", "data: URL of an image"),
        ("data:image/png;base64," + base64.b64encode(NOISE[:2000]).decode(), "damaged"),
    ],
)
def test_what_is_no_picture_is_said_so(sighted: Server, wrong: str, words: str) -> None:
    bad: Any = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": wrong}}, {"type": "text", "text": "hi"}]}]
    with pytest.raises(openai.BadRequestError, match=words) as refused:
        said(sighted, bad)
    assert str(refused.value.param).startswith("messages[0].content[0]")
    assert said(sighted, asking("tiny")).choices[0].message.content


def test_a_model_of_words_names_the_cure(server: Server) -> None:
    with pytest.raises(openai.BadRequestError, match="ingle pull sight"):
        said(server, asking("tiny"), model="tiny")


def test_what_is_stored_holds_the_picture_and_the_ledger_does_not(sighted: Server) -> None:
    answer = said(sighted, asking("one pixel wide"), store=True)
    row = next(row for row in sighted.answers() if row.values["id"] == answer.id)
    assert url(picture("one pixel wide"))[-40:] not in json.dumps(dict(row.values))
    assert ingle(sighted.home.root, "replay", answer.id).returncode == 0
