"""Answers carry the loss, whatever the template; nothing typed becomes a control token; what can't be told apart is an error."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import ConfigError
from ingle.model.template import CHATML, encode_chat
from ingle.model.tokenizer import Tokenizer, TokenizerFacts, make_facts
from ingle.train.example_files import Document, Encoder, Record
from tests.examples import examples
from tests.model.test_template import LLAMA3, MISTRAL, NAMES, SMOLLM2, THINKING, TOOLS
from tests.model.tiny_tokenizers import pieces
from tests.train.tiny_train import chat_tokenizer

TEMPLATES = {"smollm2": SMOLLM2, "llama3": LLAMA3, "mistral": MISTRAL, "tools": TOOLS, "thinking": THINKING, "chatml": CHATML}
ENDS = {"llama3": "<|eot_id|>", "mistral": "</s>"}


def tokenizer_for(name: str) -> Tokenizer:
    tokenizer = chat_tokenizer(TEMPLATES[name], NAMES)
    end = tokenizer.control[ENDS.get(name, "<|im_end|>")]
    begin = tokenizer.control["<|begin_of_text|>"]
    return make_facts(tokenizer.fast, TokenizerFacts("bytes", (end,), begin, chat_template=TEMPLATES[name]), "tiny")


def chat(*contents: str) -> Record:
    turns = tuple({"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents))
    return Record("data.jsonl, line 1", "chat", turns)


def learnt(tokenizer: Tokenizer, document: Document) -> list[str]:
    """Each stretch that carries the loss, as text."""
    parts: list[list[int]] = []
    for i, token in enumerate(document.ids.tolist()):
        if document.answer[i]:
            if not document.answer[i - 1]:
                parts.append([])
            parts[-1].append(token)
    return [tokenizer.decode(part, skip_special=False) for part in parts]


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_answers_and_their_ends_are_learnt_and_nothing_else(name: str) -> None:
    tokenizer = tokenizer_for(name)
    documents = Encoder(tokenizer, 500).documents(chat("Who?", "Ingle, a fire.", "And\nwhy?", "It's kept.\n"))
    end = ENDS.get(name, "<|im_end|>")
    found = [text for document in documents for text in learnt(tokenizer, document)]
    strip = name == "llama3"
    answers = ["Ingle, a fire.", "It's kept.\n"]
    assert found == [(text.strip() if strip else text) + end for text in answers]
    # Llama 3's prompt ends in two line ends, which this vocabulary, unlike its own, cuts in another way when a word follows.
    assert len(documents) == (2 if name in ("thinking", "llama3") else 1)


@pytest.mark.parametrize("name", TEMPLATES)
@examples(25)
@given(texts=st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=6).filter(lambda texts: len(texts) % 2 == 0))
def test_what_is_learnt_goes_on_from_what_the_engine_would_ask(name: str, texts: list[str]) -> None:
    """Each answer's prefix is the prompt that the engine builds for it, token for token."""
    tokenizer, record = tokenizer_for(name), chat(*texts)
    documents = Encoder(tokenizer, 10_000).documents(record)
    asked = [encode_chat(tokenizer, record.prompt[: i + 1], variables={"enable_thinking": False}) for i in range(0, len(texts), 2)]
    starts = [
        document.ids[:i].tolist()
        for document in documents
        for i in range(1, len(document.ids))
        if document.answer[i] and not document.answer[i - 1]
    ]
    assert starts == asked


def test_typed_control_tokens_are_text() -> None:
    tokenizer = tokenizer_for("smollm2")
    [document] = Encoder(tokenizer, 500).documents(chat("<|im_end|>", "a<|im_end|>b"))
    assert learnt(tokenizer, document) == ["a<|im_end|>b<|im_end|>"]
    ends = [i for i, token in enumerate(document.ids) if token in tokenizer.eos_ids]
    assert len(ends) == 3  # the system's, the user's and the answer's own


def test_calls_are_answers_and_their_results_are_not() -> None:
    tokenizer = tokenizer_for("tools")
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    turns = (
        {"role": "user", "content": "Weather?"}, {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "sun"}, {"role": "assistant", "content": "Sunny."},
    )  # fmt: skip
    tools = ({"type": "function", "function": {"name": "weather"}},)
    [document] = Encoder(tokenizer, 500).documents(Record("", "chat", turns, (), tools))
    call_text = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    assert learnt(tokenizer, document) == [f"{call_text}<|im_end|>", "Sunny.<|im_end|>"]


def test_weight_0_and_empty_answers_are_not_learnt() -> None:
    tokenizer = tokenizer_for("smollm2")
    turns: tuple[Mapping[str, Any], ...] = chat("a", "no", "b", "yes", "c", "").prompt  # type: ignore[assignment]
    turns = (turns[0], {**turns[1], "weight": 0}, *turns[2:])
    [document] = Encoder(tokenizer, 500).documents(Record("", "chat", turns))
    assert learnt(tokenizer, document) == ["yes<|im_end|>"]
    assert Encoder(tokenizer, 500).documents(chat("only a question")) == []


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (CHATML.replace("assistant\n' }}{% endif", "assistant\n<think>\n' }}{% endif"), "must write an answer after its own prompt"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}Answer:{% endif %}", "must write an answer"),
        ("{{ raise_exception('never') }}", "refuses these messages"),
    ],
)
def test_a_template_whose_answers_cannot_be_found_is_an_error(template: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        Encoder(chat_tokenizer(template), 500).documents(chat("a", "b"))
    assert caught.value.field.startswith("data.jsonl, line 1: chat template")


def test_plain_texts_join_and_end() -> None:
    tokenizer = chat_tokenizer(None)
    tokenizer = make_facts(tokenizer.fast, TokenizerFacts("bytes", (2,)), "tiny")
    record = Record("", "completion", "The License shall", (" mean the terms",))
    [document] = Encoder(tokenizer, 500, template="plain").documents(record)
    assert learnt(tokenizer, document) == [" mean the terms<|endoftext|>"]
    assert tokenizer.decode(document.ids.tolist(), skip_special=True) == "The License shall mean the terms"
    [document] = Encoder(tokenizer, 500, template="plain").documents(Record("", "completion", "", ("alone",)))
    assert document.ids.tolist() == [*tokenizer.encode("alone"), tokenizer.control["<|endoftext|>"]]
    assert not document.answer[0]


@examples(60)
@given(prompt=st.text(max_size=12), completion=st.text(min_size=1, max_size=12), kind=st.sampled_from(["bytes", "pieces"]))
def test_plain_texts_are_whole_wherever_they_are_cut(prompt: str, completion: str, kind: str) -> None:
    tokenizer = chat_tokenizer(None) if kind == "bytes" else make_facts(pieces(), TokenizerFacts("pieces", (2,), 1, True, True, 0), "tiny")
    try:
        [document] = Encoder(tokenizer, 500, template="plain").documents(Record("", "completion", prompt, (completion,)))
    except ConfigError as error:
        assert kind == "pieces", "bytes always join"
        assert "must join" in error.rule
        return
    ids, whole = document.ids.tolist(), tokenizer.encode_prompt(prompt + completion)
    assert b"".join(map(tokenizer.token_bytes, ids[:-1])) == b"".join(map(tokenizer.token_bytes, whole))


def test_long_texts_become_pieces_and_long_talks_follow_the_setting() -> None:
    tokenizer = tokenizer_for("smollm2")
    text = "the License shall mean " * 20
    parts = Encoder(tokenizer, 16).documents(Record("", "text", "", (text,)))
    whole = [*tokenizer.encode(text), tokenizer.control["<|endoftext|>"]]
    assert [token for part in parts for token in part.ids.tolist()] == whole
    assert all(len(part.ids) <= 16 and not part.answer[0] and part.answer[1:].all() for part in parts)
    [document] = Encoder(tokenizer, 10).documents(chat("a", "b"))
    assert len(document.ids) > 10
    assert Encoder(tokenizer, 10).fits(document, "here") is None
    cut = Encoder(tokenizer, 10, "cut").fits(document, "here")
    assert cut is not None
    assert len(cut.ids) == 10
    with pytest.raises(ConfigError, match=f"here must have at most 10 tokens, not {len(document.ids)}"):
        Encoder(tokenizer, 10, "refuse").fits(document, "here")


def test_pairs_share_their_prompt(names: Sequence[str] = ("smollm2", "llama3")) -> None:
    for name in names:
        tokenizer = tokenizer_for(name)
        chosen, rejected = Encoder(tokenizer, 500).documents(Record("", "pair", "Who?", ("Ingle.", "Nobody, nowhere.")))
        first = int(chosen.answer.argmax())
        assert chosen.ids[:first].tolist() == rejected.ids[:first].tolist() == encode_chat(tokenizer, [{"role": "user", "content": "Who?"}])
        assert learnt(tokenizer, rejected) == ["Nobody, nowhere." + ENDS.get(name, "<|im_end|>")]
