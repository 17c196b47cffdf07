"""`ingle show`."""

import math
from typing import Annotated, Any

import typer

EXAMPLES = """
ingle show smollm2
ingle show smollm2 --json
"""


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A kept model.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show what a kept model is made of."""
    from ingle.cli.house import enter
    from ingle.cli.output import print_json, printable, size
    from ingle.engine.opening import kept_source, list_packs
    from ingle.home.base import read_base
    from ingle.home.kept import get_kept
    from ingle.model.checkpoint import expected_shapes, open_checkpoint

    home = enter()
    kept = get_kept(home, name)
    base = read_base(home, kept.base)
    config = open_checkpoint(home.base_folder(base.digest)).config
    parameters = sum(math.prod(shape) for shape in expected_shapes(config).values())
    packs = list_packs(kept_source(home, kept))
    if as_json:
        from ingle.core.config import to_table

        about: dict[str, Any] = {"name": kept.name, "deltas": list(kept.deltas), "created_at": kept.created_at, "base": to_table(base)}
        formats = [{"format": pack.format, "bytes": pack.nbytes, "model_digest": pack.digest} for pack in packs]
        print_json(about | {"parameters": parameters, "config": to_table(config), "packed": formats})
        return
    shared = "" if config.num_heads == config.num_kv_heads else f", sharing {config.num_kv_heads} key-value groups"
    tied = ", embedding and output are one matrix" if config.tie_embeddings else ""
    kind = "transformer: every head sees the whole context" if config.is_transformer else "hybrid: some heads see a window only"
    lines = [
        ("name", kept.name),
        ("source", f"{base.source} {base.revision}".strip()),
        ("licence", base.licence or "not stated by its source"),
        ("family", f"{config.family} ({kind})"),
        ("parameters", f"{parameters:,}"),
        ("layers", f"{len(config.layers)} of width {config.hidden_size}, MLP {config.intermediate_size}"),
        ("heads", f"{config.num_heads} of width {config.head_dim}{shared}"),
        ("vocabulary", f"{config.vocab_size:,}{tied}"),
        ("context", f"{config.context_length:,} tokens"),
        *(("file", f"{file.name}, {size(file.size)}, SHA-256 {file.sha256}") for file in base.files),
        ("base", base.digest),
        *(("delta", digest) for digest in kept.deltas),
        *(("packed", f"{pack.format}, {size(pack.nbytes)}, model digest {pack.digest}") for pack in packs),
        ("since", f"{kept.created_at} (files pulled {base.pulled_at})"),
    ]
    for label, value in lines:
        print(f"{label:<11} {printable(value)}")
