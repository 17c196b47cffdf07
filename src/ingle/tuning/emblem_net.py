"""A small vector-quantised autoencoder for emblems: 64×64 pixels to 8×8 codes out of 512, and back (arXiv 1711.00937).

The codebook follows the encoder by running means, begins at k-means of what the encoder says after a while, and a code that nobody uses is
put where a picture needs one. The decoder is the half that serving uses, written again in NumPy in media/painter.py.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ingle.media.painter import CODES, GRID

WIDTH = 16
"""Numbers of a code."""
_DECAY, _UNUSED = 0.99, 0.3
"""Share of the running means that stays each step; running count below which a code counts as unused."""


class Residual(nn.Module):
    """x + a 1×1 convolution of a 3×3 convolution, each after a ReLU; normalised in eight groups first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.wide = nn.Conv2d(width, width, 3, padding=1)
        self.narrow = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:  # [B, width, H, W]
        """Return the same shape."""
        inner: Tensor = self.narrow(torch.relu(self.wide(torch.relu(self.norm(x)))))
        return x + inner


def _twice(inputs: int, outputs: int) -> nn.Module:
    """Twice the height and width: a 1×1 convolution whose channels become pixels."""
    return nn.Sequential(nn.Conv2d(inputs, 4 * outputs, 1), nn.PixelShuffle(2))


class EmblemNet(nn.Module):
    """Encoder, codebook and decoder: 0.68 million parameters."""

    codebook: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4), nn.Conv2d(48, 64, 3, padding=1), Residual(64), nn.Conv2d(64, 96, 4, stride=2, padding=1),
            Residual(96), Residual(96), nn.Conv2d(96, WIDTH, 1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(WIDTH, 96, 3, padding=1), Residual(96), Residual(96), _twice(96, 64), Residual(64), Residual(64),
            _twice(64, 32), Residual(32), nn.Conv2d(32, 12, 3, padding=1), nn.PixelShuffle(2),
        )  # fmt: skip
        self.register_buffer("codebook", torch.zeros(CODES, WIDTH))
        self.register_buffer("sums", torch.zeros(CODES, WIDTH))
        self.register_buffer("counts", torch.zeros(CODES))

    def seen(self, pixels: Tensor) -> Tensor:
        """Return the encoder's vectors [B * 64, WIDTH], float32, of pixels [B, 3, 64, 64] in 0 … 1; row by row of the picture."""
        vectors: Tensor = self.encoder(pixels * 2 - 1)
        return vectors.float().permute(0, 2, 3, 1).reshape(-1, WIDTH)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Return the nearest code of each vector, int64."""
        book = self.codebook
        return (book.square().sum(1) - 2 * vectors @ book.T).argmin(1)

    def painted(self, vectors: Tensor) -> Tensor:
        """Return pixels [B, 3, 64, 64], about 0 … 1, of vectors [B * 64, WIDTH]."""
        grid = vectors.reshape(-1, GRID, GRID, WIDTH).permute(0, 3, 1, 2)
        pixels: Tensor = self.decoder(grid.contiguous(memory_format=torch.channels_last))
        return pixels.float() * 0.5 + 0.5

    @torch.no_grad()
    def codes(self, pixels: Tensor) -> Tensor:
        """Return the codes [B, 64] of pixels [B, 3, 64, 64]."""
        return self.nearest(self.seen(pixels)).reshape(-1, GRID * GRID)

    @torch.no_grad()
    def follow(self, vectors: Tensor, codes: Tensor, generator: torch.Generator) -> None:
        """Move the codebook's running means to these vectors; unused codes go to vectors drawn by `generator`."""
        hits = functional.one_hot(codes, CODES).float()
        self.counts.mul_(_DECAY).add_(hits.sum(0), alpha=1 - _DECAY)
        self.sums.mul_(_DECAY).add_(hits.T @ vectors, alpha=1 - _DECAY)
        unused = self.counts < _UNUSED
        if n := int(unused.sum()):
            chosen = vectors[torch.randint(len(vectors), (n,), generator=generator)]
            self.counts[unused], self.sums[unused] = 1.0, chosen
        self.codebook.copy_(self.sums / self.counts[:, None])

    @torch.no_grad()
    def begin_codebook(self, vectors: Tensor, generator: torch.Generator, rounds: int = 12) -> None:
        """Set the codebook to k-means of these vectors."""
        book = vectors[torch.randperm(len(vectors), generator=generator)[:CODES]].clone()
        for _ in range(rounds):
            self.codebook.copy_(book)
            codes = self.nearest(vectors)
            count = torch.bincount(codes, minlength=CODES).float()
            sums = torch.zeros_like(book).index_add_(0, codes, vectors)
            book = torch.where(
                count[:, None] > 0, sums / count.clamp(min=1)[:, None], vectors[torch.randint(len(vectors), (CODES,), generator=generator)]
            )
        self.codebook.copy_(book)
        self.counts.copy_(count.clamp(min=1) * (64 * 32 / len(vectors)))
        self.sums.copy_(book * self.counts[:, None])


def loss_of(net: EmblemNet, pixels: Tensor, quantised: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return (the loss of a training step, the encoder's vectors); `quantised`: through the codebook, which follows."""
    vectors = net.seen(pixels)
    if not quantised:
        return _difference(net.painted(vectors), pixels) + 1e-3 * vectors.square().mean(), vectors.detach()
    codes = net.nearest(vectors.detach())
    chosen = net.codebook[codes]
    net.follow(vectors.detach(), codes, generator)
    commitment = functional.mse_loss(vectors, chosen)
    through = vectors + (chosen - vectors).detach()
    return _difference(net.painted(through), pixels) + 0.25 * commitment, vectors.detach()


def _difference(made: Tensor, pixels: Tensor) -> Tensor:
    """Mean distance of pixels, and of their steps to the right and down: blurred edges cost extra."""
    loss: Any = (made - pixels).abs().mean()
    for axis in (2, 3):
        loss = loss + (made.diff(dim=axis) - pixels.diff(dim=axis)).abs().mean()
    total: Tensor = loss
    return total
