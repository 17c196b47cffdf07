"""Documents that begin alike, in one row: their common start is read once, and each goes on from there on its own.

    [ the start | the rest of document 0 | the rest of document 1 | … | padding ]

A token sees the start and what is before it in its own document. So the states are those of the documents one by one; the start is saved,
once for each document but the first. Conversations all begin with the template's system prompt, which for a short question is half of
what there is to read. Recurrent memories can't be shared like this: for models that have some, the start is empty.

Shapes: T tokens in the row, of which S are the start; A of them predict one that carries the loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ingle.core.spec import LayerSpec, ModelConfig
from ingle.kernels.packed_attention import AttentionBlock, AttentionPlan, pieces
from ingle.train.example_files import Document

Integers = npt.NDArray[np.int64]
START = -1  # owner of a token that belongs to all documents, in place of a document's number


@dataclass(frozen=True, slots=True, eq=False)
class DocumentRow:
    """Documents in one row, with a common start."""

    start: int  # S: tokens that all of them begin with
    bounds: tuple[int, ...]  # where the rest of each document begins, and where the last one ends
    ids: Integers  # [T]; 0 behind the documents
    positions: Integers  # [T]: each token's place in its document
    owners: Integers  # [T]: the document that a token belongs to, START, or the number of documents for padding
    wanted: Integers  # [A], ascending: the tokens whose next one carries the loss
    _plans: dict[tuple[int, int, bool], AttentionPlan] = field(default_factory=dict)

    @property
    def targets(self) -> Integers:
        """[A]: the token after each of `wanted`."""
        after: Integers = self.ids[self.wanted + 1]
        return after

    @property
    def learnt(self) -> Integers:
        """[A]: which document each of `wanted` belongs to."""
        owners: Integers = self.owners[self.wanted]
        return owners

    @property
    def edges(self) -> tuple[int, ...]:
        """Where each stretch of tokens begins that belongs to one owner, and T."""
        starts = (*((0,) if self.start else ()), *self.bounds)
        return starts if starts[-1] == len(self.ids) else (*starts, len(self.ids))

    def plan(self, spec: LayerSpec | None, some: bool) -> AttentionPlan:
        """Return what is computed together; `spec` of streaming groups, None = a query sees all before it; `some`: for `wanted` alone."""
        key = (spec.window, spec.sinks, some) if spec is not None else (0, 0, some)
        if key not in self._plans:
            tokens = self.wanted if some else np.arange(len(self.ids))
            self._plans[key] = AttentionPlan([self._block(queries, tokens, spec) for queries in pieces(len(tokens))])
        return self._plans[key]

    def _block(self, queries: slice, tokens: Integers, spec: LayerSpec | None) -> AttentionBlock:
        chosen = tokens[queries]
        last, owner = int(chosen[-1]) + 1, int(self.owners[chosen[0]])
        low = 0 if owner == START else self.bounds[owner]
        spans = [(0, last)] if low <= self.start else [(0, self.start), (low, last)] if self.start else [(low, last)]
        seen = np.concatenate([np.arange(a, b) for a, b in spans])
        hidden = ~self._sees(chosen, seen, spec)
        return AttentionBlock(queries, tuple(slice(a, b) for a, b in spans), hidden if hidden.any() else None)

    def _sees(self, tokens: Integers, seen: Integers, spec: LayerSpec | None) -> npt.NDArray[np.bool_]:
        """[tokens, seen]: what each token sees."""
        queries, keys = self.positions[tokens][:, None], self.positions[seen][None]
        own = (self.owners[seen] == START) | (self.owners[seen] == self.owners[tokens][:, None])
        found: npt.NDArray[np.bool_] = own & (keys <= queries)
        return found if spec is None else found & ((keys > queries - spec.window) | (keys < spec.sinks))


def common_start(documents: Sequence[Document]) -> int:
    """Count the tokens that all documents begin with, short enough that each document itself predicts its answer's first token."""
    most = min(int(np.argmax(d.answer)) if d.answer.any() else len(d.ids) for d in documents) - 1
    first = documents[0].ids[: max(0, most)]
    for document in documents[1:]:
        other = document.ids[: len(first)]
        differing = np.flatnonzero(first[: len(other)] != other)
        first = first[: differing[0] if len(differing) else len(other)]
    return len(first)


def shared_start(config: ModelConfig, documents: Sequence[Document]) -> int:
    """Return the start that a model can share among these documents: 0 where a layer goes on from token to token."""
    apart = any(spec.memory != "none" or spec.mixer != "attention" for spec in config.layers)
    return 0 if apart else common_start(documents)


def make_row(documents: Sequence[Document], start: int, multiple: int = 1) -> DocumentRow:
    """Make the row of these documents, which begin with the same `start` tokens; padded to a multiple of so many tokens."""
    lengths = [len(document.ids) - start for document in documents]
    bounds = np.cumsum([start, *lengths])
    rest = -int(bounds[-1]) % multiple
    rests = [document.ids[start:].astype(np.int64) for document in documents]
    ids = np.concatenate([documents[0].ids[:start].astype(np.int64), *rests, np.zeros(rest, np.int64)])
    positions = np.concatenate([np.arange(start), *(start + np.arange(length) for length in lengths), np.arange(rest)])
    owners = np.repeat(np.arange(START, len(documents) + 1), [start, *lengths, rest])
    learnt = np.flatnonzero(np.concatenate([np.zeros(start, np.bool_), *(document.answer[start:] for document in documents)]))
    return DocumentRow(start, tuple(bounds.tolist()), ids, positions, owners, learnt - 1)
