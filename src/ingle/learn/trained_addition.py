"""A low-rank addition in training, for verbs that teach one thing and keep all else: module, model before, candidate."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from ingle.core.candidate import Candidate
from ingle.engine.loading import Opener
from ingle.engine.packs import Source, candidate_source, served_size
from ingle.measure.subjects import Subject
from ingle.model.checkpoint import Checkpoint
from ingle.model.module import CausalLM, load_module
from ingle.train.checkpoints import put_back
from ingle.train.corpus import Corpus
from ingle.train.loop import train_for
from ingle.train.loop_settings import TrainReport, TrainSettings
from ingle.train.making import DeltaJob, smaller_batches
from ingle.train.objectives import Objective, Predictions
from ingle.train.optimisers import DTYPES, choose
from ingle.train.packing import Data
from ingle.tuning.kept_model import subject_of
from ingle.tuning.linears import chosen_layers
from ingle.tuning.low_rank_settings import LowRankSettings
from ingle.tuning.need import addition_need
from ingle.tuning.tuning_method import Attached, check_touched, find_method


@dataclass(frozen=True, slots=True)
class TrainedAddition:
    job: DeltaJob[Any]
    module: CausalLM
    attached: Attached
    before: Predictions  # predictions of the model as it was
    opener: Opener

    def candidate(self, method: str, report: Mapping[str, Any] = MappingProxyType({})) -> Candidate:
        tensors = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in self.attached.collect().items()}
        return self.job.candidate("lora", method, tensors, report)

    def subject(self, source: Source) -> Subject:
        return subject_of(self.opener.open(source, self.job.watch.pieces), self.job.stopped)

    def as_trained(self, method: str) -> Subject:
        """The candidate as it would be served now."""
        return self.subject(candidate_source(self.job.home, self.job.kept, self.candidate(method)))

    def train(self, corpus: Corpus, objective: Objective, course: TrainSettings, folder: Path, where: str) -> TrainReport:
        """Train it from where it stands. `where` says in words what was being done. Raises Interrupted, and as `train` does."""
        data = Data(corpus, range(len(corpus)))
        done = train_for(self.job, self.module, self.attached.parameters, data, course, folder, objective, where)
        put_back(self.attached.parameters, folder)
        return done


def foretell(job: DeltaJob[Any], act: str, learnt: int, asked: int) -> dict[str, Any]:
    """Say what a job will take, and return that for its report; see `addition_need`. Raises NoRoom where there isn't so much memory."""
    settings = job.settings
    course: TrainSettings = settings.train
    need = addition_need(act, served_size(job.home, job.kept), course, settings.rank, settings.layers, learnt, asked)
    return job.foretell(need, smaller_batches(course.batch_tokens, course.recompute))


def attach(job: DeltaJob[Any], checkpoint: Checkpoint, opener: Opener) -> TrainedAddition:
    """Load a module in the numbers of its training, and attach an addition to it. Raises ConfigError for layers that can't be used,
    HomeError."""
    settings = job.settings
    module = load_module(checkpoint, DTYPES[choose(settings.train.precision, torch.device("cpu"))])
    before = as_it_is(module)
    chosen = chosen_layers(checkpoint.config, settings.layers)
    attached = find_method("lora").attach(module, chosen, LowRankSettings(settings.rank, 2.0 * settings.rank), settings.seed)
    check_touched(attached)
    return TrainedAddition(job, module, attached, before, opener)


def as_it_is(module: CausalLM) -> Predictions:
    """Predictions of the module as it is now, whatever is attached to it later: a second tree of the same parameters."""
    shared: dict[int, Any] = {id(parameter): parameter for parameter in module.parameters()}
    return Predictions(copy.deepcopy(module, shared).eval())
