"""Text ↔ token ids, on the `tokenizers` library, for byte-level BPE and SentencePiece-style BPE.

Text from people or documents never becomes a control token here: the library always treats special tokens in text as text. Control tokens
come only from `encode_trusted` (and from rendered templates), which look them up by name.
"""

import codecs
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from ingle.core.config import from_table, to_table
from ingle.core.errors import CheckpointError, ConfigError, RequestError
from ingle.core.files import write_atomic
from ingle.core.spec import ModelConfig
from ingle.model.fields import Fields, read_json

TOKENIZER_FILE = "tokenizer.json"
FACTS_FILE = "tokenizer_facts.json"
# Where a model names only one end, these end an answer too if it has them as control tokens.
END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "</s>")


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """Facts that `tokenizer.json` lacks, or holds in a form that is slow to read."""

    # `bytes`: byte-level BPE (GPT-2's alphabet); `pieces`: SentencePiece-style, ▁ for a space, <0xAB> for a byte.
    kind: Literal["bytes", "pieces"]
    eos_ids: tuple[int, ...]  # tokens that end an answer; the first is the templates' `eos_token`
    bos_id: int | None = None  # the token that begins a text
    # Whether a plain prompt begins with `bos_id`. A chat template writes its own.
    add_bos: bool = False
    space_prefix: bool = False  # `pieces`: a text is encoded with a space before it, which decoding takes away again
    unknown_id: int | None = None  # the token for unknown characters; None = they are spelled in bytes, or left out
    chat_template: str | None = None  # jinja source


class Apart(Protocol):
    """A tokenizer that lies in another process; see tokenizer_apart.py."""

    def call(self, name: str, *arguments: Any) -> Any:
        """Call one of the worker's functions there."""


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A vocabulary. Safe to use from several threads."""

    fast: FastTokenizer
    facts: TokenizerFacts

    def __post_init__(self) -> None:
        self.fast.encode_special_tokens = True

    @property
    def apart(self) -> Apart | None:
        """The process that does the work, where it is another one."""
        return None

    @cached_property
    def control(self) -> Mapping[str, int]:
        """Ids of the control tokens by name."""
        return {token.content: i for i, token in self.fast.get_added_tokens_decoder().items() if token.special}

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """The ids of the control tokens."""
        return frozenset(self.control.values())

    @cached_property
    def vocab_size(self) -> int:
        """The largest token id, plus one."""
        return max(self.fast.get_vocab(with_added_tokens=True).values(), default=0) + 1

    @cached_property
    def longest_token(self) -> int:
        """An upper bound of the bytes in one token. Tokenizers that normalise Unicode may make text three times shorter first."""
        bytes_per_character = 1 if self.facts.kind == "bytes" else 4
        return 3 * bytes_per_character * max(map(len, self.fast.get_vocab(with_added_tokens=True)))

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text."""
        return self.facts.bos_id

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return frozenset(self.facts.eos_ids)

    def encode(self, text: str) -> list[int]:
        """Return the ids of untrusted text. Raises RequestError for a str that is no valid Unicode (lone surrogates)."""
        return self._plain(self.fast, text)

    def encode_trusted(self, text: str) -> list[int]:
        """Return the ids of our own text, in which the names of control tokens stand for these tokens."""
        return self.encode_pieces(self.split_control(text))

    def encode_pieces(self, pieces: Iterable["str | ControlToken"]) -> list[int]:
        """Return the ids of control tokens and the text between them, and HOLE for PICTURE; the text is untrusted."""
        ids: list[int] = []
        for i, piece in enumerate(pieces):
            if isinstance(piece, ControlToken):
                ids.append(HOLE if piece == PICTURE else self.control[piece.name])
            else:
                ids += self._plain(self.fast if i == 0 else self._later, piece)
        return ids

    def encode_prompt(self, text: str) -> list[int]:
        """Return the ids of an untrusted prompt, after the token that begins a text, if the model wants it."""
        begin = [self.facts.bos_id] if self.facts.add_bos and self.facts.bos_id is not None else []
        return begin + self.encode(text)

    def split_control(self, text: str) -> tuple["str | ControlToken", ...]:
        """Split the text at the names of control tokens; the leftmost, then the longest, wins."""
        if not self.control:
            return (text,) if text else ()
        parts = self._control_pattern.split(text)
        return tuple(ControlToken(part) if i % 2 else part for i, part in enumerate(parts) if part)

    def token_bytes(self, token: int) -> bytes:
        """Return the exact bytes of a token; of a control token, its name; of an id without a token, none."""
        name = self.fast.id_to_token(token)
        if name is None:
            return b""
        if token in self._added:
            return name.encode()
        if self.facts.kind == "bytes":
            table = _byte_of_character()
            return b"".join(bytes((table[c],)) if c in table else c.encode() for c in name)
        if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
            return bytes.fromhex(name[3:5])
        return name.replace("▁", " ").encode()

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Return the text of a whole sequence. Bytes that are no UTF-8 become U+FFFD."""
        stream = self.stream(skip_special)
        return "".join(map(stream.feed, ids)) + stream.flush()

    def stream(self, skip_special: bool = True, continues: bool = False) -> "TokenStream":
        """Return a decoder for one token after the other; `continues` keeps the space with which SentencePiece begins."""
        return TokenStream(self, skip_special, self.facts.space_prefix and not continues)

    def files(self) -> dict[str, bytes]:
        """Return the files that `open_tokenizer` reads: the library's and the facts."""
        facts = json.dumps(to_table(self.facts), ensure_ascii=False)
        return {TOKENIZER_FILE: self.fast.to_str(pretty=False).encode(), FACTS_FILE: facts.encode()}

    def save(self, folder: Path) -> None:
        """Write these files. Raises HomeError."""
        for name, data in self.files().items():
            write_atomic(folder / name, data)

    def check_fits(self, config: ModelConfig) -> None:
        """Raise CheckpointError if a token has no row in the embedding."""
        if self.vocab_size > config.vocab_size:
            got = f"{self.vocab_size} tokens"
            raise CheckpointError("tokenizer", f"must fit the embedding's {config.vocab_size} rows", got, "Tokenizer and weights differ.")

    @cached_property
    def _added(self) -> frozenset[int]:
        return frozenset(self.fast.get_added_tokens_decoder())

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        return re.compile("(" + "|".join(map(re.escape, sorted(self.control, key=len, reverse=True))) + ")")

    @cached_property
    def _forbidden(self) -> frozenset[int]:
        """Ids that `encode` must never return, whatever a vocabulary holds. The unknown token is harmless unless it ends an answer."""
        return self.control_ids - ({self.facts.unknown_id} - self.eos_ids - {self.facts.bos_id})

    @cached_property
    def _later(self) -> FastTokenizer:
        """The tokenizer for text after a control token: without the space that some put before the first text only."""
        before = self.fast.pre_tokenizer
        if getattr(before, "prepend_scheme", "") != "first":
            return self.fast
        later = FastTokenizer.from_str(self.fast.to_str())
        later.pre_tokenizer.prepend_scheme = "never"
        later.encode_special_tokens = True
        return later

    def _plain(self, fast: FastTokenizer, text: str) -> list[int]:
        try:
            ids: list[int] = fast.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeEncodeError) as error:
            raise RequestError("text", "must be valid Unicode", "a lone surrogate", "Decode your input as UTF-8.") from error
        except BaseException as error:
            if not is_panic(error):
                raise
            raise RequestError("text", "can't be read by this model's tokenizer", str(error)[:200], "Ask in other words.") from error
        return ids if self._forbidden.isdisjoint(ids) else [i for i in ids if i not in self._forbidden]


@dataclass(frozen=True, slots=True)
class ControlToken:
    """A control token by name, as opposed to text with the same spelling."""

    name: str


PICTURE = ControlToken("")  # the place of a picture in a rendered conversation; no control token has an empty name
HOLE = -1  # the id in the place of PICTURE, until the ids of its vectors stand there


class TokenStream:
    """Turns tokens into whole characters as they come."""

    def __init__(self, tokenizer: Tokenizer, skip_special: bool, strip_space: bool) -> None:
        self._tokenizer, self._skip, self._strip = tokenizer, skip_special, strip_space
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token: int) -> str:
        """Return the characters that this token completes; may be none."""
        if self._skip and token in self._tokenizer.control_ids:
            return ""
        return self._stripped(self._decoder.decode(self._tokenizer.token_bytes(token)))

    def flush(self) -> str:
        """Return the rest at the end: U+FFFD for a character that was never completed."""
        return self._stripped(self._decoder.decode(b"", final=True))

    def _stripped(self, text: str) -> str:
        if self._strip and text:
            self._strip = False
            return text.removeprefix(" ")
        return text


def read_fast(path: Path) -> FastTokenizer:
    """Read the library's tokenizer from its own file. Raises CheckpointError."""
    if not path.exists():
        raise CheckpointError(str(path), "is needed, but missing", "", "A SentencePiece .model alone is not read; convert it.")
    try:
        return FastTokenizer.from_file(str(path))
    except BaseException as error:  # the library raises bare Exception for whatever it can't parse
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        raise CheckpointError(str(path), "must be a tokenizer that the tokenizers library reads", error, "Pull the model again.") from error


def is_panic(error: BaseException) -> bool:
    """Return whether a Rust library panicked: such an error is no Exception."""
    return type(error).__name__ == "PanicException"


def make_facts(fast: FastTokenizer, facts: TokenizerFacts, where: str) -> Tokenizer:
    """Return a tokenizer whose ends include the usual ones, if all its special ids have tokens. Raises CheckpointError."""
    control = {token.content: i for i, token in fast.get_added_tokens_decoder().items() if token.special}
    ends = tuple(dict.fromkeys([*facts.eos_ids, *(control[name] for name in END_TOKENS if name in control)]))
    for name, token in (("bos", facts.bos_id), ("unknown", facts.unknown_id), *(("eos", end) for end in ends)):
        if token is not None and fast.id_to_token(token) is None:
            raise CheckpointError(f"{where}: {name} token", "must be an id of the vocabulary", token)
    values: dict[str, Any] = {**asdict(facts), "eos_ids": ends}
    return Tokenizer(fast, TokenizerFacts(**values))


@cache
def _byte_of_character() -> dict[str, int]:
    """Return GPT-2's alphabet: printable bytes are themselves, the rest are shifted to U+0100 and on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(rest)}


# The tokenizer in a GGUF file's metadata, rebuilt for the `tokenizers` library.
# A GGUF file names its pre-tokenizer (`tokenizer.ggml.pre`); the patterns behind the names are those of the models' own tokenizer.json
# files and of llama.cpp's `llama-vocab.cpp`. SentencePiece vocabularies hold scores instead of merges; the merges follow from them.


_UNKNOWN, _CONTROL, _USER = 2, 3, 4  # llama.cpp's llama_token_type; 1 is a normal token, 5 an unused one, 6 a byte
_LONGEST_PIECE = 1024
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)  # fmt: skip
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN_35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)  # fmt: skip
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_GPT_4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _ENDING
    + r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _ENDING
    + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)  # fmt: skip
_SPLITS: dict[str, tuple[str, ...]] = {
    "gpt-2": (_WORDS,),
    "smollm": (r"\p{N}", _WORDS),
    "llama-bpe": (_LLAMA3,),
    "dbrx": (_LLAMA3,),
    "gpt-4o": (_GPT_4O,),
    "qwen2": (_LLAMA3.replace("{1,3}", ""),),
    "qwen35": (_QWEN_35,),
    "tekken": (_TEKKEN,),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _WORDS, r"\p{N}+", r"[0-9][0-9][0-9]"),
}
_BEGIN = ("llama-bpe", "llama3", "lfm2")  # those before which a token of beginning stands, where a file doesn't say
PRE_TOKENIZERS = tuple(_SPLITS)  # names of the known patterns, each different
_SAME_AS = {
    "gpt2": "gpt-2", "phi-2": "gpt-2", "olmo": "gpt-2", "starcoder": "smollm", "refact": "smollm", "command-r": "smollm",
    "codeshell": "smollm", "llama3": "llama-bpe", "llama-v3": "llama-bpe", "stablelm2": "qwen2", "deepseek-r1-qwen": "qwen2",
    "smaug-bpe": "dbrx", "lfm2": "llama-bpe",
}  # fmt: skip


def tokenizer_from_gguf(metadata: Mapping[str, Any], where: str = "GGUF") -> Tokenizer:
    """Return the tokenizer of a GGUF file. Raises CheckpointError for a vocabulary that is missing, inconsistent or of an unknown kind."""
    fields = Fields(metadata, where)
    tokens = fields.texts("tokenizer.ggml.tokens")
    if not tokens:
        raise CheckpointError(f"{where}: tokenizer.ggml.tokens", "is needed, but missing")
    types = fields.numbers("tokenizer.ggml.token_type")
    kinds = [1] * len(tokens) if types is None else types.tolist()
    if len(kinds) != len(tokens):
        raise CheckpointError(f"{where}: tokenizer.ggml.token_type", f"must have {len(tokens)} entries, as the tokens do", len(kinds))
    model = fields.text("tokenizer.ggml.model")
    if model not in ("gpt2", "llama"):
        raise CheckpointError(f"{where}: tokenizer.ggml.model", "is not a tokenizer that Ingle knows", model, "Known: gpt2, llama.")
    pre = fields.text("tokenizer.ggml.pre", "default")
    begin = _optional_id(fields, "bos", len(tokens))
    ends = [_optional_id(fields, name, len(tokens)) for name in ("eos", "eot", "eom")]
    prefix = model == "llama" and fields.flag("tokenizer.ggml.add_space_prefix", True)
    try:
        fast = _byte_level(fields, tokens, pre) if model == "gpt2" else _pieces(fields, tokens, kinds, prefix)
        fast.add_special_tokens([_added(t, True) for t, kind in zip(tokens, kinds, strict=True) if kind in (_CONTROL, _UNKNOWN) and t])
        fast.add_tokens([_added(t, False) for t, kind in zip(tokens, kinds, strict=True) if kind == _USER and t])
    except CheckpointError:
        raise
    except BaseException as error:  # the library raises bare Exception, e.g. for a merge of tokens that are not there
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        raise CheckpointError(f"{where}: tokenizer.ggml", "must be a consistent vocabulary", error) from error
    facts = TokenizerFacts(
        kind="bytes" if model == "gpt2" else "pieces",
        eos_ids=tuple(end for end in ends if end is not None),
        bos_id=begin,
        add_bos=begin is not None and fields.flag("tokenizer.ggml.add_bos_token", model == "llama" or pre in _BEGIN),
        space_prefix=prefix,
        unknown_id=_optional_id(fields, "unknown", len(tokens)) if model == "llama" else None,
        chat_template=fields.text("tokenizer.chat_template", "") or None,
    )
    return make_facts(fast, facts, where)


def _optional_id(fields: Fields, name: str, count: int) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    if fields.table.get(key) is None:
        return None
    token = fields.whole(key)
    if not 0 <= token < count:
        raise CheckpointError(f"{fields.where}: {key}", f"must be below {count}, the number of tokens", token)
    return token


def _added(text: str, special: bool) -> AddedToken:
    return AddedToken(text, special=special, normalized=False)


def _ids(tokens: list[str]) -> dict[str, int]:
    """Return ids by token; of equal tokens the first counts, as in llama.cpp."""
    return {token: i for i, token in reversed(list(enumerate(tokens)))}


def _byte_level(fields: Fields, tokens: list[str], pre: str) -> FastTokenizer:
    name = _SAME_AS.get(pre, pre)
    if name not in _SPLITS:
        known = ", ".join(sorted({*_SPLITS, *_SAME_AS}))
        raise CheckpointError(f"{fields.where}: tokenizer.ggml.pre", "is not a pre-tokenizer that Ingle knows", pre, f"Known: {known}.")
    merges = []
    for merge in fields.texts("tokenizer.ggml.merges") or []:
        left, space, right = merge.partition(" ")
        if not space:
            raise CheckpointError(f"{fields.where}: tokenizer.ggml.merges", "must hold pairs", repr(merge)[:80])
        merges.append((left, right))
    fast = FastTokenizer(models.BPE(vocab=_ids(tokens), merges=merges, ignore_merges=name in ("llama-bpe", "tekken")))
    if name == "qwen2":
        fast.normalizer = normalizers.NFC()
    splits = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in _SPLITS[name]]
    fast.pre_tokenizer = pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    fast.decoder = decoders.ByteLevel()
    return fast


def _pieces(fields: Fields, tokens: list[str], kinds: list[int], prefix: bool) -> FastTokenizer:
    """Return SentencePiece BPE, with a space before each stretch of text if `prefix`, as in llama.cpp and Llama 2's tokenizer.json."""
    scores = fields.numbers("tokenizer.ggml.scores")
    if scores is None or len(scores) != len(tokens):
        got = "nothing" if scores is None else len(scores)
        raise CheckpointError(f"{fields.where}: tokenizer.ggml.scores", f"must have {len(tokens)} entries, as the tokens do", got)
    unknown = next((token for token, kind in zip(tokens, kinds, strict=True) if kind == _UNKNOWN), None)
    normal = {token: float(score) for token, kind, score in zip(tokens, kinds, scores, strict=True) if kind == 1}
    merges = _merges_from_scores(normal, _ids(tokens))
    fast = FastTokenizer(models.BPE(vocab=_ids(tokens), merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    steps: list[Any] = [normalizers.Prepend("▁")] if prefix else []
    fast.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    ending = [decoders.Strip(" ", 1, 0)] if prefix else []
    fast.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *ending])
    return fast


def _merges_from_scores(normal: dict[str, float], ids: dict[str, int]) -> list[tuple[str, str]]:
    """Return every pair of pieces that makes a third, best score first; ties by the ids of the halves, as transformers does."""
    ways, longest = [], max(map(len, normal), default=0)
    if longest > _LONGEST_PIECE:
        raise CheckpointError("tokenizer.ggml.tokens", f"must have at most {_LONGEST_PIECE} characters each", longest)
    for piece, score in normal.items():
        halves = [(piece[:at], piece[at:]) for at in range(1, len(piece)) if piece[:at] in normal and piece[at:] in normal]
        ways += [(-score, ids[piece], ids[left], ids[right], left, right) for left, right in halves]
    return [(left, right) for *_, left, right in sorted(ways)]


# The tokenizer of a Hugging Face folder: tokenizer.json, and the files beside it about begin, end and chat template.


def open_tokenizer(folder: Path) -> Tokenizer:
    """Open the tokenizer that `Tokenizer.save` wrote, or that of a Hugging Face folder. Raises CheckpointError."""
    if not (folder / FACTS_FILE).exists():
        return tokenizer_from_folder(folder)
    table = read_json(folder / FACTS_FILE)
    try:
        facts = from_table(TokenizerFacts, table)
    except ConfigError as error:
        raise CheckpointError(f"{folder / FACTS_FILE}: {error.field}", error.rule, error.got, "Pull the model again.") from error
    return Tokenizer(read_fast(folder / TOKENIZER_FILE), facts)


def tokenizer_from_folder(folder: Path) -> Tokenizer:
    """Read tokenizer.json, tokenizer_config.json, generation_config.json, config.json and chat_template.jinja.

    Raises CheckpointError for a missing or damaged file, and for tokenizers that are neither byte-level nor SentencePiece-style BPE.
    """
    where = str(folder / TOKENIZER_FILE)
    fast = read_fast(folder / TOKENIZER_FILE)
    fast.no_truncation()
    fast.no_padding()
    described = read_json(folder / TOKENIZER_FILE)
    settings = _optional(folder / "tokenizer_config.json")
    facts = TokenizerFacts(
        kind=_kind(described, where),
        eos_ids=_ends(folder, fast, settings),
        bos_id=_id_of(fast, settings.table.get("bos_token")),
        add_bos=_adds_bos(fast, settings),
        space_prefix=_finds(described.get("decoder"), "type", "Strip") or _finds(described.get("decoder"), "type", "Metaspace"),
        unknown_id=_id_of(fast, Fields(described, where).table_of("model").get("unk_token")),
        chat_template=_chat_template(folder, settings),
    )
    return make_facts(fast, facts, where)


def _optional(path: Path) -> Fields:
    return Fields(read_json(path) if path.exists() else {}, str(path))


def _kind(described: dict[str, Any], where: str) -> Literal["bytes", "pieces"]:
    decoder = described.get("decoder")
    model = Fields(described, where).table_of("model").get("type")
    if model == "BPE" and _finds(decoder, "type", "ByteLevel"):
        return "bytes"
    if model == "BPE" and (_finds(decoder, "type", "ByteFallback") or _finds(decoder, "type", "Metaspace")):
        return "pieces"
    raise CheckpointError(where, "must be byte-level BPE or SentencePiece-style BPE", f"{model} with decoder {json.dumps(decoder)[:80]}")


def _finds(value: Any, key: str, wanted: str) -> bool:
    """Return whether `key` is `wanted` somewhere in nested tables and lists."""
    if isinstance(value, dict):
        return value.get(key) == wanted or any(_finds(item, key, wanted) for item in value.values())
    return isinstance(value, list) and any(_finds(item, key, wanted) for item in value)


def _id_of(fast: FastTokenizer, token: Any) -> int | None:
    """Return the id of a token that is given by name, plainly or as the table of an added token."""
    name = token.get("content") if isinstance(token, dict) else token
    id_: int | None = fast.token_to_id(name) if isinstance(name, str) else None
    return id_


def _ends(folder: Path, fast: FastTokenizer, settings: Fields) -> tuple[int, ...]:
    ends = [_id_of(fast, settings.table.get("eos_token"))]
    for name in ("generation_config.json", "config.json"):
        value = _optional(folder / name).table.get("eos_token_id")
        items = value if isinstance(value, list) else [value]
        if any(item is not None and (isinstance(item, bool) or not isinstance(item, int) or not 0 <= item < 2**32) for item in items):
            raise CheckpointError(f"{folder / name}: eos_token_id", "must be a token id or a list of them", repr(value)[:80])
        ends += [item for item in items if item is not None and fast.id_to_token(item) is not None]
    return tuple(dict.fromkeys(end for end in ends if end is not None))


def _adds_bos(fast: FastTokenizer, settings: Fields) -> bool:
    """Return whether a text begins with `bos`. The post-processor decides, because the model was trained with it; the flag is for files
    without one."""
    begin = _id_of(fast, settings.table.get("bos_token"))
    if begin is None:
        return False
    try:
        with_special, without = (fast.encode("a", add_special_tokens=special).ids for special in (True, False))
    except BaseException as error:  # a post-processor may name what the vocabulary lacks
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        raise CheckpointError(settings.where, "must go with a tokenizer that reads a text", error) from error
    if len(with_special) > len(without):
        return bool(with_special[0] == begin)
    return settings.flag("add_bos_token", False)


def _chat_template(folder: Path, settings: Fields) -> str | None:
    file = folder / "chat_template.jinja"
    if file.exists():
        try:
            return file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(str(file), "must be readable UTF-8", error) from error
    beside = _optional(folder / "chat_template.json").table.get("chat_template")  # of models that see; it goes before the tokenizer's own
    value = settings.table.get("chat_template") if beside is None else beside
    if isinstance(value, list):  # several, by name
        named = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
        value = named.get("default", next(iter(named.values()), None))
    if value is not None and not isinstance(value, str):
        raise CheckpointError(f"{settings.where}: chat_template", "must be a string, or a list of named ones", repr(value)[:80])
    return value
