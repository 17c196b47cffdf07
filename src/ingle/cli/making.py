"""Shared parts of commands that make a delta of one model by settings: prune, quantise, hybridize, harden, debias."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Protocol, TypeVar

import typer

if TYPE_CHECKING:
    from ingle.core.candidate import Admit
    from ingle.core.report import Sink
    from ingle.home.kept import Kept
    from ingle.home.place import Home
    from ingle.train.making import MadeDelta, RunWatch

T = TypeVar("T")
S_contra = TypeVar("S_contra", contravariant=True)

Config = Annotated[Path | None, typer.Option("--config", help="Settings in a TOML file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
Table = tuple[tuple[str, ...], Sequence[tuple[str, ...]]]  # head and rows


class Make(Protocol[S_contra]):
    """A maker: `prune`, `quantise`, `hybridize`, `harden`, `debias`."""

    def __call__(
        self, home: "Home", kept: "Kept", name: str, settings: S_contra, admit: "Admit", watch: "RunWatch" = ..., command: str = "",
        sink: "Sink" = ...,
    ) -> "MadeDelta":  # fmt: skip
        """Make a delta and keep it if `admit` takes it."""
        ...


class Wanted(NamedTuple):
    """The options that all these commands have."""

    model: str
    name: str
    config: Path | None
    overrides: Sequence[str] | None
    policy: Sequence[str] | None
    force: bool


def make_delta(
    verb: str, wanted: Wanted, options: Mapping[str, Any], load: Callable[[], tuple[Make[T], type[T]]], label: str = "training",
    words: Sequence[str] = (),
) -> "MadeDelta":  # fmt: skip
    """Make a delta by a command's options, and let the gate decide.

    `load`: returns the maker and the class of its settings; it is called late, because it imports PyTorch. `label`: of its training.
    `words`: the command's first words, where they are not `ingle` and the verb.
    Raises ConfigError for wrong options, and the errors of the maker.
    """
    from ingle.app.choose import choose
    from ingle.app.house import enter, record
    from ingle.cli.gating import read_policy, way_in
    from ingle.cli.progress import watching
    from ingle.cli.training import run_watch, settle
    from ingle.core.files import need_learning
    from ingle.home.names import check_name

    need_learning()
    check_name(wanted.name)
    home = enter()
    kept, rules = choose(home, wanted.model), read_policy(home, wanted.policy)
    make, settings = load()
    chosen, again = settle(
        settings, [*(words or ("ingle", "make", verb)), kept.name, "--name", wanted.name], wanted.config, options, wanted.overrides
    )
    with watching() as watch:
        admit = way_in(home, kept, verb, rules, wanted.force, watch)
        return make(home, kept, wanted.name, chosen, admit, run_watch(watch, label), again, lambda event: record(home, event))


def show_delta(
    made: "MadeDelta", as_json: bool, tables: Callable[[Mapping[str, Any]], Sequence[Table]],
    remark: Callable[[Mapping[str, Any]], str] = lambda _: "",
) -> None:  # fmt: skip
    """Print the report of a delta that was made: as JSON, or as tables, a remark, and the command that talks with it."""
    from ingle.cli.output import note, print_json, print_table

    if as_json:
        print_json(dict(made.report))
        return
    for head, rows in tables(made.report):
        print_table(head, rows)
    if said := remark(made.report):
        note(said)
    print(f"Talk with it: ingle chat {made.kept.name}")


def gate_rows(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the findings of the gate as rows."""
    findings = report.get("gate", {}).get("findings", ())
    return [(f"gate: {one['check']}", "passed" if one["passed"] else "not passed", one["reason"]) for one in findings]
