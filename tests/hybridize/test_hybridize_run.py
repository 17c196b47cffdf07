"""From a kept transformer to a kept hybrid: reported, resumed to the bit, served, and undone."""

import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingle.core.delta import Delta
from ingle.core.errors import ConfigError, Interrupted, Refused
from ingle.core.report import Event
from ingle.engine.backend import prefill
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source, open_weights
from ingle.home.deltas import delta_report, delta_tensors, list_deltas, verify_delta
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.hybridize import hybridizing
from ingle.hybridize.hybrid_lessons import Sources, make_lessons
from ingle.hybridize.hybrid_settings import HybridLessonSettings, HybridSettings, Lesson, SearchSettings
from ingle.hybridize.hybridizing import hybridize
from ingle.model.tokenizer import Tokenizer
from ingle.train import loop, making
from ingle.train.checkpoints import save_tensors
from ingle.train.corpus import Corpus
from ingle.train.loop import train_for
from ingle.train.loop_settings import TrainReport, TrainSettings
from ingle.train.making import RunWatch, TrainError
from tests.cli.place import CONTEXT
from tests.tuning.place import admitting

KINDS: tuple[Lesson, ...] = ("plain", "facts", "copy", "facts")
"""All but dialogues, which have a test file of their own."""
SMALL = HybridSettings(
    retrieval=2,
    window=8,
    sinks=2,
    search=SearchSettings(documents=2, tokens=150, rounds=2),
    lessons=HybridLessonSettings(kinds=KINDS, tokens=150, documents=8, long_kinds=KINDS, long_tokens=200, long_documents=3, held_out=4),
    mixers=TrainSettings(epochs=1, batch_tokens=400, precision="fp32"),
    logits=TrainSettings(epochs=1, batch_tokens=400, precision="fp32"),
    longer=TrainSettings(epochs=1, batch_tokens=400, precision="fp32"),
)


def logits(home: Home, name: str) -> np.ndarray:
    model = open_model(kept_source(home, get_kept(home, name)), "fp32", threads=1)
    return prefill(model.backend, list(range(3, 60)), model.backend.new_state()).copy()


def test_a_transformer_becomes_a_hybrid(some_home: Home) -> None:
    facts: list[Event] = []
    said: list[str] = []
    before = logits(some_home, "tiny")
    watch, command = RunWatch(say=said.append), "ingle make hybridize tiny"
    made = hybridize(some_home, get_kept(some_home, "tiny"), "hybrid", SMALL, admitting(some_home), watch, command, facts.append)
    assert [line.split(":")[0] for line in said[:3]] == ["lesson 1 of 3, mixers", "lesson 2 of 3, logits", "lesson 3 of 3, longer"]
    assert made.kept == get_kept(some_home, "tiny+hybrid")
    assert verify_delta(some_home, made.delta.digest) == []
    report = delta_report(some_home, made.delta.digest)
    assert report is not None
    assert (report["retrieval"], len(report["kept"]), set(report["lessons"])) == (2, 2, {"mixers", "logits", "longer"})
    assert report["state_share"] > 0  # of so short a context, a ring is not less than pages
    assert report["lessons"]["longer"]["tokens"] == 3 * CONTEXT < 3 * SMALL.lessons.long_tokens  # nothing beyond the model's positions
    assert report["lessons"]["mixers"]["held_out"] < report["lessons"]["mixers"]["first_held_out"]
    layers = open_weights(some_home, made.kept).config.layers
    assert sum(len(spec.retrieval) for spec in layers) == 2
    assert any(spec.memory == "gated_delta" for spec in layers)
    assert {spec.window for spec in layers} <= {0, 8}
    assert [(event.kind, event.facts["delta"]) for event in facts] == [("hybridize", made.delta.digest)]
    assert not np.array_equal(logits(some_home, "tiny+hybrid"), before)
    assert np.array_equal(logits(some_home, "tiny"), before)
    again = hybridize(some_home, get_kept(some_home, "tiny"), "hybrid", SMALL, admitting(some_home), sink=facts.append)
    assert (again.delta.digest, len(facts)) == (made.delta.digest, 1)
    (some_home.tuning / made.delta.origin["run"][:32]).mkdir()  # as a kill leaves it, after the delta and before its fact
    hybridize(some_home, get_kept(some_home, "tiny"), "hybrid", SMALL, admitting(some_home), sink=facts.append)
    assert facts == [facts[0], facts[0]] and not list(some_home.tuning.iterdir())
    with pytest.raises(ConfigError, match="Another delta"):
        hybridize(some_home, get_kept(some_home, "tiny"), "hybrid", replace(SMALL, window=9), admitting(some_home))


def test_stopped_anywhere_it_ends_the_same(some_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = get_kept(some_home, "tiny")
    whole = hybridize(some_home, kept, "whole", SMALL, admitting(some_home)).delta
    shutil.rmtree(some_home.root / "cache" / "groups")
    stops = iter(("groups", "mixers", "logits", "longer"))
    stop = next(stops)

    def interrupted(*given: object) -> object:
        folder = given[5]
        assert isinstance(folder, Path)
        if folder.name.partition("-")[0] == stop:
            raise Interrupted("training", "was interrupted", "here")
        return train_for(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(hybridizing, "train_for", interrupted)
    asked = making.MakingJob.check
    monkeypatch.setattr(making.MakingJob, "check", lambda job, where: _refuse(where) if stop in where else asked(job, where))
    for stop in ("groups", "mixers", "logits", "longer"):  # noqa: B007 - those above look at it
        with pytest.raises(Interrupted):
            hybridize(some_home, kept, "cut", SMALL, admitting(some_home))
        assert [delta.name for delta in list_deltas(some_home, kept.digest)] == ["whole"]
    stop = "nothing"
    [found] = (some_home.root / "cache" / "groups").iterdir()
    found.write_bytes(found.read_bytes()[:-9])  # by a disk that lost its end
    cut = hybridize(some_home, kept, "cut", SMALL, admitting(some_home)).delta
    assert dict(cut.tensors) == dict(whole.tensors)


def test_texts_that_have_become_others_begin_their_lessons_anew(some_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, read = get_kept(some_home, "tiny"), hybridizing.read_texts
    asked = making.MakingJob.check
    monkeypatch.setattr(making.MakingJob, "check", lambda job, where: _refuse(where) if "longer" in where else asked(job, where))
    with pytest.raises(Interrupted):
        hybridize(some_home, kept, "old", SMALL, admitting(some_home))
    monkeypatch.setattr(making.MakingJob, "check", asked)
    monkeypatch.setattr(hybridizing, "read_texts", lambda *given: [[f"{text} More." for text in source] for source in read(*given)])
    gone_on = hybridize(some_home, kept, "old", SMALL, admitting(some_home)).delta
    anew = hybridize(some_home, kept, "new", SMALL, admitting(some_home)).delta
    assert dict(gone_on.tensors) == dict(anew.tensors)


def test_lessons_hold_out_what_they_never_read(some_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[set[str], set[str]]] = []

    def noted(tokenizer: Any, parts: Any, *others: Any) -> Any:
        if len(parts) == 2:
            (aside, _), (learnt, _) = parts
            made.append(({text for source in aside for text in source}, {text for source in learnt for text in source}))
        return make_lessons(tokenizer, parts, *others)

    monkeypatch.setattr(hybridizing, "make_lessons", noted)
    hybridize(some_home, get_kept(some_home, "tiny"), "noted", SMALL, admitting(some_home))
    assert len(made) == 2 and made[0] == made[1]
    assert all(made[0]) and not made[0][0] & made[0][1]


def test_a_signal_after_a_lessons_last_step_is_heard(some_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(*given: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        save_tensors(*given)

    kept = get_kept(some_home, "tiny")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(loop, "save_tensors", told)
        hybridize(some_home, kept, "cut", SMALL, admitting(some_home))
    assert list_deltas(some_home, kept.digest) == []
    hybridize(some_home, kept, "cut", SMALL, admitting(some_home))


def test_what_a_search_has_no_memory_for_is_said(some_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> object:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(hybridizing, "loss_and_slope", full)
    with pytest.raises(TrainError, match=r"not enough memory.*search.tokens \(now \d+\)"):
        hybridize(some_home, get_kept(some_home, "tiny"), "full", SMALL, admitting(some_home))


def test_only_the_last_lesson_follows_what_documents_say(some_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, str] = {}

    def noted(*given: Any) -> TrainReport:
        told[given[5].name.partition("-")[0]] = given[6].name
        return train_for(*given)

    monkeypatch.setattr(hybridizing, "train_for", noted)
    settings = replace(SMALL, lessons=replace(SMALL.lessons, data_share=0.25))
    hybridize(some_home, get_kept(some_home, "tiny"), "told", settings, admitting(some_home))
    assert told["logits"].endswith("data 0.0") and told["longer"].endswith("data 0.25")


def _refuse(where: str) -> None:
    raise Interrupted("hybridize", "was interrupted", where)


def test_what_is_refused_is_not_kept_and_not_taught_again(some_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = get_kept(some_home, "tiny")

    def refuse(_candidate: object, _stopped: object) -> Delta:
        raise Refused("tiny+no", "was refused by the gate")

    with pytest.raises(Refused):
        hybridize(some_home, kept, "no", SMALL, refuse)
    assert "no" not in [delta.name for delta in list_deltas(some_home, kept.digest)]
    steps: list[object] = []
    monkeypatch.setattr(hybridizing, "loss_and_slope", lambda *_: pytest.fail("groups were sought again"))
    hybridize(some_home, kept, "no", SMALL, admitting(some_home), RunWatch(train=steps.append))
    assert steps == []


def test_training_free_has_no_memories_and_its_groups_are_sought_once(some_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    told = replace(SMALL, method="training-free")
    made = hybridize(
        some_home, get_kept(some_home, "tiny"), "free", told, admitting(some_home), RunWatch(lambda what, *_: said.append(what))
    )
    assert {"finding retrieval groups"} <= set(said)
    assert all(spec.memory == "none" for spec in open_weights(some_home, made.kept).config.layers)
    assert sorted(made.delta.tensors) == ["layers.memory", "layers.retrieval", "layers.sinks", "layers.window"]
    assert np.isfinite(logits(some_home, "tiny+free")).all()
    monkeypatch.setattr(hybridizing, "loss_and_slope", lambda *_: pytest.fail("groups were sought again"))
    taught = hybridize(some_home, get_kept(some_home, "tiny"), "taught", SMALL, admitting(some_home))
    assert np.array_equal(taught.delta.tensors["layers.retrieval"], made.delta.tensors["layers.retrieval"])
    for other in (replace(told, retrieval=1), replace(told, window=9), replace(told, search=replace(told.search, seed=1))):
        with pytest.raises(pytest.fail.Exception, match="again"):
            hybridize(some_home, get_kept(some_home, "tiny"), "other", other, admitting(some_home))


def test_the_last_lesson_has_kinds_of_its_own(some_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, tuple[str, ...]]] = []

    def told(
        tokenizer: Tokenizer, parts: Sequence[tuple[Sources, int]], tokens: int, seed: int, kinds: Sequence[Lesson], *rest: Any
    ) -> Corpus:
        asked.append((parts[-1][1], tuple(kinds)))
        return make_lessons(tokenizer, parts, tokens, seed, kinds, *rest)

    monkeypatch.setattr(hybridizing, "make_lessons", told)
    lessons = replace(SMALL.lessons, kinds=("plain", "copy"), long_kinds=("copy", "facts"))
    hybridize(some_home, get_kept(some_home, "tiny"), "hybrid", replace(SMALL, lessons=lessons), admitting(some_home))
    assert asked == [(2, ("facts",)), (8, ("plain", "copy")), (3, ("copy", "facts"))]


def test_what_cannot_be_is_said_before_weights_are_loaded(some_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = get_kept(some_home, "tiny")
    monkeypatch.setattr(hybridizing, "load_module", lambda *_: pytest.fail("weights were loaded"))
    for settings, message in [
        (replace(SMALL, retrieval=99), "at most"),
        (replace(SMALL, retrieval=None, state_budget=1e-4), "can't be met"),
        (replace(SMALL, window=200), r"search.tokens must be above window \+ sinks = 202"),
        (replace(SMALL, window=148, search=SearchSettings(tokens=160)), "lessons.tokens must be above"),
    ]:
        with pytest.raises(ConfigError, match=message):
            hybridize(some_home, kept, "x", settings, admitting(some_home))
    for make, message in [
        (lambda: SearchSettings(exchanges=-1), "search.exchanges must not be negative"),
        (lambda: SearchSettings(tokens=-5), "search.tokens must be at least 128"),
        (lambda: HybridLessonSettings(tokens=3), "lessons.tokens must be at least 128"),
        (lambda: HybridLessonSettings(long_tokens=2), "lessons.long_tokens must be at least"),
        (lambda: HybridLessonSettings(long_kinds=()), "lessons.long_kinds must name at least one"),
        (lambda: replace(SMALL, lessons=replace(SMALL.lessons, tokens=4096)), "mixers.batch_tokens must have room"),
        (lambda: replace(SMALL, lessons=replace(SMALL.lessons, long_tokens=4096)), "longer.batch_tokens must have room"),
    ]:
        with pytest.raises(ConfigError, match=message):
            make()
    with pytest.raises(ConfigError, match="name"):
        hybridize(some_home, kept, "no/name", SMALL, admitting(some_home))


def test_what_was_learnt_in_bfloat16_is_kept_in_float32(some_home: Home) -> None:
    rounded = replace(SMALL, **{name: replace(getattr(SMALL, name), precision="bf16") for name in ("mixers", "logits", "longer")})
    made = hybridize(some_home, get_kept(some_home, "tiny"), "hybrid", rounded, admitting(some_home))
    tensors = delta_tensors(some_home, made.delta)
    learnt = [value for name, value in tensors.items() if value.dtype == np.float32 and "map" in name]
    assert learnt and all((value.view(np.uint32) & 0xFFFF).any() for value in learnt), "not the values that were computed with"


def test_the_precision_of_a_search_stays_that_of_the_first_sitting(some_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    auto = replace(SMALL, mixers=replace(SMALL.mixers, precision="auto"))
    asked: list[str] = []
    monkeypatch.setattr(hybridizing, "choose", lambda *_: asked.append("") or ("fp32", "bf16")[len(asked) - 1])
    monkeypatch.setattr(hybridizing, "train_for", lambda *_: pytest.fail("it was taught"))
    found: list[object] = []
    search_groups = hybridizing.find_groups
    monkeypatch.setattr(
        hybridizing, "find_groups", lambda module, *rest: found.append(module.lm_head.weight.dtype) or search_groups(module, *rest)
    )
    for _ in range(2):
        with pytest.raises(pytest.fail.Exception):
            hybridize(some_home, get_kept(some_home, "tiny"), "x", auto, admitting(some_home))
    assert len(asked) == 1 and len(set(found)) == 1
