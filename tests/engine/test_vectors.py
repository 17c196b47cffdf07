"""Pictures and sounds in a prompt: ids beyond the vocabulary go through batching, the prefix cache, saved states, echo and penalties."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from ingle.core.errors import IngleError
from ingle.core.media import Vectors, kind_of, vector_id
from ingle.core.message import Chunk, Request, Sampling
from ingle.core.spec import LayerSpec
from ingle.engine.backend import Segment
from ingle.engine.job import Capacity, Job
from ingle.engine.language_model import LanguageModel
from ingle.engine.prefix_cache import PrefixCache, SavedStates
from ingle.engine.scheduler import Scheduler
from tests.engine.test_answer import byte_tokenizer
from tests.engine.test_cpu import naive_logits
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config, tokens
from tests.waiting import PATIENCE_S

LAYERS = {"transformer": (LayerSpec((0, 1)),) * 2, "memories": (LayerSpec((0,), 24, 3, "gated_delta"), LayerSpec((0, 1)))}


@pytest.fixture(scope="module", params=LAYERS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    config = tiny_config(vocab=260, context=2000, layers=LAYERS[request.param])
    return LanguageModel("tiny", backend_of(tmp_path_factory.mktemp("m"), random_checkpoint(config)), byte_tokenizer())


def picture(model: LanguageModel, name: str, count: int = 40) -> Vectors:
    """What an encoder would make of a picture of that name."""
    config, draw = model.backend.config, np.random.default_rng(len(name) * 1000 + ord(name[0]))
    ids = (vector_id(config.vocab_size, "image", "encoder", name, place) for place in range(count))
    return {id_: draw.standard_normal(config.hidden_size).astype(np.float32) for id_ in ids}


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[Scheduler]:
    saved = SavedStates(tmp_path / "states", 1 << 30)
    saved.open()
    made = Scheduler(Capacity(), PrefixCache(1 << 30), saved=saved)
    yield made
    made.close()


def ask(
    scheduler: Scheduler, model: LanguageModel, vectors: Vectors, after: str = " what is it?", then: Sequence[int] = (), **wishes: Any
) -> list[Chunk]:
    """The answer to some words, a picture, and more words, and to what comes then."""
    ids = [*model.tokenizer.encode("look: "), *vectors, *model.tokenizer.encode(after), *then]
    request = Request(prompt=tuple(ids), **{"max_tokens": 8, "sampling": Sampling(logit_bias=((256, -100.0),)), **wishes})
    inbox: SimpleQueue[Chunk | IngleError] = SimpleQueue()
    scheduler.submit(Job(model, request, ids, inbox.put, vectors=vectors, keep="a conversation"))
    chunks: list[Chunk] = []
    while not chunks or chunks[-1].finish is None:
        got = inbox.get(timeout=PATIENCE_S)
        if isinstance(got, IngleError):
            raise got
        chunks.append(got)
    return chunks


def tokens_of(chunks: list[Chunk]) -> list[int]:
    return [token for chunk in chunks for token in chunk.tokens]


def cached(chunks: list[Chunk]) -> int:
    assert chunks[-1].usage
    return chunks[-1].usage.cached_tokens


def test_the_step_is_its_naive_reference_with_vectors(tmp_path: Path) -> None:
    config = tiny_config(hidden=40)  # no multiple of 32: what lies behind a row must be 0
    backend = backend_of(tmp_path, random_checkpoint(config))
    ids = tokens(config, 60)
    vectors = {config.vocab_size + i: np.random.default_rng(i).standard_normal(40).astype(np.float32) for i in range(5)}
    ids[3:8] = vectors
    [got] = backend.forward([Segment(backend.new_state(), ids, "all", vectors=vectors)])
    np.testing.assert_allclose(got, naive_logits(config, tmp_path / "fp32", ids, "float32", vectors=vectors), atol=3e-4, rtol=1e-3)


def test_a_picture_is_read_once_and_another_one_is_another(scheduler: Scheduler, model: LanguageModel) -> None:
    cat, dog = picture(model, "cat", 600), picture(model, "dog", 600)  # checkpoints of memories are 512 tokens apart
    first = ask(scheduler, model, cat)
    again, other = ask(scheduler, model, cat, " and its colour?"), ask(scheduler, model, dog)
    words = len(model.tokenizer.encode("look: "))
    assert cached(first) == 0
    assert first[-1].usage
    assert (first[-1].usage.image_tokens, first[-1].usage.audio_tokens) == (600, 0)
    assert cached(other) <= words  # never a part of the cat's
    assert cached(again) >= 512
    assert tokens_of(first) != tokens_of(other)
    alone = Scheduler(Capacity(), PrefixCache(0))
    assert tokens_of(ask(alone, model, cat, " and its colour?")) == tokens_of(again)
    alone.close()


def test_a_picture_is_known_after_a_restart(scheduler: Scheduler, model: LanguageModel) -> None:
    cat = picture(model, "cat", 100)
    first = ask(scheduler, model, cat)
    assert scheduler.saved is not None
    scheduler.close()
    saved = SavedStates(scheduler.saved.folder, 1 << 30)
    saved.open()
    restarted = Scheduler(Capacity(), PrefixCache(1 << 30), saved=saved)
    try:
        then = [*tokens_of(first), *model.tokenizer.encode(" and then?")]
        again = ask(restarted, model, cat, then=then)
        assert cached(again) > len(cat)
        assert tokens_of(again) == tokens_of(ask(restarted, model, cat, then=then, echo=True, logprobs=0))  # which reads all anew
    finally:
        restarted.close()


def test_pictures_have_no_log_probability_and_no_penalty(scheduler: Scheduler, model: LanguageModel) -> None:
    cat = picture(model, "cat")
    sampling = Sampling(repetition_penalty=1.3, temperature=1.0, top_k=5, seed=3, logit_bias=((256, -100.0),))
    chunks = ask(scheduler, model, cat, logprobs=2, echo=True, sampling=sampling)
    entries = [entry for chunk in chunks for entry in chunk.logprobs]
    words = len(model.tokenizer.encode("look: "))
    assert [entry.logprob is None for entry in entries[: words + 40 + 1]] == [True, *[False] * (words - 1), *[True] * 40, False]
    assert {entry.text for entry in entries[words : words + 40]} == {""}
    assert all(token < model.backend.config.vocab_size for token in tokens_of(chunks))


def test_ids_are_of_content_encoder_and_place() -> None:
    made = {vector_id(50_000, "image", encoder, content, place) for encoder in "ab" for content in "cd" for place in range(100)}
    assert len(made) == 400
    assert all(50_000 <= id_ < 2**31 for id_ in made)
    assert {kind_of(id_, 50_000) for id_ in made} == {"image"}
    assert kind_of(vector_id(50_000, "audio", "a", "c", 0), 50_000) == "audio"
    assert kind_of(49_999, 50_000) is None
    assert vector_id(50_000, "image", "a", "c", 0) == vector_id(50_000, "image", "a", "c", 0)
