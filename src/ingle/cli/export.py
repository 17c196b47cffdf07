"""`ingle export`."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """
ingle export smollm2+letters --format peft --out letters-peft
ingle export smollm2+letters --format hf --out letters-hf
ingle export smollm2+letters --format gguf --type q8_0 --out letters.gguf
ingle export mymodel+g4 --format gguf --type q4_1 --out small.gguf   (made by ingle quantise mymodel --set 'forms=["q4_1"]' --name g4)
"""


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL[+NAME]", help="A model, with or without deltas.")],
    format_: Annotated[
        str, typer.Option("--format", help="peft: the delta alone; hf: a Hugging Face folder; gguf: for llama.cpp; ingle: hybrids too.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write to; for gguf also a file name.")],
    kind: Annotated[
        str | None,
        typer.Option(
            "--type", help="Number type: f32, f16; for gguf also q8_0, and q4_1 (blocks that are q4_1 stay so, all else becomes q8_0)."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write a model or a delta for other programs.

    hf and gguf hold the whole model with its deltas merged; peft holds the last delta, to be loaded on the original model.
    """
    from ingle.cli.house import enter, record
    from ingle.cli.output import note, print_json, size
    from ingle.cli.progress import watching
    from ingle.core.errors import ConfigError
    from ingle.core.event import Event
    from ingle.home.kept import get_kept
    from ingle.tuning.exporting import FORMATS, check_type, export, without_place

    if format_ not in FORMATS:
        raise ConfigError("--format", f"must be one of {', '.join(FORMATS)}", format_)
    chosen = check_type(format_, kind)
    home = enter()
    kept = get_kept(home, model)
    with watching() as watch:
        path = export(home, kept, format_, out, chosen, force, lambda done, of: watch.pieces("writing", done, of))
    if eight := without_place(home, kept, chosen):
        cure = """`ingle quantise` with --set 'forms=["q4_1"]' makes what fits."""
        note(f"{eight} matrices are in formats of Ingle that GGUF lacks. They take 8 bits in the file. {cure}")
    files = [path] if path.is_file() else sorted(path.iterdir())
    nbytes = sum(file.stat().st_size for file in files)
    record(home, Event("export", kept.name, {"format": format_, "type": chosen, "stack": kept.digest, "bytes": nbytes}))
    if as_json:
        print_json({"model": kept.name, "format": format_, "type": chosen, "out": str(path), "bytes": nbytes})
        return
    print(f"{kept.name} is in {path}: {size(nbytes)}.")
