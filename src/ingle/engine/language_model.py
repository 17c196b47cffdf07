"""A language model: a backend with its tokenizer."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ingle.core.digest import digest_json
from ingle.core.errors import ContextError, RequestError
from ingle.core.media import PictureLook
from ingle.core.message import ImagePart, Message, Request, TextPart
from ingle.engine.backend import Backend
from ingle.engine.painting import NO_PAINTER, Painter
from ingle.engine.seeing import ReadyPrompt, Seer, prompt_of
from ingle.media.painter import prompt_of as painters_prompt
from ingle.media.painter import wish_of
from ingle.media.picture import pillow
from ingle.model.template import THINKING, can_think, encode_chat, render
from ingle.model.tokenizer import Tokenizer

if TYPE_CHECKING:
    from ingle.engine.grammar import Grammar, Vocabulary


@dataclass(frozen=True)
class LanguageModel:
    """A backend and a tokenizer under one name."""

    name: str
    backend: Backend
    tokenizer: Tokenizer
    adapter: Any = None
    """The adapter of this model, from `backend.adapter`; None = the backend's own weights."""
    adapter_digest: str = ""
    """Digest of the deltas behind the adapter."""
    seer: Seer | None = None
    """The model's sight; None = it reads words alone."""
    painter: Painter | None = None
    """How the model paints; None = it answers in words alone."""
    paints: bool = False
    """Whether this is the model while it paints; see `answering`."""

    @cached_property
    def digest(self) -> str:
        """Digest of all that the answer depends on beside the request: weights, their format, and deltas. A sight is no part of it: what it
        makes of a picture shows in the ids of the prompt."""
        return digest_json([self.backend.digest, self.adapter_digest]) if self.adapter_digest else self.backend.digest

    def answering(self, request: Request) -> "LanguageModel":
        """Return the model that answers a request: itself, or for a picture itself while it paints.

        Raises RequestError for a picture where it has no painter, ConfigError without Pillow, and the errors of reading a painter.
        """
        if request.modalities != ("image",) or self.paints:
            return self
        if self.painter is None:
            raise RequestError("modalities", f"{self.name} can't paint", "", NO_PAINTER)
        pillow()  # asked before anything is written, because a picture can't be shown without it
        return self._painting

    @cached_property
    def _painting(self) -> "LanguageModel":
        assert self.painter is not None, "asked before"
        painter = self.painter
        return replace(self, backend=painter.runner, adapter=painter.adapter, adapter_digest=painter.digest, paints=True)

    def encode(self, request: Request) -> list[int]:
        """Return the token ids of a request. Raises as `prompt` does."""
        return self.prompt(request).ids

    def prompt(self, request: Request) -> ReadyPrompt:
        """Return the token ids of a request, and the vectors that stand for its pictures.

        Raises RequestError if there are none, for an answer other than text, and for a picture that can't be read or that the model can't
        see; TemplateError if the template fails, ContextError if they leave no room for an answer.
        """
        if beyond := [name for name in request.modalities if name != ("image" if self.paints else "text")]:
            raise RequestError("modalities", f"must be text alone: {self.name} can't answer in {beyond[0]}", ", ".join(request.modalities))
        if self.paints and request.messages:
            prompt = ReadyPrompt(self.tokenizer.encode_prompt(painters_prompt(*wish_of(request.messages[-1].text))))
        elif request.prompt is None:
            prompt = self._read_chat(request)
        else:
            prompt = ReadyPrompt(self.tokenizer.encode_prompt(request.prompt) if isinstance(request.prompt, str) else list(request.prompt))
        ids = prompt.ids
        if not ids:
            raise RequestError("prompt", "must hold at least one token", "an empty text", "Give some text to go on from.")
        context = self.backend.config.context_length
        if len(ids) + (request.max_tokens != 0) > context:
            rule = (
                f"The prompt has {len(ids)} tokens and leaves no room for an answer within the maximum context length of {context} tokens"
            )
            raise ContextError("prompt", rule, "", "Shorten the conversation, or start a new one.")
        return prompt

    def look(self, request: Request) -> PictureLook | None:
        """Return the look of the picture that was shown last; None if there is none, or the model can't see. Raises as `prompt` does."""
        shown = [part for message in request.messages for part in message.parts if isinstance(part, ImagePart)]
        return self.seer.see(shown[-1], "messages").look if shown and self.seer is not None else None

    def _read_chat(self, request: Request) -> ReadyPrompt:
        messages, tools = tuple(map(self._recalled, request.messages)), request.tools
        if tools or any(message.tool_calls or message.role == "tool" for message in messages):
            from ingle.engine.tools import with_tools

            messages, tools = with_tools(self.tokenizer, messages, tools)
        shown = [
            (part, f"messages[{i}].content[{j}]")
            for i, message in enumerate(messages)
            for j, part in enumerate(message.parts)
            if isinstance(part, ImagePart)
        ]
        switches = {THINKING: request.think}
        if not shown:
            return ReadyPrompt(encode_chat(self.tokenizer, messages, tools=tools, variables=switches))
        if self.seer is None:
            cure = "Run: ingle pull sight. For smollm2 it is then used by itself."
            raise RequestError("messages", f"{self.name} can't see pictures", "", cure)
        seen = [self.seer.see(part, at) for part, at in shown]
        pieces = render(self.tokenizer, messages, tools=tools, variables=switches)
        return prompt_of(self.tokenizer, pieces, seen, self.seer.sight, self.backend.config.vocab_size)

    def _recalled(self, message: Message) -> Message:
        """Return a message without the words of a picture that was painted: the picture itself, or a note for a model that can't see."""
        if message.role != "assistant" or not any(isinstance(part, ImagePart) for part in message.parts):
            return message
        if self.seer is None:
            return replace(message, parts=(TextPart("(a picture)"),))
        return replace(message, parts=tuple(part for part in message.parts if isinstance(part, ImagePart)))

    def grammar(self, request: Request) -> "Grammar | None":
        """Return the grammar that constrains the answer, or None. Takes 0.2 s the first time, then milliseconds.

        Raises RequestError for a constraint that can't be enforced.
        """
        from ingle.engine.grammar import Grammar

        constraint = self.painter.grammar if self.paints and self.painter is not None else request.constraint
        return Grammar(self._vocabulary, constraint) if constraint else None

    @cached_property
    def _vocabulary(self) -> "Vocabulary":
        from ingle.engine.grammar import grammar_of

        return grammar_of(self.tokenizer, self.backend.config.vocab_size)

    def most_tokens(self, request: Request, prompt_tokens: int) -> int:
        """Return the most tokens that the answer may have: the request's limit, or the rest of the context."""
        room = self.backend.config.context_length - prompt_tokens
        return room if request.max_tokens is None else min(request.max_tokens, room)


def check_thinking(model: LanguageModel, wanted: bool, field: str) -> bool:
    """Return whether the model shall think aloud. Raises RequestError that names `field` where that is wanted and it can't."""
    if wanted and not can_think(model.tokenizer):
        raise RequestError(field, "This model can't think aloud: its chat template has no such switch", model.name, "Ask it without.")
    return wanted
