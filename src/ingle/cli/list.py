"""`ingle list`."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ingle.home.kept import Kept
    from ingle.home.place import Home

EXAMPLES = """
ingle list
ingle list --json
"""


def command(as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False) -> None:
    """List the models in this home and their deltas."""
    from ingle.app.house import enter
    from ingle.cli.output import complain, note, print_json, print_table
    from ingle.core.errors import HomeError, size
    from ingle.home.base import Base, read_base
    from ingle.home.deltas import delta_bytes
    from ingle.home.kept import Kept, list_models
    from ingle.home.parts import list_parts

    home, faults = enter(), list[HomeError]()
    pairs: list[tuple[Kept, Base]] = []
    for kept in list_models(home, lambda _name, error: faults.append(error)):
        try:
            pairs.append((kept, read_base(home, kept.base)))
        except HomeError as error:
            faults.append(error)
    parts = [(part.name, read_base(home, part.base)) for part in list_parts(home)]
    sizes = {digest: delta_bytes(home, digest) for kept, _ in pairs for digest in kept.deltas}
    if as_json:
        print_json(
            [
                {
                    "name": kept.name, "base": base.digest, "deltas": list(kept.deltas), "source": base.source, "revision": base.revision,
                    "licence": base.licence, "bytes": base.nbytes, "delta_bytes": sum(sizes[digest] for digest in kept.deltas),
                    "created_at": kept.created_at,
                }
                for kept, base in pairs
            ]
            + [
                {
                    "name": name, "base": base.digest, "deltas": [], "source": base.source, "revision": base.revision,
                    "licence": base.licence, "bytes": base.nbytes, "delta_bytes": 0, "created_at": base.pulled_at, "part": True,
                }
                for name, base in parts
            ]
        )  # fmt: skip
    elif pairs or parts:
        rows = [
            (
                kept.name, f"+ {size(sizes[kept.deltas[-1]])}" if kept.deltas else size(base.nbytes), str(len(kept.deltas)),
                kept.created_at[:10], base.licence or "?", _origin(home, kept) if kept.deltas else base.source,
            )
            for kept, base in pairs
        ] + [(name, size(base.nbytes), "part", base.pulled_at[:10], base.licence or "?", base.source) for name, base in parts]  # fmt: skip
        print_table(("NAME", "SIZE", "DELTAS", "SINCE", "LICENCE", "SOURCE"), rows)
    elif not faults:
        note("There are no models yet. `ingle pull smollm2` brings a first model.")
    for fault in faults:
        complain(fault)
    if faults:
        raise typer.Exit(HomeError.exit_code)


def _origin(home: "Home", kept: "Kept") -> str:
    """Say in few words where the last delta of a model comes from."""
    from ingle.core.errors import IngleError
    from ingle.home.deltas import get_delta

    try:
        delta = get_delta(home, kept.deltas[-1])
    except IngleError:
        return "a delta that is missing or damaged: `ingle verify --models` says more"
    how = delta.origin.get("method", delta.kind)
    return f"{how}, {delta.origin['data']}" if delta.origin.get("data") else how
