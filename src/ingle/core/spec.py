"""The architecture of a model: `ModelConfig` with one `LayerSpec` a layer. There are no model classes beside it.

A key-value group of a layer is a *retrieval* group (full attention) or a *streaming* group (sinks + sliding window, and a
recurrent memory of what left it). All-retrieval is a transformer; no retrieval and window 0 is an RNN; everything between is a hybrid.
"""

from dataclasses import dataclass, replace
from typing import Literal

from ingle.core.errors import ConfigError

# Sublayers that may stand in the place of attention, or of the plain MLP.


Mixer = Literal["attention", "convolution", "delta"]  # the part of a layer that mixes tokens


@dataclass(frozen=True, slots=True)
class ShortConvolution:
    """Gated short convolution (LFM2, arXiv 2511.23404): C · conv(B · x), where one linear gives B, C and x.

    Each channel has taps of its own. Its state is B · x of the latest tokens.
    """

    length: int  # tokens that it sees, the present one included
    bias: bool = False  # its linears and its taps carry biases

    def __post_init__(self) -> None:
        _check("convolution", (("length", self.length, _LENGTHS),))


@dataclass(frozen=True, slots=True)
class DeltaRule:
    """Gated delta rule with a short convolution before it (Qwen3-Next and 3.5; arXiv 2412.06464). Its state is S of each value head, and
    the latest tokens' inputs of the convolution."""

    key_heads: int  # heads of queries and keys
    value_heads: int  # heads of values, each with a state; a multiple of `key_heads`
    dim: int  # width of all these heads; a multiple of 16
    length: int  # tokens that the convolution sees, the present one included
    tiled: bool = False  # value heads of one key head lie `key_heads` apart, as llama.cpp orders them, and not side by side

    def __post_init__(self) -> None:
        many = (("key_heads", self.key_heads), ("value_heads", self.value_heads), ("dim", self.dim))
        _check("delta", (*((name, value, _MANY) for name, value in many), ("length", self.length, _LENGTHS)))
        if self.value_heads % self.key_heads:
            raise ConfigError("delta.value_heads", f"must be a multiple of key_heads = {self.key_heads}", self.value_heads)
        if self.dim % 16:
            raise ConfigError("delta.dim", "must be a multiple of 16", self.dim)

    @property
    def channels(self) -> int:
        """Channels of the convolution: queries, keys and values."""
        return (2 * self.key_heads + self.value_heads) * self.dim


@dataclass(frozen=True, slots=True)
class Experts:
    """Mixture of experts in the place of the MLP (arXiv 1701.06538): a router gives each token to some of many small MLPs."""

    count: int
    chosen: int  # experts of each token: those with the largest shares
    width: int  # inner width of each
    normed: bool = False  # the shares of those chosen are made to sum to 1
    plain: tuple[int, ...] = ()  # layers that have the plain MLP, ascending

    def __post_init__(self) -> None:
        sizes = (("count", self.count), ("chosen", self.chosen), ("width", self.width))
        _check("experts", tuple((name, value, _MANY) for name, value in sizes))
        if self.chosen > self.count:
            raise ConfigError("experts.chosen", f"must be at most count = {self.count}", self.chosen)


_MANY, _LENGTHS = range(1, 1 << 24), range(2, 17)


def _check(sublayer: str, sizes: tuple[tuple[str, int, range], ...]) -> None:
    """Raise ConfigError for a size out of its bounds."""
    for name, value, allowed in sizes:
        if value not in allowed:
            raise ConfigError(f"{sublayer}.{name}", f"must be between {allowed.start} and {allowed.stop - 1}", value)


Memory = Literal["none", "gated_delta"]


MOST_EXPERTS = 1 << 16  # of all layers together; each is three tensors, and a damaged file must not make us list a billion


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding: `theta` and, per `kind`, the long-context rescaling that the checkpoint was trained with."""

    theta: float = 10_000.0  # base of the geometric sequence of wavelengths (RoFormer, arXiv 2104.09864)
    # `linear`: positions divided by `factor`; `llama3`: long wavelengths only; `yarn`: arXiv 2309.00071; `longrope`: each by its own
    # divisor (arXiv 2402.13753).
    kind: Literal["default", "linear", "llama3", "yarn", "longrope"] = "default"
    factor: float = 1.0  # how many times longer than `original_context` the rescaled range is
    original_context: int = 0  # tokens of context before rescaling (`llama3`, `yarn`)
    low_freq_factor: float = 1.0  # `llama3`: wavelengths above original_context / low_freq_factor are fully rescaled
    high_freq_factor: float = 4.0  # `llama3`: wavelengths below original_context / high_freq_factor are left alone
    beta_fast: float = 32.0  # `yarn`: rotations within original_context above which a dimension is left alone
    beta_slow: float = 1.0  # `yarn`: rotations below which a dimension is fully rescaled
    attention_factor: float = 1.0  # `yarn`, `longrope`: multiplies cos and sin, so that logits keep their temperature
    divisors: tuple[float, ...] = ()  # `longrope`: of every frequency, for texts within `original_context`


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """The reach of one layer: which groups see the whole text, and what the others see."""

    retrieval: tuple[int, ...]  # key-value groups with full attention, ascending
    window: int = 0  # streaming groups: the number of latest tokens that they attend to, the current one included; 0 = none
    sinks: int = 0  # streaming groups: the number of first tokens that they always attend to (arXiv 2309.17453)
    # Streaming groups: the recurrent memory of the tokens that left the window (all but the sinks); see `model.module_parts`.
    memory: Memory = "none"
    # Streaming groups that have no memory though `memory` gives the others one, ascending; None = there are none. No kept model has any:
    # `engine.windowed` makes them, to switch groups off.
    forgetful: tuple[int, ...] | None = None
    mixer: Mixer = "attention"  # another mixer has no groups, so all of the above is empty

    def streaming(self, kv_groups: int) -> tuple[int, ...]:
        """Return the streaming groups of this layer, ascending."""
        if self.mixer != "attention":
            return ()
        with_all = set(self.retrieval)
        return tuple(g for g in range(kv_groups) if g not in with_all)

    def remembering(self, kv_groups: int) -> tuple[int, ...]:
        """Return the streaming groups that have a recurrent memory, ascending."""
        without = self.forgetful or ()
        return tuple(g for g in self.streaming(kv_groups) if g not in without) if self.memory != "none" else ()


@dataclass(frozen=True, slots=True)
class Ways:
    """Differences of a family from Llama."""

    activation: Literal["silu", "gelu"] = "silu"  # of the gated MLP; `gelu` in its form with tanh (Gemma)
    # Where attention and MLP are normalised: their input, their output (OLMo 2), or both (Gemma).
    norms: Literal["before", "after", "both"] = "before"
    whole_norm: bool = False  # where there is a norm of q and k (`qk_norm`), it is one over all heads together (OLMo 2)
    embedding_scale: float = 1.0  # factor of embeddings (Gemma: √hidden; Granite)
    residual_scale: float = 1.0  # factor of what attention and MLP add to the stream (Granite)
    attention_scale: float = 0.0  # factor of attention's scores; 0 = 1 / √head_dim
    logit_scale: float = 1.0  # factor of logits (Granite)
    unturned: tuple[int, ...] = ()  # layers whose queries and keys RoPE does not turn (SmolLM3)
    turned: int = 0  # numbers of each head that RoPE turns, the first ones; 0 = all (Phi-4-mini)
    local: tuple[int, ...] = ()  # layers that `local_rope` turns instead of `rope` (Gemma 3's with windows)
    local_rope: Rope | None = None
    gated: bool = False  # attention's output is multiplied by sigmoid(gate): `q_proj` gives each head its query, then its gate (Qwen 3.5)

    @property
    def apart(self) -> bool:
        """Whether outcomes of attention and MLP are normalised or scaled before they are added to the stream."""
        return self.norms != "before" or self.residual_scale != 1.0

    @property
    def norm_names(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Names of a layer's norms before and after attention and MLP, as Hugging Face has them; "" = there is none.

        `post_attention_layernorm` stands before the MLP in some families, and behind attention in others.
        """
        input_, output, lifted = "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm"
        return {
            "before": ((input_, output), ("", "")),
            "after": (("", ""), (output, "post_feedforward_layernorm")),
            "both": ((input_, lifted), (output, "post_feedforward_layernorm")),
        }[self.norms]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a decoder. Linear layers, parameter names and shapes follow Hugging Face."""

    family: str  # the checkpoint family, a file in model/families; the fields below hold the differences
    vocab_size: int  # rows of the embedding
    hidden_size: int  # width of the residual stream
    intermediate_size: int  # width of the gated MLP
    num_heads: int  # query heads per layer
    num_kv_heads: int  # key-value groups per layer; divides `num_heads`
    head_dim: int  # width of one head; even, because RoPE turns pairs
    layers: tuple[LayerSpec, ...]  # one entry a layer
    context_length: int  # tokens of context the checkpoint was trained for
    rope: Rope = Rope()  # position embedding of every layer
    norm_eps: float = 1e-5  # added to the mean square in RMSNorm
    tie_embeddings: bool = False  # the output matrix is the embedding
    qkv_bias: bool = False  # q, k and v projections carry a bias (Qwen2; Llama with `attention_bias`)
    output_bias: bool = False  # the attention output projection carries a bias (Llama with `attention_bias`)
    mlp_bias: bool = False  # the three MLP projections carry a bias (Llama with `mlp_bias`)
    qk_norm: bool = False  # q and k are RMS-normalised per head before RoPE (Qwen3)
    ways: Ways = Ways()
    convolution: ShortConvolution | None = None  # of layers whose mixer it is
    delta: DeltaRule | None = None  # of layers whose mixer it is
    experts: Experts | None = None  # none = all layers have the plain MLP

    def __post_init__(self) -> None:
        for field in ("vocab_size", "hidden_size", "intermediate_size", "num_heads", "num_kv_heads", "head_dim", "context_length"):
            if getattr(self, field) < 1:
                raise ConfigError(field, "must be at least 1", getattr(self, field), "Check the model's config.json.")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError("num_kv_heads", f"must divide num_heads = {self.num_heads}", self.num_kv_heads)
        if self.head_dim % 2:
            raise ConfigError("head_dim", "must be even, because RoPE turns pairs", self.head_dim)
        turned = self.ways.turned
        if turned and not (0 < turned < self.head_dim and turned % 2 == 0 and not (self.qk_norm and self.ways.whole_norm)):
            raise ConfigError("ways.turned", f"must be even, below head_dim = {self.head_dim}, and without one norm over all heads", turned)
        if self.ways.gated and self.ways.whole_norm and self.qk_norm:
            raise ConfigError("ways.gated", "must be false where one norm spans all heads", True)
        if self.rope.kind == "longrope" and len(self.rope.divisors) != (pairs := (turned or self.head_dim) // 2):
            raise ConfigError("rope.divisors", f"must be {pairs}, one for each pair that RoPE turns", len(self.rope.divisors))
        if not self.layers:
            raise ConfigError("layers", "must hold at least one LayerSpec", "none")
        first = {layer: i for i, layer in reversed([*enumerate(self.layers)])}
        for layer, i in first.items():
            _check_layer(layer, i, self.num_kv_heads)
            if layer.mixer != "attention" and getattr(self, layer.mixer) is None:
                raise ConfigError(f"layers[{i}].mixer", f"must be attention in a model without {layer.mixer}", layer.mixer)
        if self.experts is not None and len(self.layers) * self.experts.count > MOST_EXPERTS:
            raise ConfigError("experts.count", f"must be at most {MOST_EXPERTS} in all layers together", self.experts.count)
        if self.convolution is not None and self.hidden_size % 16:
            raise ConfigError("hidden_size", "must be a multiple of 16 in a model with convolutions", self.hidden_size)
        for i, layer in enumerate(self.layers):
            if layer.memory != "none" and (self._rope_at(i) != self.rope or self.ways.gated):
                cure = "Leave these layers as they are."
                rule = "must be none in a layer with gated attention, or a position embedding of its own"
                raise ConfigError(f"layers[{i}].memory", rule, layer.memory, cure)

    @property
    def queries_per_group(self) -> int:
        """The number of query heads that read one key-value group."""
        return self.num_heads // self.num_kv_heads

    @property
    def is_transformer(self) -> bool:
        """Whether every group of every layer has full attention."""
        return all(len(layer.retrieval) == self.num_kv_heads for layer in self.layers)

    @property
    def is_recurrent(self) -> bool:
        """Whether some layer keeps what it can't take back: a memory, or the state of another mixer."""
        return any(layer.mixer != "attention" or layer.remembering(self.num_kv_heads) for layer in self.layers)

    def check_plain(self, act: str) -> None:
        """Raise ConfigError unless every layer has attention and the plain MLP. `act` is for the message: "can't be …"."""
        mixers = sorted({layer.mixer for layer in self.layers} - {"attention"})
        others = [*mixers, *(["experts"] if self.experts is not None else [])]
        if others:
            raise ConfigError("model", f"can't be {act}: it knows attention and the plain MLP only", f"a model with {' and '.join(others)}")

    def experts_at(self, index: int) -> Experts | None:
        """Return the mixture of experts of a layer; None = it has the plain MLP."""
        return None if self.experts is None or index in self.experts.plain else self.experts

    @property
    def ropes(self) -> tuple[Rope | None, ...]:
        """Return the different position embeddings of the layers; `rope` first, None = none."""
        others = dict.fromkeys(self._rope_at(i) for i in range(len(self.layers)))
        return (self.rope, *(rope for rope in others if rope != self.rope))

    def rope_of(self, index: int) -> int:
        """Return which of `ropes` turns a layer's queries and keys."""
        return self.ropes.index(self._rope_at(index))

    def _rope_at(self, index: int) -> Rope | None:
        if index in self.ways.unturned:
            return None
        return self.ways.local_rope if index in self.ways.local else self.rope

    def with_layers(self, layers: tuple[LayerSpec, ...]) -> "ModelConfig":
        """Return this config with other layers over the same weights."""
        if len(layers) != len(self.layers):
            raise ConfigError("layers", f"must have {len(self.layers)} entries, as the weights do", len(layers))
        return replace(self, layers=layers)


def _check_layer(layer: LayerSpec, index: int, kv_groups: int) -> None:
    where = f"layers[{index}]"
    if layer.mixer not in ("attention", "convolution", "delta"):
        raise ConfigError(f"{where}.mixer", "must be attention, convolution or delta", layer.mixer)
    if layer.mixer != "attention":
        if layer != LayerSpec((), mixer=layer.mixer):
            raise ConfigError(where, f"must have no groups, window or memory, for its mixer is {layer.mixer}", layer)
        return
    if list(layer.retrieval) != sorted(set(layer.retrieval)) or any(not 0 <= g < kv_groups for g in layer.retrieval):
        raise ConfigError(f"{where}.retrieval", f"must be ascending groups below {kv_groups}", layer.retrieval)
    if layer.window < 0 or layer.sinks < 0:
        raise ConfigError(f"{where}.window, .sinks", "must not be negative", (layer.window, layer.sinks))
    if layer.streaming(kv_groups) and layer.window == 0 and layer.memory == "none":
        raise ConfigError(f"{where}.window", "must be at least 1 where a streaming group has no memory: it would see nothing", 0)
    if layer.streaming(kv_groups) and layer.window == 0 and layer.sinks:
        cure = "Give them a window, or no sinks."
        raise ConfigError(f"{where}.sinks", "must be 0 without a window: no group sees them, and no memory keeps them", layer.sinks, cure)
    if layer.memory not in ("none", "gated_delta"):
        raise ConfigError(f"{where}.memory", "must be 'none' or 'gated_delta'", layer.memory)
    if layer.forgetful is not None:
        _check_forgetful(layer, where, kv_groups)


def _check_forgetful(layer: LayerSpec, where: str, kv_groups: int) -> None:
    forgetful = layer.forgetful or ()
    if not forgetful or list(forgetful) != sorted(set(forgetful)) or not set(forgetful) <= set(layer.streaming(kv_groups)):
        raise ConfigError(f"{where}.forgetful", "must be ascending streaming groups", layer.forgetful)
    if not layer.remembering(kv_groups):
        raise ConfigError(f"{where}.forgetful", "must leave a group that has a memory", layer.forgetful, "Set memory to 'none'.")
    if layer.window == 0:
        raise ConfigError(f"{where}.window", "must be at least 1 where a streaming group has no memory: it would see nothing", 0)


def transformer_layers(count: int, kv_groups: int) -> tuple[LayerSpec, ...]:
    """Return `count` layers of full attention."""
    return (LayerSpec(retrieval=tuple(range(kv_groups))),) * count
