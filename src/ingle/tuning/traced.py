"""A finished tune, ready to be trained again: from the delta, its report, and what it kept of its examples."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ingle.core.candidate import Candidate, weakened
from ingle.core.config import from_table
from ingle.core.delta import Delta
from ingle.core.errors import ConfigError, IngleError
from ingle.engine.packs import checkpoint_tokenizer, open_weights
from ingle.home.deltas import delta_report, delta_tensors, get_delta
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.model.module import CausalLM, load_module
from ingle.model.tokenizer import Tokenizer
from ingle.train.checkpoints import put_back
from ingle.train.corpus import corpus_of
from ingle.train.encode import Document
from ingle.train.examples import ExampleTally, Record, read_records
from ingle.train.holding import Hold
from ingle.train.kept_examples import EXAMPLES, KeptExamples, read_kept
from ingle.train.loop import train
from ingle.train.making import RunWatch
from ingle.train.objectives import Answers
from ingle.train.packing import Batch, Data, make_batch
from ingle.train.precision import device_of
from ingle.train.settings import TrainReport, TrainWatch
from ingle.tuning.data import SUITE
from ingle.tuning.holding import hold_of, with_virtual_tokens
from ingle.tuning.linears import chosen_layers
from ingle.tuning.method import Attached, find_method
from ingle.tuning.settings import TuneSettings, method_settings
from ingle.tuning.virtual import with_virtual


@dataclass(frozen=True, slots=True, eq=False)
class TracedTune:
    """A delta that a tune made, with all that it was made of."""

    home: Home
    kept: Kept
    below: Kept
    """The model that was tuned."""
    delta: Delta
    report: Mapping[str, Any]
    settings: TuneSettings
    examples: KeptExamples

    @property
    def steps(self) -> int:
        """Steps up to the parameters that were kept."""
        return len(self.examples.steps)

    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return checkpoint_tokenizer(open_weights(self.home, self.below), self.home.base_folder(self.below.base))

    def untrained(self) -> tuple[CausalLM, Attached]:
        """Return the module as it was before the first step, and its trainable parts. Raises the errors of opening the model."""
        checkpoint = open_weights(self.home, self.below)
        module = load_module(checkpoint, device=device_of(self.settings.device))
        layers = chosen_layers(checkpoint.config, self.settings.layers)
        method = find_method(self.settings.method)
        return module, method.attach(module, layers, method_settings(self.settings), self.settings.train.seed)

    def tuned(self) -> tuple[CausalLM, Attached]:
        """Return the module as it was after the last step, in float32; only for methods that `can_be_put_back`."""
        module, attached = self.untrained()
        tensors, parameters, ends = delta_tensors(self.home, self.delta), attached.parameters, list[Mapping[str, Tensor]]()
        for value in (0.0, 1.0):  # what is kept is the parameters times a scale: two values tell which
            for parameter in parameters.values():
                parameter.data = torch.full_like(parameter, value, dtype=torch.float32)
            ends.append(attached.collect())
        for name, parameter in parameters.items():
            start, scale = ends[0][name], ends[1][name] - ends[0][name]
            parameter.data = (torch.from_numpy(tensors[name]).to(scale.device) - start) / scale
            parameter.requires_grad_(True)
        return module, attached

    def hold(self, watch: RunWatch, stopped: Callable[[], bool]) -> Hold | None:
        """Return what the tune held; None where it held nothing. Raises ConfigError where the model answers otherwise today, and the
        errors of opening it."""
        if not (digest := self.report.get("hold")):
            return None
        checkpoint = open_weights(self.home, self.below)
        module = load_module(checkpoint, device=device_of(self.settings.device))
        hold = hold_of(self.home, self.below, self.tokenizer(), module, self.settings, watch, stopped)
        if hold is None or hold.corpus.digest != digest:
            cure = "It was tuned on another machine or with another version; tune it again here."
            raise ConfigError("model", "The answers that the tune held can't be made again as they were", "", cure)
        return with_virtual_tokens(hold, self.report.get("virtual_tokens", 0), module)

    def data(self, left_out: Collection[int] = ()) -> Data:
        """The examples, some of them left out."""
        return Data(self.examples.corpus, self.examples.train, self.examples.held_out, frozenset(left_out))

    def question(self, prompt: Sequence[int], answer: Sequence[int], attached: Attached, module: CausalLM) -> Batch:
        """Return an answer with its prompt as a batch of one document. Raises ConfigError for an empty one."""
        if not prompt or not answer:
            raise ConfigError("answer", "must have a token at least, and a prompt")
        ids = np.array([*prompt, *answer], np.int32)
        corpus = corpus_of("answers", [("question", -1, (Document(ids, np.arange(len(ids)) >= len(prompt)),))])
        return make_batch(with_virtual(corpus, attached.virtual_tokens, module.config.vocab_size), [0], module.lm_head.weight.device)

    def again(
        self, left_out: Collection[int], hold: Hold | None, folder: Path, watch: TrainWatch
    ) -> tuple[TrainReport, Candidate]:  # fmt: skip
        """Train anew without these examples, the others in their places; goes on where a folder's run was stopped. `hold`: as of `hold`.

        The candidate is of use only if the report says that the run was not interrupted. Raises the errors of `train`.
        """
        module, attached = self.untrained()
        trained = train(module, attached.parameters, self.data(left_out), self.settings.train, folder, watch, Answers(hold))
        if trained.stopped != "interrupted":
            put_back(attached.parameters, folder)
        tensors = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in attached.collect().items()}
        candidate = Candidate(self.delta.name, self.delta.kind, self.below.digest, tensors, {"method": self.settings.method})
        return trained, weakened(candidate, self.settings.strength) or candidate

    def records(self) -> dict[str, Record]:
        """Return each record that still stands in a file of the tune, by its digest."""
        found = dict[str, Record]()
        for source in self.report.get("sources", ()):
            if source.startswith(SUITE):
                continue
            try:
                for record in read_records([Path(source)], ExampleTally(), skip_bad=True):
                    found.setdefault(record.digest, record)
            except IngleError:  # it is gone, or no longer what it was: then no line is named
                continue
        return found


def traced(home: Home, kept: Kept) -> TracedTune:
    """Return the tune behind a model's last delta.

    Raises ConfigError where no tune made it, or nothing was kept of its examples; NotKept for a delta that is gone; HomeError for a file
    that is damaged or gone.
    """
    if not kept.deltas:
        raise ConfigError("model", f"{kept.name} was not tuned here", "", "Name a model with the delta of a tune, as MODEL+DELTA.")
    delta = get_delta(home, kept.deltas[-1])
    report = delta_report(home, delta.digest) or {}
    if "run" not in delta.origin or "sources" not in report:
        cure = "Name a model whose last delta is of a tune."
        raise ConfigError("model", f"The last delta of {kept.name} was not made by `ingle tune` in this home", "", cure)
    table = report.get("kept_examples") or {}
    if not table:
        cure = "Tune again with examples.keep = true, or fewer examples than examples.most."
        raise ConfigError("model", f"Nothing was kept of the examples of {kept.name}", "", cure)
    examples = read_kept(home.delta_folder(delta.digest) / EXAMPLES, table["sha256"])
    below = Kept(kept.name.rpartition("+")[0] or kept.name, kept.base, kept.deltas[:-1], kept.created_at)
    return TracedTune(home, kept, below, delta, report, from_table(TuneSettings, report["settings"]), examples)


def need_answers(tune: TracedTune) -> None:
    """Raises ConfigError for a tune that learnt from something else than answers."""
    if (kind := tune.settings.objective.kind) != "answers":
        raise ConfigError("objective", "must be answers to trace one back", kind, "Preferences and distillation can't be traced yet.")
