"""A run is what a naive loop would do; it stops and goes on without a trace, and says what went wrong."""

import csv
import dataclasses
import errno
import math
import os
import random
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from ingle.core.errors import CheckpointError, ConfigError, HomeError
from ingle.model.module import CausalLM
from ingle.train import loop, optimisers
from ingle.train.checkpoints import TRAINED, checkpoints, load_checkpoint, load_tensors
from ingle.train.corpus import Corpus
from ingle.train.forward import final_states
from ingle.train.loop import train
from ingle.train.loop_settings import Schedule, TrainProgress, TrainReport, TrainSettings, TrainWatch
from ingle.train.making import TrainError
from ingle.train.objectives import Answers, Distillation, Preference, States, TokenLoss, reference_log_probabilities
from ingle.train.optimisers import OptimiserSettings
from ingle.train.packing import Data, Order, make_batch
from tests.engine.tiny import tiny_config
from tests.train.tiny_train import HYBRID, corpus_of, documents, some_data, tiny_module, trained_parts
from tests.waiting import for_a_while, wait_until

BASE = TrainSettings(
    epochs=3, batch_tokens=64, accumulate=2, precision="fp32", optimiser=OptimiserSettings(learning_rate=0.01, weight_decay=0.1),
    schedule=Schedule("wsd", 0.2, 0.3), checkpoint_minutes=0, checkpoint_every=2,
)  # fmt: skip
PARTS = ("mlp", "q_proj", "norm")


def change(**changes: Any) -> TrainSettings:
    return dataclasses.replace(BASE, **changes)


def run(
    folder: Path, settings: TrainSettings = BASE, data: Data | None = None, parts: tuple[str, ...] = PARTS, **more: Any
) -> tuple[TrainReport, CausalLM]:
    module = tiny_module(tiny_config(layers=HYBRID))
    return train(module, trained_parts(module, *parts), data or some_data(), settings, folder, **more), module


def naive(settings: TrainSettings, data: Data) -> CausalLM:
    """One document at a time, whole logits, PyTorch's own AdamW and clipping."""
    module = tiny_module(tiny_config(layers=HYBRID))
    trained = trained_parts(module, *PARTS)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in trained)
    matrices, vectors = ([p for n, p in trained.items() if ("norm" in n) == norm] for norm in (False, True))
    chosen = settings.optimiser
    groups = [{"params": matrices, "weight_decay": chosen.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, chosen.learning_rate)
    order = Order(data, settings.batch_tokens, settings.accumulate, 0, 1, settings.seed)
    steps = sum(order.steps(epoch) for epoch in range(settings.epochs))
    for step in range(steps):
        examples = [example for batch in order.batches(*order.place(step)) for example in batch]
        total, terms = torch.zeros(()), 0
        for example in examples:
            document = data.corpus.document(example)
            ids = torch.from_numpy(document.ids.astype("int64"))
            chances = module(ids[None])[0, :-1].log_softmax(-1)
            answer = torch.from_numpy(document.answer[1:].copy())
            total = total - chances.gather(-1, ids[1:, None])[:, 0][answer].sum()
            terms += int(answer.sum())
        (total / terms).backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), chosen.clip_norm)
        for group in optimiser.param_groups:
            group["lr"] = chosen.learning_rate * settings.schedule.factor(step, steps)
        optimiser.step()
        optimiser.zero_grad()
    return module


def test_a_run_is_the_naive_loop(tmp_path: Path) -> None:
    data = some_data()
    report, module = run(tmp_path, data=data)
    reference = naive(BASE, data)
    start = tiny_module(tiny_config(layers=HYBRID))
    for name, parameter in reference.named_parameters():
        moved = (parameter - start.get_parameter(name)).abs().max()
        difference = (parameter - module.get_parameter(name)).abs().max()
        assert difference <= 0.01 * moved, (name, difference, moved)
    assert report.stopped == "finished"
    assert report.tokens == 3 * sum(data.corpus.sizes[list(data.train)])
    assert report.trained_parameters == sum(p.numel() for p in trained_parts(module, *PARTS).values())
    assert report.loss < 0.7 * report.first_loss
    assert report.held_out < 0.95 * report.first_held_out
    assert not module.training


def test_bfloat16_follows_float32(tmp_path: Path) -> None:
    reports = [run(tmp_path / optimisers, change(precision=optimisers))[0] for optimisers in ("fp32", "bf16")]
    assert [report.precision for report in reports] == ["fp32", "bf16"]
    assert reports[1].held_out == pytest.approx(reports[0].held_out, rel=0.03)
    assert {tensor.dtype for tensor in load_tensors(tmp_path / "bf16" / TRAINED).values()} == {torch.float32}


def test_recomputing_layers_changes_nothing(tmp_path: Path) -> None:
    run(tmp_path / "a", change(max_steps=4))
    run(tmp_path / "b", change(max_steps=4, recompute=True))
    for name, tensor in load_tensors(tmp_path / "a" / TRAINED).items():
        torch.testing.assert_close(tensor, load_tensors(tmp_path / "b" / TRAINED)[name])


SCRIPT = """
import sys
import threading
from pathlib import Path
import torch
torch.set_num_threads(1)
from ingle.train.loop_settings import TrainWatch
from ingle.train.optimisers import OptimiserSettings
from tests.train.test_train_loop import change, run
settings = change(epochs=6, accumulate=1, checkpoint_every=1, precision="bf16", optimiser=OptimiserSettings("muon", 0.01))
def hold(progress):
    if progress.step == int(sys.argv[2]):
        threading.Event().wait()
run(Path(sys.argv[1]), settings, watch=TrainWatch(hold))
"""


def in_a_process(folder: Path, held: int = 0) -> "subprocess.Popen[bytes]":
    """`held`: the step at which it waits to be killed."""
    root = Path(__file__).parents[2]
    where = {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests' / 'model'}"}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), str(held)], cwd=root, env=where)


def test_killed_at_any_moment_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    draw = random.Random()
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    undisturbed, reached = in_a_process(whole), []
    for least in (1, 5):  # checkpoints are written all the time, so a kill also falls into the middle of one
        process = in_a_process(killed, held=least + 3)

        def far_enough(least: int = least) -> bool:
            return bool(checkpoints(killed)) and int(checkpoints(killed)[-1].name[5:]) >= least

        wait_until(lambda: far_enough() or process.poll() is not None, f"step {least}")  # noqa: B023 - called at once
        for_a_while(draw.uniform(0, 0.1))
        process.kill()
        process.wait()
        reached.append(int(checkpoints(killed)[-1].name[5:]))
    assert undisturbed.wait() == 0
    steps = int(checkpoints(whole)[-1].name[5:])
    assert reached[0] < reached[1] < steps, "nothing was interrupted"
    assert in_a_process(killed).wait() == 0
    for name in (TRAINED, f"step-{steps:08d}/optimiser.safetensors"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), (name, reached)
    lines = [[row | {"seconds": ""} for row in rows(folder)] for folder in (whole, killed)]
    assert lines[0] == lines[1]
    assert not list(killed.glob(".*"))


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "loss.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_it_saves_and_goes_on_later(tmp_path: Path, number: signal.Signals) -> None:
    def stop(progress: TrainProgress) -> None:
        if progress.step == 3:
            os.kill(os.getpid(), number)

    report, _ = run(tmp_path / "a", change(checkpoint_every=0), watch=TrainWatch(progress=stop))
    assert (report.stopped, report.steps) == ("interrupted", 3)
    assert signal.getsignal(number) not in (None, signal.SIG_IGN)
    report, _ = run(tmp_path / "a", change(checkpoint_every=5))
    assert report.stopped == "finished"
    run(tmp_path / "b")
    assert (tmp_path / "a" / TRAINED).read_bytes() == (tmp_path / "b" / TRAINED).read_bytes()


@pytest.mark.parametrize(("dim", "asked"), [(32, 1), (16, 0)])
def test_kernels_are_compiled_ahead_only_for_heads_that_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dim: int, asked: int) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(loop, "compile_ahead", lambda *told: calls.append(told))
    module = tiny_module(tiny_config(dim=dim))
    train(module, trained_parts(module, *PARTS), some_data(), change(max_steps=1), tmp_path)
    assert len(calls) == asked


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first, module = run(tmp_path)
    steps: list[TrainProgress] = []
    second, again = run(tmp_path, watch=TrainWatch(progress=steps.append))
    assert not steps
    assert dataclasses.replace(second, peak_bytes=0) == dataclasses.replace(first, peak_bytes=0)
    assert all(torch.equal(p, module.get_parameter(name)) for name, p in again.named_parameters())


@pytest.mark.parametrize(
    "other",
    [
        lambda: (change(seed=1), some_data(), PARTS),
        lambda: (BASE, some_data(seed=1), PARTS),
        lambda: (BASE, some_data(), ("mlp",)),
        lambda: (change(optimiser=OptimiserSettings("muon")), some_data(), PARTS),
    ],
)
def test_another_run_in_the_same_folder_is_refused(tmp_path: Path, other: Callable[[], tuple[TrainSettings, Data, Any]]) -> None:
    run(tmp_path, change(max_steps=2))
    settings, data, parts = other()
    with pytest.raises(ConfigError, match="holds another run"):
        run(tmp_path, dataclasses.replace(settings, max_steps=2), data, parts)


@pytest.mark.parametrize(
    ("asked", "instructions", "told"),
    [("bf16", set[str](), True), ("bf16", {"avx512bf16"}, False), ("fp32", {"avx512bf16"}, False), ("auto", set[str](), False)],
)
def test_bf16_on_a_machine_that_is_slow_with_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Any, instructions: set[str], told: bool
) -> None:
    monkeypatch.setattr(optimisers, "features", lambda: instructions)
    said: list[str] = []
    report, _ = run(tmp_path, change(max_steps=1, precision=asked), watch=TrainWatch(say=said.append))
    assert report.precision == ("bf16" if asked == "bf16" else "fp32")
    assert any("no instructions for bf16" in text for text in said) == told


def test_held_out_loss_that_only_grows_ends_the_run_with_the_best(tmp_path: Path) -> None:
    parts = documents([12] * 12)  # random: nothing that is learnt here helps there
    data, said = Data(corpus_of(parts), range(6), range(6, 12)), []
    settings = change(epochs=200, patience=3, evaluate_every=2, schedule=Schedule("constant", 0))
    report, module = run(tmp_path, settings, data, watch=TrainWatch(say=said.append))
    assert report.stopped == "early"
    assert report.steps == report.best_step + 2 * 3
    assert report.held_out > report.best_held_out
    assert any("training stops here" in text for text in said)
    kept = load_tensors(tmp_path / TRAINED)
    assert all(torch.equal(module.get_parameter(name), tensor) for name, tensor in kept.items())
    line = next((row for row in rows(tmp_path) if row["step"] == str(report.best_step)), None)
    assert float(line["held_out"] if line else report.first_held_out) == report.best_held_out
    repeated, again = run(tmp_path, settings, data)
    assert repeated.stopped == "early"
    assert all(torch.equal(again.get_parameter(name), tensor) for name, tensor in kept.items())
    with pytest.raises(ConfigError, match="patience needs held-out examples"):
        run(tmp_path / "none", change(patience=2), Data(data.corpus, range(6)))


@pytest.mark.parametrize(("rate", "reason"), [(1e-2, "is left"), (1e-4, "no held-out loss much below")])
def test_a_run_ends_where_little_is_left_or_little_is_gained(tmp_path: Path, rate: float, reason: str) -> None:
    parts, said = documents([12] * 6), list[str]()
    data = Data(corpus_of([*parts, *parts]), range(6), range(6, 12))  # what is held out is what is learnt
    optimiser = OptimiserSettings(learning_rate=rate)
    settings = change(epochs=400, patience=2, least_gain=0.2, evaluate_every=1, schedule=Schedule("constant", 0), optimiser=optimiser)
    report, _ = run(tmp_path, settings, data, watch=TrainWatch(say=said.append))
    first, last = report.first_held_out, report.held_out
    assert report.stopped == "early" and report.steps < 400 and first is not None and last is not None
    assert [reason in text for text in said if "training stops here" in text] == [True]
    assert (last <= 0.2 * (first - last)) == (reason == "is left")
    if reason != "is left":
        assert report.best_step == report.steps, "the best is kept, though it gained little"


class Breaks(Answers):
    """The answers' loss, until a batch number at which something happens."""

    def __init__(self, at: int, what: Callable[[], Any]) -> None:
        super().__init__()
        object.__setattr__(self, "calls", [at, what])

    def __call__(self, module: CausalLM, states: States, batch: Any) -> TokenLoss:
        self.calls[0] -= torch.is_grad_enabled()  # type: ignore[attr-defined]
        loss = super().__call__(module, states, batch)
        return loss if self.calls[0] else TokenLoss(loss.total * self.calls[1](), loss.terms)  # type: ignore[attr-defined]


def test_numbers_that_run_away_stop_the_run_before_they_do_harm(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"loss, step 4 must be a finite number.*learning rate is too high \(it was 0.01\)"):
        run(tmp_path, objective=Breaks(7, lambda: math.nan))
    kept = load_checkpoint(tmp_path)
    assert kept is not None
    assert kept[0].step == 2
    assert all(torch.isfinite(tensor).all() for tensor in kept[1].values())
    run(tmp_path)  # goes on
    run(tmp_path.with_name("whole"))
    assert (tmp_path / TRAINED).read_bytes() == (tmp_path.with_name("whole") / TRAINED).read_bytes()
    with pytest.raises(TrainError, match="gradient, step 1"):
        run(tmp_path.with_name("steep"), objective=Steep())


class Steep(Answers):
    """A finite loss with an infinite slope."""

    def __call__(self, module: CausalLM, states: States, batch: Any) -> TokenLoss:
        found = states()
        return TokenLoss((found - found.detach()).abs().sum().add(0.0).sqrt() + 1, 1)


def test_memory_that_runs_out_names_the_setting_to_lower(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"not enough memory.*Lower batch_tokens \(now 64\).*recompute = true"):
        run(tmp_path, objective=Breaks(3, lambda: torch.empty(1 << 55)))
    with pytest.raises(RuntimeError, match="size of tensor"):
        run(tmp_path, objective=Breaks(1, lambda: torch.ones(2) + torch.ones(3)))


@pytest.mark.parametrize("after", range(0, 12, 2))
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    run(tmp_path, change(max_steps=9, checkpoint_every=2), watch=TrainWatch(progress=_stop_at(2)))
    before = [path.name for path in checkpoints(tmp_path)]
    real, calls = os.fsync, [0]

    def full(handle: int) -> None:
        calls[0] += 1
        if calls[0] > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HomeError, match="Free some disk space"):
        run(tmp_path, change(max_steps=9, checkpoint_every=2))
    monkeypatch.undo()
    assert set(before) <= {path.name for path in checkpoints(tmp_path)} or len(checkpoints(tmp_path)) == 2
    assert load_checkpoint(tmp_path) is not None
    assert run(tmp_path, change(max_steps=9, checkpoint_every=2))[0].stopped == "finished"
    run(tmp_path / "whole", change(max_steps=9, checkpoint_every=2))
    assert (tmp_path / TRAINED).read_bytes() == (tmp_path / "whole" / TRAINED).read_bytes()


def _stop_at(step: int) -> Callable[[TrainProgress], None]:
    return lambda progress: os.kill(os.getpid(), signal.SIGINT) if progress.step == step else None


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    run(tmp_path, change(max_steps=4))
    newest = checkpoints(tmp_path)[-1]
    (newest / TRAINED).write_bytes((newest / TRAINED).read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=f"{TRAINED} must be a whole safetensors file: .*Delete {newest.name}"):
        run(tmp_path, change(max_steps=4))
    (newest / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="must be a run's state"):
        run(tmp_path, change(max_steps=4))


def test_what_is_written_while_it_goes(tmp_path: Path) -> None:
    told: list[TrainProgress] = []
    report, _ = run(tmp_path, change(evaluate_every=3), watch=TrainWatch(progress=told.append))
    lines = rows(tmp_path)
    assert [int(line["step"]) for line in lines] == list(range(1, report.steps + 1))
    assert [progress.step for progress in told] == list(range(1, report.steps + 1))
    assert [line["held_out"] != "nan" for line in lines] == [step % 3 == 0 or step == report.steps for step in range(1, report.steps + 1)]
    assert float(lines[-1]["epoch"]) == 3
    assert float(lines[-1]["loss"]) == report.loss
    assert told[-1].seconds_left == 0
    assert told[0].seconds_left > 0
    tree = ET.parse(tmp_path / "loss.svg").getroot()
    assert sum(element.tag.endswith("path") for element in tree.iter()) >= 7
    assert [path.name for path in checkpoints(tmp_path)] == [f"step-{step:08d}" for step in (report.steps // 2 * 2, report.steps)][
        -len(checkpoints(tmp_path)) :
    ]


def pairs(count: int = 16) -> Corpus:
    """Pairs of one prompt with two answers."""
    parts = []
    for i, document in enumerate(documents([10] * count, seed=3)):
        parts.append(document)
        if i % 2:
            document.ids[:5] = parts[-2].ids[:5]
    return corpus_of(parts)


@pytest.mark.parametrize("method", ["dpo", "orpo", "kto"])
def test_preferences_are_learnt(tmp_path: Path, method: Any) -> None:
    labels = [1, 0] * 4 if method == "kto" else ()
    corpus = corpus_of([pairs().document(i) for i in range(16)], "labels" if method == "kto" else "pairs", labels)
    module = tiny_module(tiny_config(layers=HYBRID))
    before = reference_log_probabilities(module, corpus, 64, tmp_path / "reference")
    kept = reference_log_probabilities(tiny_module(tiny_config(layers=HYBRID), 9), corpus, 64, tmp_path / "reference")
    assert torch.equal(before, kept), "the reference is the module before training, also when a run goes on"
    objective = Preference(method, None if method == "orpo" else before)
    settings = change(epochs=12, schedule=Schedule("constant", 0))
    report, module = run(tmp_path, settings, Data(corpus, range(8)), objective=objective)
    assert report.loss < report.first_loss
    after = reference_log_probabilities(module, corpus, 64)
    moved = (after - before)[0::2]
    if method == "kto":
        assert moved[0::2].mean() > moved[1::2].mean(), "liked answers gained more than others"
    else:
        assert (moved > (after - before)[1::2]).float().mean() > 0.8, "chosen answers gained more than rejected ones"
    if method == "dpo":
        assert report.first_loss == pytest.approx(math.log(2), rel=1e-5)
    with pytest.raises(ConfigError, match="data must be"):
        run(tmp_path / "other", settings, some_data(), objective=objective)
    with pytest.raises(ConfigError, match="must be of the same data"):
        reference_log_probabilities(module, some_data().corpus, 64, tmp_path / "reference")


def test_a_teacher_is_followed(tmp_path: Path) -> None:
    teacher = tiny_module(tiny_config(layers=HYBRID), seed=5)

    def logits(batch: Any) -> Callable[[slice], torch.Tensor]:
        with torch.no_grad():
            states = final_states(teacher, batch)
        return lambda at: teacher.logits(states[at]).detach()

    objective = Distillation(logits, "5" * 64, data_share=0.2)
    report, _ = run(tmp_path, change(epochs=10), objective=objective)
    assert report.held_out < 0.8 * report.first_held_out
    batch = make_batch(some_data().corpus, [0, 1])
    module = tiny_module(tiny_config(layers=HYBRID))
    mixed = objective(module, lambda: final_states(module, batch), batch).total
    parts = [Distillation(logits, "", data_share=share)(module, partial(final_states, module, batch), batch).total for share in (0.0, 1.0)]
    torch.testing.assert_close(mixed, 0.8 * parts[0] + 0.2 * parts[1])


@pytest.mark.parametrize("name", ["epochs", "batch_tokens", "accumulate", "max_steps", "cache_mb", "patience"])
def test_run_settings_out_of_range(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        change(**{name: -1})
