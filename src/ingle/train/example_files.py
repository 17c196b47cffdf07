"""Reading of training examples: files of any size, line by line, each line checked.

| file | one example is |
|---|---|
| `.jsonl` | a line: {"messages": […]} as OpenAI's, {"prompt", "completion"}, {"instruction", "input", "output"} as Alpaca's |
| | {"conversations": [{"from", "value"}, …]} as ShareGPT's, {"text"}; with preferences {"prompt", "chosen", "rejected"} |
| | (or `messages` for `prompt`), or {"prompt", "completion", "label": true or false} |
| `.csv` | a row, with the same names as columns, texts only |
| `.txt`, `.md` | the file: one document |
| a folder | every such file in it, by name |

A prompt or an answer is a string, or a list of messages. Other keys are left alone. A line that can't be used is an error that names file,
line, key and rule; with `skip_bad` it is counted instead. Exact copies are left out and counted.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError, IngleError, RequestError, TemplateError
from ingle.core.files import os_errors
from ingle.core.message import ROLES
from ingle.model.template import THINKING, render, template_of
from ingle.model.tokenizer import Tokenizer

Turns = tuple[Mapping[str, Any], ...]
Kind = Literal["chat", "completion", "text", "pair", "label"]
_SUFFIXES = (".jsonl", ".csv", ".txt", ".md")
# Speakers of a ShareGPT row, and the role of each.
_SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_TOLD = 5  # bad lines that are reported one by one; of the rest only the number


@dataclass(frozen=True, slots=True)
class Record:
    """One example as it was written."""

    where: str  # file and line
    kind: Kind
    prompt: str | Turns  # all turns of a `chat`; empty for a `text`
    answers: tuple[str | Turns, ...] = ()  # the completion, the text, or the chosen answer and the rejected one
    tools: Turns = ()  # functions that the model may call, in OpenAI's shape
    label: bool | None = None  # whether the completion was liked

    @property
    def digest(self) -> str:
        """Digest of the content, wherever it stands."""
        return digest_json([self.kind, self.prompt, self.answers, self.tools, self.label])


@dataclass(slots=True)
class ExampleTally:
    """Counts of what reading met: examples, copies, bad lines, tokens."""

    examples: int = 0  # examples that are used
    copies: int = 0  # exact copies that were left out
    bad: int = 0  # lines that can't be used, left out by `skip_bad`
    too_long: int = 0  # examples longer than `max_tokens`, left out or cut
    without_answer: int = 0  # examples without an answer, or with an empty one: nothing is to be learnt
    tokens: int = 0  # tokens in all examples used
    answer_tokens: int = 0  # tokens that carry the loss
    told: list[str] = field(default_factory=list)  # messages of the first few bad lines

    def skip(self, error: ConfigError) -> None:
        """Count a bad line."""
        self.bad += 1
        if len(self.told) < _TOLD:
            self.told.append(str(error))


def read_records(paths: Iterable[Path], tally: ExampleTally, skip_bad: bool = False) -> Iterator[Record]:
    """Yield every example once. Raises HomeError, and ConfigError for bad lines (unless `skip_bad`) or an unknown kind of file."""
    seen: set[bytes] = set()
    for path in _files(paths):
        for where, row in _rows(path):
            try:
                if isinstance(row, ConfigError):
                    raise row
                record = _record(where, row)
                mark = _mark(record)
            except ConfigError as error:
                if not skip_bad:
                    raise
                tally.skip(error)
                continue
            if mark in seen:
                tally.copies += 1
                continue
            seen.add(mark)
            yield record


def check_files(paths: Iterable[Path], skip_bad: bool = False) -> None:
    """Read every example once, without a tokenizer, so that a mistake shows within a second and not after a model was loaded.

    Raises ConfigError as `read_records` does, and for fewer than 2 examples.
    """
    paths, tally = list(paths), ExampleTally()
    count = sum(1 for _ in read_records(paths, tally, skip_bad))
    if paths and not count:
        cure = f"{tally.bad} bad lines were left out; the first: {tally.told[0]}" if tally.told else "Give a file with one example a line."
        raise ConfigError(", ".join(map(str, paths)), "must hold at least one example", "none", cure)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise ConfigError(str(path), "is not there", "", "Name a file or folder of examples.")
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and not file.name.startswith("."))
            if not files:
                raise ConfigError(str(path), f"must hold files that end in {', '.join(_SUFFIXES)}", "none")
            yield from files
        elif path.suffix not in _SUFFIXES:
            cure = "One JSON object a line makes a .jsonl file." if path.suffix == ".json" else ""
            raise ConfigError(str(path), f"must end in {', '.join(_SUFFIXES)}", path.suffix or "nothing", cure)
        else:
            yield path


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (file and line, table) of every example of a file, with an error in place of a table that can't be read."""
    with os_errors(path):
        if path.suffix == ".jsonl":
            yield from _json_rows(path)
        elif path.suffix == ".csv":
            yield from _csv_rows(path)
        else:
            yield str(path), _decoded(path.read_bytes(), str(path))


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{path}, line {number}"
            if not line.strip():
                continue
            row = _decoded(line, where)
            if isinstance(row, dict):
                try:
                    row = json.loads(row["text"])
                except (ValueError, RecursionError) as error:
                    got = str(error).partition("(char")[0].strip()
                    row = ConfigError(where, "must be one JSON object", got, "Correct the line, or leave bad lines out (skip_bad).")
            yield where, row


def _csv_rows(path: Path) -> Iterator[tuple[str, Any]]:
    csv.field_size_limit(1 << 30)  # a document in a cell is longer than the library expects
    with path.open("rb") as file:
        rows = csv.DictReader((line.decode("utf-8-sig", "surrogateescape") for line in file), strict=True)
        while True:
            try:
                row = next(rows, None)
            except csv.Error as error:
                yield f"{path}, line {rows.line_num}", ConfigError(f"{path}, line {rows.line_num}", "must be valid CSV", error)
                continue
            if row is None:
                return
            where = f"{path}, line {rows.line_num}"
            if None in row or None in row.values():
                got = f"{sum(v is not None for v in row.values())} of {len(rows.fieldnames or ())}"
                yield where, ConfigError(where, "must have as many cells as there are columns", got)
            elif not all(text.isprintable() or _is_unicode(text) for text in row.values()):
                yield where, ConfigError(where, "must be UTF-8", "other bytes", "Save the file as UTF-8.")
            else:
                yield where, row


def _decoded(raw: bytes, where: str) -> dict[str, Any] | ConfigError:
    try:
        return {"text": raw.decode("utf-8-sig")}
    except UnicodeDecodeError as error:
        return ConfigError(where, "must be UTF-8", f"byte {error.start} is {raw[error.start]:#x}", "Save the file as UTF-8.")


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _record(where: str, row: Any) -> Record:
    if not isinstance(row, dict):
        raise ConfigError(where, "must be a JSON object", type(row).__name__)
    tools = row.get("tools") or ()
    if not isinstance(tools, list | tuple) or not all(isinstance(tool, dict) for tool in tools):
        raise ConfigError(f"{where}: tools", "must be a list of functions in OpenAI's shape", type(tools).__name__)
    if "chosen" in row or "rejected" in row:
        prompt = _words(where, row, "messages" if "prompt" not in row else "prompt")
        return Record(where, "pair", prompt, (_answer(where, row, "chosen"), _answer(where, row, "rejected")), tuple(tools))
    if "messages" in row:
        return Record(where, "chat", _turns(f"{where}: messages", row["messages"]), (), tuple(tools))
    if "prompt" in row or "completion" in row:
        prompt, answer = _words(where, row, "prompt"), _answer(where, row, "completion")
        if "label" not in row:
            return Record(where, "completion", prompt, (answer,), tuple(tools))
        return Record(where, "label", prompt, (answer,), tuple(tools), _label(where, row["label"]))
    if "conversations" in row:
        return Record(where, "chat", _sharegpt_turns(f"{where}: conversations", row["conversations"]), (), tuple(tools))
    if "instruction" in row:
        return Record(where, "completion", _alpaca_prompt(where, row), (_text(where, row, "output"),), tuple(tools))
    if "text" in row:
        if not isinstance(row["text"], str):
            raise ConfigError(f"{where}: text", "must be a string", type(row["text"]).__name__)
        return Record(where, "text", "", (row["text"],))
    keys = ", ".join(map(str, row)) or "nothing"
    cure = 'For example {"prompt": "…", "completion": "…"}; docs/tuning.md lists every shape.'
    raise ConfigError(where, "must hold messages, or prompt and completion, or text, or prompt, chosen and rejected", keys, cure)


def _alpaca_prompt(where: str, row: Mapping[str, Any]) -> str:
    """The prompt of an Alpaca row: the instruction, and under it the input if there is one."""
    parts = [_text(where, row, "instruction"), _text(where, {"input": "", **row}, "input")]
    return "\n\n".join(part for part in parts if part.strip())


def _text(where: str, row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise ConfigError(f"{where}: {key}", "must be a string", "nothing" if value is None else type(value).__name__)
    return value


def _sharegpt_turns(where: str, value: Any) -> Turns:
    """The turns of a ShareGPT row, in OpenAI's shape."""
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise ConfigError(where, 'must be a list of {"from": …, "value": …}', type(value).__name__)
    turns = []
    for i, turn in enumerate(value):
        speaker = turn.get("from", turn.get("role"))
        if speaker not in _SPEAKERS:
            raise ConfigError(f"{where}[{i}].from", f"must be one of {', '.join(_SPEAKERS)}", speaker)
        turns.append({"role": _SPEAKERS[speaker], "content": turn.get("value", turn.get("content"))})
    return _turns(where, turns)


def _mark(record: Record) -> bytes:
    """Short digest by which copies are found. Raises ConfigError for what is neither text nor a number."""
    try:
        return bytes.fromhex(record.digest)[:16]
    except (ValueError, RecursionError) as error:  # a lone surrogate, NaN, endless nesting
        raise ConfigError(record.where, "must hold valid Unicode and finite numbers", str(error)[:80]) from error


def _words(where: str, row: Mapping[str, Any], key: str) -> str | Turns:
    value = row.get(key)
    return value if isinstance(value, str) else _turns(f"{where}: {key}", value)


def _answer(where: str, row: Mapping[str, Any], key: str) -> str | Turns:
    answer = _words(where, row, key)
    if not isinstance(answer, str) and any(turn["role"] == "user" for turn in answer):
        cure = "Put what comes before into the prompt."
        raise ConfigError(f"{where}: {key}", "must hold the assistant's turns only", "a user's turn", cure)
    return answer


def _label(where: str, value: Any) -> bool:
    names = {"true": True, "1": True, "false": False, "0": False}
    label = value if isinstance(value, bool) else names.get(str(value).lower())
    if label is None:
        raise ConfigError(f"{where}: label", "must be true or false", value)
    return label


def _turns(where: str, value: Any) -> Turns:
    if not isinstance(value, list) or not value:
        raise ConfigError(where, "must be a string or a list of messages", type(value).__name__ if not isinstance(value, list) else "none")
    return tuple(_turn(f"{where}[{i}]", turn) for i, turn in enumerate(value))


def _turn(where: str, turn: Any) -> Mapping[str, Any]:
    if not isinstance(turn, dict) or turn.get("role") not in ROLES:
        got = turn.get("role") if isinstance(turn, dict) else type(turn).__name__
        raise ConfigError(f"{where}.role", f"must be one of {', '.join(ROLES)}", got)
    content, calls = turn.get("content"), turn.get("tool_calls") or []
    if isinstance(content, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        content = "".join(part["text"] for part in content)
    if content is None and calls:
        content = ""
    if not isinstance(content, str):
        raise ConfigError(f"{where}.content", "must be text", type(content).__name__)
    if not isinstance(calls, list):
        raise ConfigError(f"{where}.tool_calls", "must be a list", type(calls).__name__)
    done = {**turn, "content": content}
    return {**done, "tool_calls": [_call(f"{where}.tool_calls[{i}]", call) for i, call in enumerate(calls)]} if calls else done


def _call(where: str, call: Any) -> Mapping[str, Any]:
    """Return a call with its arguments as a table, because templates write them as JSON."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ConfigError(where, 'must look like {"function": {"name": …, "arguments": …}}', type(call).__name__)
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{where}.function.arguments", "must be JSON", error) from error
    return {**call, "type": "function", "function": {**function, "arguments": arguments}}


# Encoding: examples become documents of tokens by the model's own chat template; some of the tokens carry the loss.
# The loss is on what the model itself would write: each assistant turn with the token that ends it. Templates differ in where they put an
# answer, so it is found by rendering twice: the turns before it with the prompt for an answer, as the engine would ask, and the turns up to
# it. The second must go on where the first ends; what it adds is the answer. Turns of one conversation share a document as long as each
# rendering goes on where the one before ended. A template that rewrites earlier turns (drops earlier thoughts, say) gives a document per
# answer, which again is what the engine would ask.
# Nothing that somebody typed becomes a control token (`model.template`).


# Ends of a text, as opposed to a turn; the first that the vocabulary has.
TEXT_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """Tokens that see each other, and which of them carry the loss."""

    ids: npt.NDArray[np.int32]
    answer: npt.NDArray[np.bool_]  # which tokens carry the loss; never the first, which nothing predicts


@dataclass(frozen=True)
class Encoder:
    """The way from records to documents."""

    tokenizer: Tokenizer
    # Most tokens of a document. A text is cut into pieces of this size; for conversations see `too_long`.
    max_tokens: int
    too_long: Literal["skip", "cut", "refuse"] = "skip"  # longer conversations are left out (skip), cut at the end, or refused as an error
    # Whether string prompts and completions are turns of a chat or one text; `auto`: turns, if the model has a template.
    template: Literal["auto", "chat", "plain"] = "auto"
    # Switches of the template. An answer is learned as it is given: at once.
    variables: Mapping[str, Any] = field(default_factory=lambda: {THINKING: False})

    def documents(self, record: Record) -> list[Document]:
        """Return the documents of an example: one per answer, or fewer where answers share one; pieces for a text.

        Raises ConfigError with the record's place for whatever can't be rendered, or is too long where that is refused.
        """
        try:
            return self._documents(record)
        except ConfigError:
            raise
        except IngleError as error:
            raise ConfigError(f"{record.where}: {error.field}", error.rule, error.got, error.cure) from error

    def fits(self, document: Document, where: str) -> Document | None:
        """Return the document, cut if it is too long; None where it is to be left out. Raises ConfigError to refuse."""
        if len(document.ids) <= self.max_tokens:
            return document
        if self.too_long == "refuse":
            cure = "Shorten it, raise max_tokens, or set too_long to skip or cut."
            raise ConfigError(where, f"must have at most {self.max_tokens} tokens", len(document.ids), cure)
        return Document(document.ids[: self.max_tokens], document.answer[: self.max_tokens]) if self.too_long == "cut" else None

    def answered(self, record: Record, answer: str | Turns) -> Document:
        """Return a record's prompt with this answer as one document. Raises RequestError where the template writes them as several."""
        if isinstance(record.prompt, str) and isinstance(answer, str) and not self._is_chat:
            return self._plain(record.prompt, answer)
        before: Turns = ({"role": "user", "content": record.prompt},) if isinstance(record.prompt, str) else record.prompt
        after: Turns = ({"role": "assistant", "content": answer},) if isinstance(answer, str) else answer
        [*others, last] = self._chat((*before, *after), len(before), record.tools) or [_document([], [])]
        if others:
            cure = "Give each answer an example of its own."
            raise RequestError("completion", "must be turns that the template writes one after the other", len(others) + 1, cure)
        return last

    def _documents(self, record: Record) -> list[Document]:
        if record.kind == "text":
            [text] = record.answers
            assert isinstance(text, str)
            return self._pieces(text)
        if record.kind == "chat":
            assert not isinstance(record.prompt, str)
            return self._chat(record.prompt, 0, record.tools)
        return [self.answered(record, answer) for answer in record.answers]

    @cached_property
    def _is_chat(self) -> bool:
        if self.template == "auto":
            try:
                return bool(template_of(self.tokenizer))
            except TemplateError:
                return False
        return self.template == "chat"

    @cached_property
    def _text_end(self) -> list[int]:
        named = [self.tokenizer.control[name] for name in TEXT_ENDS if name in self.tokenizer.control]
        return (named or list(self.tokenizer.facts.eos_ids))[:1]

    def _pieces(self, text: str) -> list[Document]:
        if not text.strip():
            return []
        ids = self.tokenizer.encode_prompt(text) + self._text_end
        pieces = (ids[start : start + self.max_tokens] for start in range(0, len(ids), self.max_tokens))
        return [_document(piece, [False] + [True] * (len(piece) - 1)) for piece in pieces if len(piece) > 1]

    def _plain(self, prompt: str, completion: str) -> Document:
        if not completion:
            return _document([], [])
        before = self.tokenizer.encode_prompt(prompt)
        whole = self.tokenizer.encode_prompt(prompt + completion)
        ids = _joined(self.tokenizer, before, whole, lambda: self.tokenizer.encode_pieces(["", completion])) + self._text_end
        return _document(ids, [False] * max(1, len(before)) + [True] * (len(ids) - max(1, len(before))))

    def _chat(self, turns: Turns, first: int, tools: Turns) -> list[Document]:
        """Return documents in which the assistant's turns from number `first` on carry the loss."""
        done: list[Document] = []
        ids: list[int] = []
        answer: list[bool] = []
        clean = [{key: value for key, value in turn.items() if key != "weight"} for turn in turns]
        for i, turn in enumerate(turns):
            if i < first or turn["role"] != "assistant" or turn.get("weight", 1) == 0 or _is_empty(turn):
                continue
            before, added = self._turn(clean[:i], clean[: i + 1], tools)
            if before[: len(ids)] != ids:
                done.append(_document(ids, answer))
                ids, answer = [], []
            learnt = self._until_end(added)
            answer += [False] * (len(before) - len(ids)) + [True] * learnt + [False] * (len(added) - learnt)
            ids = before + added
        return [*done, _document(ids, answer)] if ids else done

    def _turn(self, before: Sequence[Mapping[str, Any]], upto: Sequence[Mapping[str, Any]], tools: Turns) -> tuple[list[int], list[int]]:
        """Token ids of the prompt for an answer, and of what the rendering with the answer adds."""
        offered = tools or None
        question = render(self.tokenizer, before, True, offered, self.variables)
        whole = render(self.tokenizer, upto, False, offered, self.variables)
        prompt, both = self.tokenizer.encode_pieces(question), self.tokenizer.encode_pieces(whole)
        if both[: len(prompt)] == prompt:
            return prompt, both[len(prompt) :]
        same = 0  # the tokens differ; so the text must go on, and is then cut where the answer begins
        while same < len(question) and same < len(whole) and question[same] == whole[same]:
            same += 1
        rest = list(whole[same:])
        if same < len(question):
            tail, head = question[same], rest[0] if rest else ""
            joins = same == len(question) - 1 and isinstance(tail, str) and isinstance(head, str) and head.startswith(tail)
            if not joins:
                cure = "See the template's switches (variables), or give prompts and completions with template = plain."
                raise TemplateError("chat template", "must write an answer after its own prompt for one", _shown(whole[same:]), cure)
            assert isinstance(tail, str)
            assert isinstance(head, str)
            rest[0] = head[len(tail) :]
        added = self.tokenizer.encode_pieces(["", *rest])  # "" so that nothing counts as the beginning of a text
        return prompt, _joined(self.tokenizer, prompt, both, lambda: added)[len(prompt) :]

    def _until_end(self, added: list[int]) -> int:
        """Count an answer's tokens that the model writes: up to the one that ends it."""
        return next((i + 1 for i, token in enumerate(added) if token in self.tokenizer.eos_ids), len(added))


def _joined(tokenizer: Tokenizer, before: list[int], whole: list[int], separately: Any) -> list[int]:
    """Return `whole` if it begins with `before`, else `before` and the rest encoded by itself. Raises RequestError if the texts differ."""
    if whole[: len(before)] == before:
        return whole
    ids: list[int] = before + separately()
    if b"".join(map(tokenizer.token_bytes, ids)) != b"".join(map(tokenizer.token_bytes, whole)):
        got = "another text when both are encoded one by one"
        raise RequestError("answer", "must join its prompt", got, "Put a space or a line between.")
    return ids


def _document(ids: Sequence[int], answer: Sequence[bool]) -> Document:
    learnt = np.array(answer, np.bool_)
    learnt[:1] = False
    return Document(np.array(ids, np.int32), learnt)


def _is_empty(turn: Mapping[str, Any]) -> bool:
    return not turn["content"] and not turn.get("tool_calls") and not turn.get("reasoning_content")


def _shown(pieces: Sequence[Any]) -> str:
    text = "".join(piece if isinstance(piece, str) else piece.name for piece in pieces)
    return repr(text[:60])
