"""`scratch`: from settings to a kept base, with a report of its quality.

Mistakes in names, settings and texts are found before anything is computed. Stopped at any moment, the same call goes on where it was
(training from its last checkpoint, measuring from its last text) and ends with the same bytes.
"""

from typing import Any

from ingle.core.config import to_table
from ingle.core.digest import digest_json
from ingle.core.errors import HomeError
from ingle.core.report import Sink
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.home.base import Base, base_report, list_bases
from ingle.home.kept import Kept, keep, refuse_taken
from ingle.home.names import check_name
from ingle.home.place import Home
from ingle.scaling import report
from ingle.scaling.job import ScratchJob
from ingle.scaling.judge import judge
from ingle.scaling.making import SOURCE, made_before, make_base, write_report
from ingle.scaling.settings import ScratchSettings, course
from ingle.scaling.shape import config_of
from ingle.scaling.sources import find_suites, read_texts
from ingle.train.making import Made, RunWatch, at_work, nobody

VERSION = 3
"""Changes when the same settings and texts train something else than before."""


def scratch(
    home: Home, name: str, settings: ScratchSettings, watch: RunWatch = RunWatch(),  # noqa: B008 - frozen
    command: str = "", sink: Sink = nobody,
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
    sink(report.trained_event(table))
    asked_for = to_table(job.settings)
    if not table["finished"] or table["settings"]["judge"] != asked_for["judge"]:
        model = open_model(kept_source(home, kept), job.settings.judge.format, job.settings.judge.threads, progress=job.watch.pieces)
        settings = job.settings
        judged = judge(home, model, job.texts, settings.data, settings.judge, job.stopped, _named_progress(job))
        notes = [f"{name}: {note}" for name, outcome in judged.texts.items() for note in outcome.notes]
        table = {**table, "settings": {**table["settings"], "judge": asked_for["judge"]}}
        table |= {"served": judged.tables(), "notes": notes, "finished": True}
        write_report(home.base_folder(kept.base), table)
    if event := report.judged_event(table):
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
