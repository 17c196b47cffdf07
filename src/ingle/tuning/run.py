"""`tune`: from a kept model and data to a candidate with a report of its cost and effect; a delta in the home, if it is admitted.

Mistakes in name, method, data and layers are found before weights are loaded. Stopped at any moment, the same call goes on where it was:
training from its last checkpoint, measuring from its last item.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ingle.core.candidate import Admit, Candidate
from ingle.core.delta import Delta
from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError, PullError
from ingle.core.files import write_atomic
from ingle.core.report import Event, Sink
from ingle.core.room import room_for
from ingle.engine.packs import served_size
from ingle.home.base import CURVES
from ingle.home.deltas import delta_report
from ingle.home.kept import Kept, get_kept
from ingle.home.names import check_name
from ingle.home.place import Home
from ingle.measure.suites import find_suite
from ingle.train.making import MadeDelta, RunWatch, Steps, make_delta, nobody
from ingle.train.precision import device_of
from ingle.train.trouble import smaller_batches
from ingle.tuning import report
from ingle.tuning.course import course_of
from ingle.tuning.data import Learnt, find_sources
from ingle.tuning.job import TuneJob
from ingle.tuning.keeping import put_beside
from ingle.tuning.making import make_candidate
from ingle.tuning.method import find_method
from ingle.tuning.need import TuneTokens, tune_need
from ingle.tuning.settings import TuneSettings, plain

VERSION = 2
"""Changes when the same settings train something else than before."""


def tune(
    home: Home, kept: Kept, data: Sequence[str], name: str, settings: TuneSettings, admit: Admit,
    watch: RunWatch = RunWatch(), command: str = "", sink: Sink = nobody,  # noqa: B008 - frozen
) -> MadeDelta:  # fmt: skip
    """Train a delta called `name` on a kept model, and keep it if `admit` takes it.

    `data`: paths of files or folders, or `suite:NAME`. `command`: how it was asked for, for the delta's origin. `sink` takes the facts:
    `tune` as soon as the delta is kept, and `tune.judge` with its measurements; both again if the call goes on after that.

    Raises ConfigError for arguments that can't be used (name, method, options, layers, data, teacher), NotKept for a teacher that isn't
    here, the errors of opening the models, TrainError, HomeError, Refused if `admit` refuses it, and Interrupted after Ctrl-C or SIGTERM.
    After an error the same call goes on where it was: nothing is trained twice, so another `admit` may take the candidate. After success
    the same call changes nothing.
    """
    check_name(name)
    method, sources = find_method(settings.method), find_sources(data)
    if settings.strength < 1 and method.KIND != "lora":
        raise ConfigError(
            "strength", "must be 1 for this method", f"{settings.strength} for {settings.method}", "LoRA and its kin may be weaker."
        )
    teacher = [get_kept(home, settings.objective.teacher).digest] if settings.objective.teacher else []
    key = digest_json([VERSION, kept.digest, name, plain(settings, course_only=True), sources, *teacher])
    job = TuneJob(
        maker="tune", home=home, name=name, settings=settings, key=key, folder=home.tuning / key[:32], watch=watch, command=command,
        kept=kept, sources=sources, method=method,
    )  # fmt: skip
    return make_delta(job, Steps(_make, _events, still=_still, finish=_finish), admit, sink)


def _make(job: TuneJob) -> Candidate:
    begun = job.begin()
    learnt = job.learnt(begun, 0)  # before anything is fetched: a bad line should be reported at once
    predicted = _need_room(job, learnt)
    _need_general(job)
    candidate = make_candidate(job, begun, learnt)
    return replace(candidate, report={**(candidate.report or {}), "predicted": predicted})


def _need_room(job: TuneJob, learnt: Learnt) -> dict[str, Any] | None:
    """Say what the tune will take. Raises NoRoom where it would take this machine's memory, and there isn't enough."""
    settings, sizes = job.settings, learnt.data.corpus.sizes
    if device_of(settings.device) != "cpu":
        return None
    teacher = settings.objective.teacher
    tokens = TuneTokens(course_of(settings.train, settings.small, learnt.data), int(sizes[list(learnt.data.train)].sum()))
    other = served_size(job.home, get_kept(job.home, teacher)) if teacher else None
    room = room_for(tune_need(served_size(job.home, job.kept), settings, tokens, other))
    job.watch.room(room)
    room.check(smaller_batches(tokens.course.batch_tokens, tokens.course.recompute))
    return room.table()


def _still(job: TuneJob, delta: Delta) -> bool:
    """Whether the data are unchanged, and the strength is."""
    if float(delta.origin.get("strength", 1)) != job.settings.strength:
        return False
    table = delta_report(job.home, delta.digest) or {}
    learnt = job.learnt(job.begin(), table.get("virtual_tokens", 0))
    return learnt.data.corpus.digest == delta.origin["data_digest"]


def _finish(job: TuneJob, delta: Delta, table: Mapping[str, Any]) -> Mapping[str, Any]:
    """Put the loss of every step and its plot beside the delta, whose report stays as it was let in. Raises HomeError."""
    work, folder = job.work_folder(delta.origin["data_digest"]), job.home.delta_folder(delta.digest)
    for name in CURVES:
        if (work / name).exists():
            write_atomic(folder / name, (work / name).read_bytes(), mode=0o600)
    put_beside(work, folder, table)
    return table


def _events(table: Mapping[str, Any], _delta: Delta) -> Iterator[Event]:
    yield report.trained_event(table)
    if event := report.judged_event(table):
        yield event


def _need_general(job: TuneJob) -> None:
    """Make sure that the general text is here: nobody should hear after an hour that it can't be had."""
    if not job.settings.judge.forgetting:
        return
    try:
        find_suite(job.settings.judge.general).read(job.home, job.watch.bytes)
    except PullError as error:
        cure = f"{error.cure} Or don't measure forgetting: --forgetting 0 (judge.forgetting)."
        raise PullError(error.field, error.rule, error.got, cure.strip()) from error
