"""`ingle show`."""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ingle.core.spec import ModelConfig
    from ingle.engine.packs import PackInfo
    from ingle.home.kept import Kept
    from ingle.home.place import Home

EXAMPLES = """
ingle show smollm2
ingle show smollm2 --json
ingle show smollm2+mine
"""


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model, or MODEL+DELTA.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show what a model is made of."""
    from ingle.app.house import enter
    from ingle.cli.output import print_json, printable
    from ingle.core.errors import size
    from ingle.energy.label import load as load_label
    from ingle.energy.label import to_table as label_table
    from ingle.home.base import base_report, read_base
    from ingle.home.kept import get_kept
    from ingle.home.lean import is_lean
    from ingle.model.tensor import expected_shapes

    home = enter()
    kept = get_kept(home, name)
    base = read_base(home, kept.base)
    config = _config(home, kept)
    parameters = sum(math.prod(shape) for shape in expected_shapes(config).values())
    deltas = [_delta(home, digest) for digest in kept.deltas]
    packs, served = _served(home, kept)
    report = base_report(home, kept.base)
    label = load_label(home.labels, kept.digest)
    if as_json:
        from ingle.core.config import to_table

        about: dict[str, Any] = {"name": kept.name, "deltas": list(kept.deltas), "created_at": kept.created_at, "base": to_table(base)}
        formats = [{"format": pack.format, "bytes": pack.nbytes, "model_digest": pack.digest} for pack in packs]
        about |= {"lean": is_lean(home.base_folder(kept.base)), "parameters": parameters, "config": to_table(config), "packed": formats}
        about |= {"training": report} if report else {}
        about |= {"energy_label": label_table(label)} if label else {}
        print_json(about | {"made": deltas, "served": served} if kept.deltas else about)
        return
    shared = "" if config.num_heads == config.num_kv_heads else f", sharing {config.num_kv_heads} key-value groups"
    tied = ", embedding and output are one matrix" if config.tie_embeddings else ""
    kind = "transformer: every head sees the whole context" if config.is_transformer else "hybrid: some heads see less, and may remember"
    lines = [
        ("name", kept.name),
        ("source", f"{base.source} {base.revision}".strip()),
        ("licence", base.licence or "not stated by its source"),
        ("family", f"{config.family} ({kind})"),
        ("parameters", f"{parameters:,}"),
        ("layers", f"{len(config.layers)} of width {config.hidden_size}, {_inside(config)}"),
        ("heads", f"{config.num_heads} of width {config.head_dim}{shared}"),
        ("vocabulary", f"{config.vocab_size:,}{tied}"),
        ("context", f"{config.context_length:,} tokens"),
        *(("file", f"{file.name}, {size(file.size)}, SHA-256 {file.sha256}") for file in base.files),
        *([("  lean", "on the disk once, as it is served; made again where it is read")] if is_lean(home.base_folder(kept.base)) else []),
        ("base", base.digest),
        *(_training_lines(report) if report else ()),
        *((label, text) for delta in deltas for label, text in _delta_lines(delta)),
        *([("served", served)] if kept.deltas else []),
        *(("packed", f"{pack.format}, {size(pack.nbytes)}, model digest {pack.digest}") for pack in packs),
        *([("energy", f"{label.per_thousand} for 1,000 answers ({label.at[:10]}, {label.machine})")] if label else []),
        ("since", f"{kept.created_at} (files pulled {base.pulled_at})"),
    ]
    for label, value in lines:
        print(f"{label:<11} {printable(value)}")


def _config(home: "Home", kept: "Kept") -> "ModelConfig":
    """Return the shape of the model with its deltas; the base's, if one of them doesn't fit."""
    from ingle.core.errors import DeltaError
    from ingle.engine.packs import open_weights
    from ingle.model.checkpoint import open_checkpoint

    try:
        return open_weights(home, kept).config
    except DeltaError:
        return open_checkpoint(home.base_folder(kept.base)).config


def _training_lines(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield lines on the training of a base that was trained from scratch."""
    from ingle.core.energy import reported
    from ingle.core.report import shown_interval

    train, held_out = report["train"], report["held_out"]
    yield "  made by", f"{report['command'] or 'a program'} (seed {report['seed']}, {report['created_at']})"
    yield "  data", f"{report['texts']:,} texts, of which {train['tokens']:,} tokens were read (digest {report['data_digest']})"
    if held_out["after"] is not None:
        yield "  held out", f"loss {held_out['before']:.4f} before, {held_out['after']:.4f} after, in training"
    if energy := reported(train):
        yield "  energy", str(energy)
    for one in report["served"]:
        yield "  measured", f"{one['of']}: {one['name'].replace('_', ' ')} {one['value']:.4f} {one['unit']} ({shown_interval(one)})"


def _served(home: "Home", kept: "Kept") -> "tuple[list[PackInfo], str]":
    """Return the model's packs, and how its deltas are served."""
    from ingle.core.errors import DeltaError
    from ingle.engine.packs import kept_source, list_packs

    try:
        source = kept_source(home, kept)
    except DeltaError as error:
        return [], f"not: {error}"
    parts = {"merged into the weights": source.merged, "beside the weights": source.beside}
    parts_shown = [f"{', '.join(delta.name for delta in deltas)} {how}" for how, deltas in parts.items() if deltas]
    return list_packs(source), "; ".join(parts_shown + ([f"{source.virtual.name} as tokens before every text"] if source.virtual else []))


def _delta(home: "Home", digest: str) -> dict[str, Any]:
    """Return a delta's data for JSON."""
    from ingle.home.deltas import delta_bytes, delta_report, get_delta

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
    from ingle.core.energy import reported, total
    from ingle.core.errors import size
    from ingle.core.report import shown_interval

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
