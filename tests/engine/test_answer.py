"""Answers: stop strings never leak, sessions read only what is new, and what ends an answer is said."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import BPE

from ingle.core.errors import ContextError, RequestError, TemplateError
from ingle.core.message import Chunk, Message, Request, Sampling
from ingle.core.spec import LayerSpec
from ingle.engine.answer import Session, answer
from ingle.engine.decoding import StopStrings
from ingle.engine.language_model import LanguageModel
from ingle.model.tokenizer import Tokenizer, TokenizerFacts
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config
from tests.model.tiny_tokenizers import pieces

TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
CONTROLS = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]


def byte_tokenizer(template: str | None = TEMPLATE) -> Tokenizer:
    """One token a byte, so that every character outside ASCII is split."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fast = FastTokenizer(BPE({c: i for i, c in enumerate(alphabet)}, []))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in CONTROLS])
    return Tokenizer(fast, TokenizerFacts("bytes", eos_ids=(256,), chat_template=template))


@pytest.fixture
def model(tmp_path: Path) -> LanguageModel:
    config = tiny_config(vocab=260, context=300)
    return LanguageModel("tiny", backend_of(tmp_path, random_checkpoint(config)), byte_tokenizer())


def chat(*texts: str, **options: object) -> Request:
    roles = ("user", "assistant")
    return Request(messages=tuple(Message.of(roles[i % 2], text) for i, text in enumerate(texts)), **options)  # type: ignore[arg-type]


def whole(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


NO_END = Sampling(logit_bias=((256, -100.0),))


@given(
    text=st.text("abc<|>", max_size=40), stops=st.lists(st.text("abc<|>", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 40), max_size=10),
)  # fmt: skip
def test_stop_strings_never_leak_and_hold_nothing_else_back(text: str, stops: list[str], cuts: list[int]) -> None:
    filter_, shown, last = StopStrings(stops), "", 0
    for cut in [*sorted(cuts), len(text)]:
        cut = min(cut, len(text))
        shown += filter_.feed(text[last:cut])
        last = max(last, cut)
        pending = text[:last][len(shown) :]
        assert filter_.hit or any(stop.startswith(pending) for stop in stops) or not pending
    shown += filter_.flush()
    ends = [(text.find(stop), stop) for stop in stops if stop in text]
    assert filter_.hit == bool(ends)
    if not ends:
        assert shown == text
    else:
        assert text.startswith(shown)
        assert not any(stop in shown for stop in stops)


def test_an_answer_ends_and_says_why(model: LanguageModel) -> None:
    chunks = list(answer(model, chat("hello", max_tokens=5, sampling=NO_END)))
    assert [c.finish for c in chunks] == [None] * 4 + ["length"]
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (8, 0, 5)
    assert usage.state_bytes > 0
    ended = list(answer(model, chat("hello", sampling=Sampling(logit_bias=((256, 100.0),)))))
    assert [(c.text, c.finish) for c in ended] == [("", "stop")]
    asked = iter([False, False, True])
    assert list(answer(model, chat("hello", sampling=NO_END), stopped=lambda: next(asked)))[-1].finish == "cancelled"


def test_the_context_is_filled_and_not_exceeded(model: LanguageModel) -> None:
    chunks = list(answer(model, chat("x" * 280, sampling=NO_END)))
    assert chunks[-1].finish == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 300 - 283
    with pytest.raises(ContextError, match=r"303 tokens .*300 tokens"):
        list(answer(model, chat("x" * 300)))


def test_text_is_that_of_the_tokens_and_ends_before_a_stop_string(model: LanguageModel) -> None:
    sampling = Sampling(temperature=3.0, seed=1, logit_bias=((256, -100.0),))
    full = list(answer(model, chat("hello", max_tokens=200, sampling=sampling)))
    text = whole(full)
    assert text == model.tokenizer.decode([t for c in full for t in c.tokens])
    stop = text[40:43]
    stopped = list(answer(model, chat("hello", max_tokens=200, sampling=sampling, stop=(stop,))))
    assert whole(stopped) == text[: text.find(stop)]
    assert stopped[-1].finish == "stop"
    assert len(stopped) < len(full)


def test_a_session_reads_only_what_is_new(model: LanguageModel) -> None:
    session = Session(model.backend.new_state())
    first = list(answer(model, chat("hello", max_tokens=6, sampling=NO_END), session))
    turns = ("hello", whole(first), "more")
    second = list(answer(model, chat(*turns, max_tokens=6, sampling=NO_END), session))
    alone = list(answer(model, chat(*turns, max_tokens=6, sampling=NO_END)))
    assert whole(second) == whole(alone)
    assert second[-1].usage is not None
    assert second[-1].usage.cached_tokens >= 8
    edited = list(answer(model, chat("help", max_tokens=6, sampling=NO_END), session))
    assert edited[-1].usage is not None
    assert edited[-1].usage.cached_tokens == 4  # <|user|>, h, e, l
    assert whole(edited) == whole(list(answer(model, chat("help", max_tokens=6, sampling=NO_END))))
    assert session.ids[: session.state.length] == session.ids


def test_a_session_survives_an_answer_that_nobody_reads_to_its_end(model: LanguageModel) -> None:
    session = Session(model.backend.new_state())
    chunks = answer(model, chat("hello", sampling=NO_END), session)
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert len(session.ids) == session.state.length

    def interrupt(_done: int, _all: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(answer(model, chat("hello there", sampling=NO_END), session, progress=interrupt))
    assert len(session.ids) == session.state.length
    again = whole(list(answer(model, chat("hello there", max_tokens=9, sampling=NO_END), session)))
    assert again == whole(list(answer(model, chat("hello there", max_tokens=9, sampling=NO_END))))


def test_a_window_that_cannot_go_back_reads_again(tmp_path: Path) -> None:
    config = tiny_config(vocab=260, context=900, layers=(LayerSpec((0,), window=8, sinks=1), LayerSpec((0, 1))))
    model = LanguageModel("tiny", backend_of(tmp_path, random_checkpoint(config)), byte_tokenizer())
    session = Session(model.backend.new_state())
    list(answer(model, chat("x" * 700, max_tokens=2, sampling=NO_END), session))
    again = list(answer(model, chat("x" * 10 + "y" * 30, max_tokens=5, sampling=NO_END), session))
    assert again[-1].usage is not None
    assert again[-1].usage.cached_tokens == 0
    assert whole(again) == whole(list(answer(model, chat("x" * 10 + "y" * 30, max_tokens=5, sampling=NO_END))))


def test_log_probabilities_are_the_models_own(model: LanguageModel) -> None:
    request = chat("hello", max_tokens=3, logprobs=4, sampling=Sampling(temperature=2.0, seed=3, logit_bias=((256, -100.0),)))
    for chunk in answer(model, request):
        [entry] = chunk.logprobs
        assert entry.token == chunk.tokens[0]
        assert len(entry.top) == 4
        values = [value for *_, value in entry.top]
        assert values == sorted(values, reverse=True)
        assert entry.logprob <= values[0]
        assert np.exp(values).sum() < 1


def test_plain_prompts_and_what_cannot_be_asked(model: LanguageModel) -> None:
    assert list(answer(model, Request(prompt="once", max_tokens=2)))[-1].usage is not None
    with pytest.raises(RequestError, match="at least one token"):
        list(answer(model, Request(prompt="")))
    bare = LanguageModel("tiny", model.backend, byte_tokenizer(template=None))
    with pytest.raises(TemplateError, match="has no chat template"):
        list(answer(bare, chat("hello")))


def test_log_probabilities_name_tokens_as_they_stand_in_a_text(tmp_path: Path) -> None:
    """Where a text loses its first space (SentencePiece), a token in it doesn't."""
    words = Tokenizer(pieces(), TokenizerFacts("pieces", (2,), bos_id=1, add_bos=True, space_prefix=True, unknown_id=0))
    model = LanguageModel("pieces", backend_of(tmp_path / "m", random_checkpoint(tiny_config(vocab=words.vocab_size))), words)
    drawn = Sampling(temperature=2.0, seed=5, logit_bias=((1, -100.0), (2, -100.0)))
    request = Request(prompt="the ship and the sea", max_tokens=30, logprobs=2, sampling=drawn)
    chunks = list(answer(model, request))
    entries = [entry for chunk in chunks for entry in chunk.logprobs]
    assert any(entry.text.startswith(" ") for entry in entries)
    assert b"".join(words.token_bytes(entry.token) for entry in entries).decode("utf-8", "replace") == whole(chunks)
    for entry in entries:
        assert entry.text == words.token_bytes(entry.token).decode("utf-8", "replace")
