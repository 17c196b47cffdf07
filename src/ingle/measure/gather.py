"""Gathering of results: finished items come from the cache, the model is asked for the rest, and each is kept as soon as it is there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ingle.core.errors import Interrupted
from ingle.core.message import Request
from ingle.measure.finished import Finished, Passing, Row
from ingle.measure.subject import Nats, Subject, Task

Progress = Callable[[str, int, int], None]
"""Hears the label of the measurement, how many items are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class ItemPlan:
    """One item, made ready: the questions to the model, and what is noted of its answer. Either `tasks` or a `request`."""

    id: str
    key: str
    """Digest of all that the answer depends on, apart from the model."""
    asked: Any
    """Question and right answer as plain values, for the data digest. Independent of the model's vocabulary."""
    tasks: tuple[Task, ...] = ()
    scored: Callable[[Sequence[Sequence[Nats]]], Row] | None = None
    """Makes the row from the log-probabilities: for each task, for each ending, token by token."""
    request: Request | None = None
    said: Callable[[str], Row] | None = None
    """Makes the row from the answer to `request`; without it the row holds the answer's text."""


def silent(_label: str, _done: int, _all: int) -> None:
    """Report no progress."""


def gather(
    subject: Subject, plans: Sequence[ItemPlan], finished: Finished | Passing, label: str = "items", progress: Progress = silent
) -> list[Row]:
    """Return the rows of all items, in their order. Raises Interrupted if the model stopped early, and the model's errors."""
    rows = {plan.key: row for plan in plans if (row := finished.get(plan.key)) is not None}
    todo = list({plan.key: plan for plan in plans if plan.key not in rows}.values())
    total = len(rows) + len(todo)
    progress(label, len(rows), total)

    def done(plan: ItemPlan, row: Row) -> None:
        finished.add(plan.key, row)
        rows[plan.key] = row
        progress(label, len(rows), total)

    _score(subject, [plan for plan in todo if plan.request is None], done)
    _write(subject, [plan for plan in todo if plan.request is not None], done)
    if len(rows) < total:
        got, cure = f"{len(rows)} of {total} items", "Finished items are kept. Run the same command to go on from there."
        raise Interrupted("measurement", "was interrupted", got, cure)
    return [rows[plan.key] for plan in plans]


def _score(subject: Subject, plans: Sequence[ItemPlan], done: Callable[[ItemPlan, Row], None]) -> None:
    places = [(plan, number) for plan in plans for number in range(len(plan.tasks))]
    arrived: dict[str, dict[int, list[Nats]]] = {plan.key: {} for plan in plans}
    for index, values in subject.score([plan.tasks[number] for plan, number in places]) if places else ():
        plan, number = places[index]
        parts = arrived[plan.key]
        parts[number] = values
        if len(parts) == len(plan.tasks):
            del arrived[plan.key]
            assert plan.scored is not None
            done(plan, plan.scored([parts[number] for number in range(len(parts))]))


def _write(subject: Subject, plans: Sequence[ItemPlan], done: Callable[[ItemPlan, Row], None]) -> None:
    requests = [plan.request for plan in plans if plan.request is not None]
    for index, text in subject.write(requests) if requests else ():
        plan = plans[index]
        done(plan, {"text": text} if plan.said is None else plan.said(text))
