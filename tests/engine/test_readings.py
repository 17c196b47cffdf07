"""Prompts read beside answers: neither changes the other, the server's end ends them, and too many are refused."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ingle.core.errors import Busy, Closing, RequestError
from ingle.core.message import Sampling
from ingle.engine.answer import answer
from ingle.engine.job import Capacity
from ingle.engine.language_model import LanguageModel
from ingle.engine.metering import MOST, TOKENS_BESIDE, Reading
from ingle.engine.prefix_cache import PrefixCache
from ingle.engine.scheduler import Scheduler
from ingle.engine.scoring import score, score_in_steps
from tests.engine.test_answer import byte_tokenizer, chat, whole
from tests.engine.test_scheduler import stand, submit
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config, tokens
from tests.waiting import PATIENCE_S


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder: Path = tmp_path_factory.mktemp("m")
    return LanguageModel("tiny", backend_of(folder, random_checkpoint(tiny_config(vocab=260, context=2000))), byte_tokenizer())


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    made = Scheduler(Capacity(), PrefixCache(1 << 30))
    yield made
    made.close()


class Heard:
    """A reading's end."""

    def __init__(self) -> None:
        self.done, self.error, self.steps = threading.Event(), None, list[int]()

    def ended(self, error: Exception | None) -> None:
        self.error = error
        self.done.set()


def test_prompts_are_read_beside_answers_and_both_are_as_alone(scheduler: Scheduler, model: LanguageModel) -> None:
    tasks = [(tokens(model.backend.config, 120, seed), [tokens(model.backend.config, 9, 50 + seed)]) for seed in range(6)]
    found, room, heard = {}, [0], Heard()
    steps = score_in_steps(model.backend, tasks, lambda: room[0])

    def step(most: int) -> int | None:
        room[0] = most
        heard.steps.append(most)
        ready = next(steps, None)
        found.update(ready or ())
        return None if ready is None else most

    requests = [chat(f"question {i} " * 9, max_tokens=40, sampling=Sampling(temperature=2.0, seed=i)) for i in range(4)]
    listeners = [(submit if number else stand)(scheduler, model, request)[1] for number, request in enumerate(requests)]
    reading = Reading(step, heard.ended, 1 << 20)
    scheduler.attend(reading)
    assert [whole(listener.all()) for listener in listeners] == [whole(list(answer(model, request))) for request in requests]
    assert heard.done.wait(PATIENCE_S) and heard.error is None
    for number, nats in score(model.backend, tasks):
        assert np.array_equal(found[number][0], nats[0])
    assert TOKENS_BESIDE in heard.steps, "while answers are written, its steps are small"
    assert reading.energy.joules > 0


def test_a_failing_reading_hears_of_it_and_nothing_else_does(scheduler: Scheduler, model: LanguageModel) -> None:
    heard = Heard()

    def step(_most: int) -> int | None:
        raise ValueError("a fault")

    scheduler.attend(Reading(step, heard.ended, 0))
    _, listener = submit(scheduler, model, chat("hi", max_tokens=3))
    assert heard.done.wait(PATIENCE_S) and isinstance(heard.error, ValueError)
    assert listener.all()[-1].finish


def test_too_many_or_too_large_ones_are_refused_and_the_end_ends_them(model: LanguageModel) -> None:
    scheduler, heard = Scheduler(Capacity(state_bytes=1 << 20), PrefixCache(1 << 20)), [Heard() for _ in range(MOST)]
    turn = threading.Event()

    def waits(_most: int) -> int | None:
        turn.wait(PATIENCE_S)
        return 1

    with pytest.raises(RequestError):
        scheduler.attend(Reading(waits, heard[0].ended, 2 << 20))
    for number, one in enumerate(heard):
        scheduler.attend(Reading(waits, one.ended, 1 << 10, f"owner {number % 2}"))
        if number == 2:
            with pytest.raises(Busy):  # the first owner has two
                scheduler.attend(Reading(waits, Heard().ended, 1, "owner 0"))
    with pytest.raises(Busy):
        scheduler.attend(Reading(waits, Heard().ended, 1, "owner 9"))
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    turn.set()
    closing.join(PATIENCE_S)
    for one in heard:
        assert one.done.wait(PATIENCE_S) and isinstance(one.error, Closing)
    with pytest.raises(Closing):
        scheduler.attend(Reading(waits, Heard().ended, 1))
