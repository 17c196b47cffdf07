"""A climb: all lengths of one size and seed, in this process. The longest run is the trunk; the others branch off where they cool down.

WORK/KEY/    checkpoints of one run; deleted when its report is handed on

Killed at any moment, the same climb goes on from its last checkpoints and reports the same outcomes.
"""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch

from ingle.core.config import to_table
from ingle.core.digest import digest_bytes
from ingle.core.errors import Interrupted
from ingle.model.module import CausalLM
from ingle.scaling.sweep_settings import RunSettings
from ingle.scratch.first_model import new_module
from ingle.scratch.scratch_settings import config_of
from ingle.scratch.text_sources import HeldOut, Prepared, held_out_of, rows_of
from ingle.train.checkpoints import forked_at, put_back
from ingle.train.forward import final_states
from ingle.train.loop import determined, train
from ingle.train.loop_settings import TrainProgress, TrainReport, TrainSettings, TrainWatch
from ingle.train.making import TrainError, provenance
from ingle.train.objectives import log_probabilities
from ingle.train.packing import make_batch, plan

BATCH = 4096  # most tokens of held-out text in a batch


@dataclass(frozen=True, slots=True, eq=False)
class FinishedRun:
    report: dict[str, Any]
    bits: npt.NDArray[np.float64]  # bits of each held-out text


def climb(
    runs: Sequence[RunSettings], prepared: Prepared, work: Path, hand_on: Callable[[FinishedRun], None],
    watch: Callable[[RunSettings, TrainProgress], None] = lambda *_: None, say: Callable[[str], None] = lambda _: None,
) -> None:  # fmt: skip
    """Train these runs, which share a trunk, and hand each on when it is finished: the longest first.

    Raises TrainError for numbers that ran away, HomeError where the disk refuses, Interrupted after Ctrl-C or SIGTERM.
    """
    ordered = sorted(runs, key=lambda run: -run.tokens)
    held_out = held_out_of(prepared)
    for i, run in enumerate(ordered):
        forks = [(work / other.key, other.train) for other in ordered[1:]] if i == 0 else []
        module, trained = _train(run, prepared, work, forks, TrainWatch(partial(watch, run), say))
        bits = bits_of(module, held_out)
        if not math.isfinite(float(bits.sum())):
            raise TrainError(run.label, "must end with a finite loss", float(bits.sum()), "Lower the rate of this sweep.")
        shared = forked_at(work / run.key)
        report = _report(run, prepared, held_out, trained, bits, shared)
        round_to_int4(module)
        report["loss_int4"] = float(bits_of(module, held_out).sum() / held_out.bytes.sum())
        hand_on(FinishedRun(report, bits))
        shutil.rmtree(work / run.key)


def new_training(
    run: RunSettings, prepared: Prepared, folder: Path, watch: TrainWatch = TrainWatch(),  # noqa: B008 - frozen
    forks: Sequence[tuple[Path, TrainSettings]] = (),
) -> TrainReport:  # fmt: skip
    """Train a run from its initial values; the trained ones are in the folder."""
    module = new_module(config_of(run.model, prepared.vocabulary), run.train.seed)
    return train(module, dict(module.named_parameters()), rows_of(prepared, run.unique), run.train, folder, watch, forks=forks)


def _train(
    run: RunSettings, prepared: Prepared, work: Path, forks: Sequence[tuple[Path, TrainSettings]], watch: TrainWatch
) -> tuple[CausalLM, TrainReport]:
    """Train a run, and return a module with its float32 parameters."""
    report = new_training(run, prepared, work / run.key, watch, forks)
    if report.stopped == "interrupted":
        raise Interrupted(run.label, "was interrupted", f"after step {report.steps}", "Run the same command to go on.")
    module = new_module(config_of(run.model, prepared.vocabulary), run.train.seed)
    put_back(dict(module.named_parameters()), work / run.key)
    return module.eval(), report


@torch.no_grad()
def bits_of(module: CausalLM, held_out: HeldOut) -> npt.NDArray[np.float64]:
    """Bits of each held-out text, computed in float32: [texts]."""
    corpus = held_out.corpus
    bits = np.zeros(len(held_out.bytes))
    with determined():
        for examples in plan(corpus.sizes, range(len(corpus)), BATCH, None):
            batch = make_batch(corpus, examples)
            seen = log_probabilities(final_states(module, batch), module.lm_head.weight, batch.targets)
            nats = np.bincount(batch.owners.numpy(), weights=-seen.double().numpy(), minlength=len(batch.documents))
            np.add.at(bits, held_out.owners[list(batch.documents)], nats / math.log(2))
    return bits


@torch.no_grad()
def round_to_int4(module: CausalLM) -> None:
    """Round all matrices of the layers to what they are in Q4_1, by the format's plain rounding, in place."""
    kind = gguf.GGMLQuantizationType.Q4_1
    for parameter in module.model.layers.parameters():
        if parameter.ndim == 2 and parameter.shape[1] % 32 == 0:
            rounded = gguf.quants.dequantize(gguf.quants.quantize(parameter.numpy(), kind), kind)
            parameter.copy_(torch.from_numpy(rounded))


def _report(
    run: RunSettings, prepared: Prepared, held_out: HeldOut, trained: TrainReport, bits: npt.NDArray[np.float64], shared: int
) -> dict[str, Any]:
    return {
        "version": 1,
        "key": run.key,
        "label": run.label,
        "size": run.size,
        "kind": run.kind,
        "data": prepared.digest,
        "parameters": run.parameters,
        "tokens": run.tokens,
        "unique": run.unique or min(run.tokens, prepared.tokens),
        "seed": run.train.seed,
        "flops": run.flops,
        "loss": float(bits.sum() / held_out.bytes.sum()),
        "unit": "bits/byte",
        "held_out_bytes": int(held_out.bytes.sum()),
        "bits_digest": digest_bytes(bits.tobytes()),
        "train_loss": trained.loss,
        "precision": trained.precision,
        "steps": trained.steps,
        "shared_steps": shared,
        "seconds": trained.seconds,
        "tokens_per_s": trained.tokens_per_s,
        "energy": trained.energy.table(),
        "peak_bytes": trained.peak_bytes,
        "settings": {"model": to_table(run.model), "train": to_table(run.train)},
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(),
    }
