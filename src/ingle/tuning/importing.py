"""Import of a PEFT folder: it becomes a candidate for a kept model, and a delta if it is admitted."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ingle import __version__
from ingle.core.candidate import Admit, Candidate
from ingle.core.delta import Delta
from ingle.core.digest import digest_file
from ingle.core.report import Event, Fact, Sink
from ingle.engine.delta_kinds import parted
from ingle.engine.packs import open_weights
from ingle.home.deltas import get_delta
from ingle.home.kept import Kept
from ingle.home.names import check_name
from ingle.home.place import Home
from ingle.model.checkpoint import Checkpoint
from ingle.train.making import DeltaJob, MadeDelta, RunWatch, Steps, delta_job, make_delta
from ingle.tuning.peft_files import CONFIG, WEIGHTS, read_peft


def bring_peft(home: Home, kept: Kept, folder: Path, name: str, admit: Admit, watch: RunWatch, sink: Sink) -> MadeDelta:
    """Keep the adapter of a PEFT folder as a delta on this model, if `admit` takes it. The same files under the same name again change
    nothing.

    Raises ConfigError for a name that can't be used or is taken, Refused, and the errors of `read_peft`: CheckpointError for files,
    DeltaError for adapters that don't fit this model or can't be kept.
    """
    check_name(name)
    checkpoint = open_weights(home, kept)
    kind, tensors = read_peft(folder, checkpoint.config)
    parted(kept.name, [*(get_delta(home, digest).kind for digest in kept.deltas), kind])
    sums = {"config": digest_file(folder / CONFIG), "weights": digest_file(folder / WEIGHTS)}

    def make(_job: DeltaJob[dict[str, str]]) -> Candidate:
        whole = _prompt(checkpoint, tensors) if kind == "prompt" else tensors
        now = datetime.now(UTC).isoformat(timespec="seconds")
        origin = {"method": "imported", "data": folder.name, "versions": f"ingle {__version__}", "created_at": now, **sums}
        return Candidate(name, kind, kept.digest, whole, origin)

    def events(_report: Mapping[str, Any], delta: Delta) -> list[Event]:
        facts: dict[str, Fact] = {"kind": delta.kind, "delta": delta.digest, "base": delta.base_digest, "tensors": len(delta.tensors)}
        return [Event("pull.delta", f"{kept.name}+{delta.name}", {**facts, "weights": delta.origin["weights"]})]

    job = delta_job("import", 1, home, kept, name, sums, watch)
    return make_delta(job, Steps(make, events, mine=lambda _job, delta: sums.items() <= delta.origin.items()), admit, sink)


def _prompt(checkpoint: Checkpoint, tensors: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Compute the keys and values that the layers make of a prompt's embeddings; that takes the model itself, and PyTorch."""
    from ingle.tuning.catalogue import need_learning

    need_learning()
    import torch

    from ingle.model.module import load_module
    from ingle.tuning.virtual import prompt_tensors

    prompt = prompt_tensors(load_module(checkpoint), torch.from_numpy(tensors["prompt_embeddings"]))
    return {name: tensor.numpy() for name, tensor in prompt.items()}
