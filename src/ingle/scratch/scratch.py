"""`scratch`: from settings to a kept base, with a report of its quality."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ingle.core.config import to_table
from ingle.core.digest import digest_json
from ingle.core.errors import HomeError, Interrupted
from ingle.core.progress import Progress, silent
from ingle.core.report import Report, Sink
from ingle.core.state import STEP_TOKENS
from ingle.engine.answer import write
from ingle.engine.backend import Segment
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.engine.scoring import score
from ingle.home.base import Base, base_report, list_bases
from ingle.home.kept import Kept, keep, refuse_taken
from ingle.home.names import check_name
from ingle.home.place import Home
from ingle.measure.intervals import Floats, bootstrap
from ingle.measure.measuring import Options, SuiteResult, run_suite
from ingle.measure.subjects import Subject
from ingle.scratch import first_model
from ingle.scratch.first_model import SOURCE, ScratchJob, made_before, make_base, write_report
from ingle.scratch.scratch_settings import ScratchJudge, ScratchSettings, TextSettings, config_of, course
from ingle.scratch.text_sources import PairRow, Planter, Texts, find_suites, read_texts
from ingle.train.making import Made, RunWatch, at_work

# Judging a model from scratch as it is served: bits per byte of each source's held-out texts, and recall of pairs by distance.


EDGES = (64, 128, 256)  # upper distances of the groups in which pairs are counted; the last group is beyond


@dataclass(frozen=True, slots=True)
class Judged:
    """Results of a judgement."""

    texts: Mapping[str, SuiteResult]  # outcome of each source
    pairs: Sequence[Report]  # recall of all pairs, then by distance; empty if none were planted

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


# `scratch`: from settings to a kept base, with a report of its quality.
# Mistakes in names, settings and texts are found before anything is computed. Stopped at any moment, the same call goes on where it was
# (training from its last checkpoint, measuring from its last text) and ends with the same bytes.


VERSION = 3  # changes when the same settings and texts train something else than before


def scratch(
    home: Home, name: str, settings: ScratchSettings, watch: RunWatch = RunWatch(),  # noqa: B008 - frozen
    command: str = "", sink: Sink = silent,
) -> Made:  # fmt: skip
    """Train a model from scratch and keep it under this name.

    `command`: how it was asked for, for the report. `sink` takes the facts: `train` as soon as the base is kept, `train.judge` when it is
    measured; both again if the call goes on after that.

    Raises ConfigError for arguments that can't be used, the errors of fetching the texts, TrainError, HomeError, and Interrupted after
    Ctrl-C or SIGTERM. After an error the same call goes on where it was. The name means either the whole model or nothing.
    """
    check_name(name)
    config_of(settings.model, settings.tokenizer.size)
    suites = find_suites(settings.data.sources, settings.data.held_out)
    watch.bytes("reading texts", 0, None)
    texts = read_texts(home, suites, watch.bytes)
    key = digest_json([VERSION, course(settings), texts.digest])
    folder = home.tuning / f"scratch-{key[:24]}"
    job = ScratchJob(
        maker="train", home=home, name=name, settings=settings, key=key, folder=folder, watch=watch, command=command, texts=texts
    )  # fmt: skip
    with at_work(job, f"train-{key[:16]}") as job:
        return _run(job, sink)


def _run(job: ScratchJob, sink: Sink) -> Made:
    home = job.home
    ours = made_before(job, list_bases(home))
    refuse_taken(home, job.name, ours.digest if ours else None, replace=False)
    kept, table = make_base(job) if ours is None else _named(job, ours)
    sink(first_model.trained_event(table))
    asked_for = to_table(job.settings)
    if not table["finished"] or table["settings"]["judge"] != asked_for["judge"]:
        model = open_model(kept_source(home, kept), job.settings.judge.format, job.settings.judge.threads, progress=job.watch.pieces)
        settings = job.settings
        judged = judge(home, model, job.texts, settings.data, settings.judge, job.stopped, _named_progress(job))
        notes = [f"{name}: {note}" for name, outcome in judged.texts.items() for note in outcome.notes]
        table = {**table, "settings": {**table["settings"], "judge": asked_for["judge"]}}
        table |= {"served": judged.tables(), "notes": notes, "finished": True}
        write_report(home.base_folder(kept.base), table)
    if event := first_model.judged_event(table):
        sink(event)
    return Made(kept, table, home.base_folder(kept.base))


def _named(job: ScratchJob, base: Base) -> tuple[Kept, dict[str, Any]]:
    """Return the base that this training made before, under the job's name, with its report."""
    table = base_report(job.home, base.digest)
    if table is None:
        cure = f"Remove the model ({base.source.removeprefix(SOURCE)}) and train it again."
        raise HomeError(f"base {base.digest[:12]}", "must have the report of its training beside it", "none", cure)
    job.watch.say("this model is trained already" + ("" if table["finished"] else "; only the measurement is left"))
    return keep(job.home, job.name, base.digest), {**table, "model": job.name}


def _named_progress(job: ScratchJob) -> Any:
    return lambda label, done, total: job.watch.pieces(f"measuring {job.name}: {label}", done, total)
