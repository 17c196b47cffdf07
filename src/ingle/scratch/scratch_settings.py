"""Settings of a training from scratch: shape, vocabulary, text, training, and how its result is judged.

[model]                          # a hybrid: every second layer sees everything, the others a window and a memory
layers = 6
width = 256
retrieval = 2
window = 64
memory = "gated_delta"

[data]
sources = ["suite:debian-bits", "letters/"]

[train]
batch_tokens = 4096
"""

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from ingle.core.config import Amount, Bounds, Count, Part, check_bounds, to_table
from ingle.core.errors import ConfigError
from ingle.core.spec import LayerSpec, Memory, ModelConfig, Rope
from ingle.model.tensor import expected_shapes
from ingle.train.loop_settings import NO_MATTER, TrainSettings
from ingle.train.optimisers import Device, OptimiserSettings


@dataclass(frozen=True, slots=True)
class ShapeSettings:
    """The shape of the model."""

    layers: Count = 6
    width: Count = 256  # width of the residual stream
    heads: Count = 4  # query heads of a layer; divides `width`
    kv_heads: Count = 2  # key-value groups of a layer; divides `heads`
    mlp: Amount = 0  # width of the MLP; 0 = 8/3 of `width`, or as `parameters` asks
    # Number of parameters: the MLP gets the width that brings the model nearest to it; 0 = it follows from the other fields. So two models
    # that look back differently get the same size.
    parameters: Amount = 0
    context: Count = 2048  # longest context in tokens; may be more than the rows of training (`data.row_tokens`)
    # Groups that see everything: `all`, `none`, n (all groups of every n-th layer, the last one included), or a list of [layer, group].
    retrieval: str | int | tuple[tuple[int, int], ...] = "all"
    window: Amount = 0  # latest tokens that the other groups attend to
    sinks: Amount = 0  # first tokens that the other groups always attend to
    memory: Memory = "none"  # memory of the other groups: none, or gated_delta, which takes in what has left the window
    qk_norm: bool = True  # queries and keys are normalised in each head (as Qwen3): larger learning rates stay stable
    tied: bool = True  # embedding and output are one matrix
    rope_theta: float = 10_000.0

    def __post_init__(self) -> None:
        check_bounds(self, "model.")
        if self.width % self.heads or self.width // self.heads % 2:
            raise ConfigError("model.heads", f"must divide width = {self.width} into heads of even width", self.heads)
        if self.heads % self.kv_heads:
            raise ConfigError("model.kv_heads", f"must divide heads = {self.heads}", self.kv_heads)
        if self.mlp and self.parameters:
            raise ConfigError("model.mlp, .parameters", "must not both be given", (self.mlp, self.parameters), "Leave one of them out.")
        if isinstance(self.retrieval, int) and not 1 <= self.retrieval <= self.layers:
            raise ConfigError("model.retrieval", f"must be 1 to {self.layers}: every n-th layer", self.retrieval)
        if isinstance(self.retrieval, str) and self.retrieval not in ("all", "none"):
            raise ConfigError("model.retrieval", "must be all, none, a number, or a list of [layer, group]", self.retrieval)
        if self.retrieval in ("all", 1) and (self.window or self.sinks or self.memory != "none"):
            cure = 'Set retrieval to "none", a number above 1, or a list of groups; these settings are for all others.'
            rule = "are of groups that don't see everything, and here all do"
            raise ConfigError("model.window, .sinks, .memory", rule, f"retrieval {self.retrieval}", cure)
        if not 1 < self.rope_theta < 1e15:
            raise ConfigError("model.rope_theta", "must be above 1, and below 1e15", self.rope_theta)


@dataclass(frozen=True, slots=True)
class VocabularySettings:
    """Settings of the vocabulary, found in the training text (byte-level BPE): any text can be spelled."""

    size: int = 4096  # number of tokens, the one between texts and the 256 bytes included

    def __post_init__(self) -> None:
        if self.size < 258:
            raise ConfigError("tokenizer.size", "must be at least 258: 256 bytes, the end of a text, and a word", self.size)


@dataclass(frozen=True, slots=True)
class TextSettings:
    """Settings of the texts to learn from."""

    # Files (.txt, .md, .jsonl or .csv with `text`), folders of them, or the training part of a suite of texts, `suite:NAME`.
    sources: tuple[str, ...] = ()
    # Share of the files' texts that is never learnt from, by a hash of each text. Suites have a share of their own.
    held_out: float = 0.05
    # Tokens that see each other in training: texts stand on end in rows of this length, with a token between.
    row_tokens: Annotated[int, Bounds(ge=16)] = 512
    max_tokens: Amount = 0  # most tokens of text to learn from, chosen by a hash of each text; 0 = all
    pairs: Part = 0.0  # share of all rows in which key-value pairs are planted, see `scratch.text_sources`
    seed: Amount = 0  # seed of the planted pairs

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("data.sources", "must be named", "nothing", "Give files, folders, or suite:NAME of a suite of texts.")
        if not 0 < self.held_out < 1:
            raise ConfigError("data.held_out", "must be above 0 and below 1: what a model is worth is measured there", self.held_out)
        check_bounds(self, "data.")


@dataclass(frozen=True, slots=True)
class ScratchJudge:
    """Settings of measuring the result, as it is served."""

    items: Amount = 100  # most held-out texts of each source; 0 = all
    pair_rows: Count = 60  # rows of pairs that were not trained on, if pairs were planted
    format: Literal["auto", "int4", "int8", "bf16", "fp32"] = "auto"  # format of the weights when measured
    threads: int | None = None  # threads to compute with; none = one for each usable core
    seed: Amount = 0  # seed of the intervals' resamples

    def __post_init__(self) -> None:
        check_bounds(self, "judge.")


def _train() -> TrainSettings:
    """Training settings: tuning's own are for models that know something already. The rate: of 3e-3, 9e-3 and 1.8e-2 the best (LOG.md)."""
    optimiser = OptimiserSettings("muon", learning_rate=9e-3, weight_decay=0.1, beta2=0.95)
    return TrainSettings(epochs=1, batch_tokens=4096, evaluate_every=100, optimiser=optimiser)


@dataclass(frozen=True, slots=True)
class ScratchSettings:
    """Settings of one training from scratch."""

    data: TextSettings
    title: str = ""  # title for people
    model: ShapeSettings = field(default_factory=ShapeSettings)
    tokenizer: VocabularySettings = field(default_factory=VocabularySettings)
    train: TrainSettings = field(default_factory=_train)  # settings of the training run; the seed is also that of the initial values
    device: Device = "auto"  # device to train on; auto = cuda where it is there
    judge: ScratchJudge = field(default_factory=ScratchJudge)

    def __post_init__(self) -> None:
        if self.data.row_tokens > self.model.context:
            raise ConfigError("data.row_tokens", f"must be at most model.context = {self.model.context}", self.data.row_tokens)
        if self.model.memory != "none" and (near := self.model.window + self.model.sinks) >= self.data.row_tokens:
            rule = f"must be above model.window + model.sinks = {near}, or nothing ever leaves a window and memories learn nothing"
            raise ConfigError("data.row_tokens", rule, self.data.row_tokens)
        if self.data.row_tokens > self.train.batch_tokens:
            raise ConfigError("data.row_tokens", f"must be at most train.batch_tokens = {self.train.batch_tokens}", self.data.row_tokens)


def course(settings: ScratchSettings) -> dict[str, Any]:
    """Settings that the trained tensors depend on, as a table; the texts' content counts, not their place."""
    table: dict[str, Any] = to_table(settings)
    table["train"] = {key: value for key, value in table["train"].items() if key not in NO_MATTER}
    table["data"] = {key: value for key, value in table["data"].items() if key != "sources"}
    return {key: value for key, value in table.items() if key not in ("judge", "title")}


# Shapes: from settings to a `ModelConfig`, and its number of parameters.


def config_of(shape: ShapeSettings, vocab_size: int) -> ModelConfig:
    """The config of a model of this shape. Raises ConfigError for groups that aren't there, and for too few `parameters`."""
    config = ModelConfig(
        family="qwen3" if shape.qk_norm else "llama",
        vocab_size=vocab_size,
        hidden_size=shape.width,
        intermediate_size=shape.mlp or -(-shape.width * 8 // 3 // 32) * 32,
        num_heads=shape.heads,
        num_kv_heads=shape.kv_heads,
        head_dim=shape.width // shape.heads,
        layers=layers_of(shape),
        context_length=shape.context,
        rope=Rope(theta=shape.rope_theta),
        tie_embeddings=shape.tied,
        qk_norm=shape.qk_norm,
    )
    return config if not shape.parameters else as_large_as(config, shape.parameters)


def layers_of(shape: ShapeSettings) -> tuple[LayerSpec, ...]:
    """Attention and memory of each layer."""
    everything = tuple(range(shape.kv_heads))
    chosen: dict[int, tuple[int, ...]] = {}
    if shape.retrieval == "all":
        chosen = dict.fromkeys(range(shape.layers), everything)
    elif isinstance(shape.retrieval, int):
        chosen = {i: everything for i in range(shape.layers) if (i + 1) % shape.retrieval == 0}
    elif isinstance(shape.retrieval, tuple):
        for layer, group in shape.retrieval:
            if not (0 <= layer < shape.layers and 0 <= group < shape.kv_heads):
                rule = f"must name layers below {shape.layers} and groups below {shape.kv_heads}"
                raise ConfigError("model.retrieval", rule, [layer, group])
            chosen[layer] = tuple(sorted({*chosen.get(layer, ()), group}))
    whole, rest = LayerSpec(everything), LayerSpec((), shape.window, shape.sinks, shape.memory)
    return tuple(whole if chosen.get(i) == everything else replace(rest, retrieval=chosen.get(i, ())) for i in range(shape.layers))


def parameters_of(config: ModelConfig) -> int:
    """Count the parameters of a model of this config; a tied matrix counts once."""
    return sum(math.prod(size) for size in expected_shapes(config).values())


def memory_parameters_of(config: ModelConfig) -> int:
    """Count those that belong to recurrent memories."""
    return sum(math.prod(size) for name, size in expected_shapes(config).items() if ".memory." in name)


def as_large_as(config: ModelConfig, parameters: int) -> ModelConfig:
    """Set the width of the MLP that brings the model nearest to so many parameters. Raises ConfigError where no width does."""
    one, two = (parameters_of(replace(config, intermediate_size=width)) for width in (1, 2))
    width = 1 + round((parameters - one) / (two - one))
    if width < 1:
        cure = "Raise it, or lower tokenizer.size, model.width or model.layers."
        raise ConfigError("model.parameters", f"must be at least {one:,} for this shape", f"{parameters:,}", cure)
    return replace(config, intermediate_size=width)
