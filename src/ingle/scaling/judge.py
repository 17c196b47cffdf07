"""Judging a model from scratch as it is served: bits per byte of each source's held-out texts, and recall of pairs by distance."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ingle.core.digest import digest_json
from ingle.core.errors import Interrupted
from ingle.core.report import Report
from ingle.core.state import STEP_TOKENS
from ingle.engine.answer import write
from ingle.engine.backend import Segment
from ingle.engine.language_model import LanguageModel
from ingle.engine.scoring import score
from ingle.home.place import Home
from ingle.measure.intervals import Floats, bootstrap
from ingle.measure.measuring import Options, SuiteResult, run_suite
from ingle.measure.subjects import Progress, Subject, silent
from ingle.scaling.pairs import PairRow, Planter
from ingle.scaling.settings import ScratchJudge, TextSettings
from ingle.scaling.sources import Texts

EDGES = (64, 128, 256)
"""Upper distances of the groups in which pairs are counted; the last group is beyond."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Results of a judgement."""

    texts: Mapping[str, SuiteResult]
    """Outcome of each source."""
    pairs: Sequence[Report]
    """Recall of all pairs, then by distance; empty if none were planted."""

    def tables(self) -> list[dict[str, Any]]:
        """Every figure as a plain table, with its source."""
        tables = [{"of": name, **asdict(report)} for name, outcome in self.texts.items() for report in outcome.reports]
        return tables + [{"of": "planted pairs", **asdict(report)} for report in self.pairs]


def judge(
    home: Home, model: LanguageModel, texts: Texts, data: TextSettings, settings: ScratchJudge, stopped: Callable[[], bool],
    progress: Progress = silent,
) -> Judged:  # fmt: skip
    """Measure an open model; earlier results on texts are used again. Raises Interrupted."""
    scorer, writer = partial(score, model.backend, stopped=stopped), partial(write, model, stopped=stopped)
    subject = Subject(model.name, model.digest, model.backend.config.context_length, model.tokenizer, scorer, writer)
    options = Options(settings.items, seed=settings.seed)
    measured = {suite.name: run_suite(home, suite, subject, options, progress) for suite in texts.suites}
    pairs: list[Report] = []
    if data.pairs:
        rows = held_out_rows(model, texts, data, settings.pair_rows)
        pairs = reports(model, rows, recalled(model, rows, stopped, progress), settings.seed)
    return Judged(measured, pairs)


def held_out_rows(model: LanguageModel, texts: Texts, data: TextSettings, count: int, row_tokens: int = 0) -> list[PairRow]:
    """Rows of pairs that were not trained on, in held-out prose; as long as in training, or of another length."""
    planter = Planter(model.tokenizer, texts.held_out, row_tokens or data.row_tokens)
    return [planter.row(f"held out {i}") for i in range(count)]


def recalled(model: LanguageModel, rows: Sequence[PairRow], stopped: Callable[[], bool], progress: Progress = silent) -> list[list[bool]]:
    """For each row, for each pair asked for, whether the value is the likeliest token. Raises Interrupted."""
    hits = []
    for number, row in enumerate(rows):
        progress("planted pairs", number, len(rows))
        if stopped():
            raise Interrupted("measurement", "was interrupted", f"{number} of {len(rows)} rows", "Run the same command to go on.")
        likeliest = np.concatenate(list(_likeliest(model, row.ids)))
        hits.append([bool(likeliest[asked.at - 1] == row.ids[asked.at]) for asked in row.asked])
    progress("planted pairs", len(rows), len(rows))
    return hits


def _likeliest(model: LanguageModel, ids: Sequence[int]) -> Iterator[Any]:
    state = model.backend.new_state()
    for start in range(0, len(ids), STEP_TOKENS):
        [logits] = model.backend.forward([Segment(state, ids[start : start + STEP_TOKENS], "all")])
        yield logits.argmax(-1)


def reports(model: LanguageModel, rows: Sequence[PairRow], hits: Sequence[Sequence[bool]], seed: int) -> list[Report]:
    """Shares with intervals. Rows, not single pairs, are resampled, because pairs of one row are alike."""
    digest, out = digest_json([row.ids for row in rows]), []
    for name, low, high in groups():
        counted = columns(rows, hits, low, high)
        if counted[:, 1].sum():
            interval, [right, asked] = bootstrap(counted, seed=seed), counted.sum(axis=0)
            report = Report(
                name, right / asked, "share", interval.low, interval.high, int(asked), model.digest, digest, interval.method, seed
            )
            out.append(replace(report, value=float(report.value)))
    return out


def groups() -> Iterator[tuple[str, int, int]]:
    """(name, above, up to): all distances, then each group of them."""
    yield "recalled", 0, 1 << 30
    for low, high in zip((0, *EDGES), (*EDGES, 1 << 30), strict=True):
        yield (f"recalled_to_{high}" if high in EDGES else f"recalled_beyond_{low}"), low, high


def columns(rows: Sequence[PairRow], hits: Sequence[Sequence[bool]], low: int, high: int) -> Floats:
    """[rows, 2]: recalled and asked, at distances above `low` and up to `high`."""
    table = []
    for row, mine in zip(rows, hits, strict=True):
        chosen = [hit for asked, hit in zip(row.asked, mine, strict=True) if low < asked.distance <= high]
        table.append([sum(chosen), len(chosen)])
    return np.array(table, np.float64).reshape(len(rows), 2)
