"""lm-eval through the server against lm-eval on Hugging Face in float32, on the same HellaSwag items.

The weights of the kept `smollm2` are written as a Hugging Face folder in float32: lm-eval's `hf` model reads it, and its
`local-completions` model takes the tokenizer from it and asks our server (`/v1/completions` with token ids, `echo` and `logprobs`).
Items: drawn from HellaSwag's validation part with a fixed seed; task and scoring are lm-eval's own (`hellaswag`), zero-shot.
Intervals: 95 %, bootstrap over items; of differences, pair by pair.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from harness import finish, show
from ingle.core.digest import digest_file
from ingle.engine.packs import checkpoint_tokenizer
from ingle.home.datasets import dataset
from ingle.home.place import find_home
from ingle.model.checkpoint import open_checkpoint
from ingle.model.export_formats import write_hf
from model import smollm2
from servers import say, scratch_home, start_bench, start_ingle, stopping

EXAMPLES = """  python bench/serve_eval.py
  python bench/serve_eval.py --items 20 --formats fp32
"""
TASK = "hellaswag_drawn"
METRICS = ("acc", "acc_norm")


def write_task(folder: Path, count: int, seed: int) -> str:
    """lm-eval's `hellaswag` over items drawn from the local file. Returns the file's SHA-256."""
    import lm_eval
    from datasets import Dataset

    path = dataset(find_home(), "hellaswag")
    items = Dataset.from_file(str(path))
    picked = sorted(np.random.default_rng(seed).choice(len(items), count, replace=False).tolist())
    lines = [json.dumps(items[i], ensure_ascii=False) for i in picked]
    (folder / "items.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    theirs = Path(lm_eval.__file__).parent / "tasks" / "hellaswag" / "hellaswag.yaml"
    table = {
        "include": str(theirs), "task": TASK, "dataset_path": "json", "training_split": None,
        "dataset_kwargs": {"data_files": {"validation": str(folder / "items.jsonl")}},
    }  # fmt: skip
    (folder / f"{TASK}.yaml").write_text(json.dumps(table))  # JSON is YAML
    return digest_file(path)


def write_weights(folder: Path) -> None:
    """The kept model as a Hugging Face folder in float32."""
    checkpoint = open_checkpoint(smollm2())
    words = checkpoint_tokenizer(checkpoint, smollm2().parent)
    write_hf(folder, checkpoint.config, lambda name: checkpoint.tensor(name).to_float32(), "float32", words)


def lm_eval(name: str, model: str, arguments: dict[str, object], folder: Path, batch: int, task: str = TASK) -> list[dict[str, Any]]:
    """Runs the program, offline. Returns what it says of each item, in order."""
    out = folder / name
    command = [sys.executable, "-m", "lm_eval", "run", "--model", model, "--tasks", task, "--include_path", str(folder), "--log_samples"]
    command += ["--model_args", ",".join(f"{key}={value}" for key, value in arguments.items())]
    command += ["--batch_size", str(batch), "--device", "cpu", "--output_path", str(out)]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "cache"), "OPENAI_API_KEY": "none"}
    began = time.perf_counter()
    done = subprocess.run(command, check=False, env=os.environ | offline, capture_output=True, text=True)
    files = sorted(out.rglob("samples_*.jsonl"))
    if done.returncode or not files:
        raise SystemExit(f"lm_eval failed: {' '.join(command)}\n{done.stderr[-3000:]}")
    samples = [json.loads(line) for line in files[-1].read_text(encoding="utf-8").splitlines()]
    say(f"{name}: {len(samples)} items in {time.perf_counter() - began:.0f} s")
    return sorted(samples, key=lambda sample: sample["doc_id"])


def log_likelihoods(samples: list[dict[str, Any]]) -> np.ndarray:
    """(items, 4): of each ending, in nats."""
    return np.array([[float(answer[0]) for answer in sample["filtered_resps"]] for sample in samples])


def interval(values: np.ndarray, draws: int = 10_000) -> tuple[float, float]:
    """95 % of the mean, by bootstrap."""
    picks = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def compare(reference: list[dict[str, Any]], samples: list[dict[str, Any]]) -> dict[str, Any]:
    """One way of running the model against Hugging Face."""
    if [sample["doc_hash"] for sample in samples] != [sample["doc_hash"] for sample in reference]:
        raise SystemExit("the two runs did not see the same items")
    result: dict[str, Any] = {}
    for metric in METRICS:
        mine, theirs = (np.array([float(sample[metric]) for sample in run]) for run in (samples, reference))
        result[metric] = {"mean": float(mine.mean()), "interval": interval(mine)}
        result[metric] |= {"difference": float((mine - theirs).mean()), "difference_interval": interval(mine - theirs)}
        result[metric]["items_that_differ"] = int((mine != theirs).sum())
    off = np.abs(log_likelihoods(samples) - log_likelihoods(reference))
    result["log_likelihood"] = {"median": float(np.median(off)), "p99": float(np.percentile(off, 99)), "max": float(off.max())}
    return result


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", default="fp32,auto", help="formats of the server's weights")
    parser.add_argument("--concurrent", type=int, default=4)
    options = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {}
    with scratch_home() as home, stopping() as started, tempfile.TemporaryDirectory(prefix="ingle-eval-") as place:
        folder, weights = Path(place), Path(place) / "weights"
        data = write_task(folder, options.items, options.seed)
        write_weights(weights)
        model = {"pretrained": weights, "dtype": "float32"}
        runs["Hugging Face, fp32"] = lm_eval("hf", "hf", model, folder, 8)
        for format_ in options.formats.split(","):
            server = started(start_ingle(home, "--format", format_))
            arguments = {
                "model": "smollm2", "base_url": f"{server.url}/v1/completions", "tokenizer": weights, "tokenizer_backend": "huggingface",
                "tokenized_requests": True, "num_concurrent": options.concurrent,
            }  # fmt: skip
            runs[f"server, {format_}"] = lm_eval(format_, "local-completions", arguments, folder, 1)
            server.stop()
    reference = runs["Hugging Face, fp32"]
    report({name: compare(reference, samples) for name, samples in runs.items()}, options, data)


def report(compared: dict[str, dict[str, Any]], options: argparse.Namespace, data: str) -> None:
    """The table and the line for machines."""
    rows = [
        ["", *(head for metric in METRICS for head in (f"{metric} (95 %)", "difference (95 %)")), "|Δ log-likelihood|: median, p99, max"]
    ]
    for name, result in compared.items():
        row = [name]
        for metric in METRICS:
            figures = result[metric]
            row.append("{:.3f} ({:.3f} – {:.3f})".format(figures["mean"], *figures["interval"]))
            row.append("{:+.3f} ({:+.3f} – {:+.3f})".format(figures["difference"], *figures["difference_interval"]))
        row.append("{median:.2g}, {p99:.2g}, {max:.2g}".format(**result["log_likelihood"]))
        rows.append(row)
    rows[1][2] = rows[1][4] = rows[1][5] = ""
    show(f"{options.items} HellaSwag items, SmolLM2-135M-Instruct Q4_1, lm-eval, zero-shot; log-likelihoods in nats, of each ending", rows)
    equal = {
        f"{name}: {metric}": result[metric]["difference_interval"][0] <= 0 <= result[metric]["difference_interval"][1]
        for name, result in list(compared.items())[1:]
        for metric in METRICS
    }
    print("equal within the interval:", ", ".join(f"{what} {'yes' if holds else 'NO'}" for what, holds in equal.items()))
    finish("serve_eval", {"items": options.items, "seed": options.seed, "data_sha256": data, "runs": compared, "equal": equal})


if __name__ == "__main__":
    main()
