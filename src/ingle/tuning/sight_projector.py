"""The projector in training: numbers of a picture → vectors in the place of n tokens; the language model itself stays as it is.

A picture's vector has an id beyond the vocabulary: vocab_size + (number of the view) · n + place. The embedding asks the projector for
these. It begins in closed form: the vector at place i is the ridge regression of the i-th token of the pictures' names.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ingle.model.module import CausalLM
from ingle.model.tokenizer import Tokenizer
from ingle.train.corpus import Corpus, Wanted
from ingle.train.losses import cross_entropy
from ingle.train.low_rank import replace_module
from ingle.train.objectives import States, TokenLoss
from ingle.train.packing import Batch
from ingle.train.shared import final_states_of, make_row, sharing
from ingle.tuning.virtual import EMBEDDING, VirtualEmbedding

Floats = npt.NDArray[np.float32]
_RIDGE = 10.0


class Projector(nn.Module):
    """[..., k] → [..., n, hidden]: linear, and a hidden layer beside it."""

    def __init__(self, width: int, inner: int, places: int, hidden: int, seed: int) -> None:
        super().__init__()
        self.places, self.hidden = places, hidden
        draw = torch.Generator().manual_seed(seed)
        self.inner = nn.Parameter(torch.randn(inner, width, generator=draw) / width**0.5)
        self.inner_bias = nn.Parameter(torch.zeros(inner))
        self.outer = nn.Parameter(torch.zeros(places * hidden, inner + width + 1))

    def forward(self, z: Tensor) -> Tensor:
        """Return the vectors of pictures."""
        h = nn.functional.gelu(z @ self.inner.T + self.inner_bias, approximate="tanh")
        whole = torch.cat([h, z, torch.ones_like(z[..., :1])], -1)
        vectors: Tensor = (whole @ self.outer.T).view(*z.shape[:-1], self.places, self.hidden)
        return vectors

    @torch.no_grad()
    def begin(self, z: Floats, targets: Floats) -> None:
        """Begin as the ridge regression from z [n, k] to targets [n, places · hidden]."""
        x = np.concatenate([z, np.ones((len(z), 1), np.float32)], axis=1)
        weights = np.linalg.solve(x.T @ x + _RIDGE * np.eye(x.shape[1], dtype=np.float32), x.T @ targets)
        self.outer[:, -x.shape[1] :] = torch.from_numpy(weights.T.astype(np.float32))

    def tensors(self) -> dict[str, Floats]:
        """Return its matrices, float32."""
        return {name: parameter.detach().float().numpy() for name, parameter in self.named_parameters()}


class SightEmbedding(VirtualEmbedding):
    """An embedding that asks a projector for what stands beyond the vocabulary."""

    def __init__(self, embedding: nn.Embedding, projector: Projector, z: Tensor, noise: float) -> None:
        """`z`: float32 [views, k]; `noise`: added to it in training, against learning pictures by heart."""
        super().__init__(embedding)
        self.projector, self.z, self.noise = projector, z, noise

    def forward(self, ids: Tensor) -> Tensor:
        """Embed: int [...] → [..., hidden]."""
        x = super().forward(ids)
        rows, numbers = self.last
        if not len(rows):
            return x
        views, inverse = torch.unique(numbers // self.projector.places, return_inverse=True)
        z = self.z[views]
        if self.training and self.noise:
            z = z + self.noise * torch.randn_like(z)
        vectors = self.projector(z.to(x.dtype))[inverse, numbers % self.projector.places]
        return x.flatten(0, -2).index_copy(0, rows, vectors.to(x.dtype)).view(x.shape)


def attach(module: CausalLM, projector: Projector, z: Tensor, noise: float) -> dict[str, nn.Parameter]:
    """Put the projector into the module's embedding. Returns what is to be trained, by its name in the module."""
    replace_module(module, EMBEDDING, SightEmbedding(module.model.embed_tokens, projector, z, noise))
    return {f"{EMBEDDING}.projector.{name}": parameter for name, parameter in projector.named_parameters()}


def name_targets(module: CausalLM, tokenizer: Tokenizer, names: Sequence[str], places: int) -> Floats:
    """Return what the vectors begin as: the embeddings of a name's tokens in order, the last again where it is short.

    float32 [names, places · hidden].
    """
    table = module.model.embed_tokens.weight.detach().float().numpy()
    rows = []
    for name in names:
        ids = tokenizer.encode(f" {name}") or [0]
        rows.append(np.concatenate([table[ids[min(place, len(ids) - 1)]] for place in range(places)]))
    return np.stack(rows).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class PictureAnswers:
    """Cross-entropy of answers about pictures. The conversation's beginning, before the first picture, is read once for all of a batch."""

    corpus: Corpus
    name: str = "answers about pictures"
    wanted: Wanted = "answers"

    def __call__(self, module: CausalLM, states: States, batch: Batch) -> TokenLoss:
        """See `Objective`."""
        documents = [self.corpus.document(number) for number in batch.documents]
        row = make_row(documents, sharing(module, documents))
        final = final_states_of(module, row, 0, module.model.embed_tokens(row.ids))
        return TokenLoss(cross_entropy(final, module.lm_head.weight, row.targets), len(row.targets))
