"""Predictions in the ledger: a loss is foretold and signed before its run is trained, and the ledger proves the order.

scale.predict   the loss, its interval, the law's digest and the run's key: written by `ingle scale fit`
scale.begin     the run is about to be trained; names the row of the prediction. From here on no new prediction counts
scale           a run is finished
scale.check     what came, beside what was foretold; names the same row

No PyTorch is imported here: the server and `ingle verify` read these facts too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ingle.core.errors import ConfigError
from ingle.core.report import Event, Fact
from ingle.ledger.chain import Ledger
from ingle.ledger.row import Row

PREDICT, BEGIN, RUN, CHECK = "scale.predict", "scale.begin", "scale", "scale.check"
_SAID = ("loss", "low", "high")


@dataclass(frozen=True, slots=True)
class PredictionStanding:
    """The ledger's word on one run that is foretold."""

    prediction: Row | None = None  # the prediction that counts: the last one before the run was begun
    begun: bool = False
    checked: Mapping[str, Fact] | None = None  # facts of the check


def standing(ledger: Ledger, name: str, run: str) -> PredictionStanding:
    """Return what the ledger says of this run of the sweep `name`."""
    rows = [row for row in ledger.read("scale", name) if row.kind in (PREDICT, BEGIN, CHECK) and row.values.get("run") == run]
    begin = next((row for row in reversed(rows) if row.kind == BEGIN), None)
    check = next((row for row in rows if row.kind == CHECK), None)
    named = begin.values["prediction"] if begin else None
    predictions = [row for row in rows if row.kind == PREDICT and (named is None or row.hash == named)]
    return PredictionStanding(predictions[0] if predictions else None, begin is not None, check.values if check else None)


def predict(ledger: Ledger, name: str, run: Mapping[str, Any], fit: str, said: Mapping[str, float], level: float) -> Row | None:
    """Sign a prediction, unless the same one stands or the run was begun; return the new row.

    `run`: key, parameters, tokens and unique of the run that is foretold. `fit`: digest of the law. `said`: loss, low and high.
    """
    now = standing(ledger, name, run["key"])
    if now.begun or (now.prediction and now.prediction.values["fit"] == fit):
        return None
    facts: dict[str, Fact] = {"run": run["key"], "fit": fit, "level": level}
    facts |= {part: run[part] for part in ("parameters", "tokens", "unique")} | {part: float(said[part]) for part in _SAID}
    return ledger.append(Event(PREDICT, name, facts))


def begin(ledger: Ledger, name: str, run: str) -> Row:
    """Say that the run is about to be trained, and return the prediction that counts. Raises ConfigError where there is none."""
    now = standing(ledger, name, run)
    if now.prediction is None:
        cure = f"Foretell it first: ingle scale fit {name}"
        raise ConfigError(name, "The larger run is trained only after its loss was foretold, or a prediction would prove nothing", "", cure)
    if not now.begun:
        ledger.append(Event(BEGIN, name, {"run": run, "prediction": now.prediction.hash}))
    return now.prediction


def check_event(name: str, prediction: Row, report: Mapping[str, Any], outcome: str) -> Event:
    """Event of a check: what came beside what was foretold."""
    said = {part: float(prediction.values[part]) for part in _SAID}  # type: ignore[arg-type]
    came = report["loss"]
    inside = said["low"] <= came <= said["high"]
    facts: dict[str, Fact] = {
        "run": report["key"], "prediction": prediction.hash, "came": came, "inside": inside, "error": said["loss"] / came - 1,
        "outcome": outcome,
    }  # fmt: skip
    return Event(CHECK, name, facts | said)


def order_faults(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """Return (what, fault) for every check that the ledger's order doesn't bear out. `rows`: all facts of kind `scale`, oldest first."""
    before, faults = list[Row](), list[tuple[str, str]]()
    for row in rows:
        if row.kind == CHECK and (fault := _fault(row, before)):
            faults.append((f"the check of the sweep {row.subject}, fact {row.seq}", fault))
        before.append(row)
    return faults


def _fault(check: Row, before: list[Row]) -> str | None:
    facts = check.values
    mine = [row for row in before if row.subject == check.subject and facts.get("run") in (row.values.get("run"), row.values.get("key"))]
    said = next((row for row in mine if row.kind == PREDICT and row.hash == facts.get("prediction")), None)
    if said is None:
        return "no prediction of its run stands before it"
    if any(said.values.get(part) != facts.get(part) for part in _SAID):
        return "it names other figures than the prediction that it points to"
    first = next((row.seq for row in mine if row.kind in (BEGIN, RUN)), None)
    if first is not None and first < said.seq:
        return f"its run was begun (fact {first}) before it was foretold (fact {said.seq})"
    runs = [row for row in mine if row.kind == RUN]
    if not runs:
        return "its run is not in the ledger"
    if runs[-1].values.get("loss") != facts.get("came"):
        return "it names another loss than its run has"
    return None
