"""Bodies of requests, as OpenAI's clients send them. Unknown fields are ignored; a wrong type is an error that names the field."""

import json
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, model_validator

from ingle.core.errors import RequestError
from ingle.core.message import Modality

T = TypeVar("T")
# Origins that a client may name for a part whose words are quoted. The speaker's own words need none.
Origin = Literal["memory", "document", "tool"]
Explainable = Literal["sentences", "taught", "sure", "traces", "parts"]
# Parts of an explanation, unless others are asked for; `parts` are those of a hybrid.
EXPLAINED: tuple[Explainable, ...] = ("sentences", "taught", "sure", "traces")
MOST_CHOICES = 16  # most answers to one request (`n`)
# One error is enough, and lists end somewhere: a report on each of a million wrong items takes minutes and gigabytes.
Turns = Annotated[list[T], Field(fail_fast=True, max_length=1024)]
Few = Annotated[list[T], Field(fail_fast=True, max_length=128)]
TokenIds = Annotated[list[int], Field(fail_fast=True, max_length=1 << 20)]


class Body(BaseModel):
    """Base of all tables: strict types, no NaN."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class Whole(Body):
    """Base of whole bodies, which checks more than the types of fields."""

    @model_validator(mode="wrap")
    @classmethod
    def _can_be_written(cls, table: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Raises RequestError for lone surrogates and NaN, in free JSON too: neither can be stored or sent back."""
        body = handler(table)
        for name in body.model_fields_set if isinstance(table, dict) else ():
            try:
                json.dumps(table[name], ensure_ascii=False, allow_nan=False).encode()
            except (ValueError, RecursionError) as error:
                raise RequestError(name, "must hold only whole characters and finite numbers, and not be nested too deeply") from error
        return body


class TextContent(Body):
    """A text part."""

    type: Literal["text", "input_text", "output_text"]
    text: str
    origin: Origin | None = None


class ImageUrl(Body):
    """An image as a `data:` URL."""

    url: str


class ImageContent(Body):
    """An image part."""

    type: Literal["image_url"]
    image_url: ImageUrl
    origin: Origin | None = None


class InputAudio(Body):
    """A recording in base64."""

    data: str
    format: str


class AudioContent(Body):
    """A part with a recording."""

    type: Literal["input_audio"]
    input_audio: InputAudio
    origin: Origin | None = None


Content = Annotated[TextContent | ImageContent | AudioContent, Field(discriminator="type")]


class CalledFunction(Body):
    """Name and arguments of a call."""

    name: str
    arguments: str


class Call(Body):
    """A tool call in an assistant's message."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class SpokenAnswer(Body):
    """A spoken answer by its id."""

    id: str


class VoiceById(Body):
    """A voice, as OpenAI's clients name their own."""

    id: str


class Voiced(Body):
    """Base of tables that name a voice."""

    voice: str | VoiceById = "auto"

    @property
    def voice_name(self) -> str:
        """The name of the voice."""
        return self.voice if isinstance(self.voice, str) else self.voice.id


class AudioWish(Voiced):
    """The voice and the format of a spoken answer."""

    format: str = ""


class ChatMessage(Body):
    """One message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Few[Content] | None = None
    tool_calls: Few[Call] | None = None
    tool_call_id: str | None = None
    audio: SpokenAnswer | None = None


class JsonSchema(Body):
    """A JSON schema with its name, which OpenAI requires."""

    name: str = ""
    json_schema: dict[str, Any] | None = Field(None, alias="schema")


class ResponseFormat(Body):
    """The format or grammar of the answer."""

    type: Literal["text", "json_object", "json_schema", "lark", "regex"]
    json_schema: JsonSchema | None = None
    lark: str | None = None
    regex: str | None = None


class StreamOptions(Body):
    """Options of a stream."""

    include_usage: bool = False


class ChosenFunction(Body):
    """Name of a function."""

    name: str


class ToolChoice(Body):
    """A function that must be called."""

    type: Literal["function"]
    function: ChosenFunction


class Drawing(Whole):
    """Sampling options of chat and plain completions. Null = the server's settings."""

    model: str = ""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    repetition_window: int | None = None
    repeat_limit: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=1024)] | None = None
    seed: int | None = None
    stop: str | Few[str] | None = None
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None


# OpenAI's `reasoning_effort`. Models here think aloud or don't: from `low` on they do.
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


def is_effort(effort: Effort | None) -> bool:
    """Return whether a model shall think aloud for this."""
    return effort not in (None, "none", "minimal")


class TemplateSwitches(Body):
    """`chat_template_kwargs`, as other servers have it."""

    enable_thinking: bool | None = None


class Reasoning(Body):
    """`reasoning` of the Responses API."""

    effort: Effort | None = None


class ChatBody(Drawing):
    """`POST /v1/chat/completions`."""

    messages: Turns[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    modalities: Few[Modality] | None = None
    audio: AudioWish | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    grammar: str | None = None
    tools: Few[dict[str, Any]] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    chat_template_kwargs: TemplateSwitches | None = None
    store: bool | None = None
    memory: bool | None = None
    learn: bool | None = None


class CompletionBody(Drawing):
    """`POST /v1/completions`."""

    prompt: str | Few[str] | TokenIds | Few[TokenIds]
    max_tokens: int | None = Field(None, ge=0)
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool | None = None
    grammar: str | None = None


class ResponsesItem(Body):
    """One item of a conversation in the Responses API: a message, a call, or a call's output."""

    type: Literal["message", "function_call", "function_call_output"] = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | Few[dict[str, Any]] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | None = None


class ResponsesFormat(Body):
    """The format of the answer in the Responses API."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: dict[str, Any] | None = Field(None, alias="schema")


class ResponsesText(Body):
    """Options of the text."""

    format: ResponsesFormat | None = None


class ResponsesBody(Whole):
    """`POST /v1/responses`, the part for text."""

    model: str = ""
    input: str | Turns[ResponsesItem]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    text: ResponsesText | None = None
    tools: Few[dict[str, Any]] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    memory: bool | None = None
    learn: bool | None = None


class ExplainBody(Whole):
    """`POST /v1/explain`: about a stored answer, by its id or the number of its fact."""

    completion_id: str = ""
    event: int | None = None
    what: Annotated[list[Explainable], Field(min_length=1, max_length=8)] = [*EXPLAINED]
    span: str | Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    method: str = "auto"
    budget_s: Annotated[float, Field(gt=0, le=600, strict=False)] = 30.0
    stream: bool = False
    shown: bool = False  # whether it is told how people see it, too


class GuardTeaching(Whole):
    """`POST /v1/guards/teach`: a text, or a stored answer by its id; and whether it should have been stopped."""

    text: str = ""
    completion_id: str = ""
    harmful: bool


class GuardAnswer(Whole):
    """`POST /v1/guards/question`: a mode in a plain word; empty = leave it as it is."""

    mode: str = ""


class MeasureRequest(Whole):
    """`POST /v1/catalogue/measure`."""

    soon: bool = False


class DefaultModel(Whole):
    """`PUT /v1/models/default`."""

    model: str


class GuardMode(Whole):
    """`PUT /v1/guards/NAME`: what a guard does, in a plain word (off, tell, hide, stop) or by its mode's name."""

    mode: str


class PullRequest(Whole):
    """`POST /v1/catalogue/pull`: a name of the catalogue; whether to pull it although it is too large for this machine's memory; whether
    its file lies on the disk once, as it is served (null = as the home's settings say)."""

    name: str
    force: bool = False
    lean: bool | None = None


class SpeechBody(Voiced, Whole):
    """`POST /v1/audio/speech`."""

    input: str = Field(max_length=65_536)
    model: str = ""
    response_format: str = "mp3"
    speed: Annotated[float, Field(ge=0.25, le=4.0, strict=False)] = 1.0
    stream_format: Literal["audio", "sse"] = "audio"


class ErrorDetail(Body):
    """An error."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorTable(Body):
    """An error response, in OpenAI's shape."""

    error: ErrorDetail


class ModerationText(Body):
    """A text, as OpenAI's clients send several kinds of inputs."""

    type: Literal["text"]
    text: str


class ModerationBody(Whole):
    """Body of /v1/moderations."""

    input: str | list[str] | list[ModerationText]
    model: str | None = None


class ImagesBody(Whole):
    """Body of /v1/images/generations."""

    prompt: str = Field(min_length=1)
    model: str = ""
    n: int | None = Field(None, ge=1, le=10)
    size: str | None = None
    style: str | None = None
    seed: int | None = Field(None, ge=0, le=2**53)
    response_format: Literal["b64_json", "url"] | None = None
