"""A tokenizer in another process answers as one in this process does; where it harms, its process ends, and nobody waits."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.apart import ProcessBusy
from ingle.core.errors import CheckpointError, RequestError, TemplateError
from ingle.core.message import Message
from ingle.model.template import CHATML, encode_chat, render
from ingle.model.tokenizer import FACTS_FILE, TOKENIZER_FILE, ControlToken, Tokenizer, open_tokenizer
from ingle.model.tokenizer_apart import TokenizerApart
from tests.clocks import HandClock
from tests.engine.test_answer import byte_tokenizer
from tests.examples import examples
from tests.waiting import PATIENCE_S, for_a_while, wait_until

DOUBLES = "{% set ns = namespace(a=[1]) %}{% for _ in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}"


def saved(folder: Path, template: str = CHATML, **changes: Any) -> Path:
    """A byte-level tokenizer in a folder, with a template and other changes of its tokenizer.json."""
    folder.mkdir(exist_ok=True)
    byte_tokenizer().save(folder)
    facts, table = json.loads((folder / FACTS_FILE).read_bytes()), json.loads((folder / TOKENIZER_FILE).read_bytes())
    (folder / FACTS_FILE).write_text(json.dumps(facts | {"chat_template": template}))
    (folder / TOKENIZER_FILE).write_text(json.dumps(table | changes))
    return folder


def grows(times: int) -> dict[str, Any]:
    """A normaliser that makes a thousand of each a, so many times."""
    rule = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
    return {"type": "Sequence", "normalizers": [rule] * times}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Tokenizer]:
    folder = saved(tmp_path_factory.mktemp("words") / "plain")
    return open_tokenizer(folder), TokenizerApart(folder, PATIENCE_S)


@examples(40)
@given(text=st.text(max_size=80))
def test_both_read_alike(pair: tuple[Tokenizer, Tokenizer], text: str) -> None:
    here, apart = pair
    text += "<|im_end|>"
    for call in ("encode", "encode_trusted", "encode_prompt"):
        assert getattr(apart, call)(text) == getattr(here, call)(text)
    pieces = ["a", ControlToken(next(iter(here.control))), text]
    assert apart.encode_pieces(pieces) == here.encode_pieces(pieces)
    messages = [Message.of("system", "Be kind."), Message.of("user", text)]
    assert render(apart, messages) == render(here, messages)
    assert encode_chat(apart, messages) == encode_chat(here, messages)
    ids = here.encode(text)
    assert apart.decode(ids) == here.decode(ids)


def test_both_are_alike(pair: tuple[Tokenizer, Tokenizer]) -> None:
    here, apart = pair
    for name in ("facts", "control", "control_ids", "vocab_size", "longest_token", "eos_ids", "bos_id"):
        assert getattr(apart, name) == getattr(here, name), name
    ids = range(-1, here.vocab_size + 2)
    assert [apart.token_bytes(i) for i in ids if i >= 0] == [here.token_bytes(i) for i in ids if i >= 0]


def test_faults_come_as_they_are_raised(pair: tuple[Tokenizer, Tokenizer]) -> None:
    here, apart = pair
    for words in (here, apart):
        with pytest.raises(RequestError, match="lone surrogate"):
            words.encode("\ud800")
    with pytest.raises(RequestError, match="strings, numbers, lists and tables"):
        encode_chat(apart, [{"role": "user", "content": {1, 2}}])


@pytest.mark.parametrize("ending", ["{{ ns.a|tojson }}", "{{ ns.a }}", "{{ ns.a ~ '' }}", "{{ ns.a|string }}"])
def test_a_table_that_doubles_is_refused_before_it_is_written(ending: str) -> None:
    words = byte_tokenizer()
    hostile = Tokenizer(words.fast, type(words.facts)(**{**_facts(words), "chat_template": DOUBLES + ending}))
    with pytest.raises(TemplateError, match="entries"):
        encode_chat(hostile, [Message.of("user", "hi")])


def test_a_template_that_never_ends_holds_only_itself(tmp_path: Path) -> None:
    # Two such lists are compared entry by entry, 2^60 times, in one step of the interpreter.
    compares = DOUBLES + "{% set a = ns.a %}{% set ns.a = [1] %}" + DOUBLES.split("%}", 1)[1] + "{{ a == ns.a }}"
    hand = HandClock()
    apart = TokenizerApart(saved(tmp_path / "t", compares), answer_s=10.0, clock=hand.clock)

    def ask() -> None:
        with pytest.raises(TemplateError, match="can't read this text"):
            encode_chat(apart, [Message.of("user", "hi")])

    with ThreadPoolExecutor() as others:
        asked = others.submit(ask)
        wait_until(lambda: hand.waits, "the template is being read")
        for_a_while(0.5)  # and this thread goes on meanwhile
        assert not asked.done()
        hand.move(10)
        asked.result(PATIENCE_S)
    assert apart.encode("a") == byte_tokenizer().encode("a")  # its process is started again


def test_a_text_that_grows_without_end_ends_its_process_alone(tmp_path: Path) -> None:
    apart = TokenizerApart(saved(tmp_path / "t", normalizer=grows(6)), PATIENCE_S)
    with pytest.raises((TemplateError, RequestError)):
        apart.encode("a")
    assert apart.encode("b") == byte_tokenizer().encode("b")


def test_a_text_that_grows_to_millions_of_tokens_is_refused(tmp_path: Path) -> None:
    apart = TokenizerApart(saved(tmp_path / "t", normalizer=grows(2)), PATIENCE_S)
    with pytest.raises((TemplateError, RequestError)):
        apart.encode("a" * 8)


def test_a_damaged_tokenizer_is_said(tmp_path: Path) -> None:
    folder = saved(tmp_path / "t")
    (folder / TOKENIZER_FILE).write_text("{")
    with pytest.raises(CheckpointError, match="tokenizers library"):
        TokenizerApart(folder)


def test_a_process_that_others_are_opening_is_busy_and_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apart = TokenizerApart(saved(tmp_path / "t"))

    def busy(*_given: Any, **_more: Any) -> Any:
        raise ProcessBusy

    apart.__dict__["_apart"].close()
    monkeypatch.setattr(apart.__dict__["_apart"], "ask", busy)
    with pytest.raises(TemplateError, match="busy with another text"):
        apart.encode("a")


def test_its_process_ends_with_it(tmp_path: Path) -> None:
    apart = TokenizerApart(saved(tmp_path / "t"))
    process = apart.__dict__["_apart"]._process
    del apart
    assert process.wait(PATIENCE_S) is not None


def _facts(words: Tokenizer) -> dict[str, Any]:
    return {name: getattr(words.facts, name) for name in words.facts.__dataclass_fields__}
