"""Many answers at once: the same words as one by one, errors before anything is written, and an end when it is asked for."""

from typing import Any

import pytest

from ingle.core.errors import ContextError
from ingle.core.message import Request
from ingle.engine.answer import answer, write
from ingle.engine.language_model import LanguageModel
from ingle.engine.prefix_cache import PrefixCache
from tests.engine.test_answer import NO_END, byte_tokenizer, chat, whole
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    backend = backend_of(tmp_path_factory.mktemp("tiny"), random_checkpoint(tiny_config(vocab=260, context=300)))
    return LanguageModel("tiny", backend, byte_tokenizer())


def requests(count: int, most: int = 12) -> list[Request]:
    return [chat(f"What comes after {i}?" + " Say." * (i % 5), max_tokens=1 + i % most, sampling=NO_END) for i in range(count)]


def test_it_writes_what_one_by_one_writes(model: LanguageModel) -> None:
    asked = requests(30)
    found = dict(write(model, asked))
    assert [found[i] for i in range(30)] == [whole(list(answer(model, request))) for request in asked]
    assert len(set(found.values())) > 10


def test_the_states_of_finished_answers_do_not_pile_up(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingle.engine.answer.STARTS_BYTES", 0)
    asked, cached = requests(40), list[int]()
    put = PrefixCache.put

    def seen(cache: PrefixCache, *arguments: Any) -> None:
        put(cache, *arguments)
        cached.append(cache.nbytes)

    monkeypatch.setattr(PrefixCache, "put", seen)
    found = dict(write(model, asked))
    most = max(len(model.encode(request)) + (request.max_tokens or 0) for request in asked)
    assert len(found) == 40 and 0 < max(cached) <= 8 * model.backend.state_bytes(most)


def test_nothing_is_written_if_one_does_not_fit(model: LanguageModel) -> None:
    seen = []
    with pytest.raises(ContextError):
        for number, _ in write(model, [*requests(3), chat("x" * 400)]):
            seen.append(number)
    assert not seen


def test_it_ends_when_it_is_asked_to_and_when_nobody_listens(model: LanguageModel) -> None:
    seen: list[int] = []
    for number, _ in write(model, requests(40), stopped=lambda: len(seen) >= 3):
        seen.append(number)
    assert len(seen) == 3
    for number, _ in write(model, requests(40)):
        assert number >= 0
        break
    assert list(write(model, [])) == []
