"""Train the emblems' autoencoder: resumable, from a seed, on one core in half an hour.

Every step draws its pictures from the seed and its own number; stopped at any moment, the same call goes on from its last checkpoint.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ingle.core.digest import digest_bytes, digest_json
from ingle.train.checkpoints import TrainingState, load_checkpoint, save_checkpoint
from ingle.tuning.emblem_net import EmblemNet, loss_of
from ingle.tuning.emblem_settings import EmblemSettings
from ingle.tuning.emblems import ARTISTS, COLOURS, FAMILIES, Emblem, is_unseen, is_unseen_colour, recoloured, stacked


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
