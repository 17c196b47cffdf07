"""A kept model as those need it who change, write or measure it. Imports no PyTorch."""

from collections.abc import Callable
from functools import partial

from ingle.engine.changes import Change, merged
from ingle.engine.language_model import LanguageModel
from ingle.engine.scoring import score
from ingle.engine.writing import write
from ingle.home.deltas import delta_tensors, get_delta
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.measure.subject import Subject
from ingle.model.checkpoint import Checkpoint, open_checkpoint


def subject_of(model: LanguageModel, stopped: Callable[[], bool]) -> Subject:
    """An open model as the functions that measures ask for."""
    backend = model.backend
    scorer, writer = partial(score, backend, stopped=stopped, adapter=model.adapter), partial(write, model, stopped=stopped)
    return Subject(model.name, model.digest, backend.config.context_length, model.tokenizer, scorer, writer)


def open_weights(home: Home, kept: Kept) -> Checkpoint:
    """The weights of a kept model, its deltas merged. Raises CheckpointError, and DeltaError for a kind that can't be."""
    checkpoint = open_checkpoint(home.base_folder(kept.base))
    if not kept.deltas:
        return checkpoint
    deltas = [get_delta(home, digest) for digest in kept.deltas]
    return merged(checkpoint, [Change(delta.name, delta.kind, delta_tensors(home, delta)) for delta in deltas])
