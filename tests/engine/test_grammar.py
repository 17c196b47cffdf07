"""Constrained answers: whatever is drawn from the allowed tokens belongs to the language, and hostile languages are refused quickly."""

import ast
import itertools
import json
import re
import threading
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import numpy.typing as npt
import pytest

from ingle.core.errors import RequestError
from ingle.core.message import Constraint, Sampling
from ingle.engine.grammar import Grammar, Vocabulary, check_constraint, grammar_of
from ingle.engine.sampling import Sampler
from ingle.model.checkpoint import open_checkpoint
from ingle.model.tokenizer import Tokenizer, TokenizerFacts, make_facts, tokenizer_from_gguf
from tests.limited import each_within_cpu
from tests.model.tiny_tokenizers import byte_level, pieces

EXTRA = 70  # columns of the logits without a token
POINT = {
    "type": "object",
    "properties": {"x": {"type": "number", "minimum": -1.5, "exclusiveMaximum": 2}, "y": {"const": {"a": [1]}}},
    "required": ["x", "y"], "additionalProperties": False,
}  # fmt: skip
NODE = {
    "type": "object",
    "properties": {"v": {"type": "integer", "multipleOf": 3}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
    "required": ["v", "next"], "additionalProperties": False,
}  # fmt: skip
SCHEMAS: dict[str, dict[str, Any]] = {
    "flat": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "mood": {"enum": ["good", "bad", None, 3]}, "sure": {"type": "boolean"},
        },
        "required": ["name", "age", "mood"], "additionalProperties": False,
    },
    "nested": {
        "type": "object",
        "properties": {
            "at": POINT, "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{1,3}$"}, "minItems": 1, "maxItems": 4},
        },
        "required": ["at", "tags"], "additionalProperties": False,
    },
    "tree": {"$defs": {"node": NODE}, "$ref": "#/$defs/node"},
    "choice": {
        "anyOf": [
            {"type": "string", "minLength": 2, "maxLength": 3},
            {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "null"}], "items": False, "minItems": 2},
            {"type": "object", "properties": {"kind": {"const": "a"}}, "required": ["kind"], "maxProperties": 1},
        ]
    },
    "open": {
        "type": "object", "properties": {"a": {"type": "integer"}, 'é"\n': {"type": "null"}}, "additionalProperties": {"type": "boolean"},
    },
    "map": {"type": "object", "patternProperties": {"^k[0-9]$": {"type": "integer"}}, "additionalProperties": False, "minProperties": 1},
    "both": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"type": "object", "properties": {"b": {"format": "date", "type": "string"}}, "required": ["b"]},
        ]
    },
}  # fmt: skip
REGEXES = [r"[a-z]{2,5}-\d{2}", r"(yes|no)(, (yes|no)){0,3}\.", r"[A-ZÄÖÜ][a-zäöüß]+", r" (Grüße|日本)( x){1,2}"]
ARITHMETIC = """
start: sum
sum: product (("+" | "-") product)*
product: factor ("*" factor)*
factor: NUMBER | "(" sum ")"
NUMBER: /[1-9][0-9]{0,4}/
"""


def byte_level_tokenizer() -> Tokenizer:
    return make_facts(byte_level(), TokenizerFacts("bytes", (2, 0)), "test")


def pieces_tokenizer() -> Tokenizer:
    return make_facts(pieces(), TokenizerFacts("pieces", (2,), bos_id=1, space_prefix=True, unknown_id=0), "test")


def bare_tokenizer() -> Tokenizer:
    return Tokenizer(byte_level(), TokenizerFacts("bytes", ()))


@pytest.fixture(scope="module")
def smollm2_tokenizer(smollm2_gguf: Path) -> Tokenizer:
    return tokenizer_from_gguf(open_checkpoint(smollm2_gguf).metadata)


class Speaker:
    """A tokenizer, what grammars need of it, and which columns close something or must never come."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.vocabulary = tokenizer, grammar_of(tokenizer, tokenizer.vocab_size + EXTRA)
        words, ends = [tokenizer.token_bytes(i) for i in range(self.vocabulary.size)], tokenizer.eos_ids
        self.closing = [i for i, word in enumerate(words) if word in (b'"', b"}", b"]", b")", b"null", b".") or i in ends]
        self.mute = [i for i, word in enumerate(words) if not word or i in tokenizer.control_ids - ends]


@pytest.fixture(scope="module", params=["bytes", "pieces", "smollm2"])
def speaker(request: pytest.FixtureRequest) -> Speaker:
    made = {"bytes": byte_level_tokenizer, "pieces": pieces_tokenizer}.get(request.param)
    return Speaker(made() if made else request.getfixturevalue("smollm2_tokenizer"))


@cache
def byte_vocabulary() -> Vocabulary:
    return grammar_of(byte_level_tokenizer(), byte_level_tokenizer().vocab_size + EXTRA)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return byte_vocabulary()


def allowed(grammar: Grammar, size: int) -> npt.NDArray[np.int64]:
    logits = np.linspace(-1, 1, size, dtype=np.float32)
    before = logits.copy()
    grammar.allow(logits)
    kept = np.flatnonzero(logits > -np.inf)
    assert (logits[kept] == before[kept]).all()
    return kept


def written(tokenizer: Tokenizer, ids: list[int]) -> str:
    stream = tokenizer.stream(continues=True)
    return "".join(map(stream.feed, ids)) + stream.flush()


def wander(speaker: Speaker, constraint: Constraint, seed: int, patience: int = 40) -> str:
    """A uniformly random text of the language; after `patience` tokens, what closes is preferred, so that it ends."""
    tokenizer, vocabulary, random = speaker.tokenizer, speaker.vocabulary, np.random.default_rng(seed)
    grammar, ids = Grammar(vocabulary, constraint), list[int]()
    while not grammar.finished:
        choices = allowed(grammar, vocabulary.size)
        assert not np.isin(choices, speaker.mute).any()
        if len(ids) > patience and np.isin(choices, speaker.closing).any():
            choices = choices[np.isin(choices, speaker.closing)]
        ids.append(int(random.choice(choices)))
        grammar.take(ids[-1])
        assert len(ids) < 3000
    return written(tokenizer, ids)


@pytest.mark.parametrize("name", SCHEMAS)
def test_whatever_is_drawn_fits_the_schema(speaker: Speaker, name: str) -> None:
    validator = jsonschema_rs.Draft202012Validator(SCHEMAS[name])
    for seed in range(8):
        text = wander(speaker, Constraint("json_schema", json.dumps(SCHEMAS[name])), seed)
        validator.validate(json.loads(text))
        bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text)
        assert not re.search(r"\s\s|[^\S ]|(?<![,:]) ", bare), "no space but one after ',' and ':'"


def test_whatever_is_drawn_is_an_object(speaker: Speaker) -> None:
    for seed in range(8):
        assert isinstance(json.loads(wander(speaker, Constraint("json_object"), seed)), dict)


def longest_number(speaker: Speaker, constraint: Constraint) -> int:
    """Digits that may follow each other, where a digit is taken whenever one may come."""
    grammar, vocabulary, run, longest = Grammar(speaker.vocabulary, constraint), speaker.vocabulary, 0, 0
    digits = [i for i in range(vocabulary.size) if re.fullmatch(rb"[1-9]", speaker.tokenizer.token_bytes(i))]
    for _ in range(300):
        if grammar.finished:
            break
        choices = allowed(grammar, vocabulary.size)
        digit = choices[np.isin(choices, digits)]
        run = run + 1 if digit.size else 0
        longest = max(longest, run)
        closing = choices[np.isin(choices, speaker.closing)]
        grammar.take(int((digit if digit.size else closing if closing.size else choices)[0]))
    return longest


LATER = {
    "type": "array",
    "prefixItems": [{"type": "string", "pattern": '^["\\\\]{2}$'}, {"type": "integer"}],
    "minItems": 2,
    "items": False,
}


@pytest.mark.parametrize(
    ("schema", "digits"),
    [
        ({"type": "integer"}, 19),
        ({"type": "number"}, 19),
        ({"type": "array", "items": {"type": "integer", "minimum": 5}, "minItems": 2, "maxItems": 2}, 19),
        ({"type": "integer", "maximum": 999}, 3),
        ({"type": "string", "pattern": "^[0-9]{40}$"}, 40),
        (LATER, 19),
    ],
)
def test_numbers_end(speaker: Speaker, schema: dict[str, Any], digits: int) -> None:
    assert longest_number(speaker, Constraint("json_schema", json.dumps(schema))) == digits


@pytest.mark.parametrize("regex", REGEXES)
def test_whatever_is_drawn_matches_the_expression(speaker: Speaker, regex: str) -> None:
    for seed in range(6):
        assert re.fullmatch(regex, wander(speaker, Constraint("regex", regex), seed, patience=10))


def test_whatever_is_drawn_is_arithmetic(speaker: Speaker) -> None:
    for seed in range(6):
        text = wander(speaker, Constraint("lark", ARITHMETIC), seed, patience=15)
        assert set(text) <= set("0123456789+-*()")
        ast.parse(text, mode="eval")


def test_the_decoded_ids_are_what_was_constrained(smollm2_tokenizer: Tokenizer) -> None:
    vocabulary = grammar_of(smollm2_tokenizer, smollm2_tokenizer.vocab_size)
    grammar, sampler = (
        Grammar(vocabulary, Constraint("json_schema", json.dumps(SCHEMAS["flat"]))),
        Sampler(Sampling(1.3, seed=4), vocabulary.size),
    )
    logits, ids = np.random.default_rng(1).standard_normal(vocabulary.size).astype(np.float32), []
    while not grammar.finished:
        adjusted = logits.copy()
        grammar.allow(adjusted)
        ids.append(sampler.pick(adjusted))
        grammar.take(ids[-1])
    jsonschema_rs.validate(SCHEMAS["flat"], json.loads(smollm2_tokenizer.decode(ids)))


def test_forced_text_is_spelled_as_the_model_would(speaker: Speaker) -> None:
    tokenizer, vocabulary = speaker.tokenizer, speaker.vocabulary
    grammar, ids = Grammar(vocabulary, Constraint("regex", "the License shall mean the terms and conditions!")), list[int]()
    while not grammar.finished:
        choices = allowed(grammar, vocabulary.size)
        ids.append(int(choices[0]))
        grammar.take(ids[-1])
    assert written(tokenizer, ids) == "the License shall mean the terms and conditions!"
    assert len(ids) <= len(tokenizer.encode("the License shall mean the terms and conditions!")) + 1


def test_an_answer_ends_where_the_language_says(vocabulary: Vocabulary) -> None:
    tokenizer = byte_level_tokenizer()
    a, b, end, other_end = tokenizer.encode("a")[0], tokenizer.encode("b")[0], 2, 0
    grammar = Grammar(vocabulary, Constraint("regex", "a+b?"))
    assert not {end, other_end} & set(allowed(grammar, vocabulary.size))
    with pytest.raises(RequestError, match=r"grammar allows no such token here \(2\)"):
        grammar.take(end)
    grammar.take(a)
    assert {a, b, end, other_end} <= set(allowed(grammar, vocabulary.size))
    ended, other = grammar.fork(), grammar.fork()
    ended.take(other_end)
    assert ended.finished
    other.take(b)
    assert other.finished
    assert not grammar.finished
    assert a in allowed(grammar, vocabulary.size)
    with pytest.raises(RequestError, match="allows no such text"):
        grammar.take(tokenizer.encode("c")[0])


def test_a_key_has_one_spelling_only(vocabulary: Vocabulary) -> None:
    grammar = Grammar(vocabulary, Constraint("json_schema", json.dumps({"type": "object", "properties": {"a": {"type": "integer"}}})))
    with pytest.raises(RequestError, match="allows no such text"):
        for token in byte_level_tokenizer().encode('{"\\u0061": "x"}'):  # would be read as "a", and is no integer
            grammar.take(token)


def test_control_tokens_are_no_text(vocabulary: Vocabulary) -> None:
    with pytest.raises(RequestError, match="must ask for text only"):
        allowed(Grammar(vocabulary, Constraint("lark", "start: <[1]>")), vocabulary.size)
    with pytest.raises(RequestError, match="unknown special token"):
        Grammar(vocabulary, Constraint("lark", "start: <|im_start|>"))
    grammar = Grammar(vocabulary, Constraint("lark", 'start: "a" <[2]> "b"'))
    grammar.take(byte_level_tokenizer().encode("a")[0])
    with pytest.raises(RequestError, match="must ask for text only"):  # the answer would end there, and not be whole
        allowed(grammar, vocabulary.size)
    with pytest.raises(RequestError, match="a token that ends an answer"):
        grammar_of(bare_tokenizer(), 800)


PROPERTY = {"type": "object", "required": ["a"], "properties": {"a": None}}


def having(**keywords: Any) -> str:
    return json.dumps({**PROPERTY, "properties": {"a": keywords}})


REFUSED = [
    ("json_schema", "{", "must be a JSON schema"),
    ("json_schema", "[]", "must be a JSON schema that is a table"),
    ("json_schema", '{"minimum": NaN}', "must be a JSON schema"),
    ("json_schema", '{"type": "sting"}', "Invalid type: sting"),
    ("json_schema", '{"type": "object", "required": "a"}', "Expected array"),
    ("json_schema", having(type="array", uniqueItems=True), "uniqueItems"),
    ("json_schema", having(**{"not": {}}), "not"),
    ("json_schema", having(**{"if": {}, "then": {}}), "if"),
    ("json_schema", having(type="string", format="binary"), "Unknown format"),
    ("json_schema", having(oneOf=[{"type": "string"}, {"minLength": 3, "type": "string"}]), "oneOf"),
    ("json_schema", having(type="string", pattern="(?=a)b"), "look-around"),
    ("json_schema", having(type="string", pattern="("), "unclosed group"),
    ("json_schema", having(type="integer", minimum=5, maximum=3), "unsatisfiable"),
    ("json_schema", having(enum=[]), "unsatisfiable"),
    ("json_schema", having(**{"$ref": "#/$defs/x"}), "does not exist"),
    ("json_schema", having(**{"$ref": "file:///etc/passwd"}), "does not fetch"),
    ("json_schema", '{"$ref": "#"}', "no text fits it"),
    ("json_schema", '{"type": "object", "minProperties": 2}', "minProperties: 2"),
    ("json_schema", '{"type": "object", "x-guidance": {"lenient": true}, "not": {}}', "x-guidance"),
    ("json_schema", having(enum=["x" * 70_000]), "at most 65,536 bytes"),
    ("lark", "start: (", "Expected token"),
    ("lark", "a: /x/", "no start rule"),
    ("lark", "start: foo", "unknown name"),
    ("lark", "start: start", "no text fits it"),
    ("lark", "%import .secret.X\nstart: X", "Unknown common regex"),
    ("lark", 'start: %json {"x-guidance": {"lenient": true}, "type": "object", "not": {}}', "not"),
    ("lark", 'start: "\ud800"', "must be valid Unicode"),
    ("regex", "(", "unclosed group"),
    ("regex", r"(a)\1", "backreferences"),
    ("regex", r"[^\s\S]", "no text fits it"),
]


@pytest.mark.parametrize(("kind", "source", "message"), REFUSED)
def test_what_is_no_language_or_cannot_be_enforced(vocabulary: Vocabulary, kind: Any, source: str, message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)) as caught:
        Grammar(vocabulary, Constraint(kind, source))
    assert caught.value.field == ("response_format" if kind == "json_schema" else "grammar")
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)
    with pytest.raises(RequestError, match=r"tools\[3\] (must|can)"):
        Grammar(vocabulary, Constraint(kind, source), "tools[3]")


def test_a_check_without_a_model(vocabulary: Vocabulary) -> None:
    for kind, source, _ in REFUSED:
        if '$ref": "#"' not in source and source not in ("start: start", r"[^\s\S]"):  # only a model shows that nothing fits
            with pytest.raises(RequestError):
                check_constraint(Constraint(kind, source))  # type: ignore[arg-type]
    check_constraint(Constraint("json_schema", json.dumps(SCHEMAS["tree"])))
    check_constraint(Constraint("json_schema", having(type="array", uniqueItems=True)), lenient=True)
    check_constraint(Constraint("json_schema", having(type="object", minProperties=2)), lenient=True)
    with pytest.raises(RequestError, match=r"x must .*Invalid type"):
        check_constraint(Constraint("json_schema", '{"type": "sting"}'), "x", lenient=True)


def chain(links: int) -> str:
    """As many schemas, each within the one before."""
    names = [f"a{i}" for i in range(links)]
    middle = {name: {"anyOf": [{"$ref": f"#/$defs/{after}"}]} for name, after in itertools.pairwise(names)}
    return json.dumps({"$ref": "#/$defs/a0", "$defs": middle | {names[-1]: {"type": "null"}}}, separators=(",", ":"))


HOSTILE = {
    "expression": ("regex", "(a{1000}){1000}"),
    "expression in a schema": ("json_schema", having(type="string", pattern=".*a.{2000}")),
    "exponential": ("regex", ".*a.{20}b.*c.{20}d"),
    "nested groups": ("regex", "(" * 20_000 + "a" + ")" * 20_000),
    "nested arrays": ("json_schema", '{"items":' * 6000 + "{}" + "}" * 6000),
    "nested brackets": ("lark", "start: " + "(" * 50_000 + '"a"' + ")" * 50_000),
    "rules in a chain": ("lark", "start: r0\n" + "\n".join(f'r{i}: "x" r{i + 1}' for i in range(15_000)) + '\nr15000: "y"'),
    "terminals in a chain": ("lark", "start: R0\n" + "\n".join(f'R{i}: "x" R{i + 1}' for i in range(15_000)) + '\nR15000: "y"'),
    "schemas in a chain": ("json_schema", chain(1400)),
    "a long choice": ("json_schema", having(enum=list(range(9000)))),
    "a choice of objects": ("json_schema", having(enum=[{"a": i, "b": [i]} for i in range(2500)])),
    "many optional keys": ("json_schema", json.dumps({"type": "object", "properties": {f"p{i}": {} for i in range(3500)}})),
    "products of choices": (
        "json_schema",
        json.dumps({"allOf": [{"anyOf": [{"type": "object", "required": [f"a{i}{j}"]} for j in range(6)]} for i in range(12)]}),
    ),
    "a billion items": ("json_schema", having(type="array", items={"type": "null"}, minItems=10**9)),
    "a million letters": ("lark", 'start: "a"{1000000}'),
    "a long word": ("lark", 'start: "' + "a" * 200_000 + '"'),
    "a left recursion": ("lark", 'start: a\na: a a | "x" | '),
}


def asked(name: str) -> str:
    """An error or an answer, whichever; in a thread with a usual stack, as a server would."""
    kind, source = HOSTILE[name]
    vocabulary = byte_vocabulary()
    came: list[str] = []

    def answer() -> None:
        try:
            grammar = Grammar(vocabulary, Constraint(kind, source))  # type: ignore[arg-type]
            for _ in range(10):
                if grammar.finished:
                    break
                grammar.take(int(allowed(grammar, vocabulary.size)[0]))
        except RequestError as error:
            came.append(str(error))
        else:
            came.append("an answer")

    thread = threading.Thread(target=answer)
    thread.start()
    thread.join()
    return came[0] if came else ""


@pytest.fixture(scope="module")
def asked_apart() -> dict[str, str]:
    return each_within_cpu(asked, HOSTILE)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_languages_cost_little_and_kill_nothing(asked_apart: dict[str, str], name: str) -> None:
    assert 0 < len(asked_apart[name]) < 400
