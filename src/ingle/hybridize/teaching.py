"""Teaching of memories: first to give each layer's full attention, then the whole original's predictions.

The first lesson is local: the original runs once over a batch, without gradients, and each layer's memory is compared on the spot, on the
original's own activations. So nothing is propagated through layers, and no error of one layer disturbs the next. The second repairs the
errors that add up. (Mixers first, then logits: arXiv 2408.10189, 2606.16429; the first alone leaves recall broken.)
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ingle.core.spec import LayerSpec, ModelConfig, transformer_layers
from ingle.model.memory import RecurrentMemory
from ingle.model.module import CausalLM
from ingle.model.packed_rows import Attend, PackedRows
from ingle.train.attention import attend_on
from ingle.train.corpus import Wanted
from ingle.train.kernel_memory import read_packed
from ingle.train.objectives import States, TokenLoss
from ingle.train.packing import Batch


def original_of(hybrid: CausalLM) -> CausalLM:
    """The model with full attention everywhere. Its parameters are the hybrid's own, so they are in memory once."""
    config = hybrid.config
    with torch.device("meta"):
        original = CausalLM(config.with_layers(transformer_layers(len(config.layers), config.num_kv_heads)))
    shared = dict(hybrid.named_parameters(remove_duplicate=False))
    for name, _ in list(original.named_parameters(remove_duplicate=False)):
        owner, _, part = name.rpartition(".")
        setattr(original.get_submodule(owner), part, shared[name])
    return original.eval()


class Mixers:
    """Objective: each layer's mixer, after its output projection, gives full attention's output; squared error over the target's square.

    Terms are layers × batches, so the loss is the mean share of the target that is missed.
    """

    wanted: Wanted = "answers"
    name = "mixers of the original"

    def __init__(self, original: CausalLM) -> None:
        """`original`: see `original_of`."""
        self._layers: Any = original.model.layers
        self._embed = original.model.embed_tokens

    def __call__(self, module: CausalLM, states: States, batch: Batch) -> TokenLoss:
        """See `ingle.train.objectives.Objective`. The states are not asked for: layers read the original's states."""
        attend, losses = attend_on(batch.ids.device, batch.edges), list[Tensor]()
        with torch.no_grad():
            x = self._embed(batch.ids)
            cos, sin = module.angles(batch.positions, x.dtype)
            layers: Any = module.model.layers
            for theirs, mine in zip(self._layers, layers, strict=True):
                watch = attend if mine.self_attn.memory is None else Watching(attend, mine.self_attn, batch.edges, batch.tokens, losses)
                x = theirs(x, cos, sin, PackedRows(watch, batch.edges, read=read_packed))
        return TokenLoss(torch.stack(losses).sum(), len(losses))


@dataclass(frozen=True, slots=True)
class Watching:
    """Full attention. Meanwhile a hybrid's layer reads the same input, and its distance from full attention is noted."""

    inner: Attend
    layer: Any
    """Attention of the hybrid's layer."""
    bounds: tuple[int, ...]
    tokens: int
    """Tokens of documents; padding doesn't count."""
    losses: list[Tensor]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, spec: LayerSpec, some: bool) -> Tensor:
        """See `ingle.model.module.Attend`."""
        full = self.inner(q, k, v, cos, sin, spec, some)
        window = self.inner(q, k, v, cos, sin, self.layer.spec, some)
        target = nn.functional.linear(full.flatten(1), self.layer.o_proj.weight)[: self.tokens].float()
        with torch.enable_grad():
            remembered = self.layer.remember(window, q, k, v, PackedRows(self.inner, self.bounds, read=read_packed), some)
            missed = nn.functional.linear((remembered - full).flatten(1), self.layer.o_proj.weight)[: self.tokens].float()
            self.losses.append(missed.square().sum() / target.square().sum())
        return full


def memories_of(module: CausalLM) -> dict[str, nn.Parameter]:
    """The parameters of all memories, by name."""
    return {
        f"{name}.{part}": parameter
        for name, memory in module.named_modules()
        if isinstance(memory, RecurrentMemory)
        for part, parameter in memory.named_parameters()
    }


def hybrid_module(original: CausalLM, layers: tuple[LayerSpec, ...]) -> CausalLM:
    """A hybrid of the original's own parameters, with new memories that have learnt nothing yet."""
    config: ModelConfig = original.config.with_layers(layers)
    with torch.device("meta"):
        hybrid = CausalLM(config)
    shared = dict(original.named_parameters(remove_duplicate=False))
    for name, _ in list(hybrid.named_parameters(remove_duplicate=False)):
        if name in shared:
            owner, _, part = name.rpartition(".")
            setattr(hybrid.get_submodule(owner), part, shared[name])
    layers_made: Any = hybrid.model.layers
    for layer in layers_made:
        if layer.self_attn.memory is not None:
            layer.self_attn.memory = memory = RecurrentMemory(config, layer.self_attn.memory.groups).to(original.lm_head.weight.device)
            memory.begin()
    return hybrid.eval()
