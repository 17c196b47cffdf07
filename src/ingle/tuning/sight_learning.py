"""`tune sight`: from a kept model and pictures with words to a candidate that sees."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ingle.core.candidate import Admit, Candidate
from ingle.core.config import Amount, Bounds, Count, check_bounds, check_seed
from ingle.core.delta import Delta
from ingle.core.digest import digest_bytes, digest_json
from ingle.core.errors import ConfigError
from ingle.core.media import Picture
from ingle.core.message import ImagePart, Message, Request, TextPart
from ingle.core.progress import silent
from ingle.core.report import Event, Sink
from ingle.engine.answer import write
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import Opener
from ingle.engine.packs import candidate_source, checkpoint_tokenizer, open_weights
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.media.painter import pack_lines, pack_rows
from ingle.media.picture import colours, png_of, read_picture
from ingle.media.sight import EYE, open_eye
from ingle.model.checkpoint import Checkpoint
from ingle.model.module import CausalLM, load_module
from ingle.model.tokenizer import Tokenizer
from ingle.train.checkpoints import put_back
from ingle.train.corpus import Corpus, Member, Wanted, corpus_of
from ingle.train.loop import train_for
from ingle.train.loop_settings import Schedule, TrainReport, TrainSettings
from ingle.train.low_rank import replace_module
from ingle.train.making import (
    DeltaJob,
    MadeDelta,
    RunWatch,
    delta_job,
    held_out_of,
    made_event,
    make_delta,
    memory_errors,
    smaller_batches,
    training_facts,
)
from ingle.train.objectives import States, TokenLoss, cross_entropy
from ingle.train.optimisers import OptimiserSettings, keep_few_programs
from ingle.train.packing import Batch, Data
from ingle.train.shared import final_states_of, make_row, sharing
from ingle.tuning.sight_pictures import (
    NAME,
    WORDS,
    Fitted,
    ShownPicture,
    Words,
    asked,
    digest_of,
    document_of,
    features,
    features_folder,
    fit,
    free_drawings,
    from_folder,
    line_for,
    questions_of,
    words_of,
)
from ingle.tuning.virtual import EMBEDDING, VirtualEmbedding

# Settings of learning to see.


def _course() -> TrainSettings:
    return TrainSettings(
        epochs=1, batch_tokens=1024, optimiser=OptimiserSettings(learning_rate=2e-3), schedule=Schedule("cosine", warm_up=0.05),
        checkpoint_minutes=3.0,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SightSettings:
    """Settings of one run."""

    places: Count = 4  # vectors that stand for a picture, each in the place of a token
    width: Annotated[int, Bounds(ge=8)] = 320  # directions of the eye's numbers that are kept
    inner: Count = 320  # units of the projector's hidden layer
    ridge: float = 1.0  # ridge of the regression from the eye's numbers to names
    views: Amount = 1  # altered copies of each picture that are looked at, beside the picture itself
    questions: Count = 2  # questions about each picture in an epoch: its name, and others
    noise: float = 0.3  # noise on the numbers that the projector reads in training; they have a size of about 1
    held_out: Annotated[float, Bounds(ge=0, lt=0.5)] = 0.01  # share of the pictures that is never trained on
    without: tuple[str, ...] = ()  # families of pictures that are left out: for figures on what was never seen
    measured: Amount = 24  # held-out pictures that are described as the model is served; 0 = none
    train: TrainSettings = field(default_factory=_course)  # settings of the projector's training
    seed: int = 0  # seed of what is held out, of views, questions and first values

    def __post_init__(self) -> None:
        check_bounds(self)
        if not self.ridge > 0 or self.noise < 0:
            raise ConfigError("ridge and noise", "must be above 0, and not negative", f"{self.ridge}, {self.noise}")
        check_seed("seed", self.seed)


# Held-out pictures, described as the model is served: names, words, and whether it looks at all.


_MOST = 40
_BEGINNING = re.compile(r"^(the picture shows:\s*|it is\s+)?((an?|the)\s+)?", re.IGNORECASE)


def ask(data: bytes, question: str, max_tokens: int = _MOST) -> Request:
    """Return a question about one picture, to be answered greedily."""
    return Request((Message("user", (ImagePart(data, "image/png"), TextPart(question))),), max_tokens=max_tokens)


def plain(name: str) -> str:
    """Return a name without the words that lead to it (`The picture shows: a`), capitals, and punctuation at its ends."""
    return _BEGINNING.sub("", " ".join(name.lower().split()).strip(" .,!?\"'")).strip(" .,!?\"'")


def f1(given: Sequence[str], wanted: Sequence[str]) -> float:
    """Return the F1 of words against words, each counted once."""
    first, second = set(given), set(wanted)
    same = len(first & second)
    return 2 * same / (len(first) + len(second)) if same else 0.0


def wanted_words(one: ShownPicture) -> tuple[str, ...]:
    """Return the words that describe a picture: of its name, and its tags."""
    return tuple(dict.fromkeys((*words_of(one.name), *one.tags)))


def answers(model: LanguageModel, requests: Sequence[Request], stopped: Callable[[], bool]) -> list[str]:
    """Return the answers in order; what was stopped before it came is empty."""
    by_number = dict(write(model, requests, stopped))
    return [by_number.get(number, "") for number in range(len(requests))]


def blank() -> bytes:
    """Return a white picture, as a file."""
    return png_of(Picture(np.full((64, 64, 3), 255, np.uint8)))


def described(
    home: Home, kept: Kept, candidate: Candidate, pictures: Sequence[ShownPicture], stopped: Callable[[], bool]
) -> dict[str, Any]:
    """Return the candidate's figures on these pictures: the share named right, the mean F1 of its words, the same for a blank picture in
    their place, and the share of answers that change when the next picture stands in a picture's place."""
    model, n = Opener().open(candidate_source(home, kept, candidate)), len(pictures)
    named = answers(model, [ask(one.data, NAME) for one in pictures], stopped)
    words = answers(model, [ask(one.data, WORDS) for one in pictures], stopped)
    [nothing] = answers(model, [ask(blank(), WORDS)], stopped)
    wanted = [wanted_words(one) for one in pictures]
    return {
        "n": n,
        "named": sum(plain(got) == plain(one.name) for got, one in zip(named, pictures, strict=True)) / n,
        "words": float(np.mean([f1(words_of(got), one) for got, one in zip(words, wanted, strict=True)])),
        "blank_words": float(np.mean([f1(words_of(nothing), one) for one in wanted])),
        "changed": sum(first != second for first, second in zip(words, [*words[1:], words[0]], strict=True)) / n,
        "samples": [[one.name, got] for one, got in list(zip(pictures, named, strict=True))[:8]],
    }


# The projector in training: numbers of a picture → vectors in the place of n tokens; the language model itself stays as it is.
# A picture's vector has an id beyond the vocabulary: vocab_size + (number of the view) · n + place. The embedding asks the projector for
# these. It begins in closed form: the vector at place i is the ridge regression of the i-th token of the pictures' names.


Floats = npt.NDArray[np.float32]
_RIDGE = 10.0


class Projector(nn.Module):
    """[..., k] → [..., n, hidden]: linear, and a hidden layer beside it."""

    def __init__(self, width: int, inner: int, places: int, hidden: int, seed: int) -> None:
        super().__init__()
        self.places, self.hidden = places, hidden
        draw = torch.Generator().manual_seed(seed)
        self.inner = nn.Parameter(torch.randn(inner, width, generator=draw) / width**0.5)
        self.inner_bias = nn.Parameter(torch.zeros(inner))
        self.outer = nn.Parameter(torch.zeros(places * hidden, inner + width + 1))

    def forward(self, z: Tensor) -> Tensor:
        """Return the vectors of pictures."""
        h = nn.functional.gelu(z @ self.inner.T + self.inner_bias, approximate="tanh")
        whole = torch.cat([h, z, torch.ones_like(z[..., :1])], -1)
        vectors: Tensor = (whole @ self.outer.T).view(*z.shape[:-1], self.places, self.hidden)
        return vectors

    @torch.no_grad()
    def begin(self, z: Floats, targets: Floats) -> None:
        """Begin as the ridge regression from z [n, k] to targets [n, places · hidden]."""
        x = np.concatenate([z, np.ones((len(z), 1), np.float32)], axis=1)
        weights = np.linalg.solve(x.T @ x + _RIDGE * np.eye(x.shape[1], dtype=np.float32), x.T @ targets)
        self.outer[:, -x.shape[1] :] = torch.from_numpy(weights.T.astype(np.float32))

    def tensors(self) -> dict[str, Floats]:
        """Return its matrices, float32."""
        return {name: parameter.detach().float().numpy() for name, parameter in self.named_parameters()}


class SightEmbedding(VirtualEmbedding):
    """An embedding that asks a projector for what stands beyond the vocabulary."""

    def __init__(self, embedding: nn.Embedding, projector: Projector, z: Tensor, noise: float) -> None:
        """`z`: float32 [views, k]; `noise`: added to it in training, against learning pictures by heart."""
        super().__init__(embedding)
        self.projector, self.z, self.noise = projector, z, noise

    def forward(self, ids: Tensor) -> Tensor:
        """Embed: int [...] → [..., hidden]."""
        x = super().forward(ids)
        rows, numbers = self.last
        if not len(rows):
            return x
        views, inverse = torch.unique(numbers // self.projector.places, return_inverse=True)
        z = self.z[views]
        if self.training and self.noise:
            z = z + self.noise * torch.randn_like(z)
        vectors = self.projector(z.to(x.dtype))[inverse, numbers % self.projector.places]
        return x.flatten(0, -2).index_copy(0, rows, vectors.to(x.dtype)).view(x.shape)


def attach(module: CausalLM, projector: Projector, z: Tensor, noise: float) -> dict[str, nn.Parameter]:
    """Put the projector into the module's embedding. Returns what is to be trained, by its name in the module."""
    replace_module(module, EMBEDDING, SightEmbedding(module.model.embed_tokens, projector, z, noise))
    return {f"{EMBEDDING}.projector.{name}": parameter for name, parameter in projector.named_parameters()}


def name_targets(module: CausalLM, tokenizer: Tokenizer, names: Sequence[str], places: int) -> Floats:
    """Return what the vectors begin as: the embeddings of a name's tokens in order, the last again where it is short.

    float32 [names, places · hidden].
    """
    table = module.model.embed_tokens.weight.detach().float().numpy()
    rows = []
    for name in names:
        ids = tokenizer.encode(f" {name}") or [0]
        rows.append(np.concatenate([table[ids[min(place, len(ids) - 1)]] for place in range(places)]))
    return np.stack(rows).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class PictureAnswers:
    """Cross-entropy of answers about pictures. The conversation's beginning, before the first picture, is read once for all of a batch."""

    corpus: Corpus
    name: str = "answers about pictures"
    wanted: Wanted = "answers"

    def __call__(self, module: CausalLM, states: States, batch: Batch) -> TokenLoss:
        """See `Objective`."""
        documents = [self.corpus.document(number) for number in batch.documents]
        row = make_row(documents, sharing(module, documents))
        final = final_states_of(module, row, 0, module.model.embed_tokens(row.ids))
        return TokenLoss(cross_entropy(final, module.lm_head.weight, row.targets), len(row.targets))


# `tune sight`: from a kept model and pictures with words to a candidate that sees; a delta in the home, if it is admitted.
# The eye is frozen, and so is the model. Heads are fitted in closed form (sight_heads.py), the projector is trained by questions about
# pictures (sight_projector.py). Stopped at any moment, the same call goes on where it was.
# HOME/cache/sight/DIGEST/ the eye's numbers of the pictures; they stay, and may be deleted HOME/tuning/KEY/training/ the projector's
# training, as `train` writes it


METHOD = "ridge heads and a projector"
VERSION = 2  # changes when the same settings make something else than before
Array = npt.NDArray[Any]
Job = DeltaJob[SightSettings]


def tune_sight(
    folder: Path | None, home: Home, kept: Kept, name: str, settings: SightSettings, admit: Admit,
    watch: RunWatch = RunWatch(), command: str = "", sink: Sink = silent,  # noqa: B008 - frozen
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
    return make_delta(job, partial(_make, pictures, source, digest), _events, admit, sink)


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
    before, after = held_out_of(trained, settings.train.patience)
    report = {
        "pictures": len(learnt), "names": len(heads.names), "data": source, "data_digest": digest, "train": asdict(trained),
        "held_out": {"before": before, "after": after}, "described": None,
    }  # fmt: skip
    candidate = job.candidate("sight", METHOD, tensors_of(heads, projector), report)
    candidate = replace(candidate, origin={**candidate.origin, "eye": EYE, "data": source, "data_digest": digest})
    if kept_out and settings.measured:
        told = described(job.home, job.kept, candidate, [pictures[i] for i in kept_out][: settings.measured], job.stopped)
        job.check("before its held-out pictures were described")
        candidate = replace(candidate, report={**(candidate.report or {}), "described": told})
    return candidate


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
        trained = train_for(job, module, parameters, Data(corpus, *data_sides), settings.train, folder, PictureAnswers(corpus))
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


def _events(report: Mapping[str, Any], _delta: Delta) -> list[Event]:
    told = report["described"]
    facts = {f"described_{key}": told[key] for key in ("n", "named", "words", "blank_words", "changed")} if told else {}
    return [made_event("sight", report, ("pictures", "names", "data", "data_digest"), facts | training_facts(report))]
