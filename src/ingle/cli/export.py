"""`ingle export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ingle.home.place import Home

EXAMPLES = """
ingle export smollm2+letters --format peft --out letters-peft
ingle export smollm2+letters --format hf --out letters-hf
ingle export smollm2+letters --format gguf --type q8_0 --out letters.gguf
ingle export smollm2+letters --format hf --out letters-hf --sign   (others check it: model_signing verify key …)
ingle export mymodel+g4 --format gguf --type q4_1 --out small.gguf   (made by ingle make quantise mymodel --set 'forms=["q4_1"]' --name g4)
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
    sign: Annotated[bool, typer.Option("--sign", help="Sign its files with this home's key (OpenSSF Model Signing).")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write a model or a delta for other programs.

    hf and gguf hold the whole model with its deltas merged; peft holds the last delta, to be loaded on the original model.
    """
    from ingle.app.house import enter, record
    from ingle.cli.output import note, print_json
    from ingle.cli.progress import watching
    from ingle.core.errors import ConfigError, size
    from ingle.core.report import Event
    from ingle.ethics.model_signature import signature_of
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
        cure = """`ingle make quantise` with --set 'forms=["q4_1"]' makes what fits."""
        note(f"{eight} matrices are in formats of Ingle that GGUF lacks. They take 8 bits in the file. {cure}")
    files = [path] if path.is_file() else sorted(path.iterdir())
    nbytes = sum(file.stat().st_size for file in files)
    signed = _sign(home, path) if sign else {}
    record(home, Event("export", kept.name, {"format": format_, "type": chosen, "stack": kept.digest, "bytes": nbytes, **signed}))
    if as_json:
        print_json({"model": kept.name, "format": format_, "type": chosen, "out": str(path), "bytes": nbytes, **signed})
        return
    print(f"{kept.name} is in {path}: {size(nbytes)}.")
    if signed:
        signature, public = signature_of(path)
        print(f"Its files are signed with key {signed['signer'][:12]}, in {signature.name}.")
        note(f"Others check it: model_signing verify key {path} --signature {signature} --public_key {public}")


def _sign(home: "Home", path: Path) -> dict[str, str]:
    """Sign an export; return what the ledger keeps of it."""
    from ingle.app.house import open_ledger
    from ingle.ethics.model_signature import sign_model
    from ingle.ethics.notary import notary

    with open_ledger(home) as ledger:
        signer = notary(home, ledger)
    return {"signed": sign_model(path, signer), "signer": signer.fingerprint}
