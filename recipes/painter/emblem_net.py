"""Settings of the emblems' autoencoder. Imports no PyTorch."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from emblems import ARTISTS, COLOURS, FAMILIES, Emblem, is_unseen, is_unseen_colour, recoloured, stacked
from ingle.core.digest import digest_bytes, digest_json
from ingle.core.errors import ConfigError
from ingle.media.painter import CODES, GRID
from ingle.train.checkpoints import TrainingState, load_checkpoint, save_checkpoint


@dataclass(frozen=True, slots=True)
class EmblemSettings:
    """Settings of the autoencoder's training."""

    steps: int = 5000
    """Steps of the run. It may be given others later, as long as the last quarter has not begun."""
    batch: int = 32
    """Pictures of a step."""
    rate: float = 2e-3
    """Learning rate at its highest; it falls to nothing over the last quarter."""
    free_steps: int = 400
    """Steps before the codebook begins."""
    seed: int = 0
    save_every: int = 250
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "free_steps", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"painter.{name}", "must be at least 1", getattr(self, name))


# A small vector-quantised autoencoder for emblems: 64×64 pixels to 8×8 codes out of 512, and back (arXiv 1711.00937).
# The codebook follows the encoder by running means, begins at k-means of what the encoder says after a while, and a code that nobody uses
# is put where a picture needs one. The decoder is the half that serving uses, written again in NumPy in media/painter.py.


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


# Train the emblems' autoencoder: resumable, from a seed, on one core in half an hour.
# Every step draws its pictures from the seed and its own number; stopped at any moment, the same call goes on from its last checkpoint.


@dataclass(frozen=True, slots=True, eq=False)
class ShownEmblems:
    """Pictures to train on, with their weights."""

    pixels: npt.NDArray[np.uint8]
    """[n, 64, 64, 3]."""
    weights: npt.NDArray[np.float64]
    """Chance of each to be drawn; they add up to 1."""


def shown(emblems: Sequence[Emblem]) -> ShownEmblems:
    """Return what may be shown: things worth drawing most often, a third of the pictures in another colour."""
    free = [one for one in emblems if not is_unseen(one.of.concept, one.of.artist)]
    turned = [
        other
        for one in free if one.of.artist in ARTISTS and one.of.category in FAMILIES
        for colour in COLOURS if not is_unseen_colour(one.of.concept, colour)
        if (other := recoloured(one, colour)) is not None
    ]  # fmt: skip
    natural = [1.0 if one.of.artist in ARTISTS and one.of.category in FAMILIES else 0.25 for one in free]
    weights = np.concatenate([np.array(natural) / sum(natural) * 0.67, np.full(len(turned), 0.33 / max(1, len(turned)))])
    return ShownEmblems(stacked([*free, *turned]), weights / weights.sum())


def train_emblems(
    what: ShownEmblems, settings: EmblemSettings, folder: Path, say: Callable[[str], None], stopped: Callable[[], bool] = lambda: False
) -> EmblemNet | None:
    """Train the autoencoder; None if it was stopped. `folder` keeps its checkpoints. Raises HomeError, CheckpointError."""
    torch.manual_seed(settings.seed)
    net = EmblemNet()
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(net.parameters(), settings.rate, betas=(0.9, 0.98), weight_decay=1e-4)
    run = digest_json([1, settings.batch, settings.rate, settings.free_steps, settings.seed, digest_bytes(what.pixels.tobytes())])
    begun = load_checkpoint(folder)
    step = 0
    if begun and begun[0].run == run:
        step = begun[0].step
        net.load_state_dict(begun[1])
        _restore(optimiser, net, begun[2], step)
    started, recent = time.monotonic(), list[Tensor]()
    while step < settings.steps:
        if step % settings.save_every == 0 and step:
            save_checkpoint(folder, TrainingState(run, "bf16", step), net.state_dict(), _memory(optimiser, net))
        if stopped():
            return None
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        if step == settings.free_steps:
            net.begin_codebook(_vectors(net, what, settings), generator)
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * _share(step, settings.steps)
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = loss_of(net, _batch(what, settings, step), step >= settings.free_steps, generator)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        step += 1
        recent = [*recent, loss.detach()][-100:]
        if step % 100 == 0:
            used = int((net.counts > 1).sum())
            say(f"step {step}: loss {float(torch.stack(recent).mean()):.4f}, {used} codes in use, {time.monotonic() - started:.0f} s")
    save_checkpoint(folder, TrainingState(run, "bf16", step, stopped="done"), net.state_dict(), _memory(optimiser, net))
    net.eval()
    return net


def as_input(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """Return pixels [n, 64, 64, 3] as the net takes them."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255).contiguous(memory_format=torch.channels_last)


def _batch(what: ShownEmblems, settings: EmblemSettings, step: int) -> Tensor:
    rng = np.random.default_rng([settings.seed, step])
    pixels = what.pixels[rng.choice(len(what.pixels), settings.batch, p=what.weights)]
    mirrored = rng.random(settings.batch) < 0.25
    pixels[mirrored] = pixels[mirrored, :, ::-1]
    return as_input(pixels)


@torch.no_grad()
def _vectors(net: EmblemNet, what: ShownEmblems, settings: EmblemSettings) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return torch.cat([net.seen(_batch(what, settings, -1 - i & 0xFFFF)) for i in range(30)])


def _share(step: int, steps: int) -> float:
    """Share of the highest learning rate: up within 100 steps, then level, and down to nothing over the last quarter. So a run that is
    given more steps before that quarter is the same run."""
    return min(1, (step + 1) / 100, (steps - step) / (steps / 4))


def _memory(optimiser: torch.optim.Optimizer, net: EmblemNet) -> dict[str, Tensor]:
    return {
        f"{name}.{part}": optimiser.state[parameter][part]
        for name, parameter in net.named_parameters() if parameter in optimiser.state
        for part in ("exp_avg", "exp_avg_sq")
    }  # fmt: skip


def _restore(optimiser: torch.optim.Optimizer, net: EmblemNet, memory: dict[str, Tensor], step: int) -> None:
    for name, parameter in net.named_parameters():
        optimiser.state[parameter] = {
            "step": torch.tensor(float(step)), **{part: memory[f"{name}.{part}"].clone() for part in ("exp_avg", "exp_avg_sq")},
        }  # fmt: skip
