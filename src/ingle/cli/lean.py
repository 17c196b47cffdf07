"""`ingle lean`."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ingle.home.kept import Kept
    from ingle.home.place import Home

EXAMPLES = """
ingle lean   (lists models with the room that they take on the disk)
ingle lean qwen3-8b
ingle lean qwen3-8b --whole   (the file as it came lies there again)
"""


def command(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="A model; without one, all are listed.")] = "",
    whole: Annotated[bool, typer.Option("--whole", help="Put the model's file back.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Keep a model's file on the disk once, as it is served.

    A GGUF file and its packed weights hold the same numbers in two orders. A lean model has only the packed ones. Its file is made again
    from them, bit for bit, wherever it is read: to tune, learn, export or verify. It goes only when that was proven by its SHA-256.
    """
    from ingle.app.house import enter, record
    from ingle.cli.output import print_json
    from ingle.cli.progress import watching
    from ingle.core.errors import ConfigError, size
    from ingle.engine.lean_base import make_lean, make_whole
    from ingle.home.kept import get_kept

    home = enter()
    if not name:
        if whole:
            raise ConfigError("NAME", "is missing: --whole is about one model", "", "Say: ingle lean NAME --whole")
        _list(home, as_json)
        return
    kept = get_kept(home, name)
    with watching() as watch:
        moved = (make_whole if whole else make_lean)(home, kept, watch.pieces)
    if moved.freed:
        record(home, moved.event)
    if as_json:
        print_json({"name": kept.name, "base": kept.base, "lean": not whole, "freed_bytes": moved.freed})
        return
    if not moved.freed:
        print(f"{kept.name} {'has its file as it came' if whole else 'is lean'} already.")
    elif whole:
        print(f"{kept.name} has its file as it came: {size(-moved.freed)} more on the disk.")
    else:
        print(f"{kept.name} is lean: {size(moved.freed)} of disk are free again. Nothing else changes.")


def _list(home: "Home", as_json: bool) -> None:
    from ingle.cli.output import note, print_json, print_table
    from ingle.core.errors import size
    from ingle.home.kept import list_kept

    rows = [_row(home, kept) for kept in list_kept(home)]
    if as_json:
        print_json([dict(zip(("name", "file_bytes", "disk_bytes", "lean"), row, strict=True)) for row in rows])
    elif rows:
        cells = [(name, size(files), size(disk), "yes" if lean else "no") for name, files, disk, lean in rows]
        print_table(("NAME", "FILES", "ON DISK", "LEAN"), cells)
    else:
        note("There are no models yet. `ingle pull smollm2` brings a first model.")


def _row(home: "Home", kept: "Kept") -> tuple[str, int, int, bool]:
    """Return a model's name, the bytes of its files, those on the disk with the packs of its base and deltas, and whether it is lean."""
    from ingle.home.base import read_base
    from ingle.home.lean import is_lean
    from ingle.home.staging import bytes_in

    folders = {home.base_folder(kept.base), home.pack_folder(kept.base), home.pack_folder(kept.digest)}
    nbytes, disk = read_base(home, kept.base).nbytes, sum(map(bytes_in, folders))
    return kept.name, nbytes, disk, is_lean(home.base_folder(kept.base))
