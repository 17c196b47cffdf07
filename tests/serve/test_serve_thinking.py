"""Models that can think aloud answer at once, unless they are asked to think; what can't think says so."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.place import TEMPLATE, ingle, write_model
from tests.serve.servers import Server, error_of, serving

EMPTY = "<think>\n\n</think>\n\n"
"""What the template writes for a model that shall not think."""
_OFF = "add_generation_prompt and enable_thinking is defined and enable_thinking is false"
THINKING = f"{TEMPLATE}{{%- if {_OFF} %}}{{{{- '<think>\\n\\n</think>\\n\\n' }}}}{{% endif %}}"
RUN = ("run", "hello", "--temperature", "0", "--max-tokens", "4", "--json")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a model that can think, and one that can't."""
    place = tmp_path_factory.mktemp("thinking")
    thinker = write_model(place / "thinker")
    path = thinker / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": THINKING}))
    for folder, name in ((thinker, "thinker"), (write_model(place / "plain"), "plain")):
        ingle(place / "home", "pull", str(folder), "--name", name)
    return place / "home"


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    with serving(home, "plain", "thinker") as running:
        yield running


def prompt_tokens(home: Path, *options: str) -> int:
    return int(json.loads(ingle(home, *RUN[:2], "thinker", *RUN[2:], *options).stdout)["usage"]["prompt_tokens"])


def test_in_the_terminal(home: Path) -> None:
    at_once = prompt_tokens(home)
    assert at_once - prompt_tokens(home, "--think") == len(EMPTY), "every character is a token here"
    assert prompt_tokens(home, "--set", "chat.think=true") == prompt_tokens(home, "--think")
    assert (
        "can't think aloud: its chat template has no such switch (plain)"
        in ingle(home, *RUN[:2], "plain", *RUN[2:], "--think", code=2).stderr
    )
    assert ingle(home, *RUN[:2], "plain", *RUN[2:], "--set", "chat.think=true").stdout, "a setting is for those that can"
    assert (
        "can't think aloud: its chat template has no such switch (plain)"
        in ingle(home, "chat", "plain", "--think", given=b"hi\n", code=2).stderr
    )


@pytest.mark.parametrize(
    ("asked", "thinks"),
    [
        ({}, False),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, False),
        ({"reasoning_effort": "low"}, True),
        ({"reasoning_effort": "high"}, True),
        ({"chat_template_kwargs": {"enable_thinking": True}}, True),
        ({"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": False}}, False),
    ],
)
def test_by_the_api(server: Server, asked: dict[str, object], thinks: bool) -> None:
    plain = server.chat(model="thinker").json()["usage"]["prompt_tokens"]
    assert plain - server.chat(model="thinker", **asked).json()["usage"]["prompt_tokens"] == len(EMPTY) * thinks
    other = server.chat(model="plain", **asked)
    assert other.status_code == (400 if thinks else 200)
    assert not thinks or "can't think aloud" in error_of(other)["message"]


def test_by_the_responses_api(server: Server) -> None:
    def asked(model: str, **more: object) -> int:
        body = {"model": model, "input": "hi", "max_output_tokens": 4, **more}
        response = server.post("/v1/responses", body)
        return int(response.json()["usage"]["input_tokens"]) if response.status_code == 200 else -response.status_code

    assert asked("thinker") - asked("thinker", reasoning={"effort": "medium"}) == len(EMPTY)
    assert asked("plain", reasoning={"effort": "medium"}) == -400
    assert asked("plain", reasoning={"effort": "minimal"}) == asked("plain", reasoning={}) > 0


def test_a_thought_is_part_of_the_request_and_replays(server: Server) -> None:
    told = server.chat(model="thinker", reasoning_effort="high", store=True, temperature=1).json()["id"]
    at_once = server.chat(model="thinker", store=True, temperature=1).json()["id"]
    for one in (told, at_once):
        assert ingle(server.home.root, "replay", one).stdout.count("yes") == 4
    first, second = (row.values["request"] for row in server.answers()[-2:])
    assert first != second
