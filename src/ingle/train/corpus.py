"""What is learnt from, whole: every example's tokens in flat arrays, and which examples are held out.

An example has one document (an answer, a text), or two: the chosen answer and the rejected one; with labels, the answer and the same
prompt with another example's answer, from which KTO estimates how far the model has moved at all (arXiv 2402.01306).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.train.encode import Document, Encoder
from ingle.train.examples import Record, Tally, read_records

Wanted = Literal["answers", "pairs", "labels"]
_KINDS = {"answers": {"chat", "completion", "text"}, "pairs": {"pair"}, "labels": {"label"}}
_DOCUMENTS = {"answers": 1, "pairs": 2, "labels": 2}
Member = tuple[str, int, tuple[Document, ...]]
"""An example: what it is from, its label (−1 = none), its documents."""


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """Examples as tokens: 5 bytes a token, all in memory."""

    wanted: Wanted
    ids: npt.NDArray[np.int32]
    """Of all documents, one after the other."""
    answer: npt.NDArray[np.bool_]
    """Which of them carry the loss."""
    bounds: npt.NDArray[np.int64]
    """Where each document begins, and the end of the last."""
    labels: npt.NDArray[np.int8]
    """Of each example: 1 liked, 0 not, −1 without label."""
    sources: tuple[str, ...]
    """Of each example: the digest of the record that it is from; examples of one record are never on both sides of a split."""
    digest: str = ""
    """Of all of it."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def per_example(self) -> int:
        """Documents of an example; those of example i are i × this and on."""
        return _DOCUMENTS[self.wanted]

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Tokens of each example."""
        edges = self.bounds[:: self.per_example]
        return np.diff(edges)

    def document(self, number: int) -> Document:
        """A view of one document."""
        at = slice(self.bounds[number], self.bounds[number + 1])
        return Document(self.ids[at], self.answer[at])


@dataclass(frozen=True, slots=True)
class DataSettings:
    """How files become a corpus."""

    max_tokens: int = 2048
    """A document's most tokens; what it must fit into the model's context."""
    too_long: Literal["skip", "cut", "refuse"] = "skip"
    """What is done with longer conversations: left out and counted, cut at the end, refused. Texts are cut into pieces."""
    template: Literal["auto", "chat", "plain"] = "auto"
    """Whether string prompts are a chat's turns; `auto`: if the model has a template."""
    skip_bad: bool = False
    """Counts lines that can't be used instead of refusing them."""
    held_out: float = 0.05
    """Share of records that are never trained on, by a hash of their content; 0 = none."""
    least_held_out: int = 8
    """Fewest records that are held out if any are, as far as a quarter of all goes: fewer say nothing. 0 = as the share says."""
    seed: int = 0
    """Which records are held out."""

    def __post_init__(self) -> None:
        if self.max_tokens < 2:
            raise ConfigError("max_tokens", "must be at least 2", self.max_tokens)
        if not 0 <= self.held_out < 1:
            raise ConfigError("held_out", "must be at least 0 and below 1", self.held_out)
        if self.least_held_out < 0:
            raise ConfigError("least_held_out", "must not be negative", self.least_held_out)


def read_corpus(
    paths: Iterable[Path], encoder: Encoder, wanted: Wanted = "answers", skip_bad: bool = False, watch: Callable[[int], None] | None = None
) -> tuple[Corpus, Tally]:
    """All examples of these files, encoded; `watch` is told now and then how many there are so far.

    Raises ConfigError for bad lines (unless `skip_bad`), data of another kind, and where nothing is left to learn from.
    """
    tally, members = Tally(), []
    for member in _members(read_records(paths, tally, skip_bad), encoder, wanted, tally, skip_bad):
        members.append(member)
        tally.examples += 1
        if watch and tally.examples % 100 == 0:
            watch(tally.examples)
    if not members:
        long = f"longer than {encoder.max_tokens} tokens"
        reasons = (("bad lines", tally.bad), (long, tally.too_long), ("without an answer", tally.without_answer))
        got = ", ".join(f"{count} {reason}" for reason, count in reasons if count) or "nothing"
        raise ConfigError("data", "must hold at least one example to learn from", got)
    if wanted == "labels":
        members = _with_strangers(members, encoder.max_tokens)
    corpus = corpus_of(wanted, members)
    tally.tokens, tally.answer_tokens = len(corpus.ids), int(corpus.answer.sum())
    return corpus, tally


def split(corpus: Corpus, share: float, seed: int = 0, least: int = 0) -> tuple[list[int], list[int]]:
    """(to learn from, held out): numbers of examples. An example's side follows from its record and the seed alone, so that more data
    moves none, unless the share gives fewer than `least` records (or a quarter of all). At least one is held out if any is to be.

    Raises ConfigError where that leaves nothing to learn from.
    """
    if not share:
        return list(range(len(corpus))), []
    place = {source: int(digest_json([seed, source])[:8], 16) / 2**32 for source in set(corpus.sources)}
    if len(place) < 2:
        cure = "Set held_out = 0, or give the data as several documents."
        raise ConfigError("held_out", "needs at least 2 records, because one is never on both sides", len(place), cure)
    fewest = max(1, min(least, len(place) // 4))
    limit = max(share, sorted(place.values())[fewest - 1])
    out = {source for source, value in place.items() if value <= limit}
    if len(out) == len(place):
        out.remove(max(out, key=place.__getitem__))
    sides: tuple[list[int], list[int]] = ([], [])
    for i, source in enumerate(corpus.sources):
        sides[source in out].append(i)
    return sides


def _members(records: Iterable[Record], encoder: Encoder, wanted: Wanted, tally: Tally, skip_bad: bool) -> Iterator[Member]:
    """Every example that can be learnt from; the others are counted."""
    for record in records:
        try:
            _check_kind(record, wanted)
            documents = encoder.documents(record)
            long = any(len(document.ids) > encoder.max_tokens for document in documents)
            fitting = [encoder.fits(document, record.where) for document in documents]
        except ConfigError as error:
            if not skip_bad:
                raise
            tally.skip(error)
            continue
        tally.too_long += long
        label = -1 if record.label is None else int(record.label)
        groups = [tuple(fitting)] if wanted != "answers" else [(document,) for document in fitting]
        usable = []
        for group in groups:
            whole = tuple(document for document in group if document is not None)
            if len(whole) == len(group) and all(document.answer.any() for document in whole):
                usable.append(whole)
        yield from ((record.digest, label, whole) for whole in usable)
        tally.without_answer += not usable and not long


def _check_kind(record: Record, wanted: Wanted) -> None:
    if record.kind not in _KINDS[wanted]:
        raise ConfigError(record.where, f"must be of kind {' or '.join(sorted(_KINDS[wanted]))} to learn {wanted} from", record.kind)


def _with_strangers(members: Sequence[Member], most: int) -> list[Member]:
    """Each example with its prompt and the answer of the example before it, cut where that gets too long."""
    if len(members) < 2:
        raise ConfigError("data", "must hold at least 2 examples to learn labels from", len(members))
    done: list[Member] = []
    for i, (source, label, (own,)) in enumerate(members):
        [other] = members[i - 1][2]
        first = int(own.answer.argmax())
        answer = other.ids[int(other.answer.argmax()) :]
        ids = np.concatenate((own.ids[:first], answer))[:most]
        marks = np.arange(len(ids)) >= first
        done.append((source, label, (own, Document(ids, marks))))
    return done


def corpus_of(wanted: Wanted, members: Sequence[Member]) -> Corpus:
    """The corpus of these examples."""
    documents = [document for _, _, group in members for document in group]
    ids = np.concatenate([document.ids for document in documents])
    answer = np.concatenate([document.answer for document in documents])
    bounds = np.cumsum([0, *(len(document.ids) for document in documents)], dtype=np.int64)
    labels = np.array([label for _, label, _ in members], np.int8)
    corpus = Corpus(wanted, ids, answer, bounds, labels, tuple(source for source, _, _ in members))
    return replace(corpus, digest=_digest(corpus))


def _digest(corpus: Corpus) -> str:
    import hashlib

    hasher = hashlib.sha256(corpus.wanted.encode())
    for array in (corpus.ids, corpus.answer, corpus.bounds, corpus.labels):
        hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()
