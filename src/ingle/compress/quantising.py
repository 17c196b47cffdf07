"""`quantise`: from a kept model to one in fewer bits, as a delta of the kind `quantised`."""

import copy
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from ingle.compress.calibration import STAGES, CalibrationSettings, Inputs, Stream, make_rows, read_texts
from ingle.compress.quantiser import Quantiser, error_of, find_quantiser
from ingle.compress.recovery import Recovery, RecoverySettings
from ingle.compress.weight_formats import (
    FORMATS,
    USUAL,
    WeightFormat,
    attach_grids,
    choose_formats,
    find_format,
    fits,
    guidance,
    sensitivities,
    settled_blocks,
)
from ingle.core.candidate import Admit, Candidate
from ingle.core.config import Count, check_bounds
from ingle.core.delta import Delta
from ingle.core.energy import NOTHING, Energy, reported
from ingle.core.errors import ConfigError, HomeError
from ingle.core.files import write_atomic
from ingle.core.progress import Counted, silent
from ingle.core.report import Event, Sink
from ingle.energy.meter import Span, open_meter
from ingle.engine.adapter import linear_shapes
from ingle.engine.delta_kinds import QUANTISED, Change, merged, stored
from ingle.engine.packs import checkpoint_tokenizer, open_weights
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.measure.data_sets import Text
from ingle.model.checkpoint import Checkpoint
from ingle.model.module import CausalLM, DecoderLayer, load_module
from ingle.model.tokenizer import Tokenizer
from ingle.train.making import DeltaJob, MadeDelta, RunWatch, delta_job, energy_facts, made_event, make_delta
from ingle.train.optimisers import keep_few_programs

# Settings of a quantisation.


@dataclass(frozen=True, slots=True)
class QuantiseSettings:
    """Settings of quantising the linears of a model's layers. The vocabulary is served in 8 bits in any case."""

    # Bits of a weight's code, in the mean over the linears of all layers: 3, 4, 8, or between; then the most sensitive linears get most.
    # Scales and minima come on top: 1 bit a weight with 3 and 4, half a bit with 8.
    bits: float = 4.0
    # Formats that linears may take: int3, int4, int8, or q4_1, which GGUF has; empty = the one of the first three with these `bits`, or all
    # three where `bits` lie between.
    forms: tuple[str, ...] = ()
    method: str = "gptq"  # a file of compress/quantisers
    # Texts that the model reads, where the method needs its activations, or there is a choice of formats.
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    sensitivity_documents: Count = 16  # rows on which sensitivity is measured, forward and back
    # Training of scales and minima after all layers are quantised.
    recovery: RecoverySettings = field(default_factory=lambda: RecoverySettings(learning_rate=3e-4))

    def __post_init__(self) -> None:
        if not 3 <= self.bits <= 8:
            cure = "Below 3 bits there is no format: see docs/compress.md." if self.bits < 3 else "8 is as good as exact."
            raise ConfigError("bits", "must be from 3 to 8", self.bits, cure)
        for name in self.forms:
            find_format(name)
        find_quantiser(self.method)
        check_bounds(self)

    @property
    def allowed(self) -> tuple[WeightFormat, ...]:
        """Formats that a linear may take, the one of fewest bits first."""
        own = [name for name in USUAL if FORMATS[name].bits == self.bits]
        return tuple(sorted((FORMATS[name] for name in self.forms or own or USUAL), key=lambda format_: format_.bits))


# Quantisation layer by layer: each linear is put on its grid, by the inputs that the layers before, as they are now, hand on.
# FOLDER/layer-I.safetensors what replaces parameters of layer I; written when the layer is done


Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """Texts that a model reads while it is quantised."""

    rows: Tensor  # rows of token ids, from `make_rows`
    weights: Mapping[str, Tensor] | None = None  # by parameter, the weight of each token, from `guidance`; None = all alike
    batch: int = 8  # rows read at once


@dataclass(frozen=True, slots=True)
class Layerwise:
    """Result of quantising all layers."""

    # By parameter: blocks uint8 [N, bytes] of quantised linears, float32 of parameters that scales were folded into.
    tensors: Mapping[str, Array]
    # By parameter: squared error of the outputs (without calibration: of the weights) as a share of their square.
    errors: Mapping[str, float] = field(default_factory=dict)


def quantise_layers(
    module: CausalLM, shown: Shown | None, quantiser: Quantiser, formats: Mapping[str, WeightFormat],
    folder: Path | None = None, tell: Counted = silent,
) -> Layerwise:  # fmt: skip
    """Quantise the linears in `formats` (by parameter), the first layer first. `shown`: the texts; None for a quantiser that is not
    calibrated. The module stays as it is. Layers that `folder` holds are not made again.

    `tell` hears layers done, of all; an error that it raises ends the run, and the same call goes on from there.
    """
    assert shown is not None or not quantiser.calibrated, "a calibrated quantiser needs texts"
    stream = Stream(module, shown.rows, shown.batch) if shown is not None else None
    tensors, errors, count = dict[str, Array](), dict[str, float](), len(module.model.layers)
    for index, layer in enumerate(module.model.layers):
        tell(index, count)
        assert isinstance(layer, DecoderLayer)
        prefix, ours = f"model.layers.{index}.", copy.deepcopy(layer)
        chosen = {name.removeprefix(prefix).removesuffix(".weight"): way for name, way in formats.items() if name.startswith(prefix)}
        earlier = _read(folder, index)
        if earlier is None:
            weights = None if shown is None or shown.weights is None else {name: shown.weights[f"{prefix}{name}.weight"] for name in chosen}
            new, off = _quantise_layer(ours, chosen, quantiser, stream, weights)
            _write(folder, index, new, off)
        else:
            new, off = earlier
            _replace(ours, new)
        tensors |= {f"{prefix}{name}": value for name, value in new.items()}
        errors |= {f"{prefix}{name}": value for name, value in off.items()}
        if stream is not None and index + 1 < count:
            stream.advance(ours)
    tell(count, count)
    return Layerwise(tensors, errors)


def _quantise_layer(
    ours: DecoderLayer,
    formats: Mapping[str, WeightFormat],
    quantiser: Quantiser,
    stream: Stream | None,
    weights: Mapping[str, Tensor] | None,
) -> tuple[dict[str, Array], dict[str, float]]:
    """Return this layer's new parameters, by their names within it, and the errors. The layer itself is changed, too."""
    new, errors = dict[str, Array](), dict[str, float]()
    if quantiser.fold is not None and stream is not None and formats:
        folded = quantiser.fold(ours, stream.inputs(ours, list(formats)), formats)
        new |= {name: ours.get_parameter(name).detach().numpy().copy() for name in folded}
    for stage in STAGES:
        names = [name for name in stage if name in formats]
        if not names:
            continue
        inputs: Mapping[str, Inputs] = stream.inputs(ours, names, weights=weights) if stream is not None else {}
        for name in names:
            weight = ours.get_parameter(f"{name}.weight").detach()
            seen = inputs.get(name)
            on_grid = quantiser.quantise(weight, seen, formats[name])
            hessian = torch.eye(weight.shape[1], dtype=torch.float64) if seen is None else seen.hessian
            whole = error_of(weight, torch.zeros_like(weight), hessian)
            errors[f"{name}.weight"] = error_of(weight, on_grid.values, hessian) / max(whole, 1e-30)
            new[f"{name}.weight"] = on_grid.blocks()
            _set(ours, f"{name}.weight", on_grid.values)
    return new, errors


def _replace(layer: DecoderLayer, new: Mapping[str, Array]) -> None:
    for name, value in new.items():
        shape = tuple(layer.get_parameter(name).shape)
        _set(layer, name, torch.from_numpy(stored(name, shape, value).to_float32()))


def _set(layer: DecoderLayer, name: str, values: Tensor) -> None:
    owner, _, part = name.rpartition(".")
    setattr(layer.get_submodule(owner), part, nn.Parameter(values, requires_grad=False))


def _path(folder: Path, index: int) -> Path:
    return folder / f"layer-{index}.safetensors"


def _write(folder: Path | None, index: int, made: Mapping[str, Array], errors: Mapping[str, float]) -> None:
    if folder is None:
        return
    from safetensors.numpy import save

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(_path(folder, index), save(dict(made), {"errors": json.dumps(errors)}), mode=0o600)


def _read(folder: Path | None, index: int) -> tuple[dict[str, Array], dict[str, float]] | None:
    """Read an earlier sitting's layer, if it is whole."""
    if folder is None or not _path(folder, index).exists():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(_path(folder, index), "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["errors"])  # noqa: SIM118
    except (SafetensorError, OSError):
        return None


# `quantise`: from a kept model to a candidate of the kind `quantised`; a delta if it is admitted.
# Stopped at any moment, the same call goes on where it was.
#     HOME/tuning/KEY/sensitivity.json          cost of rounding each linear
#     HOME/tuning/KEY/guidance.safetensors      weight of each token at each linear
#     HOME/tuning/KEY/layer-I.safetensors       each layer that is done
#     HOME/tuning/KEY/energy.json               energy of interrupted sittings
#     HOME/tuning/KEY/recovery/                 training of scales and minima


VERSION = 4  # changes when the same settings make something else than before
SENSITIVITY = "sensitivity.json"
GUIDANCE = "guidance.safetensors"
ENERGY = "energy.json"
_Q4_0 = replace(FORMATS["q4_1"], name="Q4_0", kind="Q4_0", block_bytes=18)
# Formats of a file that are served as they are. Rounding again to as many bits or more could only lose.
_NATIVE = {format_.kind: format_ for format_ in FORMATS.values()} | {"Q4_0": _Q4_0}


@dataclass(frozen=True, slots=True)
class _Work:
    """A job, and the energy that it uses."""

    job: DeltaJob[QuantiseSettings]
    span: Span

    def tell(self, what: str) -> Counted:
        """Return a callback for the progress of one part; it raises Interrupted when somebody wants to stop."""

        def progress(done: int, of: int) -> None:
            self.span.tick()
            self.job.watch.pieces(what, done, of)
            self.job.check(f"{what}, {done} of {of}")

        return progress

    def end(self) -> Energy:
        """Energy of this sitting and of interrupted ones before it; the next will count it, too."""
        path = self.job.folder / ENERGY
        whole = self.span.end() + (Energy(**json.loads(path.read_bytes())) if path.exists() else NOTHING)
        with suppress(HomeError):  # a full disk: the error before is reported, not this one
            write_atomic(path, json.dumps(whole.table()).encode(), mode=0o600)
        return whole


def quantise(
    home: Home, kept: Kept, name: str, settings: QuantiseSettings, admit: Admit, watch: RunWatch = RunWatch(),  # noqa: B008 - frozen
    command: str = "", sink: Sink = silent,
) -> MadeDelta:  # fmt: skip
    """Make a delta called `name` that replaces the linears of a kept model's layers by blocks of few bits; keep it if `admit` takes it.

    Raises ConfigError for a name that can't be used and a model with nothing to quantise, the errors of opening the model and fetching
    the texts, HomeError, Refused if `admit` refuses it, and Interrupted after Ctrl-C or SIGTERM; the same call then goes on.
    """
    job = delta_job("quantise", VERSION, home, kept, name, settings, watch, command)
    checkpoint = open_weights(home, kept)
    plan = plan_of(kept.name, checkpoint, settings.bits, settings.allowed)

    def make(job: DeltaJob[QuantiseSettings]) -> Candidate:
        return _make(_Work(job, Span(open_meter())), checkpoint, plan)

    return make_delta(job, make, _events, admit, sink)


@dataclass(frozen=True, slots=True)
class QuantisationPlan:
    """Linears that can be quantised, and the formats to choose from."""

    formats: tuple[WeightFormat, ...]  # formats that linears may take, the one of fewest bits first
    sizes: Mapping[str, int]  # weights of each parameter that can take the first of them
    native: Mapping[str, WeightFormat]  # formats that some of these are in already, as good as exact: they can stay so
    # (weights, bits) of linears that stay as they are: they are in as few bits already, or their columns fill no blocks.
    fixed: tuple[tuple[int, float], ...]

    def ways(self, name: str) -> tuple[WeightFormat, ...]:
        """Formats that a parameter can take."""
        native = self.native.get(name)
        return self.formats if native is None else (*(format_ for format_ in self.formats if format_.bits < native.bits), native)


def plan_of(model: str, checkpoint: Checkpoint, bits: float, formats: tuple[WeightFormat, ...]) -> QuantisationPlan:
    """Plan which linears can be put in how many bits. `model` is for messages.

    Raises ConfigError where there are none, or `bits` can't be met.
    """
    checkpoint.config.check_plain("quantised")
    few, sizes, native, fixed = formats[0], dict[str, int](), dict[str, WeightFormat](), []
    for linear, shape in linear_shapes(checkpoint.config).items():
        name, count = f"{linear}.weight", math.prod(shape)
        there = _NATIVE.get(checkpoint.tensor(name).kind)
        if there is not None and there.bits <= few.bits:
            fixed.append((count, float(there.bits)))
        elif not fits(shape):
            fixed.append((count, 8.0))
        else:
            sizes[name] = count
            if there is not None:
                native[name] = there
    rest = sum(count * each for count, each in fixed)
    whole = sum(sizes.values()) + sum(count for count, _ in fixed)
    now = rest + sum(native[name].bits * size for name, size in sizes.items() if name in native)
    if not sizes or (len(native) == len(sizes) and now <= bits * whole):
        cure = "Rounding it again could only lose. Merging a delta into it would change that." if fixed or native else ""
        got = f"{len(fixed) + len(native)} of fewer, or of other sizes"
        raise ConfigError(f"model {model}", f"has no linears of more than {bits:g} bits that fill blocks of 32", got, cure)
    least = (few.bits * sum(sizes.values()) + rest) / whole
    if least > bits + 1e-9:
        cure = f"The least is {math.ceil(100 * least - 1e-6) / 100:.2f}."
        raise ConfigError("bits", f"can't be met by {model} in {few.name}, if other linears stay as they are", bits, cure)
    return QuantisationPlan(formats, sizes, native, tuple(fixed))


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Result before scales and minima recover."""

    module: CausalLM
    tokenizer: Tokenizer
    texts: Sequence[Text]
    formats: Mapping[str, WeightFormat]
    tensors: Mapping[str, Array]
    report: dict[str, Any]


def _make(work: _Work, checkpoint: Checkpoint, plan: QuantisationPlan) -> Candidate:
    job, settings = work.job, work.job.settings
    try:
        blocks = _blocks(work, checkpoint, plan)
    finally:
        energy = work.end()  # a recovery has its own meter
    tensors, report = blocks.tensors, blocks.report
    if settings.recovery.wanted:
        recovery = Recovery(job, settings.recovery, blocks.module, blocks.tokenizer, blocks.texts)
        tensors, report["recovery"] = _recovered(recovery, checkpoint, tensors, blocks.formats)
        energy += reported(report["recovery"]) or NOTHING
    return job.candidate(QUANTISED, settings.method, tensors, report | {"energy": energy.table()})


def _blocks(work: _Work, checkpoint: Checkpoint, plan: QuantisationPlan) -> _Blocks:
    job, settings = work.job, work.job.settings
    quantiser = find_quantiser(settings.method)
    mixed = len(plan.formats) > 1
    tokenizer = checkpoint_tokenizer(checkpoint, job.home.base_folder(job.kept.base))
    texts = read_texts(job.home, job.watch.bytes) if mixed or quantiser.calibrated or settings.recovery.wanted else []
    rows = None
    if mixed or quantiser.calibrated:
        rows = make_rows(tokenizer, texts, settings.calibration, checkpoint.config.context_length)
    work.tell("loading weights")(0, 1)
    module = load_module(checkpoint)
    chosen: Mapping[str, WeightFormat] = dict.fromkeys(plan.sizes, plan.formats[0])
    costs: dict[str, dict[str, float]] = {}
    if mixed:
        assert rows is not None, "mixed formats need rows"
        costs = _costs(work, module, rows, plan)
        ways = {
            name: {format_: 0.0 if format_ == plan.native.get(name) else costs[name][format_.name] for format_ in plan.ways(name)}
            for name in plan.sizes
        }
        chosen = choose_formats(ways, plan.sizes, settings.bits, plan.fixed)
    formats = {name: format_ for name, format_ in chosen.items() if format_ != plan.native.get(name)}
    shown = None
    if quantiser.calibrated:
        assert rows is not None, "a calibrated quantiser needs rows"
        shown = Shown(rows, _guidance(work, module, rows, formats) if quantiser.guided else None, settings.calibration.batch)
    done = quantise_layers(module, shown, quantiser, formats, job.folder, work.tell("quantising layers"))
    report = _report(plan, chosen, costs, done.errors) | {"calibration_tokens": 0 if rows is None else rows.numel()}
    return _Blocks(module, tokenizer, texts, formats, done.tensors, report)


def _recovered(
    recovery: Recovery, checkpoint: Checkpoint, tensors: Mapping[str, Array], formats: Mapping[str, WeightFormat]
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Train scales and minima; return the tensors with the new ones, and the training's report."""
    keep_few_programs()
    small = load_module(merged(checkpoint, [Change("", QUANTISED, tensors)]))
    trained = recovery.run(small, attach_grids(small, tensors, formats))
    return {**tensors, **settled_blocks(small, formats)}, asdict(trained)


def _costs(work: _Work, module: CausalLM, rows: Tensor, plan: QuantisationPlan) -> dict[str, dict[str, float]]:
    """Cost of each linear in each format: measured now, or by an earlier sitting."""
    job = work.job
    path = job.folder / SENSITIVITY
    if not path.exists():
        some, tell = rows[: job.settings.sensitivity_documents], work.tell("measuring sensitivity")
        measured = sensitivities(module, some, plan.sizes, plan.formats, tell, job.settings.calibration.seed)
        job.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(path, json.dumps(measured).encode(), mode=0o600)
    costs: dict[str, dict[str, float]] = json.loads(path.read_bytes())
    return costs


def _guidance(work: _Work, module: CausalLM, rows: Tensor, formats: Mapping[str, WeightFormat]) -> dict[str, Tensor]:
    """Weight of each token at each linear: measured now, or by an earlier sitting."""
    job = work.job
    path = job.folder / GUIDANCE
    if not path.exists():
        weights = guidance(module, rows, formats, work.tell("weighing tokens"), job.settings.calibration.seed)
        job.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(path, save(weights), mode=0o600)
    return load(path.read_bytes())


def _report(
    plan: QuantisationPlan, chosen: Mapping[str, WeightFormat], costs: Mapping[str, Mapping[str, float]],
    errors: Mapping[str, float],
) -> dict[str, Any]:  # fmt: skip
    weights = sum(plan.sizes.values())
    whole = weights + sum(count for count, _ in plan.fixed)
    coded = sum(chosen[name].bits * size for name, size in plan.sizes.items()) + sum(count * bits for count, bits in plan.fixed)
    parts: dict[str, list[float]] = {}
    for name, error in errors.items():
        parts.setdefault(name.removesuffix(".weight").rpartition(".")[2], []).append(error)
    return {
        "bits": coded / whole, "weights": weights,
        "linears": len(errors), "untouched": len(plan.fixed) + len(plan.sizes) - len(errors),
        "stored_bits": sum(chosen[name].stored_bits * size for name, size in plan.sizes.items()) / weights,
        "forms": {format_.name: sorted(name for name in errors if chosen[name] == format_) for format_ in FORMATS.values()},
        "output_errors": {part: sum(values) / len(values) for part, values in sorted(parts.items())}, "sensitivity_nats": dict(costs),
    }  # fmt: skip


def _events(report: Mapping[str, Any], _delta: Delta) -> list[Event]:
    keys = ("bits", "stored_bits", "linears", "untouched", "calibration_tokens")
    return [made_event("quantise", report, keys, energy_facts(report))]
