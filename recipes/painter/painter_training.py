"""From a kept model to a candidate that paints, a delta of the kind `painter`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from emblem_net import EmblemNet, EmblemSettings, as_input, shown, train_emblems
from emblems import (
    Emblem,
    PaintingExample,
    choose_palette,
    data_of,
    emblems,
    learnable,
    stacked,
    things_of,
    to_learn,
    unseen_pairs,
    with_moved,
)
from ingle.core.candidate import Admit, Candidate
from ingle.core.delta import Delta
from ingle.core.errors import ConfigError
from ingle.core.progress import silent
from ingle.core.report import Event, Sink
from ingle.engine.packs import checkpoint_tokenizer, open_weights
from ingle.home.kept import Kept
from ingle.home.pictures import FREE
from ingle.home.place import Home
from ingle.media.painter import CODEBOOK, DECODER, PALETTE, palette_tensor
from ingle.media.picture import Pixels
from ingle.model.checkpoint import Checkpoint
from ingle.model.module import CausalLM, load_module
from ingle.train.checkpoints import put_back
from ingle.train.corpus import Wanted
from ingle.train.loop import train_for
from ingle.train.loop_settings import TrainReport, TrainSettings
from ingle.train.making import (
    DeltaJob,
    MadeDelta,
    RunWatch,
    delta_job,
    made_event,
    make_delta,
    memory_errors,
    smaller_batches,
    training_facts,
)
from ingle.train.objectives import States, TokenLoss, cross_entropy
from ingle.train.optimisers import OptimiserSettings, keep_few_programs
from ingle.train.packing import Batch, Data
from ingle.tuning.linears import chosen_layers
from ingle.tuning.low_rank_settings import LowRankSettings, attach_low_rank

# Settings of a painter's training.


@dataclass(frozen=True, slots=True)
class PainterSettings:
    """Settings of one painter."""

    families: tuple[str, ...] = ("animals-nature", "food-drink", "travel-places", "activities", "objects", "smileys-emotion")
    """Categories or subcategories of emoji that it learns to paint."""
    colours: int = 2
    """Other colours in which each emblem is learnt, where it has a main colour."""
    moved: int = 0
    """Further copies of every example, moved by up to three pixels and half of them mirrored: with few pictures, they are else learnt by
    heart."""
    emblems: EmblemSettings = field(default_factory=EmblemSettings)
    """Training of the autoencoder: first of two."""
    layers: str = "all"
    """Layers that get the addition: all, upper-half, upper-third, or numbers like 20-29. With fewer, `train.cache_mb` saves time."""
    low_rank: LowRankSettings = field(default_factory=LowRankSettings)
    """The addition that acts while the model paints."""
    train: TrainSettings = field(
        default_factory=lambda: TrainSettings(epochs=12, batch_tokens=1024, optimiser=OptimiserSettings(learning_rate=1e-3))
    )
    """Training of the addition: second of two."""
    seed: int = 0
    """Seed of the choice of prompts, and of first values."""

    def __post_init__(self) -> None:
        if not self.families:
            raise ConfigError("families", "must name what to paint", "nothing", "For example families = ['animals-nature'].")
        if not 0 <= self.moved <= 100:
            raise ConfigError("moved", "must be between 0 and 100", self.moved)
        if not 0 <= self.colours <= 7:
            raise ConfigError("colours", "must be between 0 and 7", self.colours)


# Pictures become texts: an autoencoder turns each emblem into 64 codes out of 512, and each code is a word of the palette. A low-rank
# addition then learns to go on from `draw: red apple, noto:` with 64 such words. It acts only while the model paints, so answers to words
# stay what they were, to the bit. Stopped at any moment, the same call goes on where it was.
#     HOME/cache/data/archives/        the pictures' packages; they stay
#     HOME/tuning/KEY/emblems/         the autoencoder's checkpoints
#     HOME/tuning/KEY/words/           the addition's training, as `train` writes it


KIND, METHOD = "painter", "words of a palette"
VERSION = 1
"""Changes when the same settings make something else than before."""
_AT_ONCE = 64
"""Emblems that are encoded together."""
Job = DeltaJob[PainterSettings]


def tune_painter(
    home: Home, kept: Kept, name: str, settings: PainterSettings, admit: Admit, watch: RunWatch = RunWatch(),  # noqa: B008 - frozen
    command: str = "", sink: Sink = silent,
) -> MadeDelta:  # fmt: skip
    """Make a delta called `name` with which a kept model paints, and keep it if `admit` takes it.

    Raises ConfigError for a name or a model that can't be used, the errors of opening the model and fetching the pictures, TrainError,
    HomeError, Refused if `admit` refuses it, and Interrupted after Ctrl-C or SIGTERM; the same call then goes on where it was.
    """
    job = delta_job("painter", VERSION, home, kept, name, settings, watch, command)
    checkpoint = open_weights(home, kept)
    chosen_layers(checkpoint.config, settings.layers)
    return make_delta(job, partial(_make, checkpoint), _events, admit, sink)


@dataclass(frozen=True, slots=True)
class OfPalette:
    """Cross-entropy per word of the pictures, among the words of the palette alone: a grammar allows no others."""

    palette: tuple[int, ...]
    name: str = "words of a palette"
    wanted: Wanted = "answers"

    def __call__(self, module: CausalLM, states: States, batch: Batch) -> TokenLoss:
        """See `train.objectives.Objective`."""
        weight = module.lm_head.weight
        place = torch.zeros(len(weight), dtype=torch.int64, device=weight.device)
        place[list(self.palette)] = torch.arange(len(self.palette), device=weight.device)
        return TokenLoss(cross_entropy(states(), weight[list(self.palette)], place[batch.targets]), len(batch.targets))


def _make(checkpoint: Checkpoint, job: Job) -> Candidate:
    settings, tokenizer = job.settings, checkpoint_tokenizer(checkpoint, job.home.base_folder(job.kept.base))
    keep_few_programs()
    every = [one for artist in FREE for one in _read(job, artist)]
    net = train_emblems(shown(every), settings.emblems, job.folder / "emblems", job.watch.say, job.stopped)
    if net is None:
        raise job.interrupted("while the autoencoder learnt")
    drawn = learnable(every, settings.families)
    learnt = with_moved(to_learn(drawn, settings.colours, settings.seed), settings.moved, settings.seed)
    held_out = unseen_pairs(drawn)
    palette = choose_palette(tokenizer, _rows(checkpoint), net.codebook.numpy())
    data = data_of(tokenizer, learnt, held_out, _codes(net, [*learnt, *held_out]), palette)
    job.watch.say(f"{len(drawn)} pictures, {len(learnt)} examples")
    tensors, trained = _trained(job, checkpoint, data, palette)
    tensors |= {PALETTE: palette_tensor(palette), CODEBOOK: net.codebook.half().numpy()}
    tensors |= {DECODER + name: values.half().numpy() for name, values in net.decoder.state_dict().items()}
    return job.candidate(KIND, METHOD, tensors, _report(drawn, learnt, data, trained, net))


def _read(job: Job, artist: str) -> list[Emblem]:
    job.check(f"before {artist} was read")
    job.watch.pieces(f"reading the pictures of {artist}", 0, 1)
    return emblems(job.home, artist, job.watch.bytes)


def _rows(checkpoint: Checkpoint) -> npt.NDArray[np.float32]:
    return checkpoint.tensor("model.embed_tokens.weight").to_float32()


def _codes(net: EmblemNet, asked: Sequence[PaintingExample]) -> npt.NDArray[np.int64]:
    """Return the codes [n, 64] of emblems."""
    pixels = stacked([one.emblem for one in asked])
    return encoded(net, pixels)


def encoded(net: EmblemNet, pixels: Pixels) -> npt.NDArray[np.int64]:
    """Return the codes [n, 64] of pixels [n, 64, 64, 3]."""
    parts = [net.codes(as_input(pixels[i : i + _AT_ONCE])).numpy() for i in range(0, len(pixels), _AT_ONCE)]
    return np.concatenate(parts)


def _trained(
    job: Job, checkpoint: Checkpoint, data: Data, palette: Sequence[int]
) -> tuple[dict[str, npt.NDArray[Any]], TrainReport]:  # fmt: skip
    """Return the addition's tensors in float16, and the report of its training."""
    settings = job.settings
    with memory_errors(smaller_batches(settings.train.batch_tokens, settings.train.recompute)):
        module = load_module(checkpoint)
        options = settings.low_rank
        layers = chosen_layers(checkpoint.config, settings.layers)
        attached, _ = attach_low_rank(module, layers, options, options.alpha / options.rank, settings.seed)
        folder = job.folder / "words"
        trained = train_for(job, module, attached.parameters, data, settings.train, folder, OfPalette(tuple(palette)))
        put_back(attached.parameters, folder)
    return {name: tensor.detach().half().numpy() for name, tensor in attached.collect().items()}, trained


def _report(
    drawn: Sequence[Emblem], learnt: Sequence[PaintingExample], data: Data, trained: TrainReport, net: EmblemNet
) -> dict[str, Any]:  # fmt: skip
    return {
        "pictures": len(drawn), "examples": len(learnt), "data_digest": data.corpus.digest,
        "things": things_of(learnt), "concepts": len({one.emblem.of.concept for one in learnt}), "held_out_examples": len(data.held_out),
        "emblem_parameters": sum(one.numel() for one in net.parameters()), "train": asdict(trained),
        "held_out": {"before": trained.first_held_out, "after": trained.held_out},
    }  # fmt: skip


def _events(report: Mapping[str, Any], _delta: Delta) -> list[Event]:
    return [made_event("painter", report, ("pictures", "examples", "concepts", "data_digest"), training_facts(report))]
