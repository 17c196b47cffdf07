"""Lists of models, and what a model is made of."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from ingle.app.house import House
from ingle.app.operation import About, Note, Nothing, Rows, Said, operation
from ingle.core.config import to_table
from ingle.core.energy import reported, total
from ingle.core.errors import DeltaError, HomeError, IngleError, size
from ingle.core.report import shown_interval
from ingle.home.base import Base, base_report, read_base
from ingle.home.deltas import delta_bytes, delta_report, get_delta
from ingle.home.kept import Kept, get_kept, list_models
from ingle.home.lean import is_lean
from ingle.home.parts import list_parts
from ingle.home.place import Home

if TYPE_CHECKING:
    from ingle.core.spec import ModelConfig
    from ingle.engine.packs import PackInfo


@dataclass(frozen=True, slots=True)
class ModelTold:
    """A model in this home, or a part (a voice, an ear, …)."""

    name: str
    base: str
    deltas: tuple[str, ...]
    source: str
    revision: str
    licence: str
    bytes: int
    delta_bytes: int
    created_at: str
    part: bool
    made: str  # how its last delta was made


@dataclass(frozen=True, slots=True)
class ModelsTold:
    """The models in this home, and those that are damaged."""

    object: str
    data: tuple[ModelTold, ...]
    faults: tuple[str, ...]


def _says_models(told: ModelsTold) -> Iterable[Said]:
    if told.data:
        yield Rows(("NAME", "SIZE", "DELTAS", "SINCE", "LICENCE", "SOURCE"), [_row(one) for one in told.data])
    elif not told.faults:
        yield Note("There are no models yet. `ingle pull smollm2` brings a first model.")
    yield from (Note(f"ingle: {fault}") for fault in told.faults)


def _row(one: ModelTold) -> tuple[str, ...]:
    room = f"+ {size(one.delta_bytes)}" if one.deltas else size(one.bytes)
    count = "part" if one.part else str(len(one.deltas))
    return one.name, room, count, one.created_at[:10], one.licence or "?", one.made or one.source


@operation("list", right="owner", says=_says_models, code=lambda told: HomeError.exit_code if told.faults else 0)
def list_all(house: House, _asked: Nothing) -> ModelsTold:
    """List the models in this home and their deltas.

    Examples:
        ingle list
        ingle list --json
    """
    home, faults, found = house.home, list[str](), list[ModelTold]()
    for kept in list_models(home, lambda _name, error: faults.append(str(error))):
        try:
            base = read_base(home, kept.base)
        except HomeError as error:
            faults.append(str(error))
            continue
        nbytes = sum(delta_bytes(home, digest) for digest in kept.deltas)
        found.append(_told(kept.name, base, kept.deltas, nbytes, kept.created_at, False, _made(home, kept)))
    for part in list_parts(home):
        base = read_base(home, part.base)
        found.append(_told(part.name, base, (), 0, base.pulled_at, True, ""))
    return ModelsTold("list", tuple(found), tuple(faults))


def _told(name: str, base: Base, deltas: Iterable[str], nbytes: int, since: str, part: bool, made: str) -> ModelTold:
    return ModelTold(name, base.digest, tuple(deltas), base.source, base.revision, base.licence, base.nbytes, nbytes, since, part, made)


def _made(home: Home, kept: Kept) -> str:
    """Say in few words where the last delta of a model comes from."""
    if not kept.deltas:
        return ""
    try:
        delta = get_delta(home, kept.deltas[-1])
    except IngleError:
        return "a delta that is missing or damaged: `ingle verify --models` says more"
    how = delta.origin.get("method", delta.kind)
    return f"{how}, {delta.origin['data']}" if delta.origin.get("data") else how


@dataclass(frozen=True, slots=True)
class Showing:
    """A model that is shown."""

    name: Annotated[str, About("A model, or MODEL+DELTA.", "NAME", placed=True)]


@dataclass(frozen=True, slots=True)
class ModelShown:
    """What a model is made of."""

    object: str
    data: Mapping[str, Any]
    lines: tuple[tuple[str, str], ...]


@operation("show", right="owner", says=lambda told: (f"{label:<11} {value}" for label, value in told.lines))
def show(house: House, asked: Showing) -> ModelShown:
    """Show what a model is made of.

    Examples:
        ingle show smollm2
        ingle show smollm2 --json
        ingle show smollm2+mine
    """
    from ingle.energy.label import load as load_label
    from ingle.energy.label import to_table as label_table
    from ingle.model.tensor import expected_shapes

    home = house.home
    kept = get_kept(home, asked.name)
    base, config, lean = read_base(home, kept.base), _config(home, kept), is_lean(home.base_folder(kept.base))
    parameters = sum(math.prod(shape) for shape in expected_shapes(config).values())
    deltas = [_delta(home, digest) for digest in kept.deltas]
    packs, served = _served(home, kept)
    report, label = base_report(home, kept.base), load_label(home.labels, kept.digest)
    formats = [{"format": pack.format, "bytes": pack.nbytes, "model_digest": pack.digest} for pack in packs]
    about = {
        "name": kept.name, "deltas": list(kept.deltas), "created_at": kept.created_at, "base": to_table(base), "lean": lean,
        "parameters": parameters, "config": to_table(config), "packed": formats, **({"training": report} if report else {}),
        **({"energy_label": label_table(label)} if label else {}), **({"made": deltas, "served": served} if deltas else {}),
    }  # fmt: skip
    lines = [
        ("name", kept.name),
        ("source", f"{base.source} {base.revision}".strip()),
        ("licence", base.licence or "not stated by its source"),
        *_shape_lines(config, parameters),
        *(("file", f"{file.name}, {size(file.size)}, SHA-256 {file.sha256}") for file in base.files),
        *([("  lean", "on the disk once, as it is served; made again where it is read")] if lean else []),
        ("base", base.digest),
        *(_training_lines(report) if report else ()),
        *(line for delta in deltas for line in _delta_lines(delta)),
        *([("served", served)] if deltas else []),
        *(("packed", f"{pack.format}, {size(pack.nbytes)}, model digest {pack.digest}") for pack in packs),
        *([("energy", f"{label.per_thousand} for 1,000 answers ({label.at[:10]}, {label.machine})")] if label else []),
        ("since", f"{kept.created_at} (files pulled {base.pulled_at})"),
    ]
    return ModelShown("report", about, tuple(lines))


def _shape_lines(config: "ModelConfig", parameters: int) -> Iterator[tuple[str, str]]:
    shared = "" if config.num_heads == config.num_kv_heads else f", sharing {config.num_kv_heads} key-value groups"
    tied = ", embedding and output are one matrix" if config.tie_embeddings else ""
    kind = "transformer: every head sees the whole context" if config.is_transformer else "hybrid: some heads see less, and may remember"
    yield "family", f"{config.family} ({kind})"
    yield "parameters", f"{parameters:,}"
    yield "layers", f"{len(config.layers)} of width {config.hidden_size}, {_inside(config)}"
    yield "heads", f"{config.num_heads} of width {config.head_dim}{shared}"
    yield "vocabulary", f"{config.vocab_size:,}{tied}"
    yield "context", f"{config.context_length:,} tokens"


def _config(home: Home, kept: Kept) -> "ModelConfig":
    """Return the shape of the model with its deltas; the base's, if one of them doesn't fit."""
    from ingle.engine.packs import open_weights
    from ingle.model.checkpoint import open_checkpoint

    try:
        return open_weights(home, kept).config
    except DeltaError:
        return open_checkpoint(home.base_folder(kept.base)).config


def _training_lines(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield lines on the training of a base that was trained from scratch."""

    train, held_out = report["train"], report["held_out"]
    yield "  made by", f"{report['command'] or 'a program'} (seed {report['seed']}, {report['created_at']})"
    yield "  data", f"{report['texts']:,} texts, of which {train['tokens']:,} tokens were read (digest {report['data_digest']})"
    if held_out["after"] is not None:
        yield "  held out", f"loss {held_out['before']:.4f} before, {held_out['after']:.4f} after, in training"
    if energy := reported(train):
        yield "  energy", str(energy)
    for one in report["served"]:
        yield "  measured", f"{one['of']}: {one['name'].replace('_', ' ')} {one['value']:.4f} {one['unit']} ({shown_interval(one)})"


def _served(home: Home, kept: Kept) -> "tuple[list[PackInfo], str]":
    """Return the model's packs, and how its deltas are served."""
    from ingle.engine.packs import kept_source, list_packs

    try:
        source = kept_source(home, kept)
    except DeltaError as error:
        return [], f"not: {error}"
    parts = {"merged into the weights": source.merged, "beside the weights": source.beside}
    parts_shown = [f"{', '.join(delta.name for delta in deltas)} {how}" for how, deltas in parts.items() if deltas]
    return list_packs(source), "; ".join(parts_shown + ([f"{source.virtual.name} as tokens before every text"] if source.virtual else []))


def _delta(home: Home, digest: str) -> dict[str, Any]:
    """Return a delta's data for JSON."""
    delta = get_delta(home, digest)
    about = {"name": delta.name, "kind": delta.kind, "digest": digest, "base": delta.base_digest, "bytes": delta_bytes(home, digest)}
    return about | {"tensors": len(delta.tensors), "origin": dict(delta.origin), "report": delta_report(home, digest)}


def _inside(config: "ModelConfig") -> str:
    """Say in words which sublayers a model has beside attention."""
    experts = config.experts
    if experts is not None:
        return f"{experts.count} experts of width {experts.width}, {experts.chosen} for each token"
    words = {"convolution": "a short convolution", "delta": "the gated delta rule"}
    counts = [f"{sum(one.mixer == name for one in config.layers)} with {word} instead of attention" for name, word in words.items()]
    return ", ".join([f"MLP {config.intermediate_size}", *(text for text in counts if not text.startswith("0 "))])


def _delta_lines(delta: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a delta's data as lines for people."""

    origin, report = delta["origin"], delta["report"] or {}
    how = origin.get("method", delta["kind"])
    kind = how if how == delta["kind"] else f"{how} (kind {delta['kind']})"
    yield "delta", f"{delta['name']}: {kind}, {delta['tensors']} tensors, {size(delta['bytes'])}, {delta['digest']}"
    if origin.get("data") or origin.get("data_digest"):
        yield "  data", f"{origin.get('data', '')} (digest {origin.get('data_digest', 'unknown')})".strip()
    if origin.get("command"):
        when = [f"seed {origin['seed']}"] if "seed" in origin else []
        when += [origin["created_at"]] if "created_at" in origin else []  # not of conversions: the same command gives the same delta
        yield "  made by", origin["command"] + (f" ({', '.join(when)})" if when else "")
    held_out = report.get("held_out") or {}
    if held_out.get("before") is not None and held_out.get("after") is not None:
        yield "  held out", f"loss {held_out['before']:.4f} before, {held_out['after']:.4f} after, in training"
    if "retrieval" in report:
        seen = ", ".join(f"{layer}.{group}" for layer, group in report["kept"])
        share = f"a state at {report['state_tokens']:,} tokens is {report['state_share']:.3f} of the original's"
        yield "  groups", f"{report['retrieval']} of {report['groups']} see everything (layer.group): {seen or 'none'}"
        chosen = report["settings"]
        yield "  others", f"see the first {chosen['sinks']:,} and the last {chosen['window']:,} tokens; {share}"
    parts = [report.get("train") or {}, *(report.get("lessons") or {}).values()]
    if metered := [energy for part in parts if (energy := reported(part))]:
        yield "  energy", f"{total(metered)}, to train it"
    for figure in report.get("served") or ():
        yield "  measured", f"{figure['name'].replace('_', ' ')} {figure['value']:.4f} {figure['unit']} ({shown_interval(figure)})"
    for text in report.get("notes") or ():
        yield "  note", str(text)
