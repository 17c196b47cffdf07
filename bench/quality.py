"""What rounding costs: bits per byte of int4 and int8 against float32 of the same file.

    python bench/quality.py [--documents 200]

Bits per byte are summed over raw bytes of XSum documents (the first 512 tokens of each, the first token given). Intervals: 95 %,
bootstrap over documents, of the ratio.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from harness import finish, show
from ingle.core.digest import digest_file
from ingle.engine.backend import Segment
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.packs import Source
from ingle.home.place import find_home
from model import documents, smollm2

STEP = 64  # rows of logits at a time: 64 × 49,152 float32 are 12 MB


def bits(model: LanguageModel, text: str, most: int = 512) -> tuple[float, int]:
    """(bits, bytes) of a text's first tokens."""
    ids = model.tokenizer.encode(text)[:most]
    state, total = model.backend.new_state(), 0.0
    for start in range(0, len(ids), STEP):
        targets = ids[start + 1 : start + STEP + 1]
        [logits] = model.backend.forward([Segment(state, ids[start : start + STEP], "all")])
        rows = logits[: len(targets)].astype(np.float64)
        peak = rows.max(axis=1)
        total += float((np.log(np.exp(rows - peak[:, None]).sum(axis=1)) + peak - rows[np.arange(len(targets)), targets]).sum())
    whole = b"".join(model.tokenizer.token_bytes(token) for token in ids[1:])
    return total / np.log(2), len(whole)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--formats", default="fp32,auto,int8")
    options = parser.parse_args()
    texts, data_digest = documents(options.documents)
    gguf, home = smollm2(), find_home()
    digest = digest_file(gguf)
    source = Source("smollm2", Path(gguf), digest, home.pack_folder(digest))
    measured: dict[str, np.ndarray] = {}
    for format_ in options.formats.split(","):
        model = open_model(source, format_)
        found = []
        for number, text in enumerate(texts):
            found.append(bits(model, text))
            if number % 20 == 19:
                print(f"{format_}: {number + 1} of {len(texts)} documents", file=sys.stderr)
        measured[format_] = np.array(found)
    base, *others = measured
    table, result = [["format", "bits/byte", "against float32", "95 % interval"]], {}
    for name, rows in measured.items():
        value = rows[:, 0].sum() / rows[:, 1].sum()
        result[name] = {"bits_per_byte": value, "bytes": int(rows[:, 1].sum())}
        table.append([name, f"{value:.5f}", "", ""])
        if name in others:
            draw = np.random.default_rng(0)
            picks = draw.integers(0, len(texts), (4000, len(texts)))
            change = 100 * (rows[picks, 0].sum(axis=1) / measured[base][picks, 0].sum(axis=1) - 1)
            low, high = np.percentile(change, [2.5, 97.5])
            mean = 100 * (rows[:, 0].sum() / measured[base][:, 0].sum() - 1)
            result[name] |= {"change_percent": mean, "low": low, "high": high}
            table[-1][2:] = [f"{mean:+.3f} %", f"{low:+.3f} … {high:+.3f} %"]
    show(f"{len(texts)} XSum documents, SmolLM2-135M-Instruct Q4_1 (auto = its own 4 bits, embedding in 8)", table)
    finish("quality", {"documents": len(texts), "data_sha256": data_digest, "model_sha256": digest, "formats": result})


if __name__ == "__main__":
    main()
