"""Joules of steps that answers share: nothing is lost, nothing counted twice, and who makes a step dear pays for it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.energy import total
from ingle.core.errors import RequestError
from ingle.core.message import Chunk, Request, Usage
from ingle.energy.meter import Meter, open_meter
from ingle.engine.answer import answer
from ingle.engine.job import Capacity, Job
from ingle.engine.language_model import LanguageModel
from ingle.engine.metering import StepCost, StepMeter
from ingle.engine.prefix_cache import PrefixCache
from ingle.engine.scheduler import Scheduler
from tests.energy.machines import EPYC, Fake
from tests.engine.test_answer import byte_tokenizer, chat
from tests.engine.test_scheduler import FREE, submit
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config

LAST = Chunk("", (), finish="stop", usage=Usage(1, 0, 1, 0.1, 0.1, 10))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    config = tiny_config(vocab=260, context=2000)
    return LanguageModel("tiny", backend_of(tmp_path_factory.mktemp("m"), random_checkpoint(config)), byte_tokenizer())


def job(model: LanguageModel) -> Job:
    return Job(model, Request(prompt="x"), [1], lambda _: None)


def machine(tmp_path: Path) -> Fake:
    return Fake(tmp_path).cpuinfo(EPYC).rapl("0", "package-0").rapl("0:0", "dram")


def joules(outcome: object) -> float:
    assert isinstance(outcome, Chunk) and outcome.usage and outcome.usage.energy
    return outcome.usage.energy.joules


def test_a_step_is_paid_by_share_of_its_cost(model: LanguageModel, tmp_path: Path) -> None:
    fake, writer, reader = machine(tmp_path), job(model), job(model)
    meter = StepMeter(fake.meter())
    for rows, seconds in [(1, 0.008), (96, 0.065), (1, 0.008), (32, 0.0266)] * 20:  # 7.4 ms for the weights, 0.6 ms for a row
        meter.cost.add(rows, seconds)
    assert meter.cost.weights_in_rows == pytest.approx(12.3, rel=0.05)
    meter.begin()
    fake.go(0.065, cpu_s=0.13, d0=6.5)
    meter.share([(writer, 1), (reader, 96)])
    [(_, first), (_, second)] = meter.told([(writer, LAST), (reader, LAST)])
    assert joules(first) + joules(second) == pytest.approx(6.5)
    assert 0.05 < joules(first) / 6.5 < 0.1, "half of the weights and one row of 97: more than 1/97, far less than half"


def test_steps_that_are_alike_are_shared_evenly_and_a_rest_is_nobodys(model: LanguageModel, tmp_path: Path) -> None:
    fake, jobs = machine(tmp_path), [job(model) for _ in range(4)]
    meter = StepMeter(fake.meter())
    for step in range(30):
        if step:
            fake.go(0.001, cpu_s=0.001, d0=0.1)  # what lies between steps
        meter.begin()
        fake.go(0.007, cpu_s=0.014, d0=0.7)
        meter.share([(one, 1) for one in jobs])
    told = [joules(outcome) for _, outcome in meter.told([(one, LAST) for one in jobs])]
    assert told == pytest.approx([(30 * 0.7 + 29 * 0.1) / 4] * 4, rel=0.01)
    meter.rest()
    fake.go(100, d0=1000)
    meter.begin()
    fake.go(0.007, cpu_s=0.014, d0=0.7)
    meter.share([(late := job(model), 1)])
    [(_, last)] = meter.told([(late, LAST)])
    assert joules(last) == pytest.approx(0.7, rel=0.01)
    assert meter.spent == {"rapl": pytest.approx(30 * 0.7 + 29 * 0.1 + 0.7, rel=0.01)}


def test_errors_and_unfinished_pieces_are_passed_on_as_they_are(model: LanguageModel, tmp_path: Path) -> None:
    meter, one = StepMeter(machine(tmp_path).meter()), job(model)
    error, piece = RequestError("x", "is wrong"), Chunk("a", (1,))
    assert meter.told([(one, error), (one, piece)]) == [(one, error), (one, piece)]
    [(_, never_begun)] = meter.told([(one, LAST)])
    assert joules(never_begun) == 0


@given(st.floats(0.001, 1), st.floats(0.0001, 0.1), st.lists(st.integers(1, 300), min_size=8, max_size=60))
def test_the_cost_of_steps_is_found(start: float, slope: float, sizes: list[int]) -> None:
    cost = StepCost()
    for rows in [1, 200, *sizes]:
        cost.add(rows, start + slope * rows)
    assert cost.weights_in_rows == pytest.approx(min(start / slope, 1000), rel=0.05, abs=0.05)


def test_answers_together_took_what_was_taken(model: LanguageModel, tmp_path: Path) -> None:
    scheduler = Scheduler(Capacity(), PrefixCache(1 << 30), meter=Meter(tmp_path))  # no counters, whatever this machine has
    lengths = (20, 60, 200, 7, 90, 35)
    heard = [
        submit(scheduler, model, chat(f"{i} words " * (1 + 9 * i), max_tokens=length, sampling=FREE), owner=str(i))[1]
        for i, length in enumerate(lengths)
    ]
    usages = [usage for one in heard if (usage := one.all()[-1].usage)]
    parts = [usage.energy for usage in usages if usage.energy]
    scheduler.close()
    assert len(parts) == len(lengths) and all(0 < part.low < part.joules < part.high for part in parts)
    assert {part.source for part in parts} == set(scheduler.energy.spent)
    assert total(parts).joules == pytest.approx(sum(scheduler.energy.spent.values()), rel=0.02)
    assert parts[2].joules > parts[0].joules


def test_a_cancelled_answer_took_something_too(model: LanguageModel, tmp_path: Path) -> None:
    scheduler = Scheduler(Capacity(), PrefixCache(1 << 30), meter=Meter(tmp_path))
    one, heard = submit(scheduler, model, chat("x", max_tokens=1900, sampling=FREE))
    heard.inbox.get(timeout=60)
    scheduler.cancel(one)
    last = heard.all()[-1]
    scheduler.close()
    assert last.finish == "cancelled" and joules(last) == pytest.approx(sum(scheduler.energy.spent.values()), rel=0.02)


def test_one_answer_for_one_caller_is_metered_too(model: LanguageModel) -> None:
    *before, last = answer(model, chat("hello", max_tokens=30, sampling=FREE))
    assert all(chunk.usage is None for chunk in before)
    assert joules(last) > 0 or open_meter().rapl.state == "readable", "a counter may stand still for a moment"
    assert last.usage and last.usage.energy and last.usage.energy.source
