"""The module that learns: a kept model in PyTorch with a low-rank addition to its upper layers, which begins anew for each lesson.

What no lesson changes is computed once for each document: its states below the first layer that learns. So a step reads only the upper
layers, and of a row of documents the start that they share once.
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

from ingle.engine.source import checkpoint_tokenizer, open_weights
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.learn.work import LessonError
from ingle.model.module import load_module
from ingle.model.template import encode_chat, has_template
from ingle.model.tokenizer import Tokenizer
from ingle.train.encode import Document, Encoder
from ingle.train.examples import Record
from ingle.train.forward import first_trained_layer
from ingle.train.loop import determined
from ingle.train.low_rank import LowRankLinear, all_tensors, kaiming
from ingle.train.optimisers import OptimiserSettings, Trained
from ingle.train.shared import Row, final_states_of, lower_states_of, make_row, sharing
from ingle.train.writing import write_all
from ingle.tuning.low_rank import LowRankSettings, attach_low_rank
from ingle.tuning.method import check_touched, chosen_layers

_ROW_TOKENS = 2048  # most tokens whose lower layers are run at once
Turns = tuple[tuple[str, str], ...]
"""(role, text), the first one first."""


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """Documents whose lower layers were run."""

    documents: tuple[Document, ...]
    start: int
    """Tokens that all of them share."""
    first: Tensor
    """[start, hidden]: what goes into the first layer that learns, of the start."""
    rests: tuple[Tensor, ...]
    """[tokens, hidden] each: the same of each document's own part."""

    def row(self, chosen: Sequence[int]) -> tuple[Row, Tensor]:
        """A row of some of them, and what goes into its first layer that learns, [T, hidden]."""
        row = make_row([self.documents[i] for i in chosen], self.start)
        states = [self.first, *(self.rests[i] for i in chosen)]
        return row, torch.cat([*states, self.first.new_zeros(len(row.ids) - row.bounds[-1], self.first.shape[1])])


class TrainableModel:
    """A module in memory that learns one thing after another."""

    def __init__(
        self, home: Home, kept: Kept, layers: str, low_rank: LowRankSettings, precision: Literal["auto", "bf16", "fp32"], threads: int
    ) -> None:
        """Reads the weights. Raises what `open_weights` raises, ConfigError for layers, targets or a rank that don't fit."""
        checkpoint = open_weights(home, kept)
        self.kept, self.threads = kept, threads
        self.tokenizer: Tokenizer = checkpoint_tokenizer(checkpoint, home.base_folder(kept.base))
        self.dtype = {"auto": best_dtype(), "bf16": torch.bfloat16, "fp32": torch.float32}[precision]
        with determined(), self._threads():
            self.module = load_module(checkpoint, self.dtype).requires_grad_(False)
        chosen, scale = chosen_layers(self.module.config, layers), low_rank.alpha / low_rank.rank
        made, self._linears = attach_low_rank(self.module, chosen, low_rank, scale, 0, kaiming)
        check_touched(made)
        self._parameters = made.parameters
        self._trained: Trained | None = None

    @contextmanager
    def learning(self, seed: int, optimiser: OptimiserSettings) -> Iterator[Trained]:
        """The addition as it begins, and what moves it. Within it everything is computed in one and the same way."""
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
        """The delta's tensors as they are now; only while it learns."""
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
        """The addition times `factor`; only while it learns."""
        assert self._trained is not None, "asked while it learns"
        for name, value in self._trained.values().items():
            if name.endswith("lora_B.weight"):
                value.mul_(factor)
        for group in self._trained.groups:
            if group.computed is not group.master:
                group.computed.copy_(group.master)

    @cached_property
    def first(self) -> int:
        """The first layer that learns."""
        return first_trained_layer(self.module, list(self._parameters))

    @property
    def head(self) -> Tensor:
        """[V, hidden]."""
        return self.module.lm_head.weight

    def answered(self, before: Turns, question: str, answer: str, max_tokens: int, answer_tokens: int | None = None) -> Document:
        """A question and its answer, of which `answer_tokens` count (None = all), as one document. Raises LessonError where that is too
        long, or the answer says nothing, and TemplateError."""
        encoder = Encoder(self.tokenizer, max_tokens)
        record = Record("the example", "completion", self._prompt(before, question))
        document = encoder.answered(record, answer)
        if not document.answer.any():
            raise LessonError("answer", "must say something", repr(answer[:40]))
        if answer_tokens is not None:
            stop = int(np.argmax(document.answer)) + answer_tokens
            document = Document(document.ids[:stop], document.answer[:stop])
        if encoder.fits(document, record.where) is None:
            cure = "Shorten the answer, or teach it as something to remember."
            raise LessonError("question and answer", f"must have at most {max_tokens} tokens together", len(document.ids), cure)
        return document

    def as_before(self, questions: Sequence[str], most_tokens: int) -> list[Document]:
        """Questions with the first tokens of what the model, as it is, answers."""
        if not questions or not most_tokens:
            return []
        prompts = [self.prompt((), question) for question in questions]
        answers = write_all(self.module, prompts, most_tokens, self.tokenizer.eos_ids)
        pairs = zip(prompts, answers, strict=True)
        return [Document(np.array(p + a, np.int32), np.arange(len(p) + len(a)) >= len(p)) for p, a in pairs]

    def read(self, documents: Sequence[Document]) -> Read:
        """Runs the lower layers over documents, many in a row."""
        start = sharing(self.module, documents)
        first, rests, at = self.head.new_zeros(0, self.module.config.hidden_size), list[Tensor](), 0
        while at < len(documents):
            stop, tokens = at + 1, len(documents[at].ids)
            while stop < len(documents) and tokens + len(documents[stop].ids) - start <= _ROW_TOKENS:
                tokens += len(documents[stop].ids) - start
                stop += 1
            row = make_row(documents[at:stop], start)
            states = lower_states_of(self.module, row, self.first)
            first = states[:start] if at == 0 else first
            rests += [states[a:b] for a, b in zip(row.bounds, row.bounds[1:], strict=False)]
            at = stop
        return Read(tuple(documents), start, first, tuple(rests))

    def states(self, row: Row, x: Tensor) -> Tensor:
        """States after the final norm at the row's answers: [A, hidden]."""
        return final_states_of(self.module, row, self.first, x)

    def prompt(self, before: Turns, question: str) -> list[int]:
        """The ids after which the answer is written."""
        asked = self._prompt(before, question)
        return self.tokenizer.encode_prompt(asked) if isinstance(asked, str) else encode_chat(self.tokenizer, asked)

    def _prompt(self, before: Turns, question: str) -> str | tuple[dict[str, str], ...]:
        turns = (*before, ("user", question))
        if has_template(self.tokenizer):
            return tuple({"role": role, "content": text} for role, text in turns)
        return "\n".join(text for _, text in turns) + "\n"

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
    """bfloat16 where the processor has instructions for it. No clock is asked, as `train.precision` does: so it is the same each time."""
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else torch.float32
