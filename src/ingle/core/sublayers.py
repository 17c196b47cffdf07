"""Sublayers that may stand in the place of attention, or of the plain MLP."""

from dataclasses import dataclass
from typing import Literal

from ingle.core.errors import ConfigError

Mixer = Literal["attention", "convolution", "delta"]
"""The part of a layer that mixes tokens."""


@dataclass(frozen=True, slots=True)
class ShortConvolution:
    """Gated short convolution (LFM2, arXiv 2511.23404): C · conv(B · x), where one linear gives B, C and x.

    Each channel has taps of its own. Its state is B · x of the latest tokens.
    """

    length: int
    """Tokens that it sees, the present one included."""
    bias: bool = False
    """Its linears and its taps carry biases."""

    def __post_init__(self) -> None:
        _check("convolution", (("length", self.length, _LENGTHS),))


@dataclass(frozen=True, slots=True)
class DeltaRule:
    """Gated delta rule with a short convolution before it (Qwen3-Next and 3.5; arXiv 2412.06464). Its state is S of each value head, and
    the latest tokens' inputs of the convolution."""

    key_heads: int
    """Heads of queries and keys."""
    value_heads: int
    """Heads of values, each with a state; a multiple of `key_heads`."""
    dim: int
    """Width of all these heads; a multiple of 16."""
    length: int
    """Tokens that the convolution sees, the present one included."""
    tiled: bool = False
    """Value heads of one key head lie `key_heads` apart, as llama.cpp orders them, and not side by side."""

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
    chosen: int
    """Experts of each token: those with the largest shares."""
    width: int
    """Inner width of each."""
    normed: bool = False
    """The shares of those chosen are made to sum to 1."""
    plain: tuple[int, ...] = ()
    """Layers that have the plain MLP, ascending."""

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
