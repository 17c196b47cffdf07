"""How far a hybrid's predictions are from its original's, by how many tokens its memories hold.

    python bench/hybrid_age.py --model smollm2-hybrid
    python bench/hybrid_age.py --model smollm2+hybrid --documents 8 --texts wiki-bits

The divergence of each prediction, KL(original ‖ hybrid), in nats a token, over held-out texts; beside it that of the same windows without
memories. At no age must the hybrid's be significantly larger. Where nothing has left the windows yet, both are the original, and nothing
is counted.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness import finish, show
from hybrid import passages, sight_of, variants
from ingle.core.errors import IngleError
from ingle.engine.backend import Segment
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.measure.intervals import paired_bootstrap
from servers import CACHE, say, start_bench
from tuned import bench_home

EXAMPLES = """  python bench/hybrid_age.py --model smollm2+hybrid --documents 8
"""
Floats = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]
AGES = (1, 17, 65, 257, 1025)
"""Where classes begin, in tokens that have entered; the last has no end."""
_STEP = 256


def predictions(model: LanguageModel, ids: list[int]) -> Floats:
    """log p of every next token, float32 [T, vocabulary]."""
    state = model.backend.new_state()
    segments = (Segment(state, ids[i : i + _STEP], "all") for i in range(0, len(ids), _STEP))
    rows = np.concatenate([np.array(model.backend.forward([one])[0], np.float32) for one in segments])  # valid until the next step only
    rows -= rows.max(1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(1, keepdims=True))
    return rows


def divergence(of: Floats, to: Floats) -> Floats:
    """KL of each row, in nats."""
    found: Floats = (np.exp(of) * (of - to)).sum(1)
    return found


def measured(models: Mapping[str, LanguageModel], documents: Sequence[list[int]], unseen: int) -> dict[str, list[Values]]:
    """Of each side but the original, for each class of ages: per document the sum of divergences and how many they are.

    `unseen`: position of the first prediction that is made with a token in the memories.
    """
    found: dict[str, list[list[tuple[float, int]]]] = {side: [[] for _ in AGES] for side in models if side != "original"}
    for number, ids in enumerate(documents, 1):
        classes = np.searchsorted(AGES, np.arange(len(ids)) - unseen + 1, side="right") - 1
        original = predictions(models["original"], ids)
        for side, by_age in found.items():
            values = divergence(original, predictions(models[side], ids))
            for one, rows in enumerate(by_age):
                rows.append((float(values[classes == one].sum()), int((classes == one).sum())))
        say(f"document {number} of {len(documents)}")
    return {side: [np.array(rows) for rows in by_age] for side, by_age in found.items()}


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--model", default="smollm2-hybrid", help="a hybrid that is kept in the real home")
    parser.add_argument("--documents", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=2048, help="of each document")
    parser.add_argument("--texts", default="xsum-bits", help="a suite of texts")
    parser.add_argument("--home", type=Path, default=CACHE.parent / "hybrid", help="where variants are kept")
    options = parser.parse_args()
    home = bench_home(options.home)
    kept = variants(home, options.model)
    models = {side: open_model(kept_source(home, kept[side])) for side in ("original", "window", "hybrid")}
    seen = sum(sight_of(models["hybrid"].backend.config))
    if options.tokens <= seen:
        raise SystemExit(f"--tokens must be more than the {seen} that it sees at once")
    documents = passages(home, models["original"].tokenizer, options.texts, options.tokens)[: options.documents]
    found = measured(models, documents, seen)
    rows: list[list[object]] = [["tokens in the memories", "windows alone", "hybrid", "hybrid − windows alone (95 %)"]]
    result: list[dict[str, float]] = []
    ends = [*(first - 1 for first in AGES[1:]), options.tokens - seen]
    for first, last, window, hybrid in zip(AGES, ends, found["window"], found["hybrid"], strict=True):
        if not hybrid[:, 1].any():
            continue
        change = paired_bootstrap(window, hybrid)
        alone, mine = (float(values[:, 0].sum() / values[:, 1].sum()) for values in (window, hybrid))
        low, high = change.interval.low, change.interval.high
        span = f"{first:,} – {min(last, options.tokens - seen):,}"
        rows.append([span, f"{alone:.4f}", f"{mine:.4f}", f"{change.value:+.4f} ({low:+.4f} – {high:+.4f})"])
        result.append({"from": first, "window": alone, "hybrid": mine, "change": change.value, "low": low, "high": high})
    show(f"{options.texts}: nats a token from the original's predictions, {len(documents)} documents", rows)
    held = all(age["low"] <= 0 for age in result)
    finish("hybrid_age", {"model": options.model, "seen": seen, "texts": options.texts, "n": len(documents), "ages": result, "held": held})


if __name__ == "__main__":
    try:
        main()
    except IngleError as error:
        raise SystemExit(str(error)) from error
