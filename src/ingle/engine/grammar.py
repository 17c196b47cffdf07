"""Constrained decoding: after every token, the library llguidance says which tokens may come next.

A `Constraint` becomes a grammar, the grammar and the vocabulary become a matcher, and the matcher gives one bit per token. llguidance gets
the exact bytes that our tokenizer decodes to. Control tokens have no bytes, so no grammar can ask for one; those that end an answer are
allowed exactly where the text may end.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from ingle.core.errors import Busy, RequestError
from ingle.core.message import Constraint
from ingle.model.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer
    from llguidance._lib import JsonCompileOptions

# Constraints on answers, checked and limited for the library llguidance: hostile ones cost little and crash nothing.


T = TypeVar("T")
FIELDS = {"json_schema": "response_format", "json_object": "response_format", "lark": "grammar", "regex": "grammar"}
NOUNS = {"json_schema": "a JSON schema", "json_object": "a JSON schema", "lark": "a Lark grammar", "regex": "a regular expression"}
_MOST_BYTES = {"json_schema": 64 << 10, "json_object": 64 << 10, "lark": 256 << 10, "regex": 64 << 10}
# Our JSON spelling, as options of llguidance.
JSON_OPTIONS: "JsonCompileOptions" = {
    # Small models fill free whitespace without end. One space is what they learnt to write after ',' and ':'; no other is needed.
    "item_separator": ", ?",
    "key_separator": ": ?",
    "whitespace_flexible": False,
    # Without \uXXXX every key has one spelling. With it, a free key could be a named one in disguise, and escape its schema.
    "json_allowed_escapes": 'nrbtf\\"',
    "lenient": False,
    "coerce_one_of": False,
}
_LIMITS = {
    "initial_lexer_fuel": 1_000_000,  # 20 ms
    "step_lexer_fuel": 50_000,  # 5 ms of work for one token
    "step_max_items": 50_000,
    "max_items_in_row": 2_000,
    "max_lexer_states": 50_000,  # 1 to 2 kB each
    "max_grammar_size": 300_000,
}
_STACK_BYTES = 512 << 20  # of address space, not memory; see `on_deep_stack`
_stack_lock = threading.Lock()


def check_constraint(constraint: Constraint, field: str = "", lenient: bool = False) -> None:
    """Raise RequestError as `Grammar` does, but without a model. `lenient` ignores parts that can't be enforced."""
    field = field or FIELDS[constraint.kind]
    fault = _fault(grammar_source(constraint, field, lenient), field)
    if fault and not (lenient and fault.startswith("WARNING")):
        raise RequestError(field, f"must be {NOUNS[constraint.kind]} that can be enforced", fault)


@lru_cache(64)
def _fault(source: str, field: str) -> str:
    """Return what is wrong with a grammar; empty if nothing is. Cached, because clients send the same one with every request."""
    from llguidance import LLMatcher

    def validate() -> tuple[bool, list[str]]:
        return LLMatcher.validate_grammar_with_warnings(source, None, limits=parser_limits())

    bad, messages = on_deep_stack(validate, field)
    return ("" if bad else "WARNING: ") + one_line(messages[0]) if messages else ""


def holds_json(constraint: Constraint) -> bool:
    """Return whether answers to it are JSON, or calls with JSON in them."""
    return constraint.kind in ("json_schema", "json_object") or (constraint.kind == "lark" and "%json" in constraint.source)


def grammar_source(constraint: Constraint, field: str, lenient: bool = False) -> str:
    """Return the grammar for llguidance. Raises RequestError for one that is too long or no schema at all."""
    from llguidance import LLMatcher

    most = _MOST_BYTES[constraint.kind]
    try:
        size = len(constraint.source.encode())
    except UnicodeEncodeError as error:
        raise RequestError(field, "must be valid Unicode", "a lone surrogate") from error
    if size > most:
        raise RequestError(field, f"must be at most {most:,} bytes", f"{size:,} bytes")
    if constraint.kind == "lark":
        return LLMatcher.grammar_from_lark(constraint.source)
    if constraint.kind == "regex":
        return LLMatcher.grammar_from_regex(constraint.source)
    schema = {"type": "object"} if constraint.kind == "json_object" else _schema(constraint.source, field, lenient)
    try:
        options: JsonCompileOptions = {**JSON_OPTIONS, "lenient": lenient}
        return LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=options)
    except ValueError as error:
        raise RequestError(field, "must be a JSON schema", one_line(str(error))) from error


def _schema(text: str, field: str, lenient: bool) -> dict[str, Any]:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(field, "must be a JSON schema", one_line(str(error))) from error
    if not isinstance(schema, dict):
        raise RequestError(field, "must be a JSON schema that is a table", one_line(text))
    if "x-guidance" in schema:
        raise RequestError(field, "must be a JSON schema without settings for the library that enforces it", "x-guidance")
    for table in () if lenient else _tables(schema):
        # Keys of one's own may come twice, and count as one for whoever reads them.
        least, required = table.get("minProperties"), table.get("required", [])
        if isinstance(least, int) and least > 1 and isinstance(required, list) and least > len(required):
            raise RequestError(field, "must not require more keys than it names", f"minProperties: {least}")
    return schema


def _tables(value: Any) -> Iterator[dict[str, Any]]:
    """Yield all tables in a schema except those in its examples, in no order."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield value
            left += [item for key, item in value.items() if key not in ("enum", "const", "default", "examples")]
        elif isinstance(value, list):
            left += value


def parser_limits() -> "LLParserLimits":
    """Return the limits of what a grammar may cost."""
    from llguidance import LLParserLimits

    return LLParserLimits(**_LIMITS, verbose_errors=False)  # type: ignore[arg-type]


def on_deep_stack(work: Callable[[], T], field: str) -> T:
    """Run `work` in a thread with room for deep recursion, and return its result.

    The compiler recurses along a chain of rules or schemas, about 5 kB a link, and a small stack would crash the process. A compiled
    grammar may be used anywhere. Raises Busy if the system has no room for the thread.
    """
    results: list[T] = []
    faults: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as fault:  # panics of the library are no Exceptions
            faults.append(fault)

    thread = threading.Thread(target=run, name="grammar")
    with _stack_lock:
        before = threading.stack_size(_STACK_BYTES)
        try:
            thread.start()
        except RuntimeError as error:
            raise Busy(field, "can't be read for lack of memory", error) from error
        finally:
            threading.stack_size(before)
    thread.join()
    if faults:
        raise RequestError(field, "must be a grammar that the library can read", one_line(str(faults[0]))) from faults[0]
    return results[0]


def one_line(message: str) -> str:
    """Return the line of a library's message that says what is wrong."""
    if message.startswith("NoExtension"):
        return "no text fits it"
    lines = [line.strip() for line in message.splitlines() if line.strip()] or [""]
    reason = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0])
    return reason if len(reason) <= 200 else f"{reason[:199]}…"


MOST_DIGITS = 19  # most digits in a row in a JSON number: as many as 64 bits hold
# float32 [256, 8]: each byte of a mask adds its row to eight logits.
_PENALTIES = np.where(np.arange(256)[:, None] >> np.arange(8) & 1, np.float32(0), np.float32(-np.inf))


@dataclass(frozen=True, eq=False, slots=True)
class Vocabulary:
    """A model's tokens for llguidance. Building one takes 0.2 s and 10 MB for 49,000 tokens, so each model has one."""

    tokens: "LLTokenizer"
    size: int  # columns of the logits
    text: npt.NDArray[np.uint8]  # one bit per column, lowest first: the text tokens
    text_or_end: npt.NDArray[np.uint8]  # the text tokens and those that end an answer
    digits: npt.NDArray[np.uint8]  # the tokens that begin with a digit
    naming: re.Pattern[str]  # matches tokens that a Lark grammar names by number or name


def grammar_of(tokenizer: Tokenizer, vocab_size: int) -> Vocabulary:
    """Return the vocabulary of a model whose logits have `vocab_size` columns. Columns without a token are never allowed.

    Raises RequestError for a model without a token that ends an answer.
    """
    from llguidance import LLTokenizer, TokenizerWrapper

    ends = sorted(tokenizer.eos_ids)
    if not ends:
        raise RequestError("response_format", "needs a model with a token that ends an answer", "a model without one")
    mute = tokenizer.control_ids | tokenizer.eos_ids
    words = [b"" if token in mute else tokenizer.token_bytes(token) for token in range(vocab_size)]
    text, end = np.array([bool(word) for word in words]), np.isin(np.arange(vocab_size), ends)
    digits = np.array([word[:1].isdigit() for word in words])
    for token in ends:
        words[token] = b"\xff" + tokenizer.token_bytes(token)  # so the library marks what is no text
    spelling = _Spelling(tokenizer, ends, words)
    tokens = LLTokenizer(TokenizerWrapper(spelling), eos_token=ends)
    spelling.greedy = tokens.greedy_tokenize
    names = (re.escape(tokenizer.token_bytes(token).decode(errors="replace")) for token in ends)
    return Vocabulary(tokens, vocab_size, _packed(text), _packed(text | end), _packed(digits), re.compile("|".join([r"<\[", *names])))


class Grammar:
    """The position of one answer in its language. For one thread at a time."""

    def __init__(self, vocabulary: Vocabulary, constraint: Constraint, field: str = "") -> None:
        """Compile the constraint: 1 to 10 ms, a few hundred for the largest. `field` is for errors (default: the request's own).

        Raises RequestError for a constraint that is no language, can't be enforced in every part, or is too large or complex.
        """
        self._vocabulary, self._constraint = vocabulary, constraint
        self._field = field or FIELDS[constraint.kind]
        source = grammar_source(constraint, self._field)
        self._matcher, warnings = on_deep_stack(lambda: _compile(vocabulary, source), self._field)
        self._begin()
        self._matcher.compute_bitmask()
        rule = f"must be {NOUNS[constraint.kind]} that can be enforced"
        self._check(rule)
        if warnings:  # of what the library would leave out
            raise RequestError(self._field, rule, one_line(warnings[0]))

    def fork(self) -> "Grammar":
        """Return a grammar for another answer at the same position. Cheaper than compiling again."""
        other = object.__new__(Grammar)
        other._vocabulary, other._constraint, other._field = self._vocabulary, self._constraint, self._field
        other._matcher = self._matcher.deep_copy()
        other._begin()
        other._numbers = copy(self._numbers)
        return other

    @property
    def finished(self) -> bool:
        """Whether nothing more may come: the text is complete and can't go on, or an end token was taken."""
        return self._matcher.is_stopped()

    def allow(self, logits: npt.NDArray[np.float32]) -> None:
        """Set the logits [vocabulary] of tokens that may not come next to −∞, in place.

        Raises RequestError if no token is left, or the grammar turns out to be too complex.
        """
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        self._check("is too complex")
        if self._names_tokens:
            self._mask &= self._vocabulary.text_or_end if self._may_end() else self._vocabulary.text
            if not self._mask.any():
                raise RequestError(self._field, "must ask for text only", "a control token")
        if self._numbers and self._numbers.full and (self._mask & ~self._vocabulary.digits).any():
            self._mask &= ~self._vocabulary.digits
        np.take(_PENALTIES, self._mask, axis=0, out=self._penalties, mode="clip")  # a third of the time of unpacking the bits
        logits += self._penalties.reshape(-1)[: self._vocabulary.size]

    def take(self, token: int) -> None:
        """Advance by one token. Raises RequestError if it was not allowed, or the grammar turns out to be too complex."""
        allowed = self._vocabulary.text_or_end if self._may_end() else self._vocabulary.text
        if not 0 <= token < self._vocabulary.size or not allowed[token >> 3] >> (token & 7) & 1:
            raise RequestError(self._field, "allows no such token here", token)
        self._matcher.consume_token(token)
        if self._numbers:
            self._numbers.take(self._vocabulary.tokens.decode_bytes([token]))
        self._check("allows no such text, or is too complex")

    def _begin(self) -> None:
        self._mask = np.zeros_like(self._vocabulary.text)
        self._penalties = np.zeros((len(self._mask), 8), np.float32)
        self._numbers = _Numbers() if holds_json(self._constraint) else None
        self._names_tokens = self._constraint.kind == "lark" and bool(self._vocabulary.naming.search(self._constraint.source))

    def _may_end(self) -> bool:
        return self._matcher.is_stopped() or self._matcher.is_accepting()

    def _check(self, rule: str) -> None:
        if self._matcher.is_error():
            raise RequestError(self._field, rule, one_line(self._matcher.get_error()))


class _Numbers:
    """Counts the digits of the current JSON number. Small models write digits without end, and their schemas don't forbid it."""

    def __init__(self) -> None:
        self._digits, self._in_string, self._escaped = 0, False, False

    @property
    def full(self) -> bool:
        """Whether no further digit should follow."""
        return self._digits >= MOST_DIGITS

    def take(self, text: bytes) -> None:
        """Advance by one token's bytes."""
        for byte in text:
            self._digits = self._digits + 1 if not self._in_string and 0x30 <= byte <= 0x39 else 0
            if self._in_string and (self._escaped or byte == 0x5C):
                self._escaped = not self._escaped
            elif byte == 0x22:
                self._in_string = not self._in_string


class _Spelling:
    """A tokenizer with llguidance's method names."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, ends: list[int], tokens: list[bytes]) -> None:
        self.eos_token_id, self.special_token_ids, self.tokens = ends[0], ends, tokens
        self._tokenizer = tokenizer
        self._spelled: dict[bytes, list[int]] = {}
        self.greedy: Callable[[str], list[int]] = lambda _text: []

    def __call__(self, utf8: bytes) -> list[int]:
        """Tokenize a forced text (at most its first 1,000 bytes: only the next token is used) as the model would spell it.

        The ids stand for exactly this text. It must not raise, because the library would crash the process.
        """
        tokens = self._spelled.get(utf8)
        if tokens is None:
            text = utf8[:1000].decode(errors="ignore")
            tokens = self._exact(text) or self.greedy(text)
            if len(self._spelled) > 4000:
                self._spelled.clear()
            rest = utf8[:1000]
            for i, token in enumerate(tokens):  # after each token, the library asks for it and the rest
                self._spelled[rest] = tokens[i:]
                rest = rest[len(self._tokenizer.token_bytes(token)) :]
        return tokens

    def _exact(self, text: str) -> list[int]:
        for before in ("", "\n"):  # some put a space before a text, but not after the end of a line
            ids = self._tokenizer.encode(before + text)
            parts = [self._tokenizer.token_bytes(i) for i in ids]
            for cut in range(min(3, len(ids))):
                if b"".join(parts[cut:]) == text.encode():
                    return ids[cut:]
        return []


def _packed(bits: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Pack bits, lowest first, padded to whole words of 32."""
    return np.packbits(np.pad(bits, (0, -len(bits) % 32)), bitorder="little")


def _compile(vocabulary: Vocabulary, source: str) -> "tuple[LLMatcher, list[str]]":
    from llguidance import LLMatcher

    matcher = LLMatcher(vocabulary.tokens, source, log_level=0, limits=parser_limits())
    return matcher, matcher.get_grammar_warnings()
