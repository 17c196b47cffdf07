"""Virtual tokens, for prompt and prefix tuning: places at the beginning of every document that stand for no word.

A virtual token has an id beyond the vocabulary: vocab_size + its number. The embedding knows which tokens are virtual. In their place
stand embeddings of their own, or keys and values in every layer.
"""

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ingle.core.config import Count, check_bounds
from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.core.spec import LayerSpec
from ingle.model.module import CausalLM
from ingle.model.module_parts import rows_of, turn
from ingle.train.corpus import Corpus

EMBEDDING = "model.embed_tokens"
_FREQUENT = 5000  # as in arXiv 2104.08691: a prompt begins as tokens that are common, and in a BPE vocabulary those come first


@dataclass(frozen=True, slots=True)
class VirtualSettings:
    """Settings of prompt and prefix tuning."""

    # Number of virtual tokens. Every text gets longer by them, and the model's context shorter.
    tokens: Count = 16

    def __post_init__(self) -> None:
        check_bounds(self)


class VirtualEmbedding(nn.Module):
    """An embedding that reads virtual tokens as token 0, and remembers where they were."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight = embedding.weight
        # Virtual tokens of the latest call: their places, all sequences on end, and their numbers.
        self.last = (torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long))

    def forward(self, ids: Tensor) -> Tensor:
        """Embed: int [...] → [..., hidden]."""
        numbers = ids.flatten() - len(self.weight)
        rows = torch.nonzero(numbers >= 0)[:, 0]
        self.last = rows, numbers[rows]
        return nn.functional.embedding(ids.masked_fill(ids >= len(self.weight), 0), self.weight)


class PromptEmbedding(VirtualEmbedding):
    """An embedding with rows of its own for virtual tokens: `prompt` [n, hidden]."""

    def __init__(self, embedding: nn.Embedding, ids: Tensor) -> None:
        super().__init__(embedding)
        self.prompt = nn.Parameter(embedding.weight.detach()[ids.to(embedding.weight.device)].float().clone())

    def forward(self, ids: Tensor) -> Tensor:
        """Embed: int [...] → [..., hidden]."""
        x = super().forward(ids)
        rows, numbers = self.last
        if not len(rows):
            return x
        return x.flatten(0, -2).index_copy(0, rows, nn.functional.embedding(numbers, self.prompt)).view(x.shape)


def with_virtual(corpus: Corpus, count: int, vocab_size: int) -> Corpus:
    """Return the corpus with `count` virtual tokens at the beginning of every document; they carry no loss."""
    if not count:
        return corpus
    starts = corpus.bounds[:-1]
    ids = np.insert(corpus.ids, np.repeat(starts, count), np.tile(np.arange(count, dtype=np.int32) + vocab_size, len(starts)))
    answer = np.insert(corpus.answer, np.repeat(starts, count), False)
    bounds = corpus.bounds + count * np.arange(len(corpus.bounds))
    return replace(corpus, ids=ids, answer=answer, bounds=bounds, digest=digest_json([corpus.digest, count]))


def check_virtual(module: CausalLM, layers: tuple[int, ...], settings: VirtualSettings) -> None:
    """Raises ConfigError unless all layers are meant, the tokens fit into the context, and the module is not tuned yet."""
    if layers != tuple(range(len(module.model.layers))):
        raise ConfigError("layers", "must be all of them for virtual tokens", ", ".join(map(str, layers)))
    if settings.tokens >= module.config.context_length:
        raise ConfigError("tokens", f"must leave room in the context of {module.config.context_length}", settings.tokens)
    embedding = module.get_submodule(EMBEDDING)
    if not isinstance(embedding, nn.Embedding):
        cure = "Load the module anew: one method at a time."
        raise ConfigError("method", "must find a plain embedding", type(embedding).__name__, cure)


def some_tokens(vocab_size: int, count: int, seed: int) -> Tensor:
    """Draw frequent tokens: int [count]."""
    return torch.randint(min(_FREQUENT, vocab_size), (count,), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def prompt_tensors(module: CausalLM, embeddings: Tensor) -> dict[str, Tensor]:
    """The delta of a prompt: its embeddings (float32 [n, hidden]), and the keys and values that the layers compute from them.

    Layers are run in float32, whatever type the module is in.
    """
    x, packed, held = embeddings, rows_of(1, len(embeddings)), list[tuple[Tensor, Tensor]]()

    def attend(q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, spec: LayerSpec, some: bool) -> Tensor:
        held.append((turn(k.transpose(0, 1), cos, sin).cpu(), v.transpose(0, 1).cpu()))
        return packed.attend(q, k, v, cos, sin, spec, some)

    cos, sin = module.angles(torch.arange(len(x), dtype=torch.float32, device=x.device), torch.float32)
    for layer in module.model.layers:
        wide = layer if next(layer.parameters()).dtype == torch.float32 else copy.deepcopy(layer).float()
        x = wide(x, cos, sin, replace(packed, attend=attend))
    keys, values = (torch.stack(parts) for parts in zip(*held, strict=True))
    return {"prompt_embeddings": embeddings.clone(), "prefix.keys": keys, "prefix.values": values}
