"""`ingle home restore`."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """
ingle home restore /media/stick/ingle.tar
INGLE_HOME=~/tried ingle home restore ingle.tar   (into another folder, to look at it)
ingle home restore ingle.tar --digest 1f0c…   (only if it is the backup that `ingle home backup` named)
"""


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `ingle home backup` wrote.")],
    digest: Annotated[str, typer.Option(help="The digest that the backup must have, as `ingle home backup` printed it.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Bring a backup back into an empty home.

    Every byte is checked before anything is moved into place; then the home is what it was when the backup was made, and the ledger says
    that it came back. A home that holds anything is refused.
    """
    import time

    from ingle.app.house import check_ledger, enter, record
    from ingle.cli.output import note, print_json, printable
    from ingle.cli.progress import watching
    from ingle.core.errors import counted, size
    from ingle.core.report import Event, Fact
    from ingle.home.restore import restore

    home, start = enter(), time.monotonic()
    with watching() as watch:
        back = restore(home, file.expanduser().absolute(), check_ledger, watch.bytes, note, digest)
    manifest = back.manifest
    if back.facts is None:
        note("The facts and conversations were in a database elsewhere, and are not in this backup. Restore that database too, and set")
        note("INGLE_DATABASE_URL: until then this home can record nothing.")
    else:
        facts: dict[str, Fact] = {
            "backup": manifest.digest,
            "made_at": manifest.made_at,
            "files": len(manifest.files),
            "bytes": manifest.nbytes,
        }
        record(home, Event("restore", "", facts | {"facts": back.facts}))
    if as_json:
        table = {"home": str(home.root), "backup": manifest.digest, "made_at": manifest.made_at, "database": manifest.has_database}
        counts = {"files": len(manifest.files), "bytes": manifest.nbytes, "facts": back.facts, "models": list(back.models)}
        print_json(table | counts | {"seconds": round(time.monotonic() - start, 2)})
        return
    known = [counted(back.facts, "fact")] if back.facts is not None else []
    what = ", ".join([counted(len(back.models), "model"), *known, counted(len(manifest.files), "file")])
    print(printable(f"{home.root} is what it was at {manifest.made_at[:16].replace('T', ' ')} UTC: {what}, {size(manifest.nbytes)}."))
    print("Weights are packed again when a model is first asked.")
