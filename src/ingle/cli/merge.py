"""`ingle make merge`."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """
ingle make merge smollm2+letters --name letters
ingle make merge smollm2+letters --out letters-hf --type f16
"""


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL+DELTA", help="A model with deltas.")],
    name: Annotated[str | None, typer.Option(help="Keep it under this name, as a base of its own.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write it to this folder, in the Hugging Face format.")] = None,
    kind: Annotated[str | None, typer.Option("--type", help="Number type: f32 or f16; by default f32.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there under --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Merge a model and its deltas into a new model.

    The deltas become part of its weights, so it needs neither the model nor the deltas any more. Both stay as they are.
    """
    from ingle.app.house import enter, record
    from ingle.cli.output import print_json
    from ingle.cli.progress import watching
    from ingle.core.errors import ConfigError
    from ingle.core.report import Event, Fact
    from ingle.engine.packs import kept_source, warm
    from ingle.home.kept import get_kept
    from ingle.tuning.exporting import check_type, export_hf, merge

    chosen = check_type("hf", kind)
    if name is None and out is None:
        raise ConfigError(
            "--name or --out", "Say where the merged model goes", "", "--name keeps the merged model in this home, --out writes a folder."
        )
    home = enter()
    kept = get_kept(home, model)
    facts: dict[str, Fact] = {"of": kept.name, "stack": kept.digest, "type": chosen}
    about = {"of": kept.name, "type": chosen}
    with watching() as watch:
        if name is not None:
            new = merge(home, kept, name, chosen, lambda done, of: watch.pieces("merging", done, of))
            record(home, Event("merge", new.name, {**facts, "base": new.base}))
            about |= {"name": new.name, "base": new.base}
            warm(kept_source(home, new), progress=watch.pieces)
        if out is not None:
            export_hf(home, kept, out, chosen, force, lambda done, of: watch.pieces("writing", done, of))
            record(home, Event("export", kept.name, {**facts, "format": "hf"}))
            about["out"] = str(out)
    if as_json:
        print_json(about)
        return
    if name is not None:
        print(f"{name} is kept: {kept.name}, merged.")
        print(f"Talk with it: ingle chat {name}")
    if out is not None:
        print(f"{kept.name}, merged, is in {out}.")
