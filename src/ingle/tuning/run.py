"""`tune`: a kept model and data in, a candidate out, with a report of what it cost and what it did; a delta in the home, if it is admitted.

Everything that can be wrong with name, method, data and layers is found before weights are loaded. Stopped at any moment, the same call
goes on where it was: training from its last checkpoint, measuring from its last item.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingle.core.candidate import Admit
from ingle.core.delta import Delta
from ingle.core.digest import digest_json
from ingle.core.errors import PullError
from ingle.core.event import Sink
from ingle.core.files import write_atomic
from ingle.engine.source import checkpoint_tokenizer, open_weights
from ingle.home.deltas import delta_report, list_deltas, refuse_taken_delta
from ingle.home.kept import Kept, get_kept
from ingle.home.names import check_name
from ingle.home.place import Home
from ingle.measure.suites import find_suite
from ingle.train.trouble import stop_signals
from ingle.train.watch import RunWatch, nobody
from ingle.tuning import report, work
from ingle.tuning.data import bring, find_sources
from ingle.tuning.job import Job
from ingle.tuning.making import keep_curves, make_candidate
from ingle.tuning.method import chosen_layers, find_method
from ingle.tuning.settings import TuneSettings, plain

VERSION = 1
"""Changes when the same settings train something else than before."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What came of it."""

    kept: Kept
    """The model with the delta, `MODEL+NAME`."""
    delta: Delta
    report: Mapping[str, Any]
    """As in `report.json`."""
    plot: Path
    """The loss curve."""


def tune(
    home: Home, kept: Kept, data: Sequence[str], name: str, settings: TuneSettings, admit: Admit,
    watch: RunWatch = RunWatch(), command: str = "", sink: Sink = nobody,  # noqa: B008 - frozen
) -> Tuned:  # fmt: skip
    """Trains a delta called `name` on a kept model, and keeps it if `admit` does.

    `data`: paths of files or folders, or `suite:NAME`. `command`: how it was asked for, for the delta's origin. `sink` takes the facts:
    `tune` as soon as the delta is kept, and `tune.judge` with what was measured of it; both again if the call goes on after that.

    Raises ConfigError for whatever can't be used (name, method, options, layers, data, teacher), NotKept for a teacher that isn't here,
    what opening the models raises, TrainError, HomeError, Refused if `admit` would not have it, and Interrupted after Ctrl-C or SIGTERM.
    After any of them the same call goes on where it was: what was trained is not trained again, so that another `admit` may take it. After
    none of them it changes nothing any more.
    """
    check_name(name)
    method, sources = find_method(settings.method), find_sources(data)
    teacher = [get_kept(home, settings.objective.teacher).digest] if settings.objective.teacher else []
    key = digest_json([VERSION, kept.digest, name, plain(settings, course_only=True), sources, *teacher])
    home.create()
    for gone in work.sweep(home):
        watch.say(f"an unfinished run that nobody went on with for {work.DAYS} days was let go ({gone[:12]})")
    place = digest_json([kept.digest, name.lower()])[:16]
    with home.lock(f"tune-{place}", timeout_s=0), stop_signals() as stop:
        return _run(Job(home, kept, sources, name, settings, method, watch, command, key, work.folder_of(home, key), stop, admit), sink)


def _run(job: Job, sink: Sink) -> Tuned:
    home, kept = job.home, job.kept
    ours = _already_kept(job)
    checkpoint = open_weights(home, kept)
    tokenizer = checkpoint_tokenizer(checkpoint, home.base_folder(kept.base))
    chosen_layers(checkpoint.config, job.settings.layers)
    _need_general(job)
    files = bring(home, job.sources, job.settings.max_examples, job.folder / "data", job.watch.bytes)
    job.check()
    if ours is None:
        candidate, learnt = make_candidate(job, checkpoint, tokenizer, files)
        delta = job.admit(candidate, job.stopped)
    else:
        told = delta_report(home, ours.digest) or {}
        learnt = job.learnt(checkpoint, tokenizer, files, told.get("virtual_tokens", 0))
        if learnt.data.corpus.digest != ours.origin["data_digest"]:
            refuse_taken_delta(home, job.name, kept.digest)
        if told.get("finished"):
            job.watch.say(f"{kept.name}+{job.name} was made by this very command already")
            return _result(job, ours, told)
        job.watch.say("trained and admitted already; what is left is to write it down")
        delta = ours
    keep_curves(job, learnt, delta)
    done: dict[str, Any] = {**(delta_report(home, delta.digest) or {}), "delta": delta.digest, "finished": True}
    sink(report.trained_event(done))
    if event := report.judged_event(done):
        sink(event)
    write_atomic(home.delta_folder(delta.digest) / report.FILE, report.to_json(done), mode=0o600)
    return _result(job, delta, done)


def _result(job: Job, delta: Delta, told: Mapping[str, Any]) -> Tuned:
    work.clean(job.folder)
    above = get_kept(job.home, f"{job.kept.name}+{delta.name}")
    return Tuned(above, delta, told, job.home.delta_folder(delta.digest) / report.PLOT)


def _already_kept(job: Job) -> Delta | None:
    """The delta, if this very run has kept it already. Raises ConfigError if another one has the name."""
    same = [delta for delta in list_deltas(job.home, job.kept.digest) if delta.name == job.name and delta.origin.get("run") == job.key]
    refuse_taken_delta(job.home, job.name, job.kept.digest, same[0].digest if same else "")
    return same[0] if same else None


def _need_general(job: Job) -> None:
    """Makes sure that the general text is here: nobody should hear after an hour that it can't be had."""
    if not job.settings.judge.forgetting:
        return
    try:
        find_suite(job.settings.judge.general).read(job.home, job.watch.bytes)
    except PullError as error:
        cure = f"{error.cure} Or leave out how much the model forgets: --forgetting 0 (judge.forgetting)."
        raise PullError(error.field, error.rule, error.got, cure.strip()) from error
