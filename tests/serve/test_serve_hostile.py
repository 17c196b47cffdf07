"""A hostile model beside a good one: whatever its template or tokenizer does, the good one's answer goes on."""

import json
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.model.tokenizer_apart import ANSWER_S
from tests.serve.conftest import copied
from tests.serve.meanwhile import Meanwhile
from tests.serve.servers import BY_HAND, Server, serving, write_long_model
from tests.waiting import for_a_while, wait_until

pytestmark = pytest.mark.journey

DOUBLES = "{% set ns = namespace(a=[1]) %}{% for _ in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}"
COMPARES = (
    DOUBLES + "{% set a = ns.a %}{% set ns.a = [1] %}{% for _ in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ a == ns.a }}"
)
GROWS = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
NEVER_ENDS = {"type": "Replace", "pattern": {"Regex": "(a|a|aa)+$"}, "content": ""}
STILL = f"""{BY_HAND}
from ingle.core.apart import ProcessApart
from ingle.model.tokenizer_apart import TokenizerApart
init, ask, reading, hands = TokenizerApart.__init__, ProcessApart.ask, said.with_name("reading"), hand.clock
def harms(folder):
    return any("means harm" in path.read_text() for path in Path(folder).glob("*.json"))
def made(self, folder):
    init(self, folder, **({{"clock": hands}} if harms(folder) else {{}}))
def asked(self, call, facts, *rest, **more):
    if call == "open" or self._clock is not hands:
        return ask(self, call, facts, *rest, **more)
    reading.touch()
    try:
        return ask(self, call, facts, *rest, **more)
    finally:
        reading.unlink()
TokenizerApart.__init__, ProcessApart.ask = made, asked
"""
"""Those that mean harm may take as long as they want until the clock is moved. While one reads, there is a file."""


def hostile(folder: Path, template: str = "{{ messages[0].content }}", **changes: Any) -> Path:
    """A model whose tokenizer or template means harm."""
    write_long_model(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{# means harm #}" + template, "eos_token": "<|im_end|>"}))
    table = json.loads((folder / "tokenizer.json").read_bytes())
    (folder / "tokenizer.json").write_text(json.dumps(table | changes))
    return folder


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory, kept_home: Path) -> Any:
    """A server with hostile models that no pull has tried."""
    folder = tmp_path_factory.mktemp("hostile")
    home = Home(copied(kept_home, folder / "home"))
    for name, path in {
        "never-ends": hostile(folder / "never-ends", normalizer=NEVER_ENDS),
        "grows": hostile(folder / "grows", normalizer={"type": "Sequence", "normalizers": [GROWS] * 6}),
        "doubles": hostile(folder / "doubles", DOUBLES + "{{ ns.a|tojson }}"),
        "compares": hostile(folder / "compares", COMPARES),
    }.items():
        pull(home, str(path), lambda _: None, name)
    with serving(home.root, "--set", "chat.model=tiny", before=STILL) as server:
        yield server


@pytest.mark.parametrize("name", ["never-ends", "grows", "doubles", "compares"])
def test_it_delays_nobody_else(beside: Server, name: str) -> None:
    def asked(text: str) -> httpx.Response:
        return beside.chat(text, model=name, max_tokens=1)

    with ThreadPoolExecutor(1) as pool:
        warm = pool.submit(asked, "warm")  # opened and packed: what comes then is its own doing
        run_out(beside, warm)
        assert warm.result().status_code in (200, 400)
        with Meanwhile(beside) as other:
            for text in ("a" * 60 + "!", "b"):
                answer = pool.submit(asked, text)
                wait_until(lambda: (beside.home.root / "reading").exists() or answer.done(), "it is at it")  # noqa: B023
                other.goes_on()
                assert name != "compares" or not answer.done(), "two to the power of sixty steps are not over yet"
                run_out(beside, answer)
                assert answer.result().status_code < 500, answer.result().text
            other.goes_on()
    assert beside.chat("hi", model="tiny").status_code == 200


def run_out(server: Server, answer: "Future[httpx.Response]") -> None:
    """Moves the clock on while a tokenizer reads, until there is an answer."""
    while not answer.done():
        wait_until(lambda: (server.home.root / "reading").exists() or answer.done(), "it is at it")
        for_a_while(0.5)  # for those that end by themselves
        server.move(ANSWER_S)
