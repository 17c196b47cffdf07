"""The way through the gate, for commands that make deltas."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ingle.core.candidate import Admit
    from ingle.core.progress import Watcher
    from ingle.gate.check import Policy
    from ingle.home.kept import Kept
    from ingle.home.place import Home

Force = Annotated[bool, typer.Option("--force", help="Keep it even if the gate refuses it; the ledger says so.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--policy", metavar="KEY=VALUE", help="Set any limit of the gate, e.g. tune.bits.most_rise_percent=20.")
]


def read_policy(home: "Home", overrides: Sequence[str] | None) -> "Policy":
    """Return the home's policy with these limits on top. Call it early, so that a typing error shows at once."""
    from ingle.gate.check import load_policy

    return load_policy(home, overrides or ())


def way_in(home: "Home", kept: "Kept", maker: str, policy: "Policy", force: bool, watch: "Watcher") -> "Admit":
    """Return the admission that a maker gives its candidates to. Decisions go into the ledger."""
    from ingle.app.house import record
    from ingle.gate.decide import admission

    return admission(home, kept, maker, policy, force, lambda event: record(home, event), watch.say, watch.pieces)
