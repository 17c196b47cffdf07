"""A corpus: every example's tokens in flat arrays, and which examples are held out.

An example has one document (an answer, a text), or two: the chosen answer and the rejected one; with labels, the answer and the same
prompt with another example's answer, from which KTO estimates how far the model has moved at all (arXiv 2402.01306).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from ingle.core.config import Amount, Bounds, Part, check_bounds
from ingle.core.digest import digest_file, digest_json
from ingle.core.errors import ConfigError, HomeError
from ingle.core.files import os_errors, write_atomic
from ingle.train.example_files import Document, Encoder, ExampleTally, Record, read_records

Wanted = Literal["answers", "pairs", "labels"]
_KINDS = {"answers": {"chat", "completion", "text"}, "pairs": {"pair"}, "labels": {"label"}}
_DOCUMENTS = {"answers": 1, "pairs": 2, "labels": 2}
Member = tuple[str, int, tuple[Document, ...]]  # an example: the record's digest, its label (−1 = none), its documents


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """Examples as tokens: 5 bytes a token, all in memory."""

    wanted: Wanted
    ids: npt.NDArray[np.int32]  # tokens of all documents, one document after the other
    answer: npt.NDArray[np.bool_]  # which tokens carry the loss
    bounds: npt.NDArray[np.int64]  # where each document begins, and the end of the last
    labels: npt.NDArray[np.int8]  # label of each example: 1 liked, 0 not, −1 without label
    sources: tuple[str, ...]  # digest of each example's record; examples of one record are never on both sides of a split
    digest: str = ""  # digest of the whole corpus

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def per_example(self) -> int:
        """Documents of an example. Those of example i begin at number i × this."""
        return _DOCUMENTS[self.wanted]

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Tokens of each example."""
        edges = self.bounds[:: self.per_example]
        return np.diff(edges)

    def document(self, number: int) -> Document:
        """A view of one document."""
        span = slice(self.bounds[number], self.bounds[number + 1])
        return Document(self.ids[span], self.answer[span])


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Settings that say how files become a corpus."""

    max_tokens: Annotated[int, Bounds(ge=2)] = 2048  # most tokens of a document; they must fit into the model's context
    # Longer conversations are left out and counted (skip), cut at the end, or refused. Texts are cut into pieces.
    too_long: Literal["skip", "cut", "refuse"] = "skip"
    # Whether prompts that are strings are a chat's turns; `auto`: if the model has a template.
    template: Literal["auto", "chat", "plain"] = "auto"
    skip_bad: bool = False  # count lines that can't be used instead of refusing them
    held_out: Part = 0.05  # share of records that are never trained on, by a hash of their content; 0 = none
    # Fewest records that are held out if any are, but no more than a quarter of all. 0 = as the share says.
    least_held_out: Amount = 8
    seed: int = 0  # seed of the choice of held-out records

    def __post_init__(self) -> None:
        check_bounds(self)


def read_corpus(
    paths: Iterable[Path], encoder: Encoder, wanted: Wanted = "answers", skip_bad: bool = False, watch: Callable[[int], None] | None = None
) -> tuple[Corpus, ExampleTally]:
    """Read and encode all examples of these files. `watch` hears now and then how many there are so far.

    Raises ConfigError for bad lines (unless `skip_bad`), data of another kind, and where nothing is left to learn from.
    """
    tally, members = ExampleTally(), []
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
    """(to learn from, held out): numbers of examples. At least one is held out if any is to be.

    An example's side follows from its record and the seed alone, so more data moves none; unless the share gives fewer than `least`
    records (or a quarter of all). Raises ConfigError where nothing is left to learn from.
    """
    if not share:
        return list(range(len(corpus))), []
    fraction = {source: int(digest_json([seed, source])[:8], 16) / 2**32 for source in set(corpus.sources)}
    if len(fraction) < 2:
        cure = "Set held_out = 0, or give the data as several documents."
        raise ConfigError("held_out", "needs at least 2 records, because one is never on both sides", len(fraction), cure)
    fewest = max(1, min(least, len(fraction) // 4))
    limit = max(share, sorted(fraction.values())[fewest - 1])
    out = {source for source, value in fraction.items() if value <= limit}
    if len(out) == len(fraction):
        out.remove(max(out, key=fraction.__getitem__))
    sides: tuple[list[int], list[int]] = ([], [])
    for i, source in enumerate(corpus.sources):
        sides[source in out].append(i)
    return sides


def _members(records: Iterable[Record], encoder: Encoder, wanted: Wanted, tally: ExampleTally, skip_bad: bool) -> Iterator[Member]:
    """Yield every example that can be learnt from; count the others."""
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
    """Pair each example with a stranger: its prompt and the answer of the example before it, cut where that gets too long."""
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


# Examples that a training keeps: their tokens, which of them was in which step, and their sketches; `examples.safetensors`.
#     ids, answer, bounds     the documents, as in `corpus`
#     records                 SHA-256 of each example's record, by which its line is found again
#     train, held_out         numbers of the examples
#     step_bounds, step_members    which examples each step read, up to the step whose parameters were kept
#     sketches                see `train.by_document`; only where they were made
# No PyTorch is imported here.


EXAMPLES = "examples.safetensors"
_CURE = "Tune again to have it made anew; the model itself is not harmed."


@dataclass(frozen=True, slots=True)
class KeptSettings:
    """Settings for keeping examples, so that an answer can be traced back to them. Changes nothing in what is learnt."""

    keep: bool = True  # whether the examples' tokens and the steps that read them are kept beside the delta
    sketches: bool = True  # whether each example's gradient is sketched after training, about the time of one epoch
    most: Amount = 20_000  # most examples of a tune of which anything is kept; a sketch takes 4 kB

    def __post_init__(self) -> None:
        check_bounds(self, "examples.")


@dataclass(frozen=True, slots=True, eq=False)
class KeptExamples:
    """The examples of one training."""

    corpus: Corpus
    train: tuple[int, ...]
    held_out: tuple[int, ...]
    steps: tuple[tuple[int, ...], ...]  # numbers of the examples that each step read
    sketches: npt.NDArray[np.float16] | None = None  # [examples of `train`, SIZE]

    def steps_of(self, example: int) -> tuple[int, ...]:
        """Numbers of the steps that read an example, from 1."""
        return tuple(number for number, members in enumerate(self.steps, 1) if example in members)


def write_kept(path: Path, kept: KeptExamples) -> str:
    """Write the file, for its owner alone. Returns its SHA-256. Raises HomeError."""
    from safetensors.numpy import save

    corpus = kept.corpus
    arrays: dict[str, npt.NDArray[Any]] = {
        "ids": corpus.ids,
        "answer": corpus.answer.astype(np.uint8),
        "bounds": corpus.bounds,
        "labels": corpus.labels,
        "records": np.array([list(bytes.fromhex(source)) for source in corpus.sources], np.uint8),
        "train": np.array(kept.train, np.int64),
        "held_out": np.array(kept.held_out, np.int64),
        "step_bounds": np.cumsum([0, *map(len, kept.steps)], dtype=np.int64),
        "step_members": np.array([example for members in kept.steps for example in members], np.int32),
    }
    if kept.sketches is not None:
        arrays["sketches"] = kept.sketches
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"corpus": f"{corpus.wanted} {corpus.digest}"}  # one entry: the library writes several in any order
    write_atomic(path, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata), mode=0o600)
    return digest_file(path)


def read_kept(path: Path, sha256: str) -> KeptExamples:
    """Read the file, every byte checked. Raises HomeError if it is missing or not as it was written."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise HomeError(str(path), "is gone, and with it what was kept of the examples", "", _CURE)
    with os_errors(path):
        if digest_file(path) != sha256:
            raise HomeError(str(path), "is not as it was written", "", _CURE)
        try:
            with safe_open(path, "np") as file:
                arrays, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118 - no mapping
        except SafetensorError as error:
            raise HomeError(str(path), "must be a whole safetensors file", error, _CURE) from error
    kind, _, digest = metadata["corpus"].partition(" ")
    wanted: Wanted = kind
    sources = tuple(bytes(row).hex() for row in arrays["records"])
    corpus = Corpus(
        wanted, arrays["ids"], arrays["answer"].astype(np.bool_), arrays["bounds"], arrays["labels"], sources, digest
    )  # fmt: skip
    edges, members = arrays["step_bounds"].tolist(), arrays["step_members"].tolist()
    steps = tuple(tuple(members[a:b]) for a, b in pairwise(edges))
    return KeptExamples(corpus, tuple(arrays["train"].tolist()), tuple(arrays["held_out"].tolist()), steps, arrays.get("sketches"))
