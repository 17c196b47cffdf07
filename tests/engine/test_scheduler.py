"""Continuous batching: what comes out is what came alone, whoever else is there; places, memory and time are shared as promised."""

import errno
import gc
import json
import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from ingle.core.errors import Busy, Closing, IngleError, KernelError, RequestError
from ingle.core.message import Chunk, Request, Sampling
from ingle.engine.answer import answer
from ingle.engine.job import Capacity, Job, Outcome, post_directly
from ingle.engine.language_model import LanguageModel
from ingle.engine.prefix_cache import PrefixCache, SavedStates, drop_saved, forgotten
from ingle.engine.scheduler import IDLE_S, Scheduler
from tests.clocks import HandClock
from tests.engine.test_answer import byte_tokenizer, chat, whole
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config
from tests.waiting import PATIENCE_S, for_a_while, wait_until

FREE = Sampling(temperature=2.0, seed=3, logit_bias=((256, -100.0),))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    config = tiny_config(vocab=260, context=2000)
    return LanguageModel("tiny", backend_of(tmp_path_factory.mktemp("m"), random_checkpoint(config)), byte_tokenizer())


@dataclass
class Heard:
    """What a job was given. The scheduler goes on from each piece when it may."""

    inbox: SimpleQueue[Chunk | IngleError] = field(default_factory=SimpleQueue)
    go: threading.Event = field(default_factory=threading.Event)

    def take(self, outcome: Chunk | IngleError) -> None:
        self.inbox.put(outcome)
        assert self.go.wait(PATIENCE_S)

    def next(self) -> Chunk | IngleError:
        return self.inbox.get(timeout=PATIENCE_S)

    def all(self) -> list[Chunk]:
        self.go.set()
        chunks = []
        while True:
            got = self.next()
            if isinstance(got, IngleError):
                raise got
            chunks.append(got)
            if got.finish is not None:
                return chunks


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    made = Scheduler(Capacity(), PrefixCache(1 << 30))
    yield made
    made.close()


def submit(scheduler: Scheduler, model: LanguageModel, request: Request, **options: Any) -> tuple[Job, Heard]:
    heard = Heard()
    heard.go.set()
    job = Job(model, request, model.encode(request), heard.take, **options)
    scheduler.submit(job)
    return job, heard


def stand(scheduler: Scheduler, model: LanguageModel, request: Request, **options: Any) -> tuple[Job, Heard]:
    """As `submit`; the scheduler stands still at the first piece of this answer, until its `go` is set."""
    heard = Heard()
    job = Job(model, request, model.encode(request), heard.take, **options)
    scheduler.submit(job)
    heard.inbox.put(heard.next())
    return job, heard


def test_answers_in_a_batch_are_those_that_come_alone(scheduler: Scheduler, model: LanguageModel) -> None:
    requests = [
        chat(f"question {i} " * (1 + 7 * i), max_tokens=5 + 9 * i, sampling=Sampling(temperature=2.0, seed=i)) for i in range(12)
    ]  # fmt: skip
    heard = [submit(scheduler, model, request, owner=f"user {i % 3}")[1] for i, request in enumerate(requests)]
    answers = [mine.all() for mine in heard]
    for request, chunks in zip(requests, answers, strict=True):
        alone = list(answer(model, request))
        assert [c.tokens for c in chunks] == [c.tokens for c in alone]
        assert whole(chunks) == whole(alone)
        assert chunks[-1].finish == alone[-1].finish
    assert scheduler.counts.rows > scheduler.counts.steps


def test_log_probabilities_of_a_prompt_and_of_an_answer(scheduler: Scheduler, model: LanguageModel) -> None:
    text = "some text that is longer than one look at thirty-two tokens"
    request = Request(prompt=text, max_tokens=0, logprobs=3, echo=True)
    [chunk] = submit(scheduler, model, request)[1].all()
    assert [entry.token for entry in chunk.logprobs] == model.encode(request)
    assert chunk.logprobs[0].logprob is None
    assert all(entry.logprob is not None and entry.logprob <= entry.top[0][2] for entry in chunk.logprobs[1:])
    # The log-probability of a token in the prompt is that with which it would have been written.
    for at in (1, 31, 32, 33, len(text) - 1):
        [first, *_] = answer(model, Request(prompt=text[:at], max_tokens=1, logprobs=20, sampling=FREE))
        known = {token: value for token, _, value in first.logprobs[0].top}
        entry = chunk.logprobs[at]
        assert known.get(entry.token, entry.logprob) == entry.logprob
        assert [t for t, _, _ in first.logprobs[0].top[:3]] == [t for t, _, _ in entry.top]


def test_the_longest_known_start_is_read_once_for_one_owner_and_never_for_another(scheduler: Scheduler, model: LanguageModel) -> None:
    start = "a long beginning " * 20
    first = submit(scheduler, model, chat(start + "one", max_tokens=4, sampling=FREE), owner="ann")[1].all()
    again = submit(scheduler, model, chat(start + "two", max_tokens=4, sampling=FREE), owner="ann")[1].all()
    other = submit(scheduler, model, chat(start + "two", max_tokens=4, sampling=FREE), owner="bob")[1].all()
    assert first[-1].usage and again[-1].usage and other[-1].usage
    assert (first[-1].usage.cached_tokens, again[-1].usage.cached_tokens, other[-1].usage.cached_tokens) == (0, 1 + len(start), 0)
    assert whole(again) == whole(other)


def test_equal_prompts_at_the_same_time_are_read_once(scheduler: Scheduler, model: LanguageModel) -> None:
    request = chat("the same for all " * 30, max_tokens=3, sampling=FREE)
    heard = [submit(scheduler, model, request, owner="ann")[1] for _ in range(5)]
    read = [chunks[-1].usage.prompt_tokens - chunks[-1].usage.cached_tokens for h in heard if (chunks := h.all()) and chunks[-1].usage]
    assert sorted(read) == [1, 1, 1, 1, len(model.encode(request))]


def test_a_full_queue_refuses_and_says_when_to_come_back(model: LanguageModel) -> None:
    scheduler = Scheduler(Capacity(places=1, places_per_owner=1, queue=3, queue_per_owner=2), PrefixCache(1 << 30))
    first, held = stand(scheduler, model, chat("x", max_tokens=900, sampling=FREE), owner="ann")
    waiting = [submit(scheduler, model, chat("x", max_tokens=1, sampling=FREE), owner="ann")[1] for _ in range(2)]
    with pytest.raises(Busy, match="for one user") as refused:
        submit(scheduler, model, chat("x"), owner="ann")
    assert refused.value.retry_after_s >= 1
    waiting.append(submit(scheduler, model, chat("x", max_tokens=1, sampling=FREE), owner="bob")[1])
    with pytest.raises(Busy, match="has 3 requests waiting"):
        submit(scheduler, model, chat("x"), owner="bob")
    scheduler.cancel(first)
    held.go.set()
    assert [heard.all()[-1].finish for heard in waiting] == ["length"] * 3
    scheduler.close()


def test_a_newcomer_gets_the_next_place_before_the_second_of_somebody_else(model: LanguageModel) -> None:
    scheduler = Scheduler(Capacity(places=2, places_per_owner=2), PrefixCache(1 << 30))
    order: list[str] = []
    submit(scheduler, model, chat("other", max_tokens=1900, sampling=FREE), owner="z")
    running, held = stand(scheduler, model, chat("hold", max_tokens=400, sampling=FREE), owner="z")
    done = threading.Semaphore(0)

    def note(name: str) -> Any:
        def deliver(outcome: Chunk | IngleError) -> None:
            if isinstance(outcome, Chunk) and outcome.finish:
                order.append(name)
                done.release()

        return deliver

    for name in ("ann", "ann", "ann", "ann", "bob"):
        request = chat(f"{name}{len(order)}", max_tokens=5, sampling=FREE)
        scheduler.submit(Job(model, request, model.encode(request), note(name), owner=name))
    scheduler.cancel(running)
    held.go.set()
    for _ in range(5):
        assert done.acquire(timeout=PATIENCE_S)
    assert order.index("bob") <= 1
    scheduler.close()


def test_a_client_that_leaves_and_a_deadline_free_the_place(scheduler: Scheduler, model: LanguageModel) -> None:
    job, heard = stand(scheduler, model, chat("x", max_tokens=1900, sampling=FREE))
    scheduler.cancel(job)
    assert heard.all()[-1].finish == "cancelled"
    job, late = stand(scheduler, model, chat("x", max_tokens=1900, sampling=FREE), deadline=math.inf)
    job.deadline = 0.0
    chunks = late.all()
    assert chunks[-1].finish == "deadline" and chunks[-1].usage and 0 < chunks[-1].usage.completion_tokens < 1900
    assert scheduler.running == 0
    _, too_late = submit(scheduler, model, chat("x"), deadline=0.0)
    with pytest.raises(Busy, match="time for this request passed"):
        too_late.all()


def test_memory_is_a_budget(model: LanguageModel) -> None:
    one = model.backend.state_bytes(600)
    seen = list[int]()

    def post(outcomes: Sequence[Outcome]) -> None:
        seen.append(scheduler.running)
        post_directly(outcomes)

    scheduler = Scheduler(Capacity(state_bytes=2 * one + 100), PrefixCache(1 << 40), post)
    with pytest.raises(RequestError, match=r"serve\.state_mb"):
        submit(scheduler, model, chat("x", max_tokens=1500))
    heard = [submit(scheduler, model, chat(f"{i} words", max_tokens=560, sampling=FREE), owner=str(i))[1] for i in range(5)]
    assert all(h.all()[-1].finish == "length" for h in heard)
    assert max(seen) == 2
    assert 0 < scheduler.cache.nbytes <= scheduler.capacity.state_bytes
    assert scheduler.cache.evicted
    scheduler.close()


def test_a_failing_answer_takes_nobody_with_it(
    scheduler: Scheduler, model: LanguageModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from ingle.engine.decoding import Decoding

    take = Decoding.take

    def broken(self: Decoding, rows: Any) -> Any:
        if self.request.max_tokens == 77:
            raise ValueError("a bug")
        return take(self, rows)

    monkeypatch.setattr(Decoding, "take", broken)
    _, good = submit(scheduler, model, chat("good", max_tokens=30, sampling=FREE))
    _, bad = submit(scheduler, model, chat("bad", max_tokens=77))
    with pytest.raises(KernelError, match="a bug in Ingle"):
        bad.all()
    _, worse = submit(scheduler, model, chat("worse", sampling=Sampling(logit_bias=((10**6, 1.0),))))
    with pytest.raises(RequestError, match="logit_bias"):
        worse.all()
    assert good.all()[-1].finish == "length"
    assert "a bug" in caplog.text


def test_closing_lets_answers_finish_or_ends_them(model: LanguageModel) -> None:
    scheduler = Scheduler(Capacity(), PrefixCache(1 << 30))
    _, short = submit(scheduler, model, chat("x", max_tokens=200, sampling=FREE))
    assert isinstance(short.next(), Chunk)
    scheduler.close(grace_s=PATIENCE_S)
    assert short.all()[-1].finish == "length"
    with pytest.raises(Busy, match="shutting down"):
        submit(scheduler, model, chat("x"))
    scheduler = Scheduler(Capacity(), PrefixCache(1 << 30))
    _, long = stand(scheduler, model, chat("x", max_tokens=1900, sampling=FREE))
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    wait_until(lambda: scheduler._closing is not None, "it is told to close")
    assert long.all()[-1].finish == "cancelled"
    closing.join()


def test_a_long_prompt_is_read_in_pieces_beside_others(scheduler: Scheduler, model: LanguageModel) -> None:
    _, writer = stand(scheduler, model, chat("x", max_tokens=300, sampling=FREE), owner="ann")
    before = scheduler.counts.written_tokens
    _, reader = submit(scheduler, model, chat("y" * 1500, max_tokens=1, sampling=FREE), owner="bob")
    writer.go.set()
    reader.all()
    assert scheduler.counts.written_tokens - before >= 1500 // scheduler.capacity.prefill_tokens_beside
    writer.all()


def test_models_that_share_a_backend_share_steps_but_no_states(scheduler: Scheduler, model: LanguageModel) -> None:
    from tests.engine.test_adapter import random_additions

    config = model.backend.config
    adapted = [
        LanguageModel(f"tiny+{i}", model.backend, model.tokenizer, model.backend.adapter(random_additions(config, i), str(i)), str(i))
        for i in range(3)
    ]
    request = chat("the same question " * 10, max_tokens=40, sampling=FREE)
    models = [model, *adapted]
    before = scheduler.counts.steps
    heard = [(stand if one is model else submit)(scheduler, one, request)[1] for one in models]
    for one, chunks in zip(models, [mine.all() for mine in heard], strict=True):
        assert [c.tokens for c in chunks] == [c.tokens for c in answer(one, request)]
        assert chunks[-1].usage and chunks[-1].usage.cached_tokens == 0 and chunks[-1].usage.model_digest == one.digest
    assert scheduler.counts.steps - before < 4 * 40, "they are written together"
    assert len({one.digest for one in models}) == 4


def test_what_must_not_last_is_not_remembered(scheduler: Scheduler, model: LanguageModel) -> None:
    request = chat("before " * 30, max_tokens=5, sampling=FREE)
    plain = submit(scheduler, model, request, owner="a")[1].all()
    assert max(len(entry.ids) for entry in scheduler.cache) > len(model.encode(request))
    scheduler.forget_model(model.digest)
    wait_until(lambda: not len(scheduler.cache), "the states of the model are gone")
    for lasting in (100, 0):
        for _ in range(2):
            job, heard = submit(scheduler, model, request, owner="b", lasting=lasting)
            chunks = heard.all()
            assert [c.tokens for c in chunks] == [c.tokens for c in plain]
            assert all(len(entry.ids) <= 100 for entry in scheduler.cache)
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.cached_tokens == 100, "what the first of them left"
    assert job.decoding.ids[:100] == model.encode(request)[:100]


def test_what_is_forgotten_while_it_is_read_stays_forgotten(
    scheduler: Scheduler, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(model, chat("a secret " * 150, max_tokens=5), model.encode(chat("a secret " * 150)), lambda _: None, owner="ann", keep="talk")
    step, steps = scheduler._step, list[int]()

    def interrupted() -> list[Any]:
        steps.append(1)
        if len(steps) == 1:  # as if the conversation were deleted in the midst of it
            scheduler.cancel(job)
            scheduler.forget("ann", "talk")
        return step()

    monkeypatch.setattr(scheduler, "_step", interrupted)
    scheduler.submit(job)
    submit(scheduler, model, chat("another", max_tokens=3, sampling=FREE), owner="bob")[1].all()
    assert steps and [entry.keep for entry in scheduler.cache if entry.owner == "ann"] == []


def test_a_model_that_went_keeps_no_other_state_from_being_saved(tmp_path: Path) -> None:
    saved = SavedStates(tmp_path / "states", 1 << 30)
    saved.open()
    scheduler = Scheduler(Capacity(), PrefixCache(1 << 30), saved=saved)
    config = tiny_config(vocab=260, context=2000)
    models = [
        LanguageModel(f"tiny-{i}", backend_of(tmp_path / f"m{i}", random_checkpoint(config, i)), byte_tokenizer(), None, str(i))
        for i in range(2)
    ]
    for i, one in enumerate(models):
        submit(scheduler, one, chat("what was said " * 20, max_tokens=3), keep=f"talk-{i}")[1].all()
    del one
    models.pop(0)
    gc.collect()
    scheduler.close()
    assert [path.suffix for path in sorted((tmp_path / "states").iterdir())] == [".json", ".state"]
    assert json.loads(next((tmp_path / "states").glob("*.json")).read_bytes())["keep"] == "talk-1"


def test_a_disk_that_fails_while_states_are_saved_stops_no_answers(
    tmp_path: Path, model: LanguageModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = threading.Event()

    class Broken(SavedStates):
        def save(self, entry: Any, backend: Any) -> bool:
            tried.set()
            raise OSError(errno.EROFS, "Read-only file system")

        def forget(self, owner: str, keep: str | None = None) -> None:
            raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("ingle.engine.scheduler.IDLE_S", 0.05)
    scheduler = Scheduler(Capacity(), PrefixCache(1 << 30), saved=Broken(tmp_path, 1 << 30))
    submit(scheduler, model, chat("hi", max_tokens=2), keep="talk")[1].all()
    assert tried.wait(PATIENCE_S)
    scheduler.forget("", "talk")
    assert submit(scheduler, model, chat("still there?", max_tokens=2))[1].all()[-1].finish
    assert scheduler.alive and "Read-only file system" in caplog.text
    scheduler.close()
    assert not scheduler.alive


def test_what_another_process_had_forgotten_is_not_written_again(tmp_path: Path, model: LanguageModel) -> None:
    folder = tmp_path / "states"
    assert drop_saved(folder, [""]) == 0  # where nothing was ever saved there is nothing to be told
    saved = SavedStates(folder, 1 << 30)
    saved.open()
    scheduler = Scheduler(Capacity(), PrefixCache(1 << 30), saved=saved)
    submit(scheduler, model, chat("my door code is 4711", max_tokens=2), keep="talk")[1].all()
    submit(scheduler, model, chat("hello", max_tokens=2), owner="bob", keep="talk")[1].all()
    drop_saved(folder, [""])  # it may have been saved by now, or not
    scheduler.close()
    names = [json.loads(path.read_bytes())["owner"] for path in folder.glob("*.json")]
    assert names == ["bob"]
    scheduler = Scheduler(Capacity(), PrefixCache(1 << 30), saved=SavedStates(folder, 1 << 30))
    assert scheduler.saved is not None
    scheduler.saved.open()
    submit(scheduler, model, chat("my door code is another", max_tokens=2), keep="talk")[1].all()
    scheduler.close()
    assert len(list(folder.glob("*.json"))) == 2, "what came since is saved"


def test_what_was_forgotten_elsewhere_leaves_the_memory_too(scheduler: Scheduler, model: LanguageModel, tmp_path: Path) -> None:
    for owner in ("ann", "bob"):
        submit(scheduler, model, chat("hello", max_tokens=2), owner=owner)[1].all()
    drop_saved(tmp_path, ["ann"])
    scheduler.forget_before(forgotten(tmp_path))
    submit(scheduler, model, chat("bye", max_tokens=2), owner="eve")[1].all()
    assert {entry.owner for entry in scheduler.cache} == {"bob", "eve"}


def test_a_state_that_another_server_wrote_is_not_taken_for_ours(tmp_path: Path, model: LanguageModel) -> None:
    ours, theirs = (SavedStates(tmp_path, 1 << 30) for _ in range(2))
    entries = []
    for word in ("one", "two"):
        scheduler = Scheduler(Capacity(), PrefixCache(1 << 30))
        submit(scheduler, model, chat(f"{word} " * 30, max_tokens=2, sampling=FREE), keep="talk")[1].all()
        scheduler.close()
        entries += [entry for entry in scheduler.cache if entry.keep]
    mine, other = entries
    assert len(mine.ids) == len(other.ids)
    ours.open()
    assert ours.save(mine, model.backend)
    theirs.open()
    assert theirs.save(other, model.backend)
    assert ours.bring("", model.digest, [*mine.ids.tolist(), 1, 2], 1, model.backend) is None
    assert theirs.bring("", model.digest, [*other.ids.tolist(), 1, 2], 1, model.backend) is not None
    (tmp_path / "other.state").write_bytes(next(tmp_path.glob("*.state")).read_bytes())
    table = json.loads(next(tmp_path.glob("*.json")).read_bytes())
    (tmp_path / "other.json").write_text(json.dumps(table | {"ids": mine.ids.tolist(), "keep": "other"}))
    ours.open()
    assert ours.bring("", model.digest, [*mine.ids.tolist(), 1, 2], 1, model.backend) is None, "the file says whose it is"


def test_a_file_that_vanishes_as_it_is_read_costs_no_answer(tmp_path: Path, model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = SavedStates(tmp_path, 1 << 30)
    saved.open()
    scheduler = Scheduler(Capacity(), PrefixCache(1 << 30), saved=saved)
    submit(scheduler, model, chat("one " * 30, max_tokens=2, sampling=FREE), keep="talk")[1].all()
    scheduler.close()
    [known] = saved._saved.values()
    load = model.backend.load_state

    def gone(path: Path, digest: str) -> Any:
        state = load(path, digest)
        path.unlink()
        return state

    monkeypatch.setattr(model.backend, "load_state", gone, raising=False)
    assert saved.load(known, model.backend).length == len(known.ids)


def test_a_fault_while_something_is_remembered_stops_no_answers(
    scheduler: Scheduler, model: LanguageModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(PrefixCache, "put", full)
        assert submit(scheduler, model, chat("one", max_tokens=2))[1].all()[-1].finish
    assert submit(scheduler, model, chat("two", max_tokens=2))[1].all()[-1].finish
    assert scheduler.alive and "MemoryError" in caplog.text
    monkeypatch.setattr(scheduler, "_thread", threading.Thread())  # one that ended all the same
    with pytest.raises(Closing):
        submit(scheduler, model, chat("three", max_tokens=2))


def test_a_state_that_somebody_deletes_as_it_is_saved_is_not_saved(
    tmp_path: Path, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = SavedStates(tmp_path / "states", 1 << 30)
    saved.open()
    scheduler = Scheduler(Capacity(), PrefixCache(1 << 30))
    submit(scheduler, model, chat("hi", max_tokens=2), keep="talk")[1].all()
    scheduler.close()
    [entry] = [entry for entry in scheduler.cache if entry.keep]
    monkeypatch.setattr("ingle.engine.prefix_cache.write_atomic", lambda path, *_, **__: path.with_suffix(".state").unlink())
    assert saved.save(entry, model.backend) is False
    monkeypatch.undo()
    assert saved.save(entry, model.backend) is True


def test_states_that_nobody_asks_for_leave_memory(model: LanguageModel) -> None:
    hand = HandClock()
    with_states = Scheduler(Capacity(keep_s=0.05), PrefixCache(1 << 30, hand.clock))
    submit(with_states, model, chat("hello", max_tokens=4))[1].all()
    hand.move(0.04)
    for_a_while(IDLE_S + 0.2)
    assert len(with_states.cache) == 1
    hand.move(0.02)
    wait_until(lambda: not len(with_states.cache), "nobody asked for it")
    assert submit(with_states, model, chat("hello", max_tokens=4))[1].all()[-1].finish == "length"
    with_states.close()
