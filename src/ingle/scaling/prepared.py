"""Prepared text: a vocabulary, rows to learn from and held-out texts as tokens on disk, made once for all runs of a sweep.

HOME/scaling/texts/KEY/tokenizer.json and its facts, held_out.json, arrays.safetensors, prepared.json (written last)

The held-out part is fixed: the first texts, by their hash, that make up 300 kB, whole. It is the same for every vocabulary, and every
byte of it counts once. A text that is longer than a row is read in rows, each of which reads half a row again.
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
from ingle.scaling.corpus import make_data
from ingle.scaling.settings import TextSettings
from ingle.scaling.sources import Texts, find_suites, read_texts
from ingle.scaling.vocabulary import kept_vocabulary
from ingle.train.corpus import Corpus
from ingle.train.making import RunWatch
from ingle.train.packing import Data

VERSION = 2
PREPARED = "texts"
"""Folder of all prepared texts, beside those of the sweeps."""
HELD_OUT_BYTES = 300_000
_FACTS, _ARRAYS, _HELD_OUT = "prepared.json", "arrays.safetensors", "held_out.json"
FILES = ("tokenizer.json", "tokenizer_facts.json", _HELD_OUT, _ARRAYS, _FACTS)


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
    """Held-out texts as tokens, in rows."""

    corpus: Corpus
    owners: npt.NDArray[np.int64]
    """Number of the text that each row is of."""
    bytes: npt.NDArray[np.int64]
    """Bytes of each text."""


def prepare(home: Home, settings: TextSettings, vocabulary: int, watch: RunWatch = RunWatch()) -> Prepared:  # noqa: B008 - frozen
    """Prepare these texts, or find them prepared. Raises ConfigError and the errors of fetching."""
    watch.bytes("reading texts", 0, None)
    texts = read_texts(home, find_suites(settings.sources, settings.held_out), watch.bytes)
    chosen = {key: value for key, value in to_table(settings).items() if key != "sources"}
    key = digest_json([VERSION, HELD_OUT_BYTES, texts.digest, chosen, vocabulary])[:24]
    folder = home.scaling / PREPARED / key
    if not (folder / _FACTS).exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tokenizer = kept_vocabulary(folder, texts.train, vocabulary)
        _write(folder, texts, tokenizer, settings, lambda done, of: watch.pieces("reading texts", done, of))
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
    corpus = _corpus(arrays["held_ids"], arrays["held_answer"], arrays["held_bounds"], prepared.digest)
    return HeldOut(corpus, arrays["held_owners"], arrays["held_bytes"])


def held_out_texts(prepared: Prepared) -> list[str]:
    """Return the held-out texts as they stand."""
    texts: list[str] = json.loads((Path(prepared.folder) / _HELD_OUT).read_text("utf-8"))
    return texts


def _corpus(ids: npt.NDArray[np.int32], answer: npt.NDArray[np.bool_], bounds: npt.NDArray[np.int64], digest: str) -> Corpus:
    count = len(bounds) - 1
    return Corpus("answers", ids, answer, bounds, np.full(count, -1, np.int8), tuple(map(str, range(count))), digest)


def _write(folder: Path, texts: Texts, tokenizer: Tokenizer, settings: TextSettings, progress: Callable[[int, int], None]) -> None:
    data = make_data(texts, tokenizer, settings, progress)
    rows = len(data.train)
    end = int(data.corpus.bounds[rows])
    held_out = _first_texts(texts.held_out)
    read = [rows_read(tokenizer.encode_prompt(text), settings.row_tokens) for text in held_out]
    parts = [part for of_text in read for part in of_text]
    sizes = [len(text.encode()) for text in held_out]
    arrays = {
        "ids": data.corpus.ids[:end],
        "answer": data.corpus.answer[:end],
        "bounds": data.corpus.bounds[: rows + 1],
        "held_ids": np.concatenate([ids for ids, _ in parts]),
        "held_answer": np.concatenate([answer for _, answer in parts]),
        "held_bounds": np.cumsum([0, *(len(ids) for ids, _ in parts)], dtype=np.int64),
        "held_owners": np.repeat(np.arange(len(read)), [len(of_text) for of_text in read]).astype(np.int64),
        "held_bytes": np.array(sizes, np.int64),
    }
    packed = save(arrays)
    write_atomic(folder / _HELD_OUT, json.dumps(held_out).encode())
    write_atomic(folder / _ARRAYS, packed)
    facts = asdict(
        Prepared(str(folder), digest_bytes(packed), tokenizer.vocab_size, settings.row_tokens, end, sum(sizes), len(sizes))
    )  # fmt: skip
    write_atomic(folder / _FACTS, json.dumps({name: value for name, value in facts.items() if name != "folder"}).encode())


def rows_read(ids: Sequence[int], row_tokens: int) -> list[tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]]:
    """Cut a text into rows, each with which of its tokens count: all tokens but the first count once.

    Every row begins with the token that begins a text, and reads half a row again before what is new.
    """
    rows, begin, done, again = [], ids[0], 1, row_tokens // 2
    while done < len(ids):
        start = max(1, done - again)
        part = [begin, *ids[start : start + row_tokens - 1]]
        counts = np.arange(len(part)) > done - start
        rows.append((np.array(part, np.int32), counts))
        done = start + len(part) - 1
    return rows


def _first_texts(texts: Sequence[str]) -> list[str]:
    """Return the first texts that make up HELD_OUT_BYTES. What isn't Unicode (lone surrogates) is left out: it has no bytes."""
    chosen, size = list[str](), 0
    for text in texts:
        whole = text.encode("utf-8", "ignore").decode()
        if whole:
            chosen.append(whole)
            size += len(whole.encode())
        if size >= HELD_OUT_BYTES:
            break
    return chosen
