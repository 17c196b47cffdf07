"""Documents of what was taught, in tokens: a question with its answer, by the model's own template. Imports no PyTorch."""

import numpy as np

from ingle.learn.work import LessonError
from ingle.model.template import THINKING, encode_chat, has_template
from ingle.model.tokenizer import Tokenizer
from ingle.train.example_files import Document, Encoder, Record

Turns = tuple[tuple[str, str], ...]  # (role, text) of turns, oldest first


def answered(
    tokenizer: Tokenizer, before: Turns, question: str, answer: str, max_tokens: int, answer_tokens: int | None = None
) -> Document:  # fmt: skip
    """Return a question and its answer as a document, of which the first `answer_tokens` count (None = all). Raises LessonError if it
    is too long or the answer is empty, and TemplateError."""
    encoder = Encoder(tokenizer, max_tokens)
    record = Record("the example", "completion", _prompt(tokenizer, before, question))
    document = encoder.answered(record, answer)
    if not document.answer.any():
        raise LessonError("answer", "must say something", repr(answer[:40]))
    if answer_tokens is not None:
        stop = int(np.argmax(document.answer)) + answer_tokens
        document = Document(document.ids[:stop], document.answer[:stop])
    if encoder.fits(document, record.where) is None:
        cure = "Shorten the answer, or teach it as something to remember."
        raise LessonError("question and answer", f"must have at most {max_tokens} tokens together", len(document.ids), cure)
    return document


def prompt_ids(tokenizer: Tokenizer, before: Turns, question: str) -> list[int]:
    """Return the ids of a prompt."""
    prompt = _prompt(tokenizer, before, question)
    return tokenizer.encode_prompt(prompt) if isinstance(prompt, str) else encode_chat(tokenizer, prompt, variables={THINKING: False})


def _prompt(tokenizer: Tokenizer, before: Turns, question: str) -> str | tuple[dict[str, str], ...]:
    turns = (*before, ("user", question))
    if has_template(tokenizer):
        return tuple({"role": role, "content": text} for role, text in turns)
    return "\n".join(text for _, text in turns) + "\n"
