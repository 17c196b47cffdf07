"""`tune sight`: from a kept model and pictures with words to a candidate that sees; a delta in the home, if it is admitted.

The eye is frozen, and so is the model. Heads are fitted in closed form (sight_heads.py), the projector is trained by questions about
pictures (sight_projector.py). Stopped at any moment, the same call goes on where it was.

HOME/cache/sight/DIGEST/         the eye's numbers of the pictures; they stay, and may be deleted
HOME/tuning/KEY/training/        the projector's training, as `train` writes it
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ingle.core.candidate import Admit, Candidate
from ingle.core.config import to_table
from ingle.core.delta import Delta
from ingle.core.digest import digest_bytes, digest_json
from ingle.core.report import Event, Fact, Sink
from ingle.engine.packs import checkpoint_tokenizer, open_weights
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.media.painter import pack_lines, pack_rows
from ingle.media.picture import colours, read_picture
from ingle.media.sight import EYE, open_eye
from ingle.model.checkpoint import Checkpoint
from ingle.model.module import load_module
from ingle.model.tokenizer import Tokenizer
from ingle.train.checkpoints import put_back
from ingle.train.corpus import Corpus, Member, corpus_of
from ingle.train.loop import train
from ingle.train.making import DeltaJob, MadeDelta, RunWatch, Steps, delta_job, make_delta, nobody
from ingle.train.packing import Data
from ingle.train.precision import keep_few_programs
from ingle.train.report import held_out_of, training_facts
from ingle.train.settings import TrainReport, TrainWatch
from ingle.train.trouble import memory_errors, smaller_batches
from ingle.tuning.sight_features import features, features_folder
from ingle.tuning.sight_heads import Fitted, Words, fit
from ingle.tuning.sight_judge import described
from ingle.tuning.sight_pictures import ShownPicture, digest_of, free_drawings, from_folder
from ingle.tuning.sight_projector import PictureAnswers, Projector, attach, name_targets
from ingle.tuning.sight_questions import asked, document_of, line_for, questions_of
from ingle.tuning.sight_settings import SightSettings

METHOD = "ridge heads and a projector"
VERSION = 2
"""Changes when the same settings make something else than before."""
Array = npt.NDArray[Any]
Job = DeltaJob[SightSettings]


def tune_sight(
    folder: Path | None, home: Home, kept: Kept, name: str, settings: SightSettings, admit: Admit,
    watch: RunWatch = RunWatch(), command: str = "", sink: Sink = nobody,  # noqa: B008 - frozen
) -> MadeDelta:  # fmt: skip
    """Make a delta called `name` with which a kept model sees, and keep it if `admit` takes it.

    `folder`: of pictures with captions; None = the drawings that anyone may learn from. Raises ConfigError for a name or a folder that
    can't be used, NotKept where the eye isn't here, the errors of opening the model and fetching pictures, TrainError, HomeError,
    Refused if `admit` refuses it, and Interrupted after Ctrl-C or SIGTERM; the same call then goes on where it was.
    """
    open_eye(home, 1)
    pictures = from_folder(folder) if folder is not None else free_drawings(home, watch.bytes)
    source, digest = (folder.name if folder is not None else "free drawings"), digest_of(pictures)
    job = delta_job("sight", VERSION, home, kept, name, settings, watch, command)
    key = digest_json([job.key, digest])
    job = replace(job, key=key, folder=home.tuning / key[:32])
    return make_delta(job, Steps(partial(_make, pictures, source, digest), _events), admit, sink)


def _make(pictures: Sequence[ShownPicture], source: str, digest: str, job: Job) -> Candidate:
    settings = job.settings
    keep_few_programs()
    numbers, pictures = _looked(job, pictures)
    out = _held_out(pictures, settings)
    learnt, kept_out = [i for i in range(len(pictures)) if i not in out], sorted(out)
    job.watch.say(f"fitting heads to {len(learnt)} pictures")
    heads, words = fit(
        numbers[learnt],
        [pictures[i] for i in learnt],
        settings.width,
        settings.ridge,
        job.check,
        partial(job.watch.pieces, "fitting heads"),
    )
    checkpoint = open_weights(job.home, job.kept)
    tokenizer = checkpoint_tokenizer(checkpoint, job.home.base_folder(job.kept.base))
    z = heads.reduced(numbers)  # (n, v, k)
    said: list[list[Words]] = [[] for _ in pictures]
    for place, i in enumerate(learnt):
        said[i] = words[place] or [heads.said(view) for view in z[i]]
    for i in kept_out:
        said[i] = [heads.said(view) for view in z[i]]
    projector, trained = _trained(job, checkpoint, tokenizer, pictures, z, said, (learnt, kept_out))
    candidate = Candidate(
        job.name,
        "sight",
        job.kept.digest,
        tensors_of(heads, projector),
        {**job.origin(METHOD), "eye": EYE, "data": source, "data_digest": digest},
    )
    before, after = held_out_of(trained, settings.train.patience)
    report = {
        "version": VERSION, "model": job.model, "base": job.kept.digest, "kind": "sight", "method": METHOD, "settings": to_table(settings),
        "pictures": len(learnt), "names": len(heads.names), "data": source, "data_digest": digest, "train": asdict(trained),
        "held_out": {"before": before, "after": after}, "described": None,
    }  # fmt: skip
    if kept_out and settings.measured:
        report["described"] = described(job.home, job.kept, candidate, [pictures[i] for i in kept_out][: settings.measured], job.stopped)
        job.check("before its held-out pictures were described")
    return replace(candidate, report=report)


def _looked(job: Job, pictures: Sequence[ShownPicture]) -> tuple[Array, list[ShownPicture]]:
    """Return the eye's numbers of the pictures that can be read and are not left out."""
    settings, eye = job.settings, open_eye(job.home)
    folder = features_folder(job.home, eye, pictures, settings.views, settings.seed)
    numbers, kept = features(eye, pictures, settings.views, folder, settings.seed, job.check, partial(job.watch.pieces, "looking"))
    if len(kept) < len(pictures):
        job.watch.say(f"{len(pictures) - len(kept)} of {len(pictures)} pictures can't be read, and are left out")
    chosen = [place for place, i in enumerate(kept) if pictures[i].family not in settings.without]
    return numbers[chosen], [pictures[kept[place]] for place in chosen]


def _held_out(pictures: Sequence[ShownPicture], settings: SightSettings) -> set[int]:
    """Numbers of the pictures that are never trained on, by a hash of their content; their names stay known from other pictures."""
    names: dict[str, int] = {}
    for one in pictures:
        names[one.name] = names.get(one.name, 0) + 1
    out = set[int]()
    for i, one in enumerate(pictures):
        if int(digest_json([settings.seed, digest_bytes(one.data)])[:8], 16) / 2**32 < settings.held_out and names[one.name] > 1:
            out.add(i)
            names[one.name] -= 1
    return out


def _trained(
    job: Job, checkpoint: Checkpoint, tokenizer: Tokenizer, pictures: Sequence[ShownPicture], z: Array, said: Sequence[Sequence[Words]],
    sides: tuple[Sequence[int], Sequence[int]],
) -> tuple[Projector, TrainReport]:  # fmt: skip
    """Train the projector; return it with the report of its training."""
    settings = job.settings
    with memory_errors(smaller_batches(settings.train.batch_tokens, settings.train.recompute)):
        module = load_module(checkpoint)
        projector = Projector(z.shape[-1], settings.inner, settings.places, checkpoint.config.hidden_size, settings.seed)
        learnt = list(sides[0])
        targets = name_targets(module, tokenizer, [pictures[i].name for i in learnt], settings.places)
        views = z.shape[1]
        projector.begin(z[learnt].reshape(-1, z.shape[-1]), np.repeat(targets, views, axis=0))
        parameters = attach(module, projector, torch.from_numpy(z.reshape(-1, z.shape[-1])), settings.noise)
        job.watch.bytes("writing questions", 0, None)
        corpus, data_sides = _corpus(job, tokenizer, checkpoint.config.vocab_size, pictures, said, sides, views)
        folder = job.folder / "training"
        trained = train(
            module, parameters, Data(corpus, *data_sides), settings.train, folder, TrainWatch(job.watch.train, job.watch.say),
            PictureAnswers(corpus),
        )  # fmt: skip
        if trained.stopped == "interrupted":
            raise job.interrupted(f"after step {trained.steps}")
        put_back(parameters, folder)
    return projector, trained


def _corpus(
    job: Job, tokenizer: Tokenizer, vocab_size: int, pictures: Sequence[ShownPicture], said: Sequence[Sequence[Words]],
    sides: tuple[Sequence[int], Sequence[int]], views: int,
) -> tuple[Corpus, tuple[list[int], list[int]]]:  # fmt: skip
    """Return the questions about all pictures, and which to learn from and which are held out."""
    settings, members, where = job.settings, list[Member](), list[int]()
    written = cache(partial(asked, tokenizer))
    for i, one in enumerate(pictures):
        job.check()
        draw = np.random.default_rng([settings.seed, i])
        named = colours(read_picture(one.data))
        for question, answer in questions_of(one, named, settings.questions, draw):
            view = int(draw.integers(views))
            line = line_for(said[i][view], named)
            document = document_of(tokenizer, vocab_size, i * views + view, settings.places, line, written(question), answer)
            members.append((digest_bytes(one.data)[:16], -1, (document,)))
            where.append(i)
    out = set(sides[1])
    learnt = [number for number, i in enumerate(where) if i not in out]
    return corpus_of("answers", members), (learnt, [number for number, i in enumerate(where) if i in out])


def tensors_of(heads: Fitted, projector: Projector) -> dict[str, Array]:
    """Return the delta's tensors; see media/sight.py."""
    parts = projector.tensors()
    return {
        "reduce.mean": heads.mean.astype(np.float16),
        **pack_rows("reduce", heads.reduce),
        **pack_rows("names", heads.places),
        "names.likeness": np.array([heads.likeness], np.float16),
        "names.lines": pack_lines([name.replace("\n", " ") for name in heads.names]),
        "tags.lines": pack_lines([" ".join(words) for words in heads.tags]),
        **pack_rows("inner", parts["inner"]),
        "inner.bias": parts["inner_bias"].astype(np.float16),
        **pack_rows("outer", parts["outer"]),
        "outer.places": np.array([projector.places], np.float16),
    }


def _events(report: Mapping[str, Any], delta: Delta) -> Iterator[Event]:
    facts: dict[str, Fact] = {"delta": delta.digest} | {
        key: report[key] for key in ("base", "method", "pictures", "names", "data", "data_digest")
    }
    if told := report["described"]:
        facts |= {f"described_{key}": told[key] for key in ("n", "named", "words", "blank_words", "changed")}
    yield Event("sight", report["model"], facts | training_facts(report))
