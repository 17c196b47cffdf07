"""`prune`: from a kept model to a candidate of the kind `mask` or `shape`; a delta if it is admitted.

Stopped at any moment, the same call goes on where it was.

HOME/tuning/KEY/layers/      tensors of each layer that is cut
HOME/tuning/KEY/recovery/    the training that makes up for it, as `train` writes it
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ingle.compress.calibration import make_rows, read_texts
from ingle.compress.cutting import Cutting, cut
from ingle.compress.prune_settings import PruneSettings, parts_that_stay
from ingle.compress.pruner import looks
from ingle.compress.recovery import Recovery
from ingle.core.candidate import Admit, Candidate
from ingle.core.config import to_table
from ingle.core.delta import Delta
from ingle.core.digest import digest_json
from ingle.core.energy import reported
from ingle.core.report import Event, Fact, Sink
from ingle.engine import cut_model
from ingle.engine.backend import linear_shapes
from ingle.engine.delta_kinds import Change, merged
from ingle.engine.packs import checkpoint_tokenizer, open_weights
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.measure.data_sets import Text
from ingle.model.checkpoint import Checkpoint
from ingle.model.module import CausalLM, load_module
from ingle.model.tensor import expected_shapes
from ingle.model.tokenizer import Tokenizer
from ingle.train.low_rank import added_parameters, all_tensors, put_low_rank
from ingle.train.making import DeltaJob, MadeDelta, RunWatch, Steps, delta_job, make_delta, nobody
from ingle.train.precision import keep_few_programs

VERSION = 1
"""Changes when the same settings make something else than before."""
Array = npt.NDArray[Any]


def prune(
    home: Home, kept: Kept, name: str, settings: PruneSettings, admit: Admit, watch: RunWatch = RunWatch(),  # noqa: B008 - frozen
    command: str = "", sink: Sink = nobody,
) -> MadeDelta:  # fmt: skip
    """Make a delta called `name` that leaves parts of a kept model out, and keep it if `admit` takes it.

    Raises ConfigError for a name, model or share that can't be used, the errors of opening the model and fetching the texts, TrainError,
    HomeError, Refused if `admit` refuses it, and Interrupted after Ctrl-C or SIGTERM; the same call then goes on where it was.
    """
    job = delta_job("prune", VERSION, home, kept, name, settings, watch, command)
    checkpoint = open_weights(home, kept)
    parts_that_stay(checkpoint.config, settings)

    def make(job: DeltaJob[PruneSettings]) -> Candidate:
        tokenizer = checkpoint_tokenizer(checkpoint, home.base_folder(kept.base))
        needed = looks(settings.pruner) or settings.recovery.wanted
        return make_candidate(job, checkpoint, tokenizer, read_texts(home, watch.bytes) if needed else [])

    return make_delta(job, Steps(make, _events), admit, sink)


def make_candidate(job: DeltaJob[PruneSettings], checkpoint: Checkpoint, tokenizer: Tokenizer, texts: Sequence[Text]) -> Candidate:
    """Make the candidate. Raises as `prune` does."""
    settings, config = job.settings, checkpoint.config
    keep_few_programs()
    job.watch.pieces("loading weights", 0, 1)
    whole = load_module(checkpoint)
    no_rows = torch.zeros(0, 0, dtype=torch.int64)
    rows = make_rows(tokenizer, texts, settings.calibration, config.context_length) if looks(settings.pruner) else no_rows

    def tell(done: int, total: int) -> None:
        job.check(f"after {done} of {total} layers")
        job.watch.pieces("pruning layers", done, total)

    tensors = cut(Cutting(whole, settings, parts_that_stay(config, settings), rows, job.folder / "layers", tell))
    kind = cut_model.MASK if settings.structure in ("none", "2:4") else cut_model.SHAPE
    report: dict[str, Any] = {
        "version": VERSION, "model": job.model, "base": job.kept.digest, "kind": kind, "method": settings.pruner,
        "structure": settings.structure, "share": settings.share, "settings": to_table(settings), "texts": digest_json(rows.tolist()),
    }  # fmt: skip
    if settings.recovery.wanted:
        added, recovered = _recovered(job, checkpoint, whole, Change(job.name, kind, tensors), tokenizer, texts)
        tensors, report["recovery"] = tensors | added, recovered
    small = merged(checkpoint, [Change(job.name, kind, tensors)])
    masks = cut_model.masks_of(linear_shapes(config), tensors) if kind == cut_model.MASK else {}
    report |= {"parameters_before": parameters_of(checkpoint), "parameters": parameters_of(small, masks)}
    return Candidate(job.name, kind, job.kept.digest, tensors, job.origin(settings.pruner), report)


def parameters_of(checkpoint: Checkpoint, masks: Mapping[str, Array] | None = None) -> int:
    """Count the numbers in a model, except those that masks (bool, by linear) make 0."""
    gone = sum(int((~mask).sum()) for mask in (masks or {}).values())
    return sum(int(np.prod(size)) for size in expected_shapes(checkpoint.config).values()) - gone


def _recovered(
    job: DeltaJob[PruneSettings], checkpoint: Checkpoint, whole: CausalLM, change: Change, tokenizer: Tokenizer, texts: Sequence[Text]
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Train to recover; return the learnt tensors, and the training's report."""
    job.check("before the recovery")
    settings = job.settings
    small = load_module(merged(checkpoint, [change]))
    masks = cut_model.masks_of(linear_shapes(checkpoint.config), change.tensors) if change.kind == cut_model.MASK else {}
    linears = put_low_rank(small, linear_shapes(small.config), settings.rank, 1.0, settings.recovery.seed)
    for name, mask in masks.items():
        linears[name].mask = torch.from_numpy(mask)
    parameters = added_parameters(linears)
    folder = job.folder / "recovery"
    done = Recovery(settings.recovery, whole, job.kept.digest, tokenizer, texts, folder, job.watch).run(small, parameters)
    return {name: tensor.numpy() for name, tensor in all_tensors(linears).items()}, asdict(done)


def _events(report: Mapping[str, Any], delta: Delta) -> list[Event]:
    facts: dict[str, Fact] = {"delta": delta.digest, **{key: report.get(key) for key in ("base", "method", "structure", "share")}}
    facts |= {key: report.get(key) for key in ("parameters_before", "parameters")}
    gained = report.get("recovery")
    if gained:
        facts |= {"recovery_before": gained["first_held_out"], "recovery_after": gained["held_out"], "recovery_tokens": gained["tokens"]}
        if energy := reported(gained):
            facts |= energy.facts()
    return [Event("prune", report["model"], facts)]
