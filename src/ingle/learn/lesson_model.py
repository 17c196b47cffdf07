"""A kept model as lessons are taught to it: its upper layers with their additions, on our own kernels. Imports no PyTorch.

States below the first layer that learns never change. So lower layers are read from the file one after the other, run once over a lesson's
documents, and let go again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ingle.core.message import Request
from ingle.engine.answer import write
from ingle.engine.loading import Opener
from ingle.engine.packs import checkpoint_tokenizer, open_weights
from ingle.gate.trial import ProbeQuestion
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.kernels.cpu import has_bf16_dot
from ingle.learn.lesson_documents import answered
from ingle.learn.lesson_settings import LessonSettings
from ingle.learn.matrix import Array, BFloat16, Float32, FrozenMatrix
from ingle.learn.pieces import LowRank, Norm
from ingle.learn.upper import UpperLayers
from ingle.model.checkpoint import Checkpoint
from ingle.model.template import has_template
from ingle.model.tensor import Tensor, decode
from ingle.train.example_files import Document
from ingle.train.shared_rows import DocumentRow, Integers, make_row, shared_start
from ingle.tuning.linears import chosen_layers, chosen_linears

_ROW_TOKENS = 2048  # most tokens whose lower layers are run at once


@dataclass(frozen=True, slots=True, eq=False)
class LowerStates:
    """Documents with the states below the first layer that learns."""

    documents: tuple[Document, ...]
    start: int  # number of first tokens that all of them share
    first: Array  # [start, hidden]: of the shared start
    rests: tuple[Array, ...]  # [tokens, hidden] each: of each document's own part

    def row(self, chosen: Sequence[int]) -> tuple[DocumentRow, Array]:
        """Return a row of some documents, and the input of the first layer that learns, [T, hidden]."""
        row = make_row([self.documents[i] for i in chosen], self.start)
        return row, np.concatenate([self.first, *(self.rests[i] for i in chosen)])


class LessonModel:
    """The part of a model that is held in memory for lessons."""

    def __init__(self, home: Home, kept: Kept, settings: LessonSettings, opener: Opener) -> None:
        """Reads the upper layers. Raises the errors of `open_weights`, ConfigError for layers or targets that don't fit."""
        self.kept, self.settings = kept, settings
        self._home, self._opener, self._checkpoint = home, opener, open_weights(home, kept)
        self.tokenizer = checkpoint_tokenizer(self._checkpoint, home.base_folder(kept.base))
        config = self._checkpoint.config
        self._names = chosen_linears(config, chosen_layers(config, settings.layers), settings.targets)
        self._first = min(int(name.split(".")[2]) for name in self._names)
        bf16 = settings.precision == "bf16" or (settings.precision == "auto" and has_bf16_dot())  # not by timing, so it never varies
        self.upper = UpperLayers.read(config, self._tensor, self._first, bf16=bf16)
        self._words = "model.embed_tokens.weight"
        self.head = _head(self._checkpoint, self._words if config.tie_embeddings else "lm_head.weight", bf16)

    def begin(self) -> list[LowRank]:
        """Begin anew with additions of nothing, and return them."""
        settings, draw = self.settings, np.random.default_rng(self.settings.seed)
        linears = {
            f"model.layers.{own.index}.{name}": linear
            for own in (layer.own for layer in self.upper.layers)
            for name, linear in own.linears.items()
        }
        self._additions = dict[str, LowRank]()
        for name, linear in linears.items():
            linear.addition = None
            if name in self._names:
                outputs, inputs = linear.weight.shape
                linear.addition = LowRank.begun(inputs, outputs, settings.rank, settings.alpha / settings.rank, draw)
                self._additions[name] = linear.addition
        return list(self._additions.values())

    def tensors(self) -> dict[str, Array]:
        """Return the delta's tensors as they are now, the scale within B."""
        found = dict[str, Array]()
        for name, one in self._additions.items():
            found |= {f"{name}.lora_A.weight": one.a, f"{name}.lora_B.weight": one.b * np.float32(one.scale)}
        return found

    def as_before(self, questions: Sequence[str]) -> list[Document]:
        """Return questions with the first tokens of the model's current answers, as it is served. Questions without one are left out."""
        most = self.settings.contrast_tokens
        if not questions or not most:
            return []
        model = self._opener(self._home, self.kept)
        texts = dict(write(model, [self._asked(question, most) for question in questions]))
        documents = list[Document]()
        for number, question in enumerate(questions):
            if texts[number].strip():
                documents.append(answered(self.tokenizer, (), question, texts[number], self.settings.max_tokens, most))
        return documents

    def read(self, documents: Sequence[Document]) -> LowerStates:
        """Run the lower layers over documents, many in a row."""
        config, start = self._checkpoint.config, shared_start(self._checkpoint.config, documents)
        parts, begin = list[list[Document]](), 0
        for number in range(1, len(documents) + 1):
            tokens = sum(len(one.ids) - start for one in documents[begin : number + 1])
            if number == len(documents) or tokens + start > _ROW_TOKENS:
                parts.append(list(documents[begin:number]))
                begin = number
        rows = [make_row(part, start) for part in parts]
        table = self._checkpoint.tensor(self._words)
        states = [_rows_of(table, row.ids) * np.float32(config.ways.embedding_scale) for row in rows]
        nothing = UpperLayers(config, (), Norm(np.ones(1, np.float32), 0.0))
        angles = [nothing.angles(row) for row in rows]
        for index in range(self._first):
            [layer] = UpperLayers.read(config, self._tensor, index, index + 1).layers
            for number, row in enumerate(rows):
                states[number], _ = layer(states[number], row, angles[number][config.rope_of(index)], False)
        rests = [x[a:b] for row, x in zip(rows, states, strict=True) for a, b in zip(row.bounds, row.bounds[1:], strict=False)]
        return LowerStates(tuple(documents), start, states[0][:start], tuple(rests))

    def _tensor(self, name: str) -> Array:
        return self._checkpoint.tensor(name).to_float32()

    def _asked(self, question: str, most: int) -> Request:
        if has_template(self.tokenizer):
            return ProbeQuestion(question).request(most)
        return Request(prompt=question + "\n", max_tokens=most)


def _rows_of(table: Tensor, ids: Integers) -> Array:
    """The rows of some tokens, float32 [T, hidden]."""
    chosen, place = np.unique(ids, return_inverse=True)
    return decode(table.kind, table.raw[chosen])[place]


def _head(checkpoint: Checkpoint, name: str, bf16: bool) -> FrozenMatrix:
    """The output matrix; in bfloat16 it is made some rows at a time, so that it is never whole in float32."""
    tensor = checkpoint.tensor(name)
    rows, columns = tensor.shape
    if not bf16 or rows % 16 or columns % 16:
        return Float32(tensor.to_float32())
    return BFloat16.gathered(tensor.row_chunks(1 << 18), rows, columns)
