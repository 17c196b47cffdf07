"""The trainable model: a kept model in PyTorch with a low-rank adapter of its upper layers, which is reset for each style.

States below the first trained layer never change, so they are computed once per document. A step runs only the upper layers, and the
shared start of a row of documents only once.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ingle.engine.packs import checkpoint_tokenizer, open_weights
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.learn.wordings import Turns, answered, prompt_ids
from ingle.model.module import load_module
from ingle.model.tokenizer import Tokenizer
from ingle.train.example_files import Document
from ingle.train.forward import first_trained_layer
from ingle.train.loop import determined
from ingle.train.low_rank import LowRankLinear, all_tensors, kaiming
from ingle.train.optimisers import OptimiserSettings, Trained
from ingle.train.shared import SharedRow, final_states_of, lower_states_of, make_row, sharing
from ingle.tuning.linears import chosen_layers
from ingle.tuning.low_rank_settings import LowRankSettings, attach_low_rank
from ingle.tuning.tuning_method import check_touched

_ROW_TOKENS = 2048  # most tokens whose lower layers are run at once


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """Documents with the states below the first trained layer."""

    documents: tuple[Document, ...]
    start: int  # number of first tokens that all of them share
    first: Tensor  # [start, hidden]: input of the first trained layer for the shared start
    rests: tuple[Tensor, ...]  # [tokens, hidden] each: input of the first trained layer for each document's own part

    def row(self, chosen: Sequence[int]) -> tuple[SharedRow, Tensor]:
        """Return a row of some documents, and the input of its first trained layer, [T, hidden]."""
        row = make_row([self.documents[i] for i in chosen], self.start)
        states = [self.first, *(self.rests[i] for i in chosen)]
        return row, torch.cat([*states, self.first.new_zeros(len(row.ids) - row.own.bounds[-1], self.first.shape[1])])


class TrainableModel:
    """A module in memory that is trained on one style after another."""

    def __init__(
        self, home: Home, kept: Kept, layers: str, low_rank: LowRankSettings, precision: Literal["auto", "bf16", "fp32"], threads: int
    ) -> None:
        """Reads the weights. Raises the errors of `open_weights`, ConfigError for layers, targets or a rank that don't fit."""
        checkpoint = open_weights(home, kept)
        self.kept, self.threads = kept, threads
        self.tokenizer: Tokenizer = checkpoint_tokenizer(checkpoint, home.base_folder(kept.base))
        self.dtype = {"auto": best_dtype(), "bf16": torch.bfloat16, "fp32": torch.float32}[precision]
        with determined(), self._threads():
            self.module = load_module(checkpoint, self.dtype).requires_grad_(False)
        chosen, scale = chosen_layers(self.module.config, layers), low_rank.alpha / low_rank.rank
        attached, self._linears = attach_low_rank(self.module, chosen, low_rank, scale, 0, kaiming)
        check_touched(attached)
        self._parameters = attached.parameters
        self._trained: Trained | None = None

    @contextmanager
    def learning(self, seed: int, optimiser: OptimiserSettings) -> Iterator[Trained]:
        """Reset the adapter and yield its optimiser. Within the block, computation is deterministic."""
        with determined(), self._threads():
            generator = torch.Generator().manual_seed(seed)
            for linear in self._linears.values():
                self._begin(linear, generator)
            self._trained = trained = Trained(self._parameters, optimiser, self.dtype)
            try:
                yield trained
            finally:
                self._trained = None

    def tensors(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return the delta's current tensors. Only within `learning`."""
        assert self._trained is not None, "asked while it learns"
        values = self._trained.values()
        before = {name: parameter.data for name, parameter in self._parameters.items()}
        try:
            for name, parameter in self._parameters.items():
                parameter.data = values[name]
            return {name: tensor.numpy() for name, tensor in all_tensors(self._linears).items()}
        finally:
            for name, parameter in self._parameters.items():
                parameter.data = before[name]

    def shrink(self, factor: float) -> None:
        """Multiply the adapter by `factor`. Only within `learning`."""
        assert self._trained is not None, "asked while it learns"
        for name, value in self._trained.values().items():
            if name.endswith("lora_B.weight"):
                value.mul_(factor)
        for group in self._trained.groups:
            if group.computed is not group.master:
                group.computed.copy_(group.master)

    @cached_property
    def first(self) -> int:
        return first_trained_layer(self.module, list(self._parameters))

    @property
    def head(self) -> Tensor:
        """The output matrix, [V, hidden]."""
        return self.module.lm_head.weight

    def answered(self, before: Turns, question: str, answer: str, max_tokens: int, answer_tokens: int | None = None) -> Document:
        """Return a question and its answer as a document, of which the first `answer_tokens` count (None = all). Raises LessonError if it
        is too long or the answer is empty, and TemplateError."""
        return answered(self.tokenizer, before, question, answer, max_tokens, answer_tokens)

    def read(self, documents: Sequence[Document]) -> Read:
        """Run the lower layers over documents, many in a row."""
        start = sharing(self.module, documents)
        first, rests, begin = self.head.new_zeros(0, self.module.config.hidden_size), list[Tensor](), 0
        while begin < len(documents):
            stop, tokens = begin + 1, len(documents[begin].ids)
            while stop < len(documents) and tokens + len(documents[stop].ids) - start <= _ROW_TOKENS:
                tokens += len(documents[stop].ids) - start
                stop += 1
            row = make_row(documents[begin:stop], start)
            states = lower_states_of(self.module, row, self.first)
            first = states[:start] if begin == 0 else first
            rests += [states[a:b] for a, b in zip(row.own.bounds, row.own.bounds[1:], strict=False)]
            begin = stop
        return Read(tuple(documents), start, first, tuple(rests))

    def states(self, row: SharedRow, x: Tensor) -> Tensor:
        """Return the states after the final norm at the row's answers, [A, hidden]."""
        return final_states_of(self.module, row, self.first, x)

    def prompt(self, before: Turns, question: str) -> list[int]:
        return prompt_ids(self.tokenizer, before, question)

    def _begin(self, linear: LowRankLinear, generator: torch.Generator) -> None:
        for part in (linear.lora_A, linear.lora_B):  # no views of what an earlier lesson left
            part.weight.data = torch.empty_like(part.weight, dtype=torch.float32)
            part.weight.grad = None
        kaiming(linear, generator)

    @contextmanager
    def _threads(self) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def best_dtype() -> torch.dtype:
    """Return bfloat16 if the processor has instructions for it, else float32. Not by timing, as `train.optimisers`, so it never varies."""
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else torch.float32
