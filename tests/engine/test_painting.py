"""Painting: 64 words of the palette and nothing else, by an addition that acts at no other time; text stays as it was, to the bit."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from ingle.core.errors import ConfigError, DeltaError, RequestError
from ingle.core.message import Request, Sampling
from ingle.engine.answer import answer, write
from ingle.engine.backend import Backend, Segment
from ingle.engine.language_model import LanguageModel, Painter, likeness, painted, painting_request
from ingle.media.painter import CODES, WORDS, prompt_of
from tests.engine.test_delta_kinds import random_change
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config
from tests.media.test_painter import random_hand_tensors
from tests.tuning.test_tuning_painter import worded_tokenizer

CONFIG = tiny_config(vocab=957, context=300)
PALETTE = tuple(range(300, 300 + CODES))
Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"


def painter_for(runner: Backend, seed: int = 0) -> Painter:
    """A painter of noise, with an addition that changes much."""
    change = random_change(CONFIG, "lora", seed, (Q, DOWN))
    tensors = {**random_hand_tensors(palette=PALETTE), **change.tensors}
    return Painter("noise", f"painter {seed}", runner, lambda: (tensors, ()))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return LanguageModel("tiny", backend_of(tmp_path_factory.mktemp("m"), random_checkpoint(CONFIG)), worded_tokenizer())


@pytest.fixture(scope="module")
def model(plain: LanguageModel) -> LanguageModel:
    assert isinstance(plain.backend, Backend)
    return replace(plain, painter=painter_for(plain.backend))


def request_of(model: LanguageModel, seed: int = 1, what: str = "red apple") -> Request:
    return painting_request(model, what, "noto", Sampling(temperature=1.0, seed=seed))


def test_a_picture_is_64_words_of_the_palette(model: LanguageModel) -> None:
    request = request_of(model)
    painting = model.answering(request)
    chunks = list(answer(painting, request))
    tokens = [token for chunk in chunks for token in chunk.tokens]
    assert len(tokens) == WORDS
    assert set(tokens) <= set(PALETTE)
    assert chunks[-1].finish == "stop"
    text = "".join(chunk.text for chunk in chunks)
    assert model.tokenizer.encode(text) == tokens
    assert painting.painter is not None
    assert painted(model, text).digest == painting.painter.hand.paint(tokens).digest


def test_the_same_seed_gives_the_same_picture_alone_or_beside_others(model: LanguageModel) -> None:
    requests = [request_of(model, seed) for seed in range(4)]
    painting = model.answering(requests[0])
    together = dict(write(painting, requests))
    alone = ["".join(chunk.text for chunk in answer(painting, one)) for one in requests]
    assert [together[i] for i in range(4)] == alone
    assert len(set(alone)) == 4


def test_text_stays_as_it_was_to_the_bit(model: LanguageModel, plain: LanguageModel) -> None:
    request = Request(prompt="draw: red apple, noto:", max_tokens=20, logprobs=3)
    assert model.digest == plain.digest
    assert model.answering(request) is model
    before = [(chunk.tokens, chunk.logprobs) for chunk in answer(plain, request)]
    list(answer(model.answering(request_of(model)), request_of(model)))
    assert [(chunk.tokens, chunk.logprobs) for chunk in answer(model, request)] == before
    assert model.answering(request_of(model)).digest != model.digest


def test_the_addition_acts_while_it_paints(model: LanguageModel, plain: LanguageModel) -> None:
    assert isinstance(plain.backend, Backend)
    request = request_of(model)
    idle = replace(painter_for(plain.backend), read=lambda: ({**random_hand_tensors(palette=PALETTE), **_nothing()}, ()))
    other = replace(plain, painter=idle)
    pictures = {"".join(chunk.text for chunk in answer(one.answering(request), request)) for one in (model, other)}
    assert len(pictures) == 2


def _nothing() -> dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]:
    return {name: values * 0 for name, values in random_change(CONFIG, "lora", 0, (Q, DOWN)).tensors.items()}


def test_likeness_is_how_likely_the_picture_is_after_its_prompt(model: LanguageModel) -> None:
    request = request_of(model)
    painting = model.answering(request)
    tokens = [token for chunk in answer(painting, request) for token in chunk.tokens]

    def naive(prompt: str) -> float:
        ids, state, total = painting.tokenizer.encode_prompt(prompt), painting.backend.new_state(), 0.0
        for token in tokens:
            [rows] = painting.backend.forward([Segment(state, ids, "last", painting.adapter)])
            logits = rows[-1][list(PALETTE)].astype(np.float64)
            total += logits[PALETTE.index(token)] - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
            ids = [token]
        return total

    [got] = likeness(painting, "red apple", "noto", [tokens])
    assert got == pytest.approx(naive(prompt_of("red apple", "noto")), abs=1e-3)


def test_a_model_without_a_painter_says_so(plain: LanguageModel, model: LanguageModel) -> None:
    for ask in (lambda: painting_request(plain, "red apple"), lambda: plain.answering(request_of(model)), lambda: painted(plain, " aaa")):
        with pytest.raises(RequestError, match=r"tiny can't paint. Run: ingle pull painter"):
            ask()


@pytest.mark.parametrize("what", ["", "  ", "x" * 300])
def test_wishes_that_are_none_are_refused(model: LanguageModel, what: str) -> None:
    with pytest.raises(RequestError, match=r"must (name what to draw|have at most 200 characters)"):
        painting_request(model, what)


def test_a_palette_of_another_vocabulary_is_refused(plain: LanguageModel) -> None:
    assert isinstance(plain.backend, Backend)
    tensors = random_hand_tensors(palette=tuple(range(5000, 5000 + CODES)))
    wrong = replace(plain, painter=replace(painter_for(plain.backend), read=lambda: (tensors, ())))
    with pytest.raises(DeltaError, match="must have a palette of the model's own tokens"):
        painting_request(wrong, "red apple")


def test_without_pillow_nothing_is_painted_and_the_cure_is_told(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ConfigError, match=r"Pictures need Pillow.* Run: "):
        model.answering(painting_request(model, "a lemon"))
