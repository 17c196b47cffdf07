"""From a kept model to a smaller one: reported, resumed to the byte, served, repaired, and undone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ingle.compress import pruning, recovery
from ingle.compress import pruning as verb
from ingle.compress.calibration import make_rows
from ingle.compress.pruning import Cutting, cut, influence, parts_that_stay, prune
from ingle.compress.recovery import Length
from ingle.core.errors import ConfigError, DeltaError, Interrupted, Refused
from ingle.core.report import Event
from ingle.core.spec import LayerSpec
from ingle.engine.backend import prefill
from ingle.engine.delta_kinds import Change, merged
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source, open_weights
from ingle.home.deltas import put_delta, verify_delta
from ingle.home.kept import get_kept, keep, list_kept
from ingle.home.place import Home
from ingle.model.module import load_module
from ingle.train import making
from ingle.train.loop import train_for
from ingle.train.making import Made, RunWatch
from tests.compress.place import some_texts, told
from tests.engine.tiny import random_checkpoint, tiny_config
from tests.train.tiny_train import chat_tokenizer
from tests.tuning.place import admitting


def logits(home: Home, name: str) -> np.ndarray:
    model = open_model(kept_source(home, get_kept(home, name)), "fp32", threads=1)
    return prefill(model.backend, list(range(3, 60)), model.backend.new_state()).copy()


def pruned(home: Home, name: str, structure: str, share: float, method: str = "", model: str = "tiny", **recovery: object) -> Made:
    return prune(home, get_kept(home, model), name, told(structure, share, method, recovery), admitting(home))


@pytest.mark.parametrize(
    ("structure", "share", "layers", "channels", "groups"),
    [("layers", 0.5, 1, 96, 2), ("channels", 1 / 3, 2, 64, 2), ("heads", 0.5, 2, 96, 1)],
)
def test_a_model_with_fewer_parts(some_home: Home, structure: str, share: float, layers: int, channels: int, groups: int) -> None:
    facts: list[Event] = []
    before = logits(some_home, "tiny")
    settings = told(structure, share)
    made = prune(some_home, get_kept(some_home, "tiny"), "small", settings, admitting(some_home), sink=facts.append)
    assert made.kept == get_kept(some_home, "tiny+small")
    assert verify_delta(some_home, made.delta.digest) == []
    config = open_weights(some_home, made.kept).config
    assert (len(config.layers), config.intermediate_size, config.num_kv_heads) == (layers, channels, groups)
    assert made.report["parameters"] < made.report["parameters_before"]
    assert [(event.kind, event.facts["delta"], event.facts["structure"]) for event in facts] == [("prune", made.delta.digest, structure)]
    assert np.isfinite(logits(some_home, "tiny+small")).all()
    assert np.array_equal(logits(some_home, "tiny"), before)
    assert not list(some_home.tuning.glob("*"))
    again = prune(some_home, get_kept(some_home, "tiny"), "small", settings, admitting(some_home), sink=facts.append)
    assert (again.delta.digest, len(facts)) == (made.delta.digest, 1)
    with pytest.raises(ConfigError, match="Another delta"):
        prune(some_home, get_kept(some_home, "tiny"), "small", told(structure, share, "", {"tokens": 80}), admitting(some_home))


@pytest.mark.parametrize("structure", ["none", "2:4"])
def test_weights_that_are_zero(some_home: Home, structure: str) -> None:
    made = pruned(some_home, "sparse", structure, 0.5)
    checkpoint = open_weights(some_home, made.kept)
    for name in ("model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight"):
        assert (checkpoint.tensor(name).to_float32() == 0).mean() == 0.5
    assert made.report["parameters_before"] - made.report["parameters"] == 2 * (64 * 64 * 2 + 64 * 32 * 2 + 64 * 96 * 3) // 2
    assert np.isfinite(logits(some_home, "tiny+sparse")).all()


def test_what_is_served_is_what_the_layers_after_were_told_of(tmp_path: Path) -> None:
    """The stream that later layers see is that of the smaller model, whichever way it is computed."""
    checkpoint = random_checkpoint(tiny_config(heads=6, groups=3, vocab=2000, layers=(LayerSpec((0, 1, 2)),) * 3))
    module = load_module(checkpoint)
    for structure, share, kind in (("channels", 0.4, "shape"), ("heads", 1 / 3, "shape"), ("none", 0.5, "mask")):
        settings = told(structure, share)
        rows = make_rows(chat_tokenizer(), some_texts(), settings.calibration, 500)
        seen: list[torch.Tensor] = []
        advance = pruning.Stream.advance

        def watch(stream: pruning.Stream, layer: object, seen: list[torch.Tensor] = seen, advance: object = advance) -> None:
            advance(stream, layer)
            seen.append(stream.states.clone())

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pruning.Stream, "advance", watch)
            tensors = cut(Cutting(module, settings, parts_that_stay(module.config, settings), rows, tmp_path / structure))
        last = seen[-1] if structure == "none" else seen[-2]
        small = load_module(merged(checkpoint, [Change("x", kind, tensors)]))
        with torch.no_grad():
            torch.testing.assert_close(small.hidden(rows), small.model.norm(last), rtol=1e-3, atol=1e-3)


def test_a_layer_that_does_nothing_has_no_influence() -> None:
    module = load_module(random_checkpoint(tiny_config(vocab=2000, layers=(LayerSpec((0, 1)),) * 3)))
    with torch.no_grad():
        module.model.layers[1].self_attn.o_proj.weight.zero_()
        module.model.layers[1].mlp.down_proj.weight.zero_()
    settings = told("layers", 1 / 3)
    rows = make_rows(chat_tokenizer(), some_texts(), settings.calibration, 500)
    job = Cutting(module, settings, 2, rows, Path())
    found = influence(job)
    assert abs(float(found[1])) < 1e-6
    assert float(found[0]) > 1e-3
    assert cut(job)["shape.layers"].tolist() == [0, 2]


@pytest.mark.parametrize(("structure", "share"), [("channels", 1 / 3), ("none", 0.5)])
def test_recovery_brings_it_nearer_to_the_whole_and_keeps_the_holes(some_home: Home, structure: str, share: float) -> None:
    made = pruned(some_home, "recovered", structure, share, "magnitude", steps=12)
    told_ = made.report["recovery"]
    assert told_["held_out"] < told_["first_held_out"]
    assert told_["energy"]["joules"] > 0
    checkpoint = open_weights(some_home, made.kept)
    weight = checkpoint.tensor("model.layers.0.mlp.up_proj.weight").to_float32()
    assert weight.shape == ((64, 64) if structure == "channels" else (96, 64))
    if structure == "none":
        assert (weight == 0).mean() == 0.5
    pruned(some_home, "bare", structure, share, "magnitude")
    whole, recovered, bare = (logits(some_home, name) for name in ("tiny", "tiny+recovered", "tiny+bare"))
    assert not np.array_equal(recovered, bare)
    assert np.isfinite(whole).all() and np.isfinite(recovered).all()


def test_minutes_become_steps_that_stay(some_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[Length] = []
    settle = recovery.settle

    def few(*given: object) -> Length:
        counted.append(settle(*given))  # type: ignore[arg-type]
        return replace(counted[-1], steps=min(counted[-1].steps, 3))

    monkeypatch.setattr(recovery, "settle", few)

    def refuse(*_: object) -> None:
        raise Refused("tiny+x", "was refused by the gate")

    settings = told("layers", 0.5, "", {"minutes": 0.05})
    for admit in (refuse, admitting(some_home)):
        try:
            prune(some_home, get_kept(some_home, "tiny"), "x", settings, admit)  # type: ignore[arg-type]
        except Refused:
            assert [kept.name for kept in list_kept(some_home)] == ["tiny"]
    assert counted[0].steps >= 1
    assert counted == [counted[0]] * 2


def test_stopped_anywhere_it_ends_the_same(some_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = {"steps": 4}
    whole = prune(some_home, get_kept(some_home, "tiny"), "whole", told("channels", 1 / 3, "", steps), admitting(some_home)).delta
    stop = "after 1 of 2 layers"

    def check(_job: object, where: str) -> None:
        if where == stop:
            raise Interrupted("prune", "was interrupted", where)

    def interrupted(*given: object) -> object:
        if stop == "training":
            raise Interrupted("training", "was interrupted", "here")
        return train_for(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(making.MakingJob, "check", check)
    monkeypatch.setattr(recovery, "train_for", interrupted)
    for stop in ("after 1 of 2 layers", "before the recovery", "training", "nothing"):
        settings = told("channels", 1 / 3, "", steps)
        if stop == "nothing":
            cut_ = prune(some_home, get_kept(some_home, "tiny"), "cut", settings, admitting(some_home)).delta
            assert dict(cut_.tensors) == dict(whole.tensors)
            return
        with pytest.raises(Interrupted):
            prune(some_home, get_kept(some_home, "tiny"), "cut", settings, admitting(some_home))
        [folder] = some_home.tuning.iterdir()
        assert (folder / "layers" / "000.safetensors").exists()


def test_one_on_another_and_what_was_made_for_the_whole_is_refused(some_home: Home) -> None:
    pruned(some_home, "narrow", "channels", 1 / 3)
    short = pruned(some_home, "short", "layers", 0.5, model="tiny+narrow")
    config = open_weights(some_home, short.kept).config
    assert (len(config.layers), config.intermediate_size) == (1, 64)
    whole, small = get_kept(some_home, "tiny"), get_kept(some_home, "tiny+narrow")
    bias = {"model.norm.weight": np.zeros(64, np.float32)}
    other = put_delta(some_home, "tuned", "full", whole.digest, bias, {})
    with pytest.raises(DeltaError, match="was made for base"):
        get_kept(some_home, "tiny+narrow+tuned")
    with pytest.raises(DeltaError, match="was made for base"):
        keep(some_home, "both", small.base, (*small.deltas, other.digest))


@pytest.mark.parametrize(
    ("structure", "share", "message"),
    [
        ("layers", 0.3, r"whole number of 2 layers: 0.3, which is 0.60. The nearest: 1/2 = 0.5"),
        ("heads", 0.25, "The nearest: 1/2 = 0.5"),
        ("channels", 0.5, r"3 times 32 channels.*The nearest: 1/3 = 0.3333 or 2/3 = 0.6667"),
    ],
)
def test_a_share_that_does_not_divide_is_told_the_nearest(some_home: Home, structure: str, share: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pruned(some_home, "x", structure, share)


def test_what_cannot_be_is_said_before_weights_are_loaded(some_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "load_module", lambda *_: pytest.fail("weights were loaded"))
    for structure, share, message in (("2:4", 0.4, "nearest is 0.5"), ("none", 1.5, "below 1"), ("rows", 0.5, "must be .none. or")):
        with pytest.raises(ConfigError, match=message):
            pruned(some_home, "x", structure, share)
    with pytest.raises(ConfigError, match="hybrid"):
        parts_that_stay(tiny_config(layers=(LayerSpec((0,), 8), LayerSpec((0, 1)))), told("heads", 0.5))
    with pytest.raises(ConfigError, match="at least one of 1 heads"):
        parts_that_stay(tiny_config(heads=2, groups=1, layers=(LayerSpec((0,)),)), told("heads", 0.5))
    with pytest.raises(ConfigError, match="name"):
        pruned(some_home, "no/name", "layers", 0.5)


def test_what_is_done_is_told(some_home: Home) -> None:
    said: list[tuple[str, int, int]] = []
    steps: list[object] = []
    watch = RunWatch(lambda *told: said.append(told), steps.append)
    settings = told("none", 0.5, "wanda", {"steps": 2})
    prune(some_home, get_kept(some_home, "tiny"), "w", settings, admitting(some_home), watch)
    assert ("pruning layers", 2, 2) in said
    assert len(steps) == 2
