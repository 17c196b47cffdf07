"""Encoding: examples become documents of tokens by the model's own chat template; some of the tokens carry the loss.

The loss is on what the model itself would write: each assistant turn with the token that ends it. Templates differ in where they put an
answer, so it is found by rendering twice: the turns before it with the prompt for an answer, as the engine would ask, and the turns up
to it. The second must go on where the first ends; what it adds is the answer. Turns of one conversation share a document as long as each
rendering goes on where the one before ended. A template that rewrites earlier turns (drops earlier thoughts, say) gives a document per
answer, which again is what the engine would ask.

Nothing that somebody typed becomes a control token (`model.template`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ConfigError, IngleError, RequestError, TemplateError
from ingle.model.template import THINKING, render, template_of
from ingle.model.tokenizer import Tokenizer
from ingle.train.examples import Record, Turns

TEXT_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
"""Ends of a text, as opposed to a turn; the first that the vocabulary has."""


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """Tokens that see each other, and which of them carry the loss."""

    ids: npt.NDArray[np.int32]
    answer: npt.NDArray[np.bool_]
    """Which tokens carry the loss; never the first, which nothing predicts."""


@dataclass(frozen=True)
class Encoder:
    """The way from records to documents."""

    tokenizer: Tokenizer
    max_tokens: int
    """Most tokens of a document. A text is cut into pieces of this size; for conversations see `too_long`."""
    too_long: Literal["skip", "cut", "refuse"] = "skip"
    """Longer conversations are left out (skip), cut at the end, or refused as an error."""
    template: Literal["auto", "chat", "plain"] = "auto"
    """Whether string prompts and completions are turns of a chat or one text; `auto`: turns, if the model has a template."""
    variables: Mapping[str, Any] = field(default_factory=lambda: {THINKING: False})
    """Switches of the template. An answer is learned as it is given: at once."""

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
