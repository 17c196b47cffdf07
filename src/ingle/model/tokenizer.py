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

from tokenizers import Tokenizer as FastTokenizer

from ingle.core.config import to_table
from ingle.core.errors import CheckpointError, RequestError
from ingle.core.files import write_atomic
from ingle.core.spec import ModelConfig

TOKENIZER_FILE = "tokenizer.json"
FACTS_FILE = "tokenizer_facts.json"
# Where a model names only one end, these end an answer too if it has them as control tokens.
END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "</s>")


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """Facts that `tokenizer.json` lacks, or holds in a form that is slow to read."""

    kind: Literal["bytes", "pieces"]
    """`bytes`: byte-level BPE (GPT-2's alphabet); `pieces`: SentencePiece-style, ▁ for a space, <0xAB> for a byte."""
    eos_ids: tuple[int, ...]
    """Tokens that end an answer; the first is the templates' `eos_token`."""
    bos_id: int | None = None
    """The token that begins a text."""
    add_bos: bool = False
    """Whether a plain prompt begins with `bos_id`. A chat template writes its own."""
    space_prefix: bool = False
    """`pieces`: a text is encoded with a space before it, which decoding takes away again."""
    unknown_id: int | None = None
    """The token for unknown characters; None = they are spelled in bytes, or left out."""
    chat_template: str | None = None
    """Jinja source."""


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


PICTURE = ControlToken("")
"""The place of a picture in a rendered conversation; no control token has an empty name."""
HOLE = -1
"""The id in the place of PICTURE, until the ids of its vectors stand there."""


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
