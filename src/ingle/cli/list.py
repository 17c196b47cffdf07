"""`ingle list`."""

from typing import Annotated

import typer

EXAMPLES = """
ingle list
ingle list --json
"""


def command(as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False) -> None:
    """List the kept models."""
    from ingle.cli.house import enter
    from ingle.cli.output import note, print_json, print_table, size
    from ingle.home.base import read_base
    from ingle.home.kept import list_kept

    home = enter()
    pairs = [(kept, read_base(home, kept.base)) for kept in list_kept(home)]
    if as_json:
        print_json(
            [
                {
                    "name": kept.name, "base": base.digest, "deltas": list(kept.deltas), "source": base.source, "revision": base.revision,
                    "licence": base.licence, "bytes": base.nbytes, "created_at": kept.created_at,
                }
                for kept, base in pairs
            ]
        )  # fmt: skip
    elif pairs:
        rows = [
            (kept.name, size(base.nbytes), str(len(kept.deltas)), kept.created_at[:10], base.licence or "?", base.source)
            for kept, base in pairs
        ]
        print_table(("NAME", "SIZE", "DELTAS", "SINCE", "LICENCE", "SOURCE"), rows)
    else:
        note("Nothing is kept yet; `ingle pull smollm2` brings a first model.")
