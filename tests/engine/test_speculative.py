"""Drafts change how fast an answer comes and nothing else: tokens, log-probabilities and ends are those without, and so is what is read."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.message import Chunk, Constraint, Request, Sampling
from ingle.core.spec import LayerSpec
from ingle.engine import speculative
from ingle.engine.answer import Session, answer
from ingle.engine.job import Capacity, Job
from ingle.engine.language_model import LanguageModel
from ingle.engine.prefix_cache import PrefixCache
from ingle.engine.scheduler import Scheduler
from ingle.engine.speculative import ALONE, MOST_TOKENS, AcceptanceRate, BatchLoad, Drafter, Lookup, StepTimer, copied
from tests.engine.test_answer import byte_tokenizer, chat, whole
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config
from tests.examples import examples

KINDS = {
    "transformer": (),
    "windows": (LayerSpec((0,), 24, 3), LayerSpec((), 8, 0), LayerSpec((0, 1))),
    "memories": (LayerSpec((0,), 24, 3, "gated_delta"), LayerSpec((), 0, 0, "gated_delta"), LayerSpec((0, 1))),
    "rnn": (LayerSpec((), 0, 0, "gated_delta"),) * 2,
}
TEXT = "the fire is lit and the fire is warm, and the fire is kept. " * 3


class Eager(StepTimer):
    """As if rows cost nothing: every guess is drafted."""

    def worth(self, company: BatchLoad, chances: Sequence[float], again: bool = False) -> int:
        return len(chances)


def model_of(folder: Path, kind: str, seed: int = 0) -> LanguageModel:
    config = tiny_config(vocab=260, context=2000, layers=KINDS[kind])
    return LanguageModel("tiny", backend_of(folder, random_checkpoint(config, seed)), byte_tokenizer())


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return model_of(tmp_path_factory.mktemp(request.param), request.param)


def told(chunks: Sequence[Chunk]) -> tuple[object, ...]:
    """All that must not change."""
    last = chunks[-1].usage
    assert last is not None and all(chunk.usage is None for chunk in chunks[:-1])
    tokens = [token for chunk in chunks for token in chunk.tokens]
    return whole([*chunks]), tokens, [e for c in chunks for e in c.logprobs], chunks[-1].finish, last.completion_tokens, last.prompt_tokens


REQUESTS = {
    "greedy": chat(TEXT, max_tokens=150),
    "warm": chat(TEXT, max_tokens=150, sampling=Sampling(temperature=0.5, seed=4)),
    "filtered, with log-probabilities": chat(TEXT, max_tokens=100, logprobs=3, sampling=Sampling(temperature=0.7, top_p=0.8, seed=9)),
    "penalties": chat(TEXT, max_tokens=120, sampling=Sampling(repetition_penalty=1.05, frequency_penalty=0.1, presence_penalty=0.1)),
    "a penalty over a window": chat(TEXT, max_tokens=120, sampling=Sampling(repetition_penalty=1.1, repetition_window=20)),
    "stopped in a circle": chat(TEXT, max_tokens=200, sampling=Sampling(logit_bias=((256, -100.0),), repeat_limit=9)),
    "plain": Request(prompt=TEXT, max_tokens=90, sampling=Sampling(logit_bias=((256, -100.0),))),
    "a language": chat(
        TEXT, max_tokens=90, constraint=Constraint("regex", "(ab|cd|the fire)+"), sampling=Sampling(temperature=1.0, seed=2)
    ),
    "one token": chat(TEXT, max_tokens=1),
    "echo": Request(prompt=TEXT, max_tokens=40, logprobs=2, echo=True),
}


def test_an_answer_with_drafts_is_the_one_without(model: LanguageModel) -> None:
    drafted = accepted = 0
    for name, request in REQUESTS.items():
        session = Session(model.backend.new_state(), pace=Eager())
        chunks, alone = list(answer(model, request, session)), list(answer(model, request, drafts=False))
        assert told(chunks) == told(alone), name
        assert [c.tokens for c in alone if len(c.tokens) > 1] == []
        usage, without = chunks[-1].usage, alone[-1].usage
        assert usage and without and (without.drafted, without.accepted) == (0, 0)
        drafted, accepted = drafted + usage.drafted, accepted + usage.accepted
        assert usage.accepted == sum(len(chunk.tokens) for chunk in chunks) - len(chunks) or chunks[-1].finish != "length"
        # What was read is what was written: another turn goes on from it as if it were read anew.
        assert session.state.length == len(session.ids)
        ids = [*session.ids, 65, 66, 67]
        more = Request(prompt=tuple(ids), max_tokens=20, sampling=Sampling(logit_bias=((256, -100.0),)))
        again = list(answer(model, more, session))
        assert told(again) == told(list(answer(model, more, drafts=False))), name
        assert again[-1].usage and again[-1].usage.cached_tokens == len(ids) - 3
    assert 0 < accepted < drafted


def test_stop_strings_end_it_at_the_same_place(model: LanguageModel) -> None:
    written = whole(list(answer(model, REQUESTS["warm"], drafts=False)))
    for part in (0.05, 0.4, 0.9):
        at = int(part * len(written))
        request = chat(TEXT, max_tokens=150, stop=(written[at : at + 3],), sampling=Sampling(temperature=0.5, seed=4))
        session = Session(model.backend.new_state(), pace=Eager())
        assert told(list(answer(model, request, session))) == told(list(answer(model, request, drafts=False)))


def test_answers_in_a_batch_are_those_without_drafts(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepTimer, "worth", Eager.worth)
    scheduler, inbox = Scheduler(Capacity(), PrefixCache(1 << 28)), dict[str, SimpleQueue[object]]()
    for name, request in REQUESTS.items():
        inbox[name] = SimpleQueue()
        scheduler.submit(Job(model, request, model.encode(request), inbox[name].put, model.grammar(request), owner=name))
    drafted, answers = 0, {name: list[Chunk]() for name in REQUESTS}
    for name, chunks in answers.items():
        while not chunks or chunks[-1].finish is None:
            chunk = inbox[name].get(timeout=60)
            assert isinstance(chunk, Chunk), chunk
            chunks.append(chunk)
    scheduler.close()
    for name, chunks in answers.items():  # now: logits are valid until the backend's next step, whoever takes it
        assert told(chunks) == told(list(answer(model, REQUESTS[name], drafts=False))), name
        assert chunks[-1].usage
        drafted += chunks[-1].usage.drafted
    assert drafted and scheduler.counts.steps


def test_none_are_made_where_they_are_switched_off(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepTimer, "worth", Eager.worth)
    scheduler, inbox = Scheduler(Capacity(drafts=False), PrefixCache(1 << 28)), SimpleQueue[object]()
    scheduler.submit(Job(model, REQUESTS["greedy"], model.encode(REQUESTS["greedy"]), inbox.put))
    while True:
        chunk = inbox.get(timeout=60)
        assert isinstance(chunk, Chunk) and len(chunk.tokens) <= 1
        if chunk.usage:
            assert (chunk.usage.drafted, chunk.usage.accepted) == (0, 0)
            break
    scheduler.close()


@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(sorted(KINDS)),
    warmth=st.sampled_from([0.0, 0.3, 1.0]),
    words=st.text("abc", min_size=1),
)
@examples(12)
def test_random_models(seed: int, kind: str, warmth: float, words: str) -> None:
    with TemporaryDirectory() as folder:
        model = model_of(Path(folder), kind, seed)
        request = Request(prompt=words * 9, max_tokens=60, logprobs=0, sampling=Sampling(temperature=warmth, seed=seed))
        alone = told(list(answer(model, request, drafts=False)))
        for pace in (Eager(), StepTimer()):
            assert told(list(answer(model, request, Session(model.backend.new_state(), pace=pace)))) == alone


@given(ids=st.lists(st.integers(0, 2), max_size=60), cut=st.integers(0, 60))
def test_a_lookup_finds_the_last_of_the_longest_matches(ids: list[int], cut: int) -> None:
    lookup = Lookup()
    lookup.find(ids[:cut])
    start, matched = lookup.find(ids)
    ends = [end for end in range(1, len(ids) - 1) if ids[end - 1 : end + 1] == ids[-2:]][::-1][:16]
    lengths = [next((n for n in range(16) if n > end or ids[end - n] != ids[-1 - n]), 16) for end in ends]
    assert matched == max(lengths, default=0)
    assert start == (ends[lengths.index(matched)] + 1 if ends else 0)
    if matched:
        draft = copied(ids, start, 10)
        assert draft == (ids[start:] * 10)[:10]


def measured(plain_s: float, row_s: float, writers: int = 1) -> StepTimer:
    pace, company = StepTimer(), BatchLoad(writers)
    for _ in range(2):
        pace.saw(company, 0, plain_s)
    for _ in range(400):
        pace.saw(company, 2, plain_s + 2 * row_s)
        pace.saw(company, 0, plain_s)
    return pace


@pytest.mark.parametrize("writers,again", list(product((1, 8), (False, True))))
def test_drafts_are_as_long_as_pays(writers: int, again: bool) -> None:
    company, sure = BatchLoad(writers), [0.99] * MOST_TOKENS
    cheap, dear = measured(1.0, 0.05, writers), measured(1.0, 0.9, writers)
    assert cheap.worth(company, sure, again) > 4
    assert cheap.worth(company, [0.01] * 8, again) == 0
    assert dear.worth(company, [0.5] * 8, again) == 0
    lengths = [cheap.worth(company, [chance] * MOST_TOKENS, again) for chance in (0.1, 0.6, 0.9, 0.99)]
    assert lengths == sorted(lengths)
    assert cheap.worth(company, sure, True) <= cheap.worth(company, sure, False)
    # Beside a prompt that takes most of the step anyway, a row more costs next to nothing.
    assert cheap.worth(BatchLoad(writers, 4000), [0.1], again) >= cheap.worth(company, [0.1], again)


def test_nothing_is_drafted_before_a_step_was_measured_and_never_for_long_without_measuring_again() -> None:
    pace, sure = StepTimer(), [0.99] * 8
    assert pace.worth(ALONE, sure) == 0
    pace.saw(ALONE, 0, 1.0)
    pace.saw(BatchLoad(1, 96), 0, 50.0)  # a step with a prompt tells nothing of one without
    pace.saw(ALONE, 0, 1.0)
    steps = 0
    while pace.worth(ALONE, sure):
        pace.saw(ALONE, 8, 1.4)
        steps += 1
        assert steps < 100
    assert steps
    pace.saw(ALONE, 0, 1.0)
    assert pace.worth(ALONE, sure)
    assert pace.worth(BatchLoad(3), sure) == 0
    for _ in range(30):
        pace.saw(ALONE, 1, 9.0)
    pace.saw(ALONE, 0, 1.0)
    assert pace.worth(ALONE, sure) == 0  # too dear now
    for _ in range(600):
        pace.saw(ALONE, 0, 1.0)
    assert pace.worth(ALONE, sure)  # and tried again some day


def test_a_machine_that_does_something_else_does_not_make_rows_cheap_or_dear() -> None:
    draw, found = np.random.default_rng(0), []
    for _ in range(20):
        pace = StepTimer()
        for _ in range(400):
            held_up = np.exp(np.abs(draw.standard_normal(4)))  # by a factor of two now and then, and of ten rarely
            for rows, factor in zip((0, 2, 0, 4), held_up, strict=True):
                pace.saw(ALONE, rows, float(factor) * (1 + 0.3 * rows))
        found.append([pace.worth(ALONE, [chance]) for chance in (0.15, 0.75)])
    assert np.mean(found, axis=0).round(1).tolist() == [0.0, 1.0]


def test_odds_follow_what_comes_true() -> None:
    general = AcceptanceRate(0.995)
    mine = AcceptanceRate(0.9, general)
    before = mine.chance(2)
    for _ in range(20):
        mine.saw(2, True)
    assert mine.chance(2) > 0.9 > before
    assert AcceptanceRate(0.9, general).chance(2) > before  # others begin with what was seen here
    for _ in range(20):
        mine.saw(2, False)
    assert mine.chance(2) < 0.4


def test_a_guess_is_judged_without_being_drafted() -> None:
    pace = StepTimer()
    drafter, ids = Drafter(pace, False), [1, 2, 3]
    for _ in range(30):
        assert drafter.draft(ids, 8, ALONE) == []
        token = ids[-3]
        drafter.took([token])
        ids.append(token)
    assert (drafter.drafted, drafter.accepted) == (0, 0)
    assert pace.odds.chance(16) > StepTimer().odds.chance(16)


@pytest.mark.parametrize("right", [1, 4])
def test_drafts_that_fail_again_and_again_leave_no_more_unread_than_a_state_can_take_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: int
) -> None:
    """Each draft begins as the answer goes on, and ends wrongly: what came true is read again with the next one, and the next."""
    model = model_of(tmp_path, "memories")
    request = chat(TEXT, max_tokens=400, sampling=Sampling(logit_bias=((256, -100.0), (257, -100.0))))
    plain = list(answer(model, request, drafts=False))
    written = [*model.encode(request), *(token for chunk in plain for token in chunk.tokens)]

    def half_right(ids: Sequence[int], _start: int, most: int) -> list[int]:
        true = written[len(ids) : len(ids) + right + 1]
        return [*true[:-1], (true[-1] + 1) % 250][:most] if true else []

    monkeypatch.setattr(speculative, "copied", half_right)
    monkeypatch.setattr(speculative.Lookup, "find", lambda *_: (0, 8))
    chunks = list(answer(model, request, Session(model.backend.new_state(), pace=Eager())))
    assert told(chunks) == told(plain)
    assert chunks[-1].usage and chunks[-1].usage.accepted > 100
