"""What a model from scratch is worth, as it is served: bits per byte of what each source held out, and pairs recalled, by distance."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ingle.core.digest import digest_json
from ingle.core.errors import Interrupted
from ingle.core.report import Report
from ingle.core.state_layout import STEP_TOKENS
from ingle.engine.backend import Segment
from ingle.engine.language_model import LanguageModel
from ingle.engine.scoring import score
from ingle.engine.writing import write
from ingle.home.place import Home
from ingle.measure.gather import Progress, silent
from ingle.measure.intervals import Floats, bootstrap
from ingle.measure.run import Options, Outcome, run_suite
from ingle.measure.subject import Subject
from ingle.scaling.pairs import Planter, Row
from ingle.scaling.settings import ScratchJudge, TextSettings
from ingle.scaling.sources import Texts

EDGES = (64, 128, 256)
"""Distances up to which pairs are counted together; the last group is beyond."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What was measured."""

    texts: Mapping[str, Outcome]
    """By source."""
    pairs: Sequence[Report]
    """Of all pairs, then by distance; none if none were planted."""

    def tables(self) -> list[dict[str, Any]]:
        """Every figure as a plain table, with the source that it is of."""
        found = [{"of": name, **asdict(report)} for name, outcome in self.texts.items() for report in outcome.reports]
        return found + [{"of": "planted pairs", **asdict(report)} for report in self.pairs]


def judge(
    home: Home, model: LanguageModel, texts: Texts, data: TextSettings, settings: ScratchJudge, stopped: Callable[[], bool],
    progress: Progress = silent,
) -> Judged:  # fmt: skip
    """Measures an open model; texts that were measured before are not measured again. Raises Interrupted."""
    scorer, writer = partial(score, model.backend, stopped=stopped), partial(write, model, stopped=stopped)
    subject = Subject(model.name, model.digest, model.backend.config.context_length, model.tokenizer, scorer, writer)
    options = Options(settings.items, seed=settings.seed)
    measured = {suite.name: run_suite(home, suite, subject, options, progress) for suite in texts.suites}
    pairs: list[Report] = []
    if data.pairs:
        rows = held_out_rows(model, texts, data, settings.pair_rows)
        pairs = reports(model, rows, recalled(model, rows, stopped, progress), settings.seed)
    return Judged(measured, pairs)


def held_out_rows(model: LanguageModel, texts: Texts, data: TextSettings, count: int, row_tokens: int = 0) -> list[Row]:
    """Rows of pairs that nobody has trained on, in held-out prose; as long as in training, or of another length."""
    planter = Planter(model.tokenizer, texts.held_out, row_tokens or data.row_tokens)
    return [planter.row(f"held out {i}") for i in range(count)]


def recalled(model: LanguageModel, rows: Sequence[Row], stopped: Callable[[], bool], progress: Progress = silent) -> list[list[bool]]:
    """For each row, for each value asked for, whether it is the likeliest token. Raises Interrupted."""
    found = []
    for number, row in enumerate(rows):
        progress("planted pairs", number, len(rows))
        if stopped():
            raise Interrupted("measurement", "was interrupted", f"{number} of {len(rows)} rows", "The same command goes on from there.")
        likeliest = np.concatenate(list(_likeliest(model, row.ids)))
        found.append([bool(likeliest[asked.at - 1] == row.ids[asked.at]) for asked in row.asked])
    progress("planted pairs", len(rows), len(rows))
    return found


def _likeliest(model: LanguageModel, ids: Sequence[int]) -> Iterator[Any]:
    state = model.backend.new_state()
    for at in range(0, len(ids), STEP_TOKENS):
        [logits] = model.backend.forward([Segment(state, ids[at : at + STEP_TOKENS], "all")])
        yield logits.argmax(-1)


def reports(model: LanguageModel, rows: Sequence[Row], hits: Sequence[Sequence[bool]], seed: int) -> list[Report]:
    """Shares with intervals; rows, not single questions, are drawn again, because those of one row are alike."""
    digest, made = digest_json([row.ids for row in rows]), []
    for name, low, high in groups():
        counted = columns(rows, hits, low, high)
        if counted[:, 1].sum():
            interval, [right, asked] = bootstrap(counted, seed=seed), counted.sum(axis=0)
            report = Report(
                name, right / asked, "share", interval.low, interval.high, int(asked), model.digest, digest, interval.method, seed
            )
            made.append(replace(report, value=float(report.value)))
    return made


def groups() -> Iterator[tuple[str, int, int]]:
    """(name, above, up to): all distances, then each group of them."""
    yield "recalled", 0, 1 << 30
    for low, high in zip((0, *EDGES), (*EDGES, 1 << 30), strict=True):
        yield (f"recalled_to_{high}" if high in EDGES else f"recalled_beyond_{low}"), low, high


def columns(rows: Sequence[Row], hits: Sequence[Sequence[bool]], low: int, high: int) -> Floats:
    """[rows, 2]: recalled and asked, at distances above `low` and up to `high`."""
    table = []
    for row, mine in zip(rows, hits, strict=True):
        chosen = [hit for asked, hit in zip(row.asked, mine, strict=True) if low < asked.distance <= high]
        table.append([sum(chosen), len(chosen)])
    return np.array(table, np.float64).reshape(len(rows), 2)
