"""From a kept model to a delta of few bits: served as it was computed, resumed to the bit, judged by the gate, and undone."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ingle.compress import quantising
from ingle.compress.calibration import CalibrationSettings
from ingle.compress.quantising import ENERGY, QuantiseSettings, quantise
from ingle.compress.weight_formats import FORMATS, choose_formats
from ingle.core.delta import Delta
from ingle.core.errors import ConfigError, DeltaError, Interrupted, Refused
from ingle.core.report import Event
from ingle.engine.backend import Segment
from ingle.engine.delta_kinds import Change, merged
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source, list_packs, open_weights
from ingle.gate.check import load_policy
from ingle.gate.decide import admission
from ingle.home.deltas import delta_report, list_deltas, put_delta, verify_delta
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.model.checkpoint import open_checkpoint
from ingle.model.module import load_module
from ingle.train.making import RunWatch
from ingle.tuning.exporting import check_type, export, without_place
from tests.engine.tiny import unpacked
from tests.model.tiny_models import random_weights, tiny_config
from tests.tuning.place import admitting
from tests.tuning.test_tuning_export import bytes_words, written

SMALL = QuantiseSettings(calibration=CalibrationSettings(documents=6, tokens=96), sensitivity_documents=2)
IDS = list(range(3, 60))


def logits(home: Home, name: str, format_: str = "fp32") -> np.ndarray:
    model = open_model(kept_source(home, get_kept(home, name)), format_, threads=1)
    [rows] = model.backend.forward([Segment(model.backend.new_state(), IDS, "last", model.adapter)])
    return rows[-1].copy()


@torch.no_grad()
def exact(home: Home, name: str) -> np.ndarray:
    return load_module(open_weights(home, get_kept(home, name)))(torch.tensor([IDS]))[0, -1].numpy()


def apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def test_a_model_in_four_bits_is_served_as_blocks_and_undone(some_home: Home) -> None:
    facts: list[Event] = []
    before = logits(some_home, "tiny")
    kept = get_kept(some_home, "tiny")
    made = quantise(some_home, kept, "q4", SMALL, admitting(some_home), command="ingle make quantise tiny", sink=facts.append)
    assert made.kept == get_kept(some_home, "tiny+q4")
    assert verify_delta(some_home, made.delta.digest) == []
    report = delta_report(some_home, made.delta.digest)
    assert report is not None
    assert (report["bits"], report["stored_bits"], report["linears"], report["untouched"]) == (4, 5, 14, 0)
    assert 0 < max(report["output_errors"].values()) < 0.05
    assert report["energy"]["joules"] > 0
    assert [(event.kind, event.facts["delta"], event.facts["bits"]) for event in facts] == [("quantise", made.delta.digest, 4)]
    served = logits(some_home, "tiny+q4", "auto")
    assert apart(served, exact(some_home, "tiny+q4")) < 0.06  # the vocabulary and what goes in are rounded to 8 bits
    source, weights, four = kept_source(some_home, made.kept), open_weights(some_home, made.kept), 0
    for name, values in unpacked(source.packs / "auto", next(info for info in list_packs(source) if info.format == "auto")):
        if weights.tensor(name).kind == "Q4_16":
            four += 1
            assert np.array_equal(values, weights.tensor(name).to_float32())
    assert four == 14
    assert 0.001 < apart(served, before) < 0.6
    assert apart(logits(some_home, "tiny", "auto"), before) < 0.06
    sizes = [(kept_source(some_home, one).packs / "auto" / "weights.bin").stat().st_size for one in (made.kept, kept)]
    assert sizes[0] < sizes[1]
    assert np.array_equal(logits(some_home, "tiny"), before)
    again = quantise(some_home, kept, "q4", SMALL, admitting(some_home), sink=facts.append)
    assert (again.delta.digest, len(facts)) == (made.delta.digest, 1)
    with pytest.raises(ConfigError, match="Another delta"):
        quantise(some_home, kept, "q4", replace(SMALL, method="round"), admitting(some_home))
    with pytest.raises(ConfigError, match="no linears of more than 4 bits"):
        quantise(some_home, get_kept(some_home, "tiny+q4"), "again", SMALL, admitting(some_home))
    with pytest.raises(ConfigError, match=r"no linears of more than 5.5 bits"):
        quantise(some_home, get_kept(some_home, "tiny+q4"), "again", replace(SMALL, bits=5.5), admitting(some_home))


def joules(home: Home, delta: Delta) -> float:
    report = delta_report(home, delta.digest)
    assert report is not None
    return float(report["energy"]["joules"])


@pytest.mark.parametrize("method", ["guided", "awq"])
def test_stopped_after_any_layer_it_ends_the_same(some_home: Home, method: str) -> None:
    kept, told = get_kept(some_home, "tiny"), replace(SMALL, method=method, bits=6.0)
    whole = quantise(some_home, kept, "whole", told, admitting(some_home)).delta
    interrupted: list[float] = []
    guided = [("weighing tokens", 1), ("weighing tokens", 6)] if method == "guided" else []
    for at in (("measuring sensitivity", 1), *guided, ("quantising layers", 0), ("quantising layers", 1), ("quantising layers", 2)):

        def stop(what: str, done: int, _of: int, at: tuple[str, int] = at) -> None:
            if (what, done) == at:
                raise Interrupted("quantise", "was interrupted", what)

        with pytest.raises(Interrupted):
            quantise(some_home, kept, "cut", told, admitting(some_home), RunWatch(stop))
        [at_work] = some_home.tuning.glob(f"*/{ENERGY}")
        interrupted.append(json.loads(at_work.read_bytes())["joules"])
        assert [delta.name for delta in list_deltas(some_home, kept.digest)] == ["whole"]
    assert interrupted == sorted(interrupted)
    done: list[tuple[str, int]] = []
    cut = quantise(some_home, kept, "cut", told, admitting(some_home), RunWatch(lambda what, at, _of: done.append((what, at)))).delta
    assert dict(cut.tensors) == dict(whole.tensors)
    assert interrupted and joules(some_home, cut) > interrupted[-1] > 0, "what earlier sittings took counts"
    assert not {"measuring sensitivity", "weighing tokens"} & {what for what, _ in done}


def test_a_budget_between_gives_the_most_sensitive_most_bits(some_home: Home) -> None:
    kept = get_kept(some_home, "tiny")
    made = quantise(some_home, kept, "mixed", replace(SMALL, bits=5.0), admitting(some_home))
    report, formats = made.report, made.report["forms"]
    assert 4.5 < report["bits"] <= 5
    assert formats["int8"] and formats["int4"]
    costs = {name: of["int3"] for name, of in report["sensitivity_nats"].items()}
    assert all(0 < of["int8"] < of["int4"] < of["int3"] for of in report["sensitivity_nats"].values())
    least = min(costs, key=lambda name: costs[name])
    assert (max(costs, key=lambda name: costs[name]) in formats["int8"], least in formats["int8"]) == (True, False)
    quantise(some_home, kept, "q8", replace(SMALL, bits=8.0, method="round"), admitting(some_home))
    quantise(some_home, kept, "q4", SMALL, admitting(some_home))
    reference = exact(some_home, "tiny")
    off = {name: apart(exact(some_home, f"tiny+{name}"), reference) for name in ("q8", "mixed", "q4")}
    assert off["q8"] < 0.02 < off["q4"]
    assert off["q8"] < off["mixed"] < off["q4"]
    two = quantise(some_home, kept, "two", replace(SMALL, bits=5.0, forms=("int8", "int4")), admitting(some_home)).report["forms"]
    assert two["int4"] and two["int8"] and not two["int3"]


def test_three_bits_are_served_as_they_are_and_of_four_only_the_least_sensitive_go_there(some_home: Home) -> None:
    kept, reference = get_kept(some_home, "tiny"), exact(some_home, "tiny")
    made = quantise(some_home, kept, "q3", replace(SMALL, bits=3.0), admitting(some_home))
    assert (made.report["bits"], made.report["stored_bits"], made.report["linears"]) == (3, 4, 14)
    assert apart(logits(some_home, "tiny+q3", "auto"), exact(some_home, "tiny+q3")) < 0.06
    source = kept_source(some_home, made.kept)
    weights, three = open_weights(some_home, made.kept), 0
    for name, values in unpacked(source.packs / "auto", next(info for info in list_packs(source) if info.format == "auto")):
        if weights.tensor(name).kind == "Q3_16":
            three += 1
            assert np.array_equal(values, weights.tensor(name).to_float32())
    assert three == 14
    four = quantise(some_home, kept, "q4", SMALL, admitting(some_home)).kept
    lighter = quantise(some_home, four, "lighter", replace(SMALL, bits=3.5), admitting(some_home))
    kinds = {name: open_weights(some_home, lighter.kept).tensor(name).kind for name in lighter.report["sensitivity_nats"]}
    assert sorted(name for name, kind in kinds.items() if kind == "Q3_16") == lighter.report["forms"]["int3"]
    assert lighter.report["forms"]["int4"] == [] and lighter.report["linears"] + lighter.report["untouched"] == 14
    assert 0 < lighter.report["linears"] < 14 and 3.3 < lighter.report["bits"] <= 3.5
    off = [apart(exact(some_home, name), reference) for name in ("tiny+q4", "tiny+q4+lighter", "tiny+q3")]
    assert off[0] < off[1] < off[2]


def test_forms_are_chosen_by_nats_per_bit() -> None:
    three, four, eight = FORMATS["int3"], FORMATS["int4"], FORMATS["int8"]
    sizes = {"a": 100, "b": 400, "c": 500}
    costs = {name: {four: cost, eight: 0.0} for name, cost in {"a": 3.0, "b": 4.0, "c": 1.0}.items()}
    assert {name for name, format_ in choose_formats(costs, sizes, 4.4).items() if format_ == eight} == {"a"}
    assert {name for name, format_ in choose_formats(costs, sizes, 6).items() if format_ == eight} == {"a", "b"}
    assert set(choose_formats(costs, sizes, 8).values()) == {eight}
    assert set(choose_formats(costs, sizes, 4.4, [(1000, 8.0)]).values()) == {four}
    of_three = {name: {three: 4 * ways[four], **ways} for name, ways in costs.items()}
    assert choose_formats(of_three, sizes, 4.0) == {"a": eight, "b": four, "c": three}
    assert choose_formats({"a": {three: 1.0, four: 0.0, eight: 0.0}}, {"a": 9}, 8.0) == {"a": four}, (
        "more bits that save nothing are not spent"
    )


def test_the_mean_of_few_and_many_bits_may_be_that_of_one_form(some_home: Home) -> None:
    told = replace(SMALL, bits=4.0, forms=("int3", "q4_1", "int8"))
    made = quantise(some_home, get_kept(some_home, "tiny"), "spread", told, admitting(some_home))
    assert 3.7 < made.report["bits"] <= 4
    assert made.report["forms"]["int3"] and made.report["forms"]["int8"]
    with pytest.raises(ConfigError, match=r"can't be met by tiny in int8.*The least is 8"):
        quantise(some_home, get_kept(some_home, "tiny"), "no", replace(SMALL, bits=4.0, forms=("int8",)), admitting(some_home))
    with pytest.raises(ConfigError, match="must be one of int8, int4, int3, q4_1"):
        replace(SMALL, forms=("int5",))


def test_the_gate_measures_it_first(some_home: Home) -> None:
    kept = get_kept(some_home, "tiny")
    strict = load_policy(some_home, ["bits.most_rise_percent=-50"])
    facts: list[Event] = []
    with pytest.raises(Refused, match="bits per byte"):
        quantise(some_home, kept, "no", SMALL, admission(some_home, kept, "quantise", strict, sink=facts.append))
    assert [event.kind for event in facts] == ["gate.refuse"]
    assert list_deltas(some_home, kept.digest) == []
    made = quantise(some_home, kept, "no", SMALL, admission(some_home, kept, "quantise", load_policy(some_home), sink=facts.append))
    assert made.report["gate"]["accepted"]
    assert facts[-1].kind == "gate.accept"


def test_other_deltas_come_before_and_after(some_home: Home) -> None:
    kept = get_kept(some_home, "tiny")
    draw, name = np.random.default_rng(0), "model.layers.1.mlp.down_proj"
    lora = {f"{name}.lora_A.weight": draw.standard_normal((2, 96)), f"{name}.lora_B.weight": draw.standard_normal((64, 2))}
    lora = {key: (0.3 * values).astype(np.float32) for key, values in lora.items()}
    put_delta(some_home, "tuned", "lora", kept.digest, lora, {})
    quantise(some_home, get_kept(some_home, "tiny+tuned"), "q4", SMALL, admitting(some_home))
    both = exact(some_home, "tiny+tuned+q4")
    now, tuned, before = (
        open_weights(some_home, get_kept(some_home, model)).tensor(f"{name}.weight").to_float32()
        for model in ("tiny+tuned+q4", "tiny+tuned", "tiny")
    )
    assert apart(now, tuned) < 0.15 < apart(now, before)
    assert apart(logits(some_home, "tiny+tuned+q4", "auto"), both) < 0.06
    quantised = quantise(some_home, kept, "q4", SMALL, admitting(some_home))
    put_delta(some_home, "later", "lora", quantised.kept.digest, lora, {})
    assert apart(logits(some_home, "tiny+q4+later", "auto"), exact(some_home, "tiny+q4+later")) < 0.06
    merged_weight = open_weights(some_home, get_kept(some_home, "tiny+q4+later")).tensor(f"{name}.weight")
    below = open_weights(some_home, get_kept(some_home, "tiny+q4")).tensor(f"{name}.weight")
    assert (merged_weight.kind, below.kind) == ("F32", "Q4_16")
    added = lora[f"{name}.lora_B.weight"] @ lora[f"{name}.lora_A.weight"]
    np.testing.assert_allclose(merged_weight.to_float32(), below.to_float32() + added, atol=1e-6)


def test_what_cannot_be_is_said_before_weights_are_loaded(some_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = get_kept(some_home, "tiny")
    monkeypatch.setattr(quantising, "load_module", lambda *_: pytest.fail("weights were loaded"))
    for changes, message in [({"bits": 2.5}, "from 3 to 8"), ({"bits": 9.0}, "from 3 to 8"), ({"method": "gtpq"}, "gptq")]:
        with pytest.raises(ConfigError, match=message):
            QuantiseSettings(**changes)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="name"):
        quantise(some_home, kept, "no/name", SMALL, admitting(some_home))
    with pytest.raises(ConfigError, match="tokens of text"):
        quantise(some_home, kept, "x", replace(SMALL, calibration=CalibrationSettings(documents=9999)), admitting(some_home))


def test_blocks_that_do_not_fit_are_refused(some_home: Home) -> None:
    checkpoint = open_weights(some_home, get_kept(some_home, "tiny"))
    name = "model.layers.0.mlp.up_proj.weight"
    blocks = np.zeros((96, 40), np.uint8)
    broken = blocks.copy()
    broken[3, :2] = 0xFF  # a scale that is no number
    blocks_16 = np.zeros((96, 44), np.uint8)
    blocks_16[5, :4] = 0xFF  # a unit that is none
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"nothing.weight": blocks}, "must name a parameter"),
        ({name: blocks[:, :-1]}, "must have shape"),
        ({name: blocks[:-1]}, "must have shape"),
        ({name: np.zeros((96, 63), np.float32)}, "must have shape"),
        ({"model.embed_tokens.weight": np.zeros((259, 40), np.uint8)}, "only the linears"),
        ({"model.norm.weight": np.zeros(64, np.uint8)}, "only the linears"),
        ({name: broken}, "finite"),
        ({name: blocks_16}, "finite"),
        ({name: blocks_16[:, :-1]}, "must have shape .* as Q4_16"),
    ]
    for tensors, message in wrong:
        with pytest.raises(DeltaError, match=message):
            merged(checkpoint, [Change("bad", "quantised", tensors)])
    assert merged(checkpoint, [Change("good", "quantised", {name: blocks})]).tensor(name).kind == "Q4_1"


def test_blocks_go_into_gguf_as_they_are(some_home: Home, tmp_path: Path) -> None:
    kept = get_kept(some_home, "tiny")
    told = replace(SMALL, bits=6.0, method="awq", forms=("q4_1", "int8"))
    made = quantise(some_home, kept, "mixed", told, admitting(some_home))
    path = export(some_home, made.kept, "gguf", tmp_path / "x.gguf", check_type("gguf", "q4_1"))
    ours, theirs = open_weights(some_home, made.kept), open_checkpoint(path)
    kinds = set()
    for name in ours.names:
        a, b = ours.tensor(name), theirs.tensor(name)
        if a.kind in ("Q4_1", "Q8_0"):
            assert (a.kind, a.raw.tobytes()) == (b.kind, b.raw.tobytes()), name
        kinds.add(b.kind)
        assert apart(b.to_float32(), a.to_float32()) < 0.01, name
    assert kinds == {"Q4_1", "Q8_0", "F32"}
    assert without_place(some_home, made.kept, "q4_1") == 0
    finer = quantise(some_home, kept, "finer", SMALL, admitting(some_home)).kept
    assert without_place(some_home, finer, "q4_1") == 14 and without_place(some_home, finer, "f16") == 0
    theirs = open_checkpoint(export(some_home, finer, "gguf", tmp_path / "finer.gguf", "q4_1"))
    for name in theirs.names:
        ours_now = open_weights(some_home, finer).tensor(name)
        assert apart(theirs.tensor(name).to_float32(), ours_now.to_float32()) < 0.01
        assert theirs.tensor(name).kind == ("Q8_0" if len(ours_now.shape) == 2 else "F32")
    plain = open_checkpoint(export(some_home, kept, "gguf", tmp_path / "plain.gguf", "q4_1"))
    assert {plain.tensor(name).kind for name in plain.names} == {"Q4_1", "Q8_0", "F32"}


def test_llama_cpp_opens_it_and_computes_the_same(some_home: Home, tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    config = tiny_config("llama", vocab_size=bytes_words().vocab_size)  # with merges: llama.cpp reads no vocabulary of bytes alone
    pull(some_home, str(written(tmp_path / "words.gguf", config, random_weights(config))), lambda _: None, "words")
    told = replace(SMALL, bits=6.0, forms=("q4_1", "int8"))
    made = quantise(some_home, get_kept(some_home, "words"), "mixed", told, admitting(some_home))
    path = export(some_home, made.kept, "gguf", tmp_path / "x.gguf", "q4_1")
    model = llama_cpp.Llama(str(path), n_ctx=256, logits_all=True, type_k=0, type_v=0, n_threads=1, n_gpu_layers=0, verbose=False)
    model.eval(IDS)
    assert apart(np.array(model.scores[len(IDS) - 1]), exact(some_home, made.kept.name)) < 0.06
