"""The contract of a pruner. To add one, put a file into compress/pruners: the file's name is its name, its first line its title.

A file holds `LOOKS`, whether it needs the activations of a text, and `CUTS`, a function for each structure that it can cut:

none, 2:4   `Sparse`: which weights of a linear become zero, all over it or two of every four neighbours
channels    `Units`: which channels of an MLP go; a unit is a column of its down projection
heads       `Units`: which key-value groups go with their query heads; a unit is the columns of the output projection that they feed
layers      `Depth`: which layers go
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor, nn

from ingle.compress.calibration import STAGES, CalibrationSettings, Inputs, Stream, make_rows, read_texts
from ingle.compress.recovery import Recovery, RecoverySettings
from ingle.core import registry
from ingle.core.candidate import Admit, Candidate
from ingle.core.config import Count, check_bounds
from ingle.core.delta import Delta
from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.core.files import write_atomic
from ingle.core.progress import Counted, silent
from ingle.core.report import Event, Fact, Sink
from ingle.core.spec import ModelConfig
from ingle.engine import cut_model
from ingle.engine.adapter import linear_shapes
from ingle.engine.cut_model import CHANNELS, GROUPS, LAYERS, pack_mask
from ingle.engine.delta_kinds import Change, merged
from ingle.engine.packs import checkpoint_tokenizer, open_weights
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.measure.data_sets import Text
from ingle.model.checkpoint import Checkpoint
from ingle.model.module import CausalLM, load_module
from ingle.model.tensor import expected_shapes
from ingle.model.tokenizer import Tokenizer
from ingle.train.low_rank import added_parameters, all_tensors, put_low_rank
from ingle.train.making import DeltaJob, MadeDelta, RunWatch, delta_job, energy_facts, made_event, make_delta
from ingle.train.optimisers import keep_few_programs

Structure = Literal["none", "2:4", "channels", "heads", "layers"]
STRUCTURES: tuple[Structure, ...] = get_args(Structure)
# The pruner of each structure that costs the least; see docs/prune.md.
BEST: Mapping[Structure, str] = {"none": "sparsegpt", "2:4": "sparsegpt", "channels": "width", "heads": "width", "layers": "depth"}


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """Result of cutting a matrix."""

    stays: Tensor  # kept parts: bool [N, K] of weights, or int64 [units], ascending
    weight: Tensor | None = None  # float32: new weights, [N, K] with zeros, or [N, columns of the units that stay]; None = the old ones


@dataclass(frozen=True, slots=True, eq=False)
class PrunedBlock:
    """Units of one layer, as columns of the matrix that adds them up."""

    weight: Tensor  # float32 [N, units · size]: down or output projection
    inputs: Inputs  # inputs of this matrix
    size: int  # columns of a unit
    squares: Tensor  # float32 [units]: sum of the squares of all weights that go with a unit, in this matrix and in those before it


PRUNERS = "ingle.compress.pruners"
# (weight float32 [N, K], its inputs, share that becomes zero, of every so many neighbours or 0) → `Cut` of weights.
Sparse = Callable[[Tensor, Inputs, float, int], Cut]
Units = Callable[[PrunedBlock, int], Cut]  # (block, units that stay) → `Cut` of units
# (influence float32 [layers]: 1 − mean cosine of a layer's input and output, layers that stay) → int64, ascending.
Depth = Callable[[Tensor, int], Tensor]


def names(structure: Structure | None = None) -> list[str]:
    """Names of all pruners, or of those that can cut a structure, alphabetically."""
    return [name for name, file in registry.modules(PRUNERS).items() if structure is None or structure in file.CUTS]


def find_pruner(name: str, structure: Structure) -> Any:
    """Return the function of that pruner for that structure. Raises ConfigError with the known ones."""
    cuts: Mapping[str, Any] = registry.find(PRUNERS, name, "method", f"There is no pruning method {name}", "").CUTS
    if structure not in cuts:
        cure = f"It cuts {', '.join(cuts)}. For {structure} take {' or '.join(names(structure))}."
        raise ConfigError("method", f"The method {name} can't prune {structure}", "", cure)
    return cuts[structure]


def looks(name: str) -> bool:
    """Whether a pruner needs the activations of a text."""
    wants: bool = registry.modules(PRUNERS)[name].LOOKS
    return wants


def largest(scores: Tensor, share: float, of: int) -> Tensor:
    """bool as `scores` [N, K]: all but the share with the smallest scores, in each row; or of every `of` neighbours in a row.

    Ties are broken by position, so that exactly the share goes. Raises ConfigError where K is no multiple of `of`.
    """
    rows, columns = scores.shape
    width = of or columns
    if columns % width:
        raise ConfigError("structure", f"needs a multiple of {width} inputs", columns, "Choose --structure none.")
    groups = scores.reshape(rows, -1, width)
    gone = groups.argsort(dim=-1, stable=True)[..., : round(width * share)]
    return torch.ones(groups.shape, dtype=torch.bool).scatter_(-1, gone, False).view(rows, columns)


def top(scores: Tensor, count: int) -> Tensor:
    """Places of the largest scores: int64 [count], ascending."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def columns_of(units: Tensor, size: int) -> Tensor:
    """Columns of these units: int64."""
    return (units[:, None] * size + torch.arange(size)).flatten()


# Settings of pruning, and the number of parts that a share of a model means.


_NEAR = 0.02  # tolerance, in parts: so a share may be written with few digits
_LANES = 32  # channels that the kernels multiply together: any other number costs as much as the next multiple


@dataclass(frozen=True, slots=True)
class PruneSettings:
    # Parts to prune: layers, channels of MLPs, heads (key-value groups), two of every four weights (2:4), or any weights (none).
    structure: Structure = "layers"
    share: float = 0.2  # share of these parts to prune
    method: str = ""  # a pruner: a file in compress/pruners; empty = the one that costs the least (`BEST`)
    # Texts to calibrate on.
    calibration: CalibrationSettings = field(default_factory=lambda: CalibrationSettings(documents=64, tokens=512))
    recovery: RecoverySettings = field(default_factory=RecoverySettings)  # training that makes up for the loss
    rank: Count = 32  # rank of the low-rank additions of the recovery

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ConfigError("share", "must be above 0 and below 1", self.share, "For example 1/4.")
        if self.structure == "2:4" and self.share != 0.5:
            raise ConfigError("share", "must be 0.5 for 2:4: two of every four weights go", self.share, "The nearest is 0.5.")
        check_bounds(self)
        find_pruner(self.pruner, self.structure)

    @property
    def pruner(self) -> str:
        """Name of the pruner."""
        return self.method or BEST[self.structure]


def prunable_heads(config: ModelConfig) -> bool:
    """Return whether heads can go without changing the others: all attention is full, and no norm spans them."""
    return config.is_transformer and not (config.qk_norm and config.ways.whole_norm)


def parts_that_stay(config: ModelConfig, settings: PruneSettings) -> int:
    """Count the layers that stay, or the channels or key-value groups in each; 0 where single weights are pruned.

    Raises ConfigError, with the nearest share, for one that leaves no whole number of them, and for groups of a hybrid.
    """
    config.check_plain("pruned")
    if settings.structure in ("none", "2:4"):
        return 0
    if settings.structure == "heads" and not prunable_heads(config):
        what = "one norm spans all heads of this model" if config.is_transformer else "this is a hybrid"
        cure = "Choose another structure." if config.is_transformer else "Prune the original model."
        raise ConfigError("structure", f"Heads can be pruned only where all attention is full and they share no norm, and {what}", "", cure)
    lanes = _LANES if settings.structure == "channels" and config.intermediate_size % _LANES == 0 else 1
    all_parts = {"layers": len(config.layers), "channels": config.intermediate_size // lanes, "heads": config.num_kv_heads}
    of = all_parts[settings.structure]
    gone = settings.share * of
    if abs(gone - round(gone)) > _NEAR or not 0 < round(gone) < of:
        near = sorted({min(max(1, number), of - 1) for number in (int(gone), int(gone) + 1)})
        what = f"{of} {settings.structure}" if lanes == 1 else f"{of} times {lanes} channels"
        if of < 2:
            raise ConfigError("structure", f"must leave at least one of {what}", settings.share, "Choose another structure.")
        cure = "The nearest: " + " or ".join(f"{number}/{of} = {number / of:.4g}" for number in near) + "."
        raise ConfigError("share", f"must be a whole number of {what}", f"{settings.share:.4g}, which is {gone:.2f}", cure)
    return (of - round(gone)) * lanes


# Cutting a model layer by layer: each reads what the layers before it, as they are now, hand on; its tensors are kept at once.
# FOLDER/NN.safetensors the delta's tensors of one layer


Array = npt.NDArray[Any]
LINEARS = tuple(name for stage in STAGES for name in stage)


@dataclass(frozen=True, slots=True)
class Cutting:
    """A job: the model to cut, the settings, and the folder."""

    module: CausalLM  # the whole model; it stays as it is
    settings: PruneSettings
    staying: int  # see `parts_that_stay`
    rows: Tensor  # token ids to read, int64 [rows, tokens]
    folder: Path
    tell: Counted = silent


@torch.no_grad()
def cut(job: Cutting) -> dict[str, Array]:
    """Return the tensors of a delta of the kind `mask` or `shape`. Stopped at any moment, the same call goes on with the next layer."""
    if job.settings.structure == "layers":
        return {LAYERS: find_pruner(job.settings.pruner, "layers")(influence(job), job.staying).numpy().astype(np.float32)}
    layers: Any = job.module.model.layers
    seen = looks(job.settings.pruner)
    batch = job.settings.calibration.batch
    stream = Stream(job.module, job.rows, batch) if seen else None
    original = Stream(job.module, job.rows, batch) if seen and job.settings.structure in ("channels", "heads") else None
    by_layer: list[dict[str, Array]] = []
    for i, layer in enumerate(layers):
        job.tell(i, len(layers))
        mine, path = deepcopy(layer), job.folder / f"{i:03}.safetensors"
        tensors = _read_layer(path)
        if tensors is None:
            tensors = _of_units(job, mine, layer, stream, original) if original or not _sparse(job) else _of_weights(job, mine, stream)
            write_atomic(path, save(tensors), mode=0o600)
        by_layer.append(tensors)
        _apply(job, mine, tensors)
        for one, moved in ((stream, mine), (original, layer)):
            if one is not None:
                one.advance(moved)
    job.tell(len(layers), len(layers))
    named = {f"model.layers.{i}.{key}": values for i, tensors in enumerate(by_layer) for key, values in tensors.items() if key != _STAYS}
    if _sparse(job):
        return named
    chosen = CHANNELS if job.settings.structure == "channels" else GROUPS
    named[LAYERS] = np.arange(len(layers), dtype=np.float32)
    named[chosen] = np.stack([tensors[_STAYS] for tensors in by_layer]).astype(np.float32)
    return named


@torch.no_grad()
def influence(job: Cutting) -> Tensor:
    """Influence of each layer, float32 [layers]: 1 − mean cosine of its input and its output, over all tokens (arXiv 2403.03853)."""
    stream, values = Stream(job.module, job.rows, job.settings.calibration.batch), []
    layers: Any = job.module.model.layers
    for i, layer in enumerate(layers):
        job.tell(i, len(layers))
        before = stream.states.clone()
        stream.advance(layer)
        values.append(1 - nn.functional.cosine_similarity(before, stream.states, dim=-1).mean())
    job.tell(len(layers), len(layers))
    return torch.stack(values)


_STAYS = "stays"
_NOTHING = Inputs(0, torch.zeros(0, 0))


def _sparse(job: Cutting) -> bool:
    return job.settings.structure in ("none", "2:4")


def _of_weights(job: Cutting, layer: Any, stream: Stream | None) -> dict[str, Array]:
    """Cut all linears of a layer, by their inputs while the layer is whole, as the papers do it."""
    prune, of = find_pruner(job.settings.pruner, job.settings.structure), 4 if job.settings.structure == "2:4" else 0
    inputs = stream.inputs(layer, LINEARS) if stream is not None else dict.fromkeys(LINEARS, _NOTHING)
    tensors: dict[str, Array] = {}
    for name in LINEARS:
        choice = prune(layer.get_submodule(name).weight, inputs[name], job.settings.share, of)
        tensors[f"{name}.mask"] = pack_mask(choice.stays.numpy())
        if choice.weight is not None:
            tensors[f"{name}.kept"] = choice.weight[choice.stays].numpy().astype(np.float16)
    return tensors


def _of_units(job: Cutting, mine: Any, theirs: Any, stream: Stream | None, original: Stream | None) -> dict[str, Array]:
    """Cut the channels or the groups of a layer."""
    name, config = _output(job), job.module.config
    linear = mine.get_submodule(name)
    inputs = _NOTHING
    if stream is not None and original is not None:
        inputs = stream.inputs(mine, (name,), (original, theirs))[name]
    size = 1 if job.settings.structure == "channels" else config.queries_per_group * config.head_dim
    squares = linear.weight.square().sum(0).view(-1, size).sum(1)
    for part in ("mlp.gate_proj", "mlp.up_proj") if size == 1 else ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
        squares = squares + mine.get_submodule(part).weight.square().sum(1).view(len(squares), -1).sum(1)
    block = PrunedBlock(linear.weight, inputs, size, squares)
    choice = find_pruner(job.settings.pruner, job.settings.structure)(block, job.staying)
    tensors: dict[str, Array] = {_STAYS: choice.stays.numpy().astype(np.int64)}
    if choice.weight is not None:
        tensors[f"{name}.weight"] = choice.weight.numpy().astype(np.float16)
    return tensors


def _apply(job: Cutting, layer: Any, tensors: Mapping[str, Array]) -> None:
    """Change the layer as the delta will. Removed units get zeros in the output matrix: the same sums, and no shapes to change."""
    if _sparse(job):
        for name in LINEARS:
            weight = layer.get_submodule(name).weight
            stays = torch.from_numpy(np.unpackbits(tensors[f"{name}.mask"], axis=1, count=weight.shape[1])).bool()
            if f"{name}.kept" in tensors:
                weight[stays] = torch.from_numpy(tensors[f"{name}.kept"].astype(np.float32))
            weight *= stays
        return
    name = _output(job)
    weight, stored_weight = layer.get_submodule(name).weight, tensors.get(f"{name}.weight")
    size = 1 if job.settings.structure == "channels" else job.module.config.queries_per_group * job.module.config.head_dim
    columns = columns_of(torch.from_numpy(tensors[_STAYS]), size)
    stays = weight[:, columns].clone() if stored_weight is None else torch.from_numpy(stored_weight.astype(np.float32))
    weight.zero_()
    weight[:, columns] = stays


def _output(job: Cutting) -> str:
    return "mlp.down_proj" if job.settings.structure == "channels" else "self_attn.o_proj"


def _read_layer(path: Path) -> dict[str, Array] | None:
    """Read a layer's tensors from an earlier sitting; None if there are none, or they can't be read."""
    try:
        tensors: dict[str, Array] = load(path.read_bytes())
    except (OSError, SafetensorError):
        return None
    return tensors


# `prune`: from a kept model to a candidate of the kind `mask` or `shape`; a delta if it is admitted.
# Stopped at any moment, the same call goes on where it was.
#     HOME/tuning/KEY/layers/      tensors of each layer that is cut
#     HOME/tuning/KEY/recovery/    the training that makes up for it, as `train` writes it


VERSION = 1  # changes when the same settings make something else than before


def prune(
    home: Home, kept: Kept, name: str, settings: PruneSettings, admit: Admit, watch: RunWatch = RunWatch(),  # noqa: B008 - frozen
    command: str = "", sink: Sink = silent,
) -> MadeDelta:  # fmt: skip
    """Make a delta called `name` that leaves parts of a kept model out, and keep it if `admit` takes it.

    Raises ConfigError for a name, model or share that can't be used, the errors of opening the model and fetching the texts, TrainError,
    HomeError, Refused if `admit` refuses it, and Interrupted after Ctrl-C or SIGTERM; the same call then goes on where it was.
    """
    job = delta_job("prune", VERSION, home, kept, name, settings, watch, command)
    checkpoint = open_weights(home, kept)
    parts_that_stay(checkpoint.config, settings)

    def make(job: DeltaJob[PruneSettings]) -> Candidate:
        tokenizer = checkpoint_tokenizer(checkpoint, home.base_folder(kept.base))
        needed = looks(settings.pruner) or settings.recovery.wanted
        return make_candidate(job, checkpoint, tokenizer, read_texts(home, watch.bytes) if needed else [])

    return make_delta(job, make, _events, admit, sink)


def make_candidate(job: DeltaJob[PruneSettings], checkpoint: Checkpoint, tokenizer: Tokenizer, texts: Sequence[Text]) -> Candidate:
    """Make the candidate. Raises as `prune` does."""
    settings, config = job.settings, checkpoint.config
    keep_few_programs()
    job.watch.pieces("loading weights", 0, 1)
    whole = load_module(checkpoint)
    no_rows = torch.zeros(0, 0, dtype=torch.int64)
    rows = make_rows(tokenizer, texts, settings.calibration, config.context_length) if looks(settings.pruner) else no_rows

    def tell(done: int, total: int) -> None:
        job.check(f"after {done} of {total} layers")
        job.watch.pieces("pruning layers", done, total)

    tensors = cut(Cutting(whole, settings, parts_that_stay(config, settings), rows, job.folder / "layers", tell))
    kind = cut_model.MASK if settings.structure in ("none", "2:4") else cut_model.SHAPE
    report: dict[str, Any] = {"structure": settings.structure, "share": settings.share, "texts": digest_json(rows.tolist())}
    if settings.recovery.wanted:
        added, recovered = _recovered(job, checkpoint, whole, Change(job.name, kind, tensors), tokenizer, texts)
        tensors, report["recovery"] = tensors | added, recovered
    small = merged(checkpoint, [Change(job.name, kind, tensors)])
    masks = cut_model.masks_of(linear_shapes(config), tensors) if kind == cut_model.MASK else {}
    report |= {"parameters_before": parameters_of(checkpoint), "parameters": parameters_of(small, masks)}
    return job.candidate(kind, settings.pruner, tensors, report)


def parameters_of(checkpoint: Checkpoint, masks: Mapping[str, Array] | None = None) -> int:
    """Count the numbers in a model, except those that masks (bool, by linear) make 0."""
    gone = sum(int((~mask).sum()) for mask in (masks or {}).values())
    return sum(int(np.prod(size)) for size in expected_shapes(checkpoint.config).values()) - gone


def _recovered(
    job: DeltaJob[PruneSettings], checkpoint: Checkpoint, whole: CausalLM, change: Change, tokenizer: Tokenizer, texts: Sequence[Text]
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Train to recover; return the learnt tensors, and the training's report."""
    job.check("before the recovery")
    settings = job.settings
    small = load_module(merged(checkpoint, [change]))
    masks = cut_model.masks_of(linear_shapes(checkpoint.config), change.tensors) if change.kind == cut_model.MASK else {}
    linears = put_low_rank(small, linear_shapes(small.config), settings.rank, 1.0, settings.recovery.seed)
    for name, mask in masks.items():
        linears[name].mask = torch.from_numpy(mask)
    parameters = added_parameters(linears)
    done = Recovery(job, settings.recovery, whole, tokenizer, texts).run(small, parameters)
    return {name: tensor.numpy() for name, tensor in all_tensors(linears).items()}, asdict(done)


def _events(report: Mapping[str, Any], _delta: Delta) -> list[Event]:
    facts: dict[str, Fact] = {}
    if gained := report.get("recovery"):
        facts = {"recovery_before": gained["first_held_out"], "recovery_after": gained["held_out"], "recovery_tokens": gained["tokens"]}
        facts |= energy_facts(gained)
    return [made_event("prune", report, ("structure", "share", "parameters_before", "parameters"), facts)]
