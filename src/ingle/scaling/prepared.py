"""Prepared text: a vocabulary, rows to learn from and held-out texts as tokens on disk, made once for all runs of a sweep.

HOME/scaling/texts/KEY/tokenizer.json and its facts, arrays.safetensors, prepared.json (written last)

The held-out part is fixed: the first texts, by their hash, that make up 300 kB; of a text that is longer than a row, its first row. So it
is another text where a row holds more of it. Text of another vocabulary can be prepared with the held-out part of a sweep (`like`).
Prepared text is all of a sweep's data that a worker needs, on this machine or on another.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save

from ingle.core.config import to_table
from ingle.core.digest import digest_bytes, digest_json
from ingle.core.errors import CheckpointError
from ingle.core.files import write_atomic
from ingle.home.place import Home
from ingle.model.tokenizer import Tokenizer
from ingle.model.tokenizer_hf import open_tokenizer
from ingle.scaling.corpus import make_data
from ingle.scaling.settings import TextSettings
from ingle.scaling.sources import Texts, find_suites, read_texts
from ingle.scaling.vocabulary import kept_vocabulary
from ingle.train.corpus import Corpus
from ingle.train.making import RunWatch
from ingle.train.packing import Data

VERSION = 1
HELD_OUT_BYTES = 300_000
_FACTS, _ARRAYS = "prepared.json", "arrays.safetensors"
FILES = ("tokenizer.json", "tokenizer_facts.json", _ARRAYS, _FACTS)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Prepared text on disk."""

    folder: str
    digest: str
    """Digest of all arrays."""
    vocabulary: int
    row_tokens: int
    tokens: int
    """Tokens to learn from."""
    held_out_bytes: int
    held_out_texts: int


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Held-out texts as tokens."""

    corpus: Corpus
    bytes: npt.NDArray[np.int64]
    """Bytes of each text, of the part that is in its row."""


def prepare(
    home: Home, settings: TextSettings, vocabulary: int, watch: RunWatch = RunWatch(), like: Prepared | None = None,  # noqa: B008 - frozen
) -> Prepared:  # fmt: skip
    """Prepare these texts, or find them prepared. Raises ConfigError and the errors of fetching.

    `like`: hold out the very text that is held out there, to the byte: a row of another vocabulary's tokens is another length of text.
    """
    watch.bytes("reading texts", 0, None)
    texts = read_texts(home, find_suites(settings.sources, settings.held_out), watch.bytes)
    chosen = {key: value for key, value in to_table(settings).items() if key != "sources"}
    key = digest_json([VERSION, HELD_OUT_BYTES, texts.digest, chosen, vocabulary, *([like.digest] if like else [])])[:24]
    folder = home.scaling / "texts" / key
    if not (folder / _FACTS).exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tokenizer = kept_vocabulary(folder, texts.train, vocabulary)
        held_out = (held_out_texts(like), 0) if like else (texts.held_out, settings.row_tokens)
        _write(
            folder, texts, _held_out(tokenizer, *held_out), tokenizer, settings, lambda done, of: watch.pieces("reading texts", done, of)
        )
    return find_prepared(folder)


def find_prepared(folder: Path) -> Prepared:
    """Return what lies prepared in a folder. Raises CheckpointError if it is damaged."""
    try:
        return Prepared(str(folder), **json.loads((folder / _FACTS).read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(str(folder / _FACTS), "must describe prepared text", error, "Delete the folder: it is made again.") from error


def rows_of(prepared: Prepared, unique: int = 0) -> Data:
    """Return the rows to learn from: all, or the first that make up `unique` tokens."""
    arrays = load_file(Path(prepared.folder) / _ARRAYS)
    bounds = arrays["bounds"]
    count = len(bounds) - 1
    corpus = _corpus(arrays["ids"], arrays["answer"], bounds, prepared.digest)
    return Data(corpus, range(min(count, max(1, unique // prepared.row_tokens)) if unique else count))


def held_out_of(prepared: Prepared) -> HeldOut:
    """Return the held-out texts."""
    arrays = load_file(Path(prepared.folder) / _ARRAYS)
    ids, bounds = arrays["held_ids"], arrays["held_bounds"]
    answer = np.ones(len(ids), np.bool_)
    answer[bounds[:-1]] = False
    return HeldOut(_corpus(ids, answer, bounds, prepared.digest), arrays["held_bytes"])


def held_out_texts(prepared: Prepared) -> list[str]:
    """Return the held-out texts as far as models read them; a character that is cut in two is left out."""
    tokenizer, corpus = open_tokenizer(Path(prepared.folder)), held_out_of(prepared).corpus
    documents = [corpus.document(number).ids.tolist() for number in range(len(corpus))]
    return [b"".join(map(tokenizer.token_bytes, ids[1:])).decode("utf-8", "ignore") for ids in documents]  # the first token begins a text


def _corpus(ids: npt.NDArray[np.int32], answer: npt.NDArray[np.bool_], bounds: npt.NDArray[np.int64], digest: str) -> Corpus:
    count = len(bounds) - 1
    return Corpus("answers", ids, answer, bounds, np.full(count, -1, np.int8), tuple(map(str, range(count))), digest)


def _write(
    folder: Path, texts: Texts, held_out: tuple[list[npt.NDArray[np.int32]], list[int]], tokenizer: Tokenizer, settings: TextSettings,
    progress: Callable[[int, int], None],
) -> None:  # fmt: skip
    data = make_data(texts, tokenizer, settings, progress)
    rows = len(data.train)
    end = int(data.corpus.bounds[rows])
    held, sizes = held_out
    arrays = {
        "ids": data.corpus.ids[:end],
        "answer": data.corpus.answer[:end],
        "bounds": data.corpus.bounds[: rows + 1],
        "held_ids": np.concatenate(held),
        "held_bounds": np.cumsum([0, *map(len, held)], dtype=np.int64),
        "held_bytes": np.array(sizes, np.int64),
    }
    packed = save(arrays)
    write_atomic(folder / _ARRAYS, packed)
    facts = asdict(
        Prepared(str(folder), digest_bytes(packed), tokenizer.vocab_size, settings.row_tokens, end, sum(sizes), len(held))
    )  # fmt: skip
    write_atomic(folder / _FACTS, json.dumps({name: value for name, value in facts.items() if name != "folder"}).encode())


def _held_out(tokenizer: Tokenizer, texts: Sequence[str], row_tokens: int) -> tuple[list[npt.NDArray[np.int32]], list[int]]:
    """Tokens and bytes of the first texts, each up to the end of its first row; 0 = whole."""
    parts, sizes = list[npt.NDArray[np.int32]](), list[int]()
    for text in texts:
        ids = tokenizer.encode_prompt(text)[: row_tokens or None]
        if len(ids) > 1:
            parts.append(np.array(ids, np.int32))
            sizes.append(sum(len(tokenizer.token_bytes(token)) for token in ids[1:]))
        if sum(sizes) >= HELD_OUT_BYTES:
            break
    return parts, sizes
