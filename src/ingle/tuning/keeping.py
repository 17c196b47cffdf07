"""Keeping of a tune's examples beside its delta, after the last step: nothing in what is learnt depends on it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ingle.core.digest import digest_file
from ingle.core.files import write_atomic
from ingle.model.module import CausalLM
from ingle.train.kept_examples import EXAMPLES, KeptExamples, write_kept
from ingle.train.packing import Data, Order
from ingle.train.ranks import joined
from ingle.train.settings import TrainReport, TrainSettings
from ingle.train.sketches import Sketcher
from ingle.tuning.job import TuneJob
from ingle.tuning.method import Attached


def keep_examples(
    job: TuneJob, folder: Path, module: CausalLM, attached: Attached, data: Data, course: TrainSettings, trained: TrainReport
) -> dict[str, Any]:  # fmt: skip
    """Write what is kept of the examples into the work `folder`, while the parameters are as training left them.

    Returns the report's table of it: empty where nothing is kept. Raises HomeError, and Interrupted after Ctrl-C.
    """
    settings, began = job.settings.examples, time.perf_counter()
    if not settings.keep or len(data.corpus) > settings.most:
        return {}
    path = folder / EXAMPLES
    sketches = None
    if settings.sketches and data.corpus.wanted == "answers" and can_be_put_back(attached):

        def done(count: int, of: int) -> None:
            job.watch.pieces("sketching examples", count, of)
            job.check("after the last step")

        sketches = Sketcher(module, attached.parameters).of_corpus(data.corpus, data.train, done)
    steps = read_by_steps(data, course, trained.best_step if course.patience else trained.steps)
    sha256 = write_kept(path, KeptExamples(data.corpus, tuple(data.train), tuple(data.held_out), steps, sketches))
    return {"sha256": sha256, "bytes": path.stat().st_size, "sketches": sketches is not None, "seconds": time.perf_counter() - began}


def can_be_put_back(attached: Attached) -> bool:
    """Whether the delta's tensors tell the trained parameters, so that an answer's gradient can be taken there later on."""
    collected = {name: (tensor.shape, tensor.dtype) for name, tensor in attached.collect().items()}
    return collected == {name: (parameter.shape, torch.float32) for name, parameter in attached.parameters.items()}


def read_by_steps(data: Data, course: TrainSettings, steps: int) -> tuple[tuple[int, ...], ...]:
    """Return the examples that each of the first steps read, all processes together."""
    with joined() as ranks:
        order = Order(data, course.batch_tokens, course.accumulate * ranks.world, 0, 1, course.seed)
    places = [order.place(step) for step in range(steps)]
    return tuple(tuple(example for batch in order.batches(*place) for example in batch) for place in places)


def put_beside(work: Path, folder: Path, table: Mapping[str, Any]) -> None:
    """Copy the file from the work folder to the delta's, if the report names it. Raises HomeError."""
    source = work / EXAMPLES
    if table.get("kept_examples") and source.exists() and digest_file(source) == table["kept_examples"]["sha256"]:
        write_atomic(folder / EXAMPLES, source.read_bytes(), mode=0o600)
