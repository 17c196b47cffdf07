"""Answers that can't leave a language: after every token, the library llguidance says which tokens may come next.

How: a `Constraint` becomes a grammar, the grammar and the vocabulary become a matcher, and the matcher gives one bit per token.
The vocabulary is told in the exact bytes that our tokenizer decodes to, so what is constrained is what is read. Control tokens have
no bytes: no grammar can ask for one, and those that end an answer are allowed exactly where the text may end.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
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

T = TypeVar("T")
_FIELDS = {"json_schema": "response_format", "json_object": "response_format", "lark": "grammar", "regex": "grammar"}
_NOUNS = {"json_schema": "a JSON schema", "json_object": "a JSON schema", "lark": "a Lark grammar", "regex": "a regular expression"}
_MOST_BYTES = {"json_schema": 64 << 10, "json_object": 64 << 10, "lark": 256 << 10, "regex": 64 << 10}
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
"""How JSON is spelled, in llguidance's words."""
_LIMITS = {
    "initial_lexer_fuel": 1_000_000,  # 20 ms
    "step_lexer_fuel": 50_000,  # 5 ms of work for one token
    "step_max_items": 50_000,
    "max_items_in_row": 2_000,
    "max_lexer_states": 50_000,  # 1 to 2 kB each
    "max_grammar_size": 300_000,
}
_PENALTIES = np.where(np.arange(256)[:, None] >> np.arange(8) & 1, np.float32(0), np.float32(-np.inf))
"""What a byte of a mask adds to eight logits [256, 8]."""
_STACK_BYTES = 512 << 20  # of address space, not memory; see `_on_deep_stack`
_stack_lock = threading.Lock()


@dataclass(frozen=True, eq=False, slots=True)
class Vocabulary:
    """A model's tokens as llguidance wants them. Takes 0.2 s and 10 MB for 49,000 tokens, so it is built once for each model."""

    tokens: "LLTokenizer"
    size: int
    """Columns of the logits."""
    text: npt.NDArray[np.uint8]
    """One bit per column, lowest first: the tokens that stand for text."""
    text_or_end: npt.NDArray[np.uint8]
    """These and the tokens that end an answer."""
    naming: re.Pattern[str]
    """Finds tokens that a Lark grammar asks for by number or name."""


def grammar_of(tokenizer: Tokenizer, vocab_size: int) -> Vocabulary:
    """The vocabulary of a model whose logits have `vocab_size` columns. Columns without a token are never allowed.

    Raises RequestError for a model without a token that ends an answer.
    """
    from llguidance import LLTokenizer, TokenizerWrapper

    ends = sorted(tokenizer.eos_ids)
    if not ends:
        raise RequestError("response_format", "needs a model with a token that ends an answer", "a model without one")
    words = [b"" if token in tokenizer.control_ids else tokenizer.token_bytes(token) for token in range(vocab_size)]
    for token in ends:
        words[token] = b""
    text = np.array([bool(word) for word in words])
    end = np.isin(np.arange(vocab_size), ends)
    spelling = _Spelling(tokenizer, ends, [b"\xff" + tokenizer.token_bytes(i) if end[i] else word for i, word in enumerate(words)])
    tokens = LLTokenizer(TokenizerWrapper(spelling), eos_token=ends)
    spelling.greedy = tokens.greedy_tokenize
    names = (re.escape(tokenizer.token_bytes(token).decode(errors="replace")) for token in ends)
    return Vocabulary(tokens, vocab_size, _packed(text), _packed(text | end), re.compile("|".join([r"<\[", *names])))


class Grammar:
    """Where one answer stands in its language. Used by one thread at a time."""

    def __init__(self, vocabulary: Vocabulary, constraint: Constraint, field: str = "") -> None:
        """Compiles: 1 to 10 ms, a few hundred for the largest. `field` is named by errors, else the request's own.

        Raises RequestError for a constraint that is no language, can't be enforced in every part, or is too large or complex.
        """
        self._vocabulary, self._constraint = vocabulary, constraint
        self._field = field or _FIELDS[constraint.kind]
        source = _source(constraint, self._field)
        self._matcher, warnings = _on_deep_stack(lambda: _compile(vocabulary, source), self._field)
        self._begin()
        self._matcher.compute_bitmask()
        rule = f"must be {_NOUNS[constraint.kind]} that answers can be held to"
        self._check(rule)
        if warnings:  # of what the library would leave out
            raise RequestError(self._field, rule, _short(warnings[0]))

    def fork(self) -> "Grammar":
        """Another answer that stands where this one does. Cheaper than compiling again."""
        twin = object.__new__(Grammar)
        twin._vocabulary, twin._constraint, twin._field = self._vocabulary, self._constraint, self._field
        twin._matcher = self._matcher.deep_copy()
        twin._begin()
        return twin

    @property
    def finished(self) -> bool:
        """Whether nothing more may come: the text is complete and can't go on, or a token that ends answers was taken."""
        return self._matcher.is_stopped()

    def allow(self, logits: npt.NDArray[np.float32]) -> None:
        """Sets the logits [vocabulary] of tokens that may not come next to −∞, in place.

        Raises RequestError if no token is left, or the grammar turns out to be too complex.
        """
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        self._check("must not be this complex")
        if self._names_tokens:
            self._mask &= self._vocabulary.text_or_end if self._may_end() else self._vocabulary.text
            if not self._mask.any():
                raise RequestError(self._field, "must ask for text only", "a control token")
        np.take(_PENALTIES, self._mask, axis=0, out=self._penalties, mode="clip")  # a third of the time of unpacking the bits
        logits += self._penalties.reshape(-1)[: self._vocabulary.size]

    def take(self, token: int) -> None:
        """Goes on by a token. Raises RequestError if it was not allowed, or the grammar turns out to be too complex."""
        known = self._vocabulary.text_or_end if self._may_end() else self._vocabulary.text
        if not 0 <= token < self._vocabulary.size or not known[token >> 3] >> (token & 7) & 1:
            raise RequestError(self._field, "allows no such token here", token)
        self._matcher.consume_token(token)
        self._check("allows no such text, or is too complex")

    def _begin(self) -> None:
        self._mask = np.zeros_like(self._vocabulary.text)
        self._penalties = np.zeros((len(self._mask), 8), np.float32)
        self._names_tokens = self._constraint.kind == "lark" and bool(self._vocabulary.naming.search(self._constraint.source))

    def _may_end(self) -> bool:
        return self._matcher.is_stopped() or self._matcher.is_accepting()

    def _check(self, rule: str) -> None:
        if self._matcher.is_error():
            raise RequestError(self._field, rule, _short(self._matcher.get_error()))


def check_constraint(constraint: Constraint, field: str = "", lenient: bool = False) -> None:
    """Raises RequestError like `Grammar`, without a model. `lenient` leaves out what can't be enforced, as where nothing will be."""
    field = field or _FIELDS[constraint.kind]
    fault = _fault(_source(constraint, field, lenient), field)
    if fault and not (lenient and fault.startswith("WARNING")):
        raise RequestError(field, f"must be {_NOUNS[constraint.kind]} that answers can be held to", fault)


@lru_cache(64)
def _fault(source: str, field: str) -> str:
    """What is wrong with a grammar; empty if nothing is. Remembered, because clients send the same with every request."""
    from llguidance import LLMatcher

    def validate() -> tuple[bool, list[str]]:
        return LLMatcher.validate_grammar_with_warnings(source, None, limits=_limits())

    bad, messages = _on_deep_stack(validate, field)
    return ("" if bad else "WARNING: ") + _short(messages[0]) if messages else ""


class _Spelling:
    """A tokenizer by the names that llguidance asks for."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, ends: list[int], tokens: list[bytes]) -> None:
        self.eos_token_id, self.special_token_ids, self.tokens = ends[0], ends, tokens
        self._tokenizer = tokenizer
        self._spelled: dict[bytes, list[int]] = {}
        self.greedy: Callable[[str], list[int]] = lambda _text: []

    def __call__(self, utf8: bytes) -> list[int]:
        """How the model would spell a text that the grammar forces, or its first 1,000 bytes: only the next token is ever used.

        The ids stand for exactly this text. Raises nothing, since the library would take the process down with it.
        """
        found = self._spelled.get(utf8)
        if found is None:
            text = utf8[:1000].decode(errors="ignore")
            found = self._exact(text) or self.greedy(text)
            if len(self._spelled) > 4000:
                self._spelled.clear()
            rest = utf8[:1000]
            for i, token in enumerate(found):  # after each token, the library asks for it and the rest
                self._spelled[rest] = found[i:]
                rest = rest[len(self._tokenizer.token_bytes(token)) :]
        return found

    def _exact(self, text: str) -> list[int]:
        for before in ("", "\n"):  # some put a space before a text, but not after the end of a line
            ids = self._tokenizer.encode(before + text)
            parts = [self._tokenizer.token_bytes(i) for i in ids]
            for cut in range(min(3, len(ids))):
                if b"".join(parts[cut:]) == text.encode():
                    return ids[cut:]
        return []


def _packed(bits: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Bits, lowest first, in whole words of 32."""
    return np.packbits(np.pad(bits, (0, -len(bits) % 32)), bitorder="little")


def _source(constraint: Constraint, field: str, lenient: bool = False) -> str:
    """The grammar as llguidance takes it. Raises RequestError for what is too long, or is no schema to begin with."""
    from llguidance import LLMatcher

    most = _MOST_BYTES[constraint.kind]
    size = len(constraint.source.encode(errors="replace"))
    if size > most:
        raise RequestError(field, f"must be at most {most:,} bytes", f"{size:,} bytes")
    if constraint.kind == "lark":
        return LLMatcher.grammar_from_lark(constraint.source)
    if constraint.kind == "regex":
        return LLMatcher.grammar_from_regex(constraint.source)
    schema = {"type": "object"} if constraint.kind == "json_object" else _schema(constraint.source, field)
    try:
        options: JsonCompileOptions = {**JSON_OPTIONS, "lenient": lenient}
        return LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=options)
    except ValueError as error:
        raise RequestError(field, "must be a JSON schema", _short(str(error))) from error


def _schema(text: str, field: str) -> dict[str, Any]:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(field, "must be a JSON schema", _short(str(error))) from error
    if not isinstance(schema, dict):
        raise RequestError(field, "must be a JSON schema that is a table", _short(text))
    if "x-guidance" in schema:
        raise RequestError(field, "must be a JSON schema without settings for the library that enforces it", "x-guidance")
    for table in _tables(schema):
        # Keys of one's own may come twice, and count as one for whoever reads them.
        least, required = table.get("minProperties"), table.get("required", [])
        if isinstance(least, int) and least > 1 and isinstance(required, list) and least > len(required):
            raise RequestError(field, "can't ask for a number of keys that it doesn't name", f"minProperties: {least}")
    return schema


def _tables(value: Any) -> Iterator[dict[str, Any]]:
    """All tables in a schema but those in its examples, in no order."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield value
            left += [item for key, item in value.items() if key not in ("enum", "const", "default", "examples")]
        elif isinstance(value, list):
            left += value


def _compile(vocabulary: Vocabulary, source: str) -> "tuple[LLMatcher, list[str]]":
    from llguidance import LLMatcher

    matcher = LLMatcher(vocabulary.tokens, source, log_level=0, limits=_limits())
    return matcher, matcher.get_grammar_warnings()


def _limits() -> "LLParserLimits":
    from llguidance import LLParserLimits

    return LLParserLimits(**_LIMITS, verbose_errors=False)  # type: ignore[arg-type]


def _on_deep_stack(work: Callable[[], T], field: str) -> T:
    """What `work` returns, done by a thread with room for deep recursion.

    The library goes down a chain of rules or schemas by recursion, about 5 kB a link, and a stack that is too small kills the process.
    Only the compiler does; a compiled grammar may be used anywhere. Raises Busy if the system has no room for the thread.
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
        raise RequestError(field, "must be a grammar that the library can read", _short(str(faults[0]))) from faults[0]
    return results[0]


def _short(message: str) -> str:
    """The one line of a library's message that says what is wrong."""
    if message.startswith("NoExtension"):
        return "no text fits it"
    lines = [line.strip() for line in message.splitlines() if line.strip()] or [""]
    said = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0])
    return said if len(said) <= 200 else f"{said[:199]}…"
