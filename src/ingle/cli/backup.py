"""`ingle home backup`."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """
ingle home backup /media/stick/ingle.tar
ingle home backup /media/stick   (names the file by the time: ingle-20261130-0715.tar)
ingle home backup ~/ingle.tar --force --json   (replaces the last one, when the new one is whole)
"""


def command(
    to: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write, or a folder for it; best on another disk.")],
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier file, once the new one is whole.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write everything that this home keeps into one file.

    A server may go on answering meanwhile: the backup is the home at one moment. It is verified, written, and read back. The ledger's
    keys are in it, so keep it as safe as the home itself. What Ingle makes again is left out: packed weights, compiled kernels, saved
    states, downloads and unfinished trainings.
    """
    import time
    from datetime import UTC, datetime

    from ingle.adapt.forget import OWED
    from ingle.app.house import check_ledger, enter, open_ledger
    from ingle.cli.output import note, print_json, printable
    from ingle.cli.progress import watching
    from ingle.core.errors import counted, size
    from ingle.core.report import Event, Fact
    from ingle.home.backup import back_up

    home, start = enter(), time.monotonic()
    path = to.expanduser().absolute()
    if path.is_dir():
        path /= f"ingle-{datetime.now(UTC):%Y%m%d-%H%M}.tar"
    with watching() as watch:
        # What is being forgotten must not be half in it: that lock is taken for the moment, too.
        done = back_up(home, path, check_ledger, watch.bytes, note, locks=(OWED,), replace=force)
    manifest = done.manifest
    facts: dict[str, Fact] = {"backup": manifest.digest, "files": len(manifest.files), "bytes": manifest.nbytes, "facts": done.facts}
    with open_ledger(home) as ledger:
        ledger.append(Event("backup", "", facts | {"database": manifest.has_database}))
    if not manifest.has_database:
        note("The facts and conversations are NOT in it: they are in the database that INGLE_DATABASE_URL names. Back that up now too, for")
        note("example with pg_dump. It must be the later one of the two: the ledger's head in here must not be ahead of its rows.")
    if done.left_out:
        note(f"Left out, because Ingle does not know it: {', '.join(done.left_out)}.")
    if as_json:
        rest = {"models": list(done.models), "database": manifest.has_database, "left_out": list(done.left_out)}
        print_json({"file": str(path)} | facts | rest | {"seconds": round(time.monotonic() - start, 2)})
        return
    what = f"{counted(len(done.models), 'model')}, {counted(done.facts, 'fact')}, {counted(len(manifest.files), 'file')}"
    print(printable(f"{path} holds {what}: {size(manifest.nbytes)}, read back and whole."))
    print(f"Digest {manifest.digest}")
    print("The ledger's keys are in it: whoever reads this file can sign in this home's name, and read what was said. Mode 600.")
