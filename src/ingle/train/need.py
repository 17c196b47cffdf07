"""Memory and arithmetic of a training, from the model's config alone. Imports no PyTorch.

What autograd keeps grows with tokens × layers × the widths of a layer; the factors below were fitted to what was really taken, at widths
of 512 to 4,096 (docs/models.md#learning-at-size), and the tests measure them again at a small size.
"""

from dataclasses import dataclass
from typing import Literal

from ingle.core.spec import ModelConfig
from ingle.kernels.cpu import features
from ingle.model.tensor import expected_shapes, size_of

LIBRARIES = 560_000_000
"""Bytes of PyTorch, compiled kernels, and their buffers."""
CHUNK_ROWS = 128
"""Rows of logits at a time, see train/losses.py."""
Pass = Literal["low-rank", "whole", "search", "mixers", "follow"]
"""The parts that learn: additions, the model itself, which groups keep full attention, each layer's memory, or all memories together."""
_KEPT: dict[Pass, tuple[float, float, float, float]] = {
    "low-rank": (8, 5, 5, 4), "whole": (11, 5, 5, 4), "search": (6, 7, 9, 4), "mixers": (6, 10, 27, 1), "follow": (6, 12, 26, 5),
}  # fmt: skip
"""Bytes that autograd keeps of a token in one layer, in bfloat16: for each number of its width, queries, keys, and MLP."""
_LOGITS: dict[Pass, int] = {"follow": 7}
"""Copies of a chunk of logits in float32; 4 where nothing else is said."""


def computed_bytes(precision: str = "auto") -> int:
    """Return the bytes of a number that this machine computes with: 2 where the processor multiplies bfloat16, else 4."""
    narrow = precision == "bf16" or (precision == "auto" and {"avx512bf16", "amx-bf16"} & features())
    return 2 if narrow else 4


@dataclass(frozen=True, slots=True)
class TrainingPass:
    """Forward and back through a model, once."""

    config: ModelConfig
    kind: Pass
    tokens: int
    """Of the longest row."""
    layers: int
    """Those that autograd goes through."""
    trained: int
    """Parameters that move."""
    each: int
    """Bytes of a number that is computed with."""
    recompute: bool = False
    """Whether layers keep their input only."""

    @property
    def row_bytes(self) -> int:
        """Memory of a row of tokens: what autograd keeps, a layer's backward pass, and a chunk of logits."""
        config, narrow = self.config, self.each / 2
        widths = (config.hidden_size, config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim, config.intermediate_size)
        layer = sum(factor * width for factor, width in zip(_KEPT[self.kind], widths, strict=True))
        kept = layer + 2 * self.layers * config.hidden_size if self.recompute else layer * self.layers
        turned = 16 * config.hidden_size + 8 * config.intermediate_size
        logits = _LOGITS.get(self.kind, 4) * 4 * CHUNK_ROWS * config.vocab_size
        return round(narrow * self.tokens * (kept + turned) + logits)

    @property
    def trained_bytes(self) -> int:
        """Memory of what is trained: values, gradients and AdamW's state in float32, and what is computed with."""
        return self.trained * (16 if self.each == 4 else 20)

    def operations(self, tokens: int) -> float:
        """Floating-point operations of so many tokens, forward and back."""
        size = size_of(self.config)
        back = 3 if self.kind == "whole" else 2
        ahead = 2 * (2 * size.read if self.kind in ("mixers", "follow") else size.read)
        return tokens * (ahead + 2 * (back - 1) * size.layer * self.layers + 2 * size.head)


def low_rank_parameters(config: ModelConfig, layers: int, rank: int) -> int:
    """Count the parameters of low-rank additions to every linear of so many layers that can have one, in layers as they are on average."""
    modules = {f"self_attn.{part}_proj" for part in "qkvo"} | {f"mlp.{part}_proj" for part in ("gate", "up", "down")}
    named = ((name.split("."), shape) for name, shape in expected_shapes(config).items() if len(shape) == 2)
    sizes = [sum(shape) for parts, shape in named if ".".join(parts[3:-1]) in modules]
    return round(rank * sum(sizes) * layers / len(config.layers))
