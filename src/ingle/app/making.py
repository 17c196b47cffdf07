"""The way from a command's options to a model that the gate let in: settings, progress, and facts that are recorded once."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

from ingle.app.house import House
from ingle.app.operation import About, Rows, Said, abouts
from ingle.core.config import assignments, from_table, overrides_of, read_table
from ingle.core.errors import ConfigError
from ingle.core.files import need_learning
from ingle.core.progress import Watcher
from ingle.core.report import Event, Sink
from ingle.home.names import check_name
from ingle.ledger.chain import Ledger

if TYPE_CHECKING:
    from ingle.core.candidate import Admit
    from ingle.core.headroom import Headroom
    from ingle.gate.check import Policy
    from ingle.home.kept import Kept
    from ingle.home.place import Home
    from ingle.train.loop_settings import TrainProgress
    from ingle.train.making import Made, MadeDelta, RunWatch

S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)

Model = Annotated[str, About("A model, with or without deltas.", "MODEL", placed=True)]
Config = Annotated[Path | None, About("Settings in a TOML file.", also=("--config",))]
Settings = Annotated[tuple[str, ...], About("Set any setting, e.g. train.epochs=2.", "KEY=VALUE", also=("--set",))]
Force = Annotated[bool, About("Keep it even if the gate refuses it; the ledger says so.", also=("--force",))]
Limits = Annotated[
    tuple[str, ...], About("Set any limit of the gate, e.g. tune.bits.most_rise_percent=20.", "KEY=VALUE", also=("--policy",))
]


class Wanted(Protocol):
    """The fields that every order to make a delta has; its others set settings (`About.sets`)."""

    @property
    def model(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def config(self) -> Path | None: ...
    @property
    def settings(self) -> tuple[str, ...]: ...
    @property
    def force(self) -> bool: ...
    @property
    def policy(self) -> tuple[str, ...]: ...


class Make(Protocol[S_contra]):
    """A maker: `prune`, `quantise`, `hybridize`, `harden`, `debias`."""

    def __call__(
        self, home: "Home", kept: "Kept", name: str, settings: S_contra, admit: "Admit", watch: "RunWatch" = ..., command: str = "",
        sink: "Sink" = ...,
    ) -> "MadeDelta":  # fmt: skip
        """Make a delta and keep it if `admit` takes it."""
        ...


@dataclass(frozen=True, slots=True)
class MadeTold:
    """The report of a model that was made."""

    object: str
    model: str
    data: Mapping[str, Any]
    curve: str = ""  # path of the loss curve


def told_of(made: "Made", data: Mapping[str, Any] | None = None) -> MadeTold:
    """Return what is told of a model that was made. `data`: instead of its report."""
    return MadeTold("report", made.kept.name, dict(made.report if data is None else data), str(made.plot))


def make_delta(
    house: House, verb: str, wanted: Wanted, make: Make[S], settings: type[S], label: str = "training", words: Sequence[str] = (),
    limits: Sequence[str] = (), more: Mapping[str, Any] | None = None,
) -> MadeTold:  # fmt: skip
    """Make a delta as it is wanted, and let the gate decide.

    `label`: of its training. `words`: the command's first words, where they are not `ingle make` and the verb. `limits`: of the gate, under
    those that were asked for. `more`: settings that follow from what is wanted. Raises ConfigError, and the errors of the maker.
    """
    need_learning()
    check_name(wanted.name)
    home = house.home
    kept, rules = house.model(wanted.model), read_policy(home, [*limits, *wanted.policy])
    begun = [*(words or ("ingle", "make", verb)), kept.name, "--name", wanted.name]
    table = read_table(wanted.config, assignments(given_settings(wanted) | dict(more or {}), wanted.settings))
    chosen, again = from_table(settings, table), shlex.join([*begun, *(f"--set={one}" for one in overrides_of(table))])
    admit = way_in(house, kept, verb, rules, wanted.force)
    return told_of(make(home, kept, wanted.name, chosen, admit, run_watch(house.watch, label), again, house.record))


def given_settings(wanted: Any) -> dict[str, Any]:
    """Return the settings that the fields of an order set; None where it says nothing."""
    fields = abouts(type(wanted))
    return {key: getattr(wanted, name) for name, (_, about, _) in fields.items() for key in about.sets.split()}


def read_policy(home: "Home", overrides: Sequence[str]) -> "Policy":
    """Return the home's policy with these limits on top. Call it early, so that a typing error shows at once."""
    from ingle.gate.check import load_policy

    return load_policy(home, overrides)


def way_in(house: House, kept: "Kept", maker: str, policy: "Policy", force: bool) -> "Admit":
    """Return the admission that a maker gives its candidates to. Decisions go into the ledger."""
    from ingle.gate.decide import admission

    return admission(house.home, kept, maker, policy, force, house.record, house.watch.say, house.watch.pieces)


def run_watch(watch: Watcher, label: str = "training") -> "RunWatch":
    """Return the progress callbacks of a run that makes a delta. `label`: of its training, shown with loss, speed and time left."""
    from ingle.train.making import RunWatch

    def told(room: "Headroom") -> None:
        if room.fits and room.told:
            watch.say(room.told)

    def trained(now: "TrainProgress") -> None:
        held_out = "" if now.held_out is None else f", held out {now.held_out:.3f}"
        left = f", {now.seconds_left:.0f} s left" if now.seconds_left < 120 else f", {now.seconds_left / 60:.0f} min left"
        watch.pieces(label, now.step, now.steps, f"loss {now.loss:.3f}{held_out}, {now.tokens_per_s:.0f} tokens/s{left}")

    return RunWatch(watch.pieces, trained, watch.say, watch.bytes, told)


def recorder(house: House, *keys: str) -> Sink:
    """Return a sink that records each fact once, because a resumed run sends them again. `keys`: values that identify a run's outcome.

    What was deleted since and made again is recorded again.
    """

    def sink(event: Event) -> None:
        rows = Ledger(house.engine, house.home.keys).read(subject=event.subject)
        before = next((row for row in rows if row.kind in (event.kind, "rm")), None)
        if before is None or before.kind == "rm" or any(before.values.get(key) != event.facts.get(key) for key in keys):
            house.record(event)

    return sink


def share_of(option: str, text: str, example: str) -> float:
    """Return the number in `1/6` or `0.17`. Raises ConfigError."""
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(option, "must be a share", text, f"For example {example}.") from error


def percent(option: str, text: str) -> float:
    """Return the percentage in `1%` or `1`: 1.0. Raises ConfigError."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError as error:
        raise ConfigError(option, "must be percent", text, "For example 1%.") from error
    if not 0 <= value < float("inf"):
        raise ConfigError(option, "must be 0 or more percent", text, "For example 1%.")
    return value


def figures(rows: Iterable[Sequence[str]]) -> Rows:
    """Return rows of a figure, its value and a remark as a table."""
    return Rows(("figure", "value", ""), list(rows))


def gate_rows(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the findings of the gate as rows."""
    findings = report.get("gate", {}).get("findings", ())
    return [(f"gate: {one['check']}", "passed" if one["passed"] else "not passed", one["reason"]) for one in findings]


def talk_with(told: MadeTold) -> Said:
    """Return the command that talks with what was made."""
    return f"Talk with it: ingle chat {told.model}"
