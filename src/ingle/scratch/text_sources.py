"""Texts of a model from scratch: sources, vocabulary, rows of tokens, and pairs planted to measure recall."""

import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from ingle.core.config import to_table
from ingle.core.digest import digest_bytes, digest_json
from ingle.core.errors import CheckpointError, ConfigError
from ingle.core.files import write_atomic
from ingle.core.progress import Counted, FetchProgress, silent
from ingle.home.place import Home
from ingle.measure.data_sets import Text, part
from ingle.measure.suites import Suite, find_texts
from ingle.model.tokenizer import FACTS_FILE, TOKENIZER_FILE, Tokenizer, TokenizerFacts, open_tokenizer
from ingle.scratch.scratch_settings import TextSettings
from ingle.train.corpus import Corpus
from ingle.train.example_files import ExampleTally, read_records
from ingle.train.making import RunWatch
from ingle.train.packing import Data

# Key-value pairs planted in text: how much of the past can a model say that it could not guess?
#
# A row is lines of prose, and among them lines `key value`. Every key has some values of its own, and each row draws one of them. A reader
# of the pair knows the value when the key comes again; for anybody else all its values are equally likely. Between two mentions of a pair
# lie one line to a whole row, short distances as often as long ones (as nearly as the pairs of a row allow). Pairs are trained on as text,
# mixed among other rows. Measured is whether the likeliest token after the key is the value, by distance, on rows that were not trained on.
# Loss on prose hardly notices whether a model can do this.
#
# Keys and values are words of the vocabulary, one token each. That a key has values of its own makes recall a matter of one look back.
# Where any word may follow any key, the model must first learn to tell what a word followed; and single pairs that are never trained on are
# learnt as pairs that don't occur.
#
# Source: multi-query associative recall, arXiv 2312.04927; differs: among prose, at distances that are drawn, values by key.


KEYS = 12  # number of keys; fewer in a small vocabulary
FEWEST = 4
CHOICES = 8  # number of values of a key
PROSE = 0.4  # share of the lines that are prose
_PROSE_TOKENS = 12  # most tokens of a line of prose


@dataclass(frozen=True, slots=True)
class Asked:
    """A later mention of a pair."""

    at: int  # place of the value in the row; the model answers after all tokens before it
    distance: int  # tokens since the value was last mentioned


@dataclass(frozen=True, slots=True)
class PairRow:
    """Tokens of a row, with the pairs that it asks for."""

    ids: tuple[int, ...]
    asked: tuple[Asked, ...]


class Planter:
    """Maker of rows for one vocabulary."""

    def __init__(self, tokenizer: Tokenizer, texts: Sequence[str], row_tokens: int) -> None:
        """`texts`: the prose. Raises ConfigError for a vocabulary with too few words."""
        words = _words(tokenizer)
        count = min(KEYS, len(words) // (1 + CHOICES))
        if count < FEWEST:
            cure = "Raise tokenizer.size, or set data.pairs = 0."
            raise ConfigError("data.pairs", f"needs a vocabulary with {FEWEST * (1 + CHOICES)} words", len(words), cure)
        random.Random("words").shuffle(words)
        self.values = {words[i]: tuple(words[count + i * CHOICES :][:CHOICES]) for i in range(count)}  # possible values of each key
        self._tokenizer, self._texts, self._row_tokens = tokenizer, texts, row_tokens
        [self._line] = tokenizer.encode("\n")
        assert tokenizer.bos_id is not None, "vocabularies from scratch begin their texts"
        self._begin = tokenizer.bos_id

    def row(self, seed: str) -> PairRow:
        """Make the row of this name: at most `row_tokens` tokens, in whole lines."""
        draw = random.Random(seed)
        values = {key: draw.choice(choices) for key, choices in self.values.items()}
        fresh = draw.sample(sorted(values), len(values))
        reach = math.log2(self._row_tokens / 5)  # about as many lines as there are
        ids, asked, number = [self._begin], list[Asked](), 0
        lines: dict[int, int] = {}  # by key, the line where it was last mentioned
        places: dict[int, int] = {}  # by key, the token where its value was last mentioned
        while True:
            line, key = [self._line, *self._prose(draw)], None
            if draw.random() >= PROSE:
                back = number - 2 ** draw.uniform(0, reach)
                key = fresh[-1] if fresh and (back < 0 or not lines) else _nearest(lines, back)
                line = [self._line, key, values[key]]
            if len(ids) + len(line) > self._row_tokens:
                return PairRow(tuple(ids), tuple(asked))
            ids += line
            if key is not None:
                place = len(ids) - 1
                if key in places:
                    asked.append(Asked(place, place - places[key]))
                else:
                    fresh.remove(key)
                lines[key], places[key] = number, place
            number += 1

    def _prose(self, draw: random.Random) -> list[int]:
        text = self._texts[draw.randrange(len(self._texts))]
        begin = draw.randrange(max(1, len(text) - 100))
        piece = text[text.find(" ", begin) + 1 :][:100].partition("\n")[0]
        return self._tokenizer.encode(piece)[: draw.randrange(3, _PROSE_TOKENS)]


def _nearest(lines: Mapping[int, int], back: float) -> int:
    """The key whose last mention is nearest to that line."""
    return min(lines, key=lambda key: abs(lines[key] - back))


def _words(tokenizer: Tokenizer) -> list[int]:
    """Tokens that are whole words in lower case with a space before. The commonest, found first, are left out: prose is full of them."""
    words = [token for token in range(tokenizer.vocab_size) if _is_word(tokenizer.token_bytes(token))]
    return words[len(words) // 4 :]


def _is_word(spelled: bytes) -> bool:
    return len(spelled) >= 4 and spelled[:1] == b" " and spelled[1:].isalpha() and spelled.islower()


# Sources of text, as suites: each has a part for training and one that is held out, by document, by a fixed hash.
# So a model is measured on its sources' held-out texts, by the same split as in `ingle measure`.


SUITE = "suite:"


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """All texts, split."""

    train: tuple[str, ...]  # different texts, shuffled by their own hash
    held_out: tuple[str, ...]  # held-out texts, likewise; none of them is in `train`
    suites: tuple[Suite, ...]  # each source as a suite with its texts in memory, to measure on
    digest: str  # digest of both parts


def find_suites(sources: Sequence[str], held_out: float) -> list[Suite]:
    """Return the sources as suites. Raises ConfigError for a missing path or a suite of something else, NotKept for unknown ones."""
    suites, files = [], list[Path]()
    for source in dict.fromkeys(sources):
        if source.startswith(SUITE):
            suites.append(find_texts(source.removeprefix(SUITE)))
        else:
            path = Path(source).expanduser().absolute()
            if not path.exists():
                raise ConfigError(source, "is not there", "", "Check the path; suites are written suite:NAME.")
            files.append(path)
    if files:
        suites.append(_of_files(files, held_out))
    return suites


def read_texts(home: Home, suites: Sequence[Suite], progress: FetchProgress = silent) -> Texts:
    """Read all texts of these sources, fetched where necessary. Raises ConfigError where a part is empty, and the errors of fetching.

    A text that stands in several places is held out if one of them is.
    """
    at_hand, train, held_out = [], dict[str, None](), dict[str, None]()
    for suite in suites:
        items: list[Text] = list(suite.read(home, progress))
        at_hand.append(replace(suite, read=lambda *_, items=items: items))
        train.update(dict.fromkeys(item.text for item in part(items, "train", suite.held_out)))
        held_out.update(dict.fromkeys(item.text for item in part(items, "held_out", suite.held_out)))
    left = [text for text in train if text not in held_out and text.strip()]
    for name, texts in (("learn from", left), ("hold out", list(held_out))):
        if not texts:
            got = f"{len(train)} texts for training, {len(held_out)} held out"
            raise ConfigError("data.sources", f"must hold texts to {name}", got, "Give more texts, or raise data.held_out.")
    ordered = tuple(_shuffled(left)), tuple(_shuffled(held_out))
    digest = digest_json([[digest_bytes(text.encode("utf-8", "surrogatepass")) for text in side] for side in ordered])
    return Texts(*ordered, tuple(at_hand), digest)


def _shuffled(texts: Iterable[str]) -> list[str]:
    return sorted(texts, key=lambda text: digest_bytes(text.encode("utf-8", "surrogatepass")))


def _of_files(files: Sequence[Path], held_out: float) -> Suite:
    def read(_home: Home, _progress: FetchProgress) -> list[Text]:
        texts = []
        for record in read_records(files, ExampleTally()):
            [text, *_] = record.answers or ("",)
            if record.kind != "text" or not isinstance(text, str):
                raise ConfigError(
                    record.where, "must be a text to learn a language from", record.kind, 'Give lines of {"text": …}, or .txt.'
                )
            texts.append(Text(record.digest[:32], record.digest, text))
        return texts

    return Suite("texts", "bits per byte of held-out texts", "bits", read, "bits_per_byte", held_out, 100)


# Texts become rows of tokens: they stand on end, each after the token that ends the one before, and are cut into equal rows.
# So nothing is padded or lost, and a text follows on another as it does in a long context. Rows of planted pairs are whole.
# A model that is served reads the token that begins a text first, so every row begins with it. The token after it is learnt only where a
# text does begin: a row that goes on in the middle of a text, or has pairs, says nothing about how texts begin.


WATCHED = 48  # held-out texts whose loss is computed during training


def make_data(texts: Texts, tokenizer: Tokenizer, settings: TextSettings, progress: Counted = silent) -> Data:
    """Make rows to learn from, and a few held-out texts to watch, one a row. Raises ConfigError for less than a row of text."""
    assert tokenizer.bos_id is not None, "vocabularies from scratch begin their texts"
    stream = _stream(texts.train, tokenizer, settings.max_tokens, progress)
    rows, begun = _cut(stream, settings.row_tokens, tokenizer.bos_id)
    if not rows:
        raise ConfigError("data.sources", f"must hold at least a row of {settings.row_tokens} tokens", "less", "Lower data.row_tokens.")
    if settings.pairs:
        planter = Planter(tokenizer, texts.train, settings.row_tokens)
        count = max(1, round(len(rows) * settings.pairs / (1 - settings.pairs)))
        rows += [np.array(planter.row(f"{settings.seed} {i}").ids, np.int32) for i in range(count)]
    watched = [tokenizer.encode_prompt(text)[: settings.row_tokens] for text in texts.held_out[:WATCHED]]
    held_out = [np.array(ids, np.int32) for ids in watched if len(ids) > 1]
    begun += [False] * (len(rows) - len(begun)) + [True] * len(held_out)
    corpus = _corpus([*rows, *held_out], begun)
    return Data(corpus, range(len(rows)), range(len(rows), len(corpus)))


def _stream(texts: Sequence[str], tokenizer: Tokenizer, most: int, progress: Counted) -> np.ndarray:
    """All texts, one after the other, up to `most` tokens (0 = all): int32."""
    parts, count = [], 0
    for i, text in enumerate(texts):
        ids = tokenizer.encode_prompt(text)
        parts.append(np.array(ids, np.int32))
        count += len(ids)
        if i % 1000 == 0:
            progress(i, len(texts))
        if most and count >= most:
            break
    progress(len(texts), len(texts))
    whole: np.ndarray = np.concatenate(parts)
    return whole[: most or None]


def _cut(stream: np.ndarray, size: int, begin: int) -> tuple[list[np.ndarray], list[bool]]:
    """Whole rows, and which of them a text begins. A rest at the end, less than a row, is left out."""
    rows, begun, start = list[np.ndarray](), list[bool](), 0
    while True:
        begins = start < len(stream) and bool(stream[start] == begin)
        piece = stream[start : start + size - (not begins)]
        row = piece if begins else np.concatenate(([begin], piece)).astype(stream.dtype)
        if len(row) < size:
            return rows, begun
        rows.append(row)
        begun.append(begins)
        start += len(piece)


def _corpus(rows: Sequence[np.ndarray], begun: Sequence[bool]) -> Corpus:
    """Make a corpus of rows; `begun`: which of them a text begins."""
    ids = np.concatenate(rows)
    bounds = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    answer = np.ones(len(ids), np.bool_)
    answer[bounds[:-1]] = False  # nothing predicts a row's first token
    answer[bounds[:-1][~np.array(begun)] + 1] = False
    digest = digest_json([digest_bytes(ids.tobytes()), digest_bytes(answer.tobytes()), bounds.tolist()])
    labels = np.full(len(rows), -1, np.int8)
    return Corpus("answers", ids, answer, bounds, labels, tuple(map(str, range(len(rows)))), digest)


# A vocabulary of its own for a model: byte-level BPE, found in the training text alone.


END = "<|endoftext|>"  # the only control token: it stands before every text, and ends the one before
ENOUGH_BYTES = 12_000_000  # bytes of text in which words are found; more text changes little


def find_vocabulary(texts: Sequence[str], size: int) -> Tokenizer:
    """Make a tokenizer of exactly `size` tokens; equal texts give equal ones. Raises ConfigError if the texts have no use for so many."""
    fast = FastTokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    fast.train_from_iterator(_first(texts, ENOUGH_BYTES), trainer)
    if fast.get_vocab_size() != size:
        cure = "Lower it, or give more text."
        raise ConfigError(
            "tokenizer.size", "must be a number of tokens that the text has use for", f"{size}, with use for {fast.get_vocab_size()}", cure
        )
    [end] = fast.get_added_tokens_decoder()
    return Tokenizer(fast, TokenizerFacts("bytes", (end,), end, add_bos=True))


def kept_vocabulary(folder: Path, texts: Sequence[str], size: int) -> Tokenizer:
    """Open the vocabulary in this folder, or find a new one and keep it there. Raises ConfigError, HomeError."""
    if not (folder / FACTS_FILE).exists():  # the facts are written last
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        find_vocabulary(texts, size).save(folder)
    assert (folder / TOKENIZER_FILE).exists(), "facts are never there alone"
    return open_tokenizer(folder)


def _first(texts: Sequence[str], nbytes: int) -> Iterator[str]:
    for text in texts:
        if nbytes <= 0:
            return
        nbytes -= len(text.encode("utf-8", "surrogatepass"))
        yield text


# Prepared text: a vocabulary, rows to learn from and held-out texts as tokens on disk, made once for all runs of a sweep.
# HOME/scaling/texts/KEY/tokenizer.json and its facts, held_out.json, arrays.safetensors, prepared.json (written last)
# The held-out part is fixed: the first texts, by their hash, that make up 300 kB, whole. It is the same for every vocabulary, and every
# byte of it counts once. A text that is longer than a row is read in rows, each of which reads half a row again. Prepared text is all of a
# sweep's data that a worker needs, on this machine or on another.


VERSION = 2
PREPARED = "texts"  # folder of all prepared texts, beside those of the sweeps
HELD_OUT_BYTES = 300_000
_FACTS, _ARRAYS, _HELD_OUT = "prepared.json", "arrays.safetensors", "held_out.json"
FILES = ("tokenizer.json", "tokenizer_facts.json", _HELD_OUT, _ARRAYS, _FACTS)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Prepared text on disk."""

    folder: str
    digest: str  # digest of all arrays
    vocabulary: int
    row_tokens: int
    tokens: int  # tokens to learn from
    held_out_bytes: int
    held_out_texts: int


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Held-out texts as tokens, in rows."""

    corpus: Corpus
    owners: npt.NDArray[np.int64]  # number of the text that each row is of
    bytes: npt.NDArray[np.int64]  # bytes of each text


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
    corpus = _corpus_of(arrays["ids"], arrays["answer"], bounds, prepared.digest)
    return Data(corpus, range(min(count, max(1, unique // prepared.row_tokens)) if unique else count))


def held_out_of(prepared: Prepared) -> HeldOut:
    arrays = load_file(Path(prepared.folder) / _ARRAYS)
    corpus = _corpus_of(arrays["held_ids"], arrays["held_answer"], arrays["held_bounds"], prepared.digest)
    return HeldOut(corpus, arrays["held_owners"], arrays["held_bytes"])


def held_out_texts(prepared: Prepared) -> list[str]:
    """Return the held-out texts as they stand."""
    texts: list[str] = json.loads((Path(prepared.folder) / _HELD_OUT).read_text("utf-8"))
    return texts


def _corpus_of(ids: npt.NDArray[np.int32], answer: npt.NDArray[np.bool_], bounds: npt.NDArray[np.int64], digest: str) -> Corpus:
    count = len(bounds) - 1
    return Corpus("answers", ids, answer, bounds, np.full(count, -1, np.int8), tuple(map(str, range(count))), digest)


def _write(folder: Path, texts: Texts, tokenizer: Tokenizer, settings: TextSettings, progress: Counted) -> None:
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
