"""A hostile model beside a good one: whatever its template or tokenizer does, the good one's answer goes on."""

import itertools
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ingle.home.place import Home
from ingle.home.pull import pull
from tests.serve.conftest import copied
from tests.serve.servers import Server, serving, write_long_model

DOUBLES = "{% set ns = namespace(a=[1]) %}{% for _ in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}"
COMPARES = (
    DOUBLES + "{% set a = ns.a %}{% set ns.a = [1] %}{% for _ in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ a == ns.a }}"
)
GROWS = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
NEVER_ENDS = {"type": "Replace", "pattern": {"Regex": "(a|a|aa)+$"}, "content": ""}
LONGEST_S = 0.5
SHORTER = "from ingle.model import tokenizer_apart as apart; apart.TokenizerApart.__init__.__defaults__ = (3.0,)"


def hostile(folder: Path, template: str = "{{ messages[0].content }}", **changes: Any) -> Path:
    """A model whose tokenizer or template means harm."""
    write_long_model(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, "eos_token": "<|im_end|>"}))
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
    with serving(home.root, "--set", "chat.model=tiny", before=SHORTER) as server:
        yield server


@pytest.mark.parametrize("name", ["never-ends", "grows", "doubles", "compares"])
def test_it_delays_nobody_else(beside: Server, name: str) -> None:
    said = beside.chat("warm", model=name, max_tokens=1)  # opened and packed: what comes then is its own doing
    times, begun, failed = list[float](), threading.Event(), list[str]()

    def ask() -> None:
        begun.wait(30)
        for text in ("a" * 60 + "!", "b"):
            answer = beside.chat(text, model=name, max_tokens=1)
            if answer.status_code >= 500:
                failed.append(answer.text)

    asking = threading.Thread(target=ask)
    asking.start()
    stream = beside.openai().chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=20_000, seed=1, stream=True
    )  # fmt: skip
    for _chunk in stream:
        times.append(time.perf_counter())
        if len(times) == 20:
            begun.set()
        if len(times) > 20 and not asking.is_alive():
            break
    stream.close()
    asking.join()
    assert said.status_code in (200, 400)
    assert not failed
    assert max(after - before for before, after in itertools.pairwise(times)) < LONGEST_S
    assert beside.chat("hi", model="tiny").status_code == 200
