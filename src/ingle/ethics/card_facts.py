"""Facts that cards may hold, read from the ledger, the home and the model; and how figures of a model drift from delta to delta.

Each fact has where it stands, so that a reader can open it. Nothing here was written by a model.
`measured` and `recorded` facts stand in the ledger, by row and hash; `kept` ones in files whose digest is named; `stated` ones in the
owner's policy, which nobody has checked.
"""

import math
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from ingle import __version__
from ingle.core.delta import Delta
from ingle.core.spec import ModelConfig
from ingle.home.base import Base
from ingle.home.kept import Kept
from ingle.home.owner import OwnerPolicy

if TYPE_CHECKING:
    from ingle.ledger.row import Row


Origin = Literal["measured", "recorded", "kept", "stated"]
Value = str | int | float
_LIBRARIES = ("numpy", "numba", "tokenizers", "safetensors", "torch")


@dataclass(frozen=True, slots=True)
class CardFact:
    name: str
    value: Value
    origin: Origin
    unit: str = ""
    low: float | None = None
    high: float | None = None
    n: int | None = None
    interval: str = ""
    at: str = ""  # when it was measured or recorded: UTC, ISO 8601
    row: int | None = None  # number of its fact in the ledger
    row_hash: str = ""
    digests: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # by what they are of: model, data, base, policy …


@dataclass(frozen=True)
class Sources:
    """All that facts are found in. Whoever opens the home fills it in."""

    kept: Kept
    base: Base
    deltas: Sequence[tuple[Delta, Mapping[str, Any]]]  # each delta with its report
    config: ModelConfig
    parameters: int
    formats: Sequence[str]  # formats that it is packed in
    owner: OwnerPolicy
    guards: Mapping[str, str]  # modes by guard
    enforced: Sequence[str]  # forbidden uses that a guard blocks or tells of
    rows: Sequence["Row"]  # facts of the ledger, the newest first; only kinds of `KINDS`
    # Number of facts in the ledger by kind; None = not for this reader, since they are about everybody's requests.
    counts: Mapping[str, int] | None

    @cached_property
    def mine(self) -> list["Row"]:
        """Facts about this model or what it stands on."""
        parts = self.kept.name.split("+")
        names = {"+".join(parts[:count]) for count in range(1, len(parts) + 1)}
        return [row for row in self.rows if row.subject in names]


# Kinds of facts that cards are made of.
KINDS = (
    "pull", "pull.delta", "measure", "energy.label", "attack", "audit", "gate", "tune", "harden", "hybridize", "quantise", "prune",
    "debias",
    "train", "merge", "export", "guard.train", "guard.teach", "policy", "backup",
)  # fmt: skip
MAKERS = ("tune", "harden", "hybridize", "quantise", "prune", "debias", "train", "merge")
_COUNTED = {
    "answer": "answers", "refuse": "refused requests", "guard.block": "blocked by a guard", "guard.tell": "told of by a guard",
    "feedback": "corrections and ratings", "lesson.accept": "lessons learned", "lesson.refuse": "lessons refused", "undo": "times undone",
    "forget": "times forgotten", "explain": "answers explained", "gate.refuse": "changes that the gate refused",
}  # fmt: skip
Finder = Callable[[Sources], Iterator[CardFact]]


def found(sources: Sources, name: str) -> tuple[CardFact, ...]:
    """Return the facts of that name; none, if there are none. Raises KeyError for a name that no card may ask for."""
    part, _, rest = name.partition(":")
    if part == "measure":
        return tuple(_measured(sources, rest))
    if part == "stated":
        return tuple(_stated(sources, rest))
    return tuple(FINDERS[part](sources))


def figures_of(rows: Sequence["Row"], model: str) -> dict[str, CardFact]:
    """Return the newest figures that were measured on this very model, by name. `rows`: the newest first."""
    found: dict[str, CardFact] = {}
    for row in rows:
        if row.subject == model and row.kind == "measure":
            name = f"{row.values['figure']} of {row.values['suite']}".replace("_", " ")
            found.setdefault(name, _figure(row, name, row.values))
        elif row.subject == model and row.kind in _FIGURES:
            for fact in _FIGURES[row.kind](row):
                found.setdefault(fact.name, fact)
    return found


def missing(sources: Sources, name: str) -> str:
    """Return what a card says where a fact is missing: the command that measures it, or where to state it."""
    part, _, rest = name.partition(":")
    model = sources.kept.name
    if part == "measure":
        return f"not measured: ingle measure {model} --suite {rest}"
    if part == "stated":
        return f"not stated: use.{rest} in policy.toml"
    if part == "record" and sources.counts is None:
        return "counts of everybody's requests are for the home's owner"
    return _MISSING.get(part, "not known here: it was made elsewhere, and its source does not say it").format(model=model)


# Words for a missing fact that somebody can bring about, or that needs none.
_MISSING = {
    "energy": "not measured: ingle measure energy {model} --label", "attack": "not measured: ingle measure attack {model}",
    "audit": "not measured: ingle measure bias {model}", "gate": "nothing went through the gate: {model} has no change since its base",
    "enforced": "no use is forbidden", "policies": "no policy was recorded", "record": "nothing happened here yet",
    "formats": "it was not packed yet: a first answer does that",
}  # fmt: skip


def _measured(sources: Sources, suite: str) -> Iterator[CardFact]:
    """The newest measurement of a suite on this very model."""
    for row in islice((row for row in _own(sources, "measure") if row.values.get("suite") == suite), 1):
        yield _figure(row, f"{row.values['figure']} of {suite}", row.values)


def _own(sources: Sources, kind: str) -> Iterator["Row"]:
    return (row for row in sources.rows if row.kind == kind and row.subject == sources.kept.name)


def _figure(row: "Row", name: str, values: Mapping[str, Any]) -> CardFact:
    low, high, n = (values.get(key) for key in ("low", "high", "n"))
    about = row.at, row.seq, row.hash, _digests(row)
    unit, interval = (str(values.get(key, "")) for key in ("unit", "interval"))
    return CardFact(name.replace("_", " "), values["value"], "measured", unit, low, high, n, interval, *about)


def _stated(sources: Sources, what: str) -> Iterator[CardFact]:
    value = getattr(sources.owner.use, what)
    for text in (value,) if isinstance(value, str) else value:
        if text:
            yield CardFact(what, text, "stated", digests={"policy": sources.owner.digest})


def _kept(name: str, value: Value, sources: Sources, unit: str = "") -> CardFact:
    return CardFact(name, value, "kept", unit, digests={"model": sources.kept.digest})


def _architecture(sources: Sources) -> Iterator[CardFact]:
    config = sources.config
    yield _kept("architecture", f"{config.family}, decoder only, {'transformer' if config.is_transformer else 'hybrid'}", sources)
    yield _kept("layers", len(config.layers), sources)
    yield _kept("width", config.hidden_size, sources)
    yield _kept("attention heads of a layer", config.num_heads, sources)
    yield _kept("key-value groups of a layer", config.num_kv_heads, sources)
    yield _kept("width of the MLP", config.intermediate_size, sources)
    yield _kept("vocabulary", config.vocab_size, sources, "tokens")


def _parameters(sources: Sources) -> Iterator[CardFact]:
    yield _kept("parameters", sources.parameters, sources)


def _modality(sources: Sources) -> Iterator[CardFact]:
    yield _kept("takes", "text, UTF-8", sources)
    yield _kept("gives", "text, UTF-8", sources)
    yield _kept("longest input and output together", sources.config.context_length, sources, "tokens")


def _licence(sources: Sources) -> Iterator[CardFact]:
    if sources.base.licence:
        yield _kept("licence of the base", sources.base.licence, sources)


def _source(sources: Sources) -> Iterator[CardFact]:
    row = next((row for row in sources.mine if row.kind == "pull"), None)
    origin: Origin = "recorded" if row else "kept"
    value = f"{sources.base.source} {sources.base.revision}".strip()
    at, seq, digest = (row.at, row.seq, row.hash) if row else (sources.base.pulled_at, None, "")
    yield CardFact("base came from", value, origin, at=at, row=seq, row_hash=digest, digests={"base": sources.base.digest})


def _deltas(sources: Sources) -> Iterator[CardFact]:
    if not sources.deltas:
        yield _kept("changes since the base", "none", sources)
    for delta, _ in sources.deltas:
        origin = delta.origin
        value = origin.get("command") or f"{delta.name}: {origin.get('method', delta.kind)}"
        digests = {"delta": delta.digest} | ({"data": origin["data_digest"]} if origin.get("data_digest") else {})
        yield CardFact(f"change {delta.name}", value, "kept", at=origin.get("created_at", ""), digests=digests)


def _training(sources: Sources) -> Iterator[CardFact]:
    for row in sources.mine:
        if row.kind in MAKERS:
            values = row.values
            said = {
                key: values[key]
                for key in ("method", "examples", "requests", "tokens", "steps", "seed", "trained_parameters")
                if key in values
            }
            digests = {"data": str(values["data_digest"])} if values.get("data_digest") else {}
            text = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in said.items()) or "recorded"
            yield CardFact(f"{row.kind} of {row.subject}", text, "recorded", at=row.at, row=row.seq, row_hash=row.hash, digests=digests)


def _training_energy(sources: Sources) -> Iterator[CardFact]:
    for row in sources.mine:
        joules = row.values.get("joules")
        if row.kind in MAKERS and isinstance(joules, int | float):
            low, high = (row.values.get(f"joules_{end}") for end in ("low", "high"))
            yield CardFact(
                f"energy of {row.kind} of {row.subject}", float(joules), "measured", "J", _number(low), _number(high),
                interval=f"what the meter can't know ({row.values.get('energy_source', '')})", at=row.at, row=row.seq, row_hash=row.hash,
            )  # fmt: skip


def _labelled(row: "Row") -> Iterator[CardFact]:
    values = row.values
    yield CardFact(
        "energy of 1,000 answers", float(values["per_1000_joules"] or 0), "measured", "J", _number(values.get("per_1000_low")),
        _number(values.get("per_1000_high")), interval="what the meter can't know", at=row.at, row=row.seq, row_hash=row.hash,
        digests={"model": str(values.get("model", "")), "data": str(values.get("prompts", ""))},
    )  # fmt: skip


def _gate(sources: Sources) -> Iterator[CardFact]:
    for row in sources.mine:
        if row.kind in ("gate.accept", "gate.refuse"):
            figures = {key: value for key, value in row.values.items() if isinstance(value, int | float) and not isinstance(value, bool)}
            verdict = "passed" if row.kind == "gate.accept" else "refused"
            if row.values.get("forced"):
                verdict = "kept by force although it failed"
            said = "; ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in list(figures.items())[:8])
            yield CardFact(
                f"gate on {row.subject}", f"{verdict}: {said}" if said else verdict, "measured", at=row.at, row=row.seq, row_hash=row.hash
            )


def _attacked(row: "Row") -> Iterator[CardFact]:
    tries, digests = row.values.get("tries"), _digests(row)
    for name in ("passed", "refused", "harmful", "reached"):
        if isinstance(count := row.values.get(name), int) and isinstance(tries, int) and tries:
            said = f"attack tries {name}"
            yield CardFact(said, count, "measured", f"of {tries}", n=tries, at=row.at, row=row.seq, row_hash=row.hash, digests=digests)


def _audited(row: "Row") -> Iterator[CardFact]:
    values = row.values
    for key, value in values.items():
        if f"{key}_low" not in values or not isinstance(value, int | float):
            continue  # its intervals, and what the audit took
        low, high, n = (_number(values.get(f"{key}_{what}")) for what in ("low", "high", "n"))
        yield CardFact(
            key.replace("_", " "), value, "measured", "", low, high, None if n is None else int(n), "95 %", row.at, row.seq, row.hash,
            _digests(row),
        )  # fmt: skip


def _digests(row: "Row") -> dict[str, str]:
    named = (("model", "model_digest"), ("data", "data_digest"), ("policy", "policy_digest"))
    return {of: str(row.values[key]) for of, key in named if row.values.get(key)}


def _guards(sources: Sources) -> Iterator[CardFact]:
    for name, mode in sources.guards.items():
        yield CardFact(f"guard {name}", mode, "kept", digests={"policy": sources.owner.digest})


def _enforced(sources: Sources) -> Iterator[CardFact]:
    for use in sources.owner.use.forbidden:
        value = "a guard stands against it" if use in sources.enforced else "stated only: no guard knows it"
        yield CardFact(use, value, "kept", digests={"policy": sources.owner.digest})


def _record(sources: Sources) -> Iterator[CardFact]:
    newest = sources.rows[0] if sources.rows else None
    for kind, name in _COUNTED.items():
        if count := (sources.counts or {}).get(kind, 0):
            row, digest = (newest.seq, newest.hash) if newest else (None, "")
            yield CardFact(name, count, "recorded", "in this home", row=row, row_hash=digest)


def _software(sources: Sources) -> Iterator[CardFact]:
    yield CardFact("Ingle", __version__, "kept")
    yield CardFact("Python", platform.python_version(), "kept")
    for name in _LIBRARIES:
        try:
            yield CardFact(name, version(name), "kept")
        except PackageNotFoundError:
            continue


def _formats(sources: Sources) -> Iterator[CardFact]:
    for name in sources.formats:
        yield _kept("packed as", name, sources)


def _retention(sources: Sources) -> Iterator[CardFact]:
    days = sources.owner.retention.answers_days
    value = f"{days} days" if days else "until they are deleted"
    yield CardFact("words of conversations are kept", value, "stated", digests={"policy": sources.owner.digest})


def _name(sources: Sources) -> Iterator[CardFact]:
    yield _kept("name", sources.kept.name, sources)
    yield _kept("digest", sources.kept.digest, sources)
    yield _kept("kept since", sources.kept.created_at, sources)


def _policies(sources: Sources) -> Iterator[CardFact]:
    for row in sources.rows:
        if row.kind == "policy":
            digests = {"policy": str(row.values.get("digest", ""))}
            value = digests["policy"][:12]
            yield CardFact("policy changed", value, "recorded", at=row.at, row=row.seq, row_hash=row.hash, digests=digests)


def _newest(kind: str) -> Finder:
    """Finds the facts of the newest row of that kind about this very model."""
    return lambda sources: (fact for row in islice(_own(sources, kind), 1) for fact in _FIGURES[kind](row))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


# Names that a card may ask for, beside `measure:SUITE` and `stated:FIELD`.
FINDERS: Mapping[str, Finder] = MappingProxyType({
    "name": _name, "architecture": _architecture, "parameters": _parameters, "modality": _modality, "licence": _licence, "source": _source,
    "deltas": _deltas, "training": _training, "training_energy": _training_energy, "energy": _newest("energy.label"), "gate": _gate,
    "attack": _newest("attack"), "audit": _newest("audit"), "guards": _guards, "enforced": _enforced, "record": _record,
    "software": _software, "formats": _formats, "retention": _retention, "policies": _policies,
})  # fmt: skip
# Facts of one row of these kinds.
_FIGURES: Mapping[str, Callable[["Row"], Iterator[CardFact]]] = MappingProxyType({
    "energy.label": _labelled, "attack": _attacked, "audit": _audited,
})  # fmt: skip


# Drift: how each change of a model moved its figures. One line for each model that was measured, one column for each figure.


@dataclass(frozen=True, slots=True)
class DriftLine:
    model: str
    cells: tuple[CardFact | None, ...]  # the newest measurement of each figure; None = not measured


@dataclass(frozen=True, slots=True)
class Drift:
    """The figures of a base and its deltas."""

    figures: tuple[str, ...]
    lines: tuple[DriftLine, ...]  # the base first, then its deltas by name


def drift(rows: Sequence["Row"], model: str) -> Drift:
    """Return the figures of a model's base and of every delta on it that was measured. `rows`: the newest first."""
    root = model.partition("+")[0]
    names = sorted({row.subject for row in rows if row.subject == root or row.subject.startswith((f"{root}+", f"{root}-"))})
    found = {name: figures_of(rows, name) for name in names}
    measured = {name: figures for name, figures in found.items() if figures}
    columns = tuple(dict.fromkeys(figure for figures in measured.values() for figure in figures))
    return Drift(columns, tuple(DriftLine(name, tuple(figures.get(column) for column in columns)) for name, figures in measured.items()))
