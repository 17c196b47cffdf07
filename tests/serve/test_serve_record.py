"""What guards know of a model, and facts that are written behind the conversation's back."""

import asyncio
import gc
import weakref
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingle.app.answering import limits_of
from ingle.app.facts import Recorder, request_digest
from ingle.app.house import open_rooms
from ingle.app.settings import SamplingSettings, ServeSettings
from ingle.core.message import Message, Request, Sampling
from ingle.core.report import Event
from ingle.engine.backend import prefill
from ingle.engine.language_model import LanguageModel
from ingle.engine.prefix_cache import drop_saved
from ingle.home.place import Home
from ingle.ledger.chain import Ledger
from ingle.serve import service
from ingle.serve.model_registry import ModelRegistry
from ingle.serve.service import Service
from tests.engine.test_answer import byte_tokenizer
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config
from tests.waiting import PATIENCE_S, wait_until


def test_limits_are_the_models_and_hold_no_model(tmp_path: Path) -> None:
    config = tiny_config(vocab=260, context=300)
    made = LanguageModel("gone", backend_of(tmp_path, random_checkpoint(config)), byte_tokenizer())
    limits = limits_of(made)
    assert limits.max_context_tokens == 300
    assert set(limits.control_names) == set(made.tokenizer.control) and "<|end|>" in limits.control_names
    for text in ("plain", "é" * 10, "日本語", "🎉🎉", "<|end|>" * 3):
        assert len(text.encode()) <= limits.longest_token_bytes * len(made.tokenizer.encode(text))
    backend = weakref.ref(made.backend)
    del made
    gc.collect()
    assert backend() is None


def test_digests_of_requests_from_before_there_was_a_window_still_verify() -> None:
    sampling = Sampling(repetition_penalty=1.1, temperature=0.7, top_p=0.8, seed=77)
    request = Request((Message.of("user", "hi"),), max_tokens=11, sampling=sampling)
    then = "9c1afca7e7754e11dfe241f3b46fcd39beabaec77d36e65f8a111254df9ce6de"  # as version 0.1.0 of November 2026 wrote it
    assert request_digest(bytes(32), request) == then
    for new in ({"repetition_window": 64}, {"repeat_limit": 160}):
        assert request_digest(bytes(32), replace(request, sampling=replace(sampling, **new))) != then


def test_facts_are_written_in_order_whoever_still_waits_for_them(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").create()
    recorder = Recorder(home)
    futures: list[Future[Any]] = []
    for i in range(30):
        futures.append(recorder.add(Event("answer", "tiny", {"number": i})))
        if i % 3 == 0:
            futures[-1].cancel()
    rest = [future.result(timeout=PATIENCE_S) for i, future in enumerate(futures) if not future.cancelled()]
    assert len(rest) >= 20
    recorder.close()
    engine = open_rooms(home)
    try:
        ledger = Ledger(engine, home.keys)
        assert [row.values["number"] for row in ledger.read(kind="answer")][::-1] == list(range(30))
        assert ledger.verify().problem is None
    finally:
        engine.dispose()


def test_what_another_process_forgot_leaves_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = LanguageModel("tiny", backend_of(tmp_path, random_checkpoint(tiny_config(vocab=260))), byte_tokenizer())
    home = Home(tmp_path / "home").create()
    serving = Service(home, ServeSettings(), SamplingSettings(), ModelRegistry(home, lambda *_: made, "tiny"))
    monkeypatch.setattr(service, "_SWEEP_S", 0.01)

    async def serve() -> set[str]:
        await serving.start()
        for owner in ("ann", "bob"):
            state = made.backend.new_state()
            prefill(made.backend, [1, 2, 3], state)
            serving.scheduler.cache.put(owner, made.digest, [1, 2, 3], state)
        drop_saved(home.states, ["ann"])
        await asyncio.to_thread(wait_until, lambda: len(list(serving.scheduler.cache)) == 1, "one of them is dropped")
        left = {entry.owner for entry in serving.scheduler.cache}
        await serving.close()
        return left

    assert asyncio.run(serve()) == {"bob"}


def test_a_fact_that_cant_be_written_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder(Home(tmp_path / "home").create())
    bad = recorder.add(Event("answer", "tiny", {"deep": {"not": "flat"}}))  # type: ignore[dict-item]
    good = recorder.add(Event("answer", "tiny", {"number": 1}))
    with pytest.raises(Exception, match="must be"):
        bad.result(timeout=PATIENCE_S)
    assert good.result(timeout=PATIENCE_S).values["number"] == 1
    assert not recorder.failing, "the last one was written"
    recorder.close()
    assert "Traceback" not in capsys.readouterr().err
