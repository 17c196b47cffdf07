"""Training speed and memory: our loop against PEFT in Hugging Face's Trainer, and what a cache of lower layers brings.

Both train the same LoRA (all linears) of SmolLM2-135M-Instruct in bfloat16 on the same documents: conversations of a suite's training
part, as long as they are, with the loss on answers. Learning rate, schedule, clipping, number of examples and (as near as packing allows)
examples per step are the same. Each training has a process of its own, in turn. The Trainer may group by length, divide its batches and
choose between two ways to bfloat16: what is fastest in a short run is the peer.

tokens/s: real tokens of all steps but the first two, without loading; memory: the most that the process ever had (VmHWM). Adapters are
written at the same places of both runs and judged in Hugging Face's model in float32 on the same held-out documents: no ratio is shown
unless both learnt, and alike.

`--part cache`: LoRA in the upper third of the layers with their input cached; the second epoch and later against the first.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness import ROOT, Figure, finish, ratios, show
from ingle.core.digest import digest_file, digest_json
from ingle.engine.packs import checkpoint_tokenizer
from ingle.home.place import find_home
from ingle.measure.data_sets import Exercise, part
from ingle.measure.suites import find_suite
from ingle.model.checkpoint import open_checkpoint
from ingle.model.export_formats import write_hf
from ingle.train.corpus import read_corpus
from ingle.train.example_files import Encoder
from ingle.train.packing import Data, Order
from model import smollm2
from servers import say, start_bench

EXAMPLES = """  python bench/train.py
  python bench/train.py --part cache
  python bench/train.py --examples 48 --held-out 16 --rounds 1 --peer weights,grouped,1,12      a quick look
  python bench/train.py --folder runs      what is finished there is not done again
"""
RATE, WARM_UP = 5e-4, 0.05
WARM_STEPS = 2  # libraries prepare themselves in the first steps
BARS = {"tokens_per_s": 2.0, "memory": 0.6, "cached": 2.5}
SAME_NATS = 0.03  # held-out losses of two seeds of one program differ by about as much


@dataclass(frozen=True)
class Place:
    """Where the model, the data and the runs lie."""

    folder: Path
    model: Path
    data: Path
    digest: str
    """Of the documents and the model."""
    examples: int
    tokens: int
    steps: int
    """That ours takes for an epoch."""


def prepare(folder: Path, options: argparse.Namespace) -> tuple[Place, dict[str, Any]]:
    """Writes the weights as a Hugging Face folder, and the documents as tokens, once for all runs."""
    gguf, home, suite = smollm2(), find_home(), find_suite(options.suite)
    checkpoint = open_checkpoint(gguf)
    tokenizer = checkpoint_tokenizer(checkpoint, gguf.parent)
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model"
    write_hf(model, checkpoint.config, lambda name: checkpoint.tensor(name).to_float32(), "float32", tokenizer)
    items = suite.read(home, lambda *_: None)
    paths, counts = [], {"train": options.examples, "held_out": options.held_out}
    for which, count in counts.items():
        chosen = part(items, which, suite.held_out)[:count]  # type: ignore[arg-type]
        if not all(isinstance(item, Exercise) for item in chosen):
            raise SystemExit(f"{options.suite} holds nothing to write; take xsum, debian-fr or debian-de")
        turns = [[{"role": "user", "content": item.ask}, {"role": "assistant", "content": item.reference}] for item in chosen]
        paths.append(folder / f"{which}.jsonl")
        paths[-1].write_text("\n".join(json.dumps({"messages": each}) for each in turns), encoding="utf-8")
    encoder = Encoder(tokenizer, options.max_tokens, "refuse")
    corpora = [read_corpus([path], encoder)[0] for path in paths]
    train, held_out = corpora
    np.savez(
        folder / "documents.npz",
        ids=np.concatenate([corpus.ids for corpus in corpora]),
        answer=np.concatenate([corpus.answer for corpus in corpora]),
        bounds=np.concatenate([train.bounds, held_out.bounds[1:] + train.bounds[-1]]),
        train=np.arange(len(train)),
        held_out=np.arange(len(train), len(train) + len(held_out)),
    )
    sizes = train.sizes
    steps = Order(Data(train, range(len(train))), options.batch_tokens // options.pieces, options.pieces, 0, 1, 0).steps(0)
    about = {
        "suite": options.suite, "examples": len(train), "tokens": int(sizes.sum()), "answer_tokens": int(train.answer.sum()),
        "lengths": {str(q): int(np.percentile(sizes, q)) for q in (0, 10, 50, 90, 100)}, "held_out": len(held_out),
        "data_digest": train.digest, "model_sha256": digest_file(gguf),
    }  # fmt: skip
    return Place(folder, model, folder / "documents.npz", digest_json(about), len(train), int(sizes.sum()), steps), about


def run(place: Place, side: str, name: str, **settings: Any) -> dict[str, Any]:
    """One training (or judgement) in a process of its own; not again if the folder holds what came of it, told the same."""
    out = place.folder / "runs" / name
    spec = {"model": str(place.model), "data": str(place.data), "digest": place.digest, "out": str(out), **settings}
    if (out / "result.json").exists() and json.loads((out / "spec.json").read_text()) == spec:
        kept: dict[str, Any] = json.loads((out / "result.json").read_text())
        return kept
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, str(ROOT / "train_runs.py"), side, str(out / "spec.json")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{side} failed: {' '.join(command)}\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    result["adapters"] = {path.stem: str(path) for path in sorted(out.glob("[01].*.safetensors"))}
    if "tokens" in result:
        result["tokens_per_s"] = rate(result)
        say(f"{name}: {result['tokens_per_s']:.0f} tokens/s, {result['peak_mb']:.0f} MB, {len(result['seconds'])} steps")
    (out / "result.json").write_text(json.dumps(result))
    return result


def rate(result: dict[str, Any], first: int = WARM_STEPS, last: int | None = None) -> float:
    """Real tokens a second in these steps."""
    return sum(result["tokens"][first:last]) / sum(result["seconds"][first:last])


def settings_of(options: argparse.Namespace, seed: int, **others: Any) -> dict[str, Any]:
    """What all runs are told."""
    settings = {"rank": options.rank, "alpha": 2.0 * options.rank, "rate": RATE, "warm_up": WARM_UP, "seed": seed, "layers": "all"}
    return {
        **settings,
        "epochs": 1,
        "max_steps": None,
        "batch_tokens": options.batch_tokens // options.pieces,
        "pieces": options.pieces,
        "cache_mb": 0,
        "places": options.places,
        **others,
    }


def choose_peer(place: Place, options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """The Trainer's fastest settings, one choice after the other, and what each that was tried came to.

    All in bfloat16, `pure`, is tried too, but not chosen: what is trained would be rounded after every step, in ours it is float32.
    """
    trials: dict[str, dict[str, float]] = {}
    settings = settings_of(options, 0, max_steps=options.trial_steps + WARM_STEPS, places=0)
    batch = max(1, round(place.examples / place.steps))  # so that both take as many steps

    def tried(chosen: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        name = f"{chosen['bf16']}, {'grouped' if chosen['group'] else 'random'}, {chosen['accumulate']} × {chosen['batch']}"
        result = run(place, "peft", f"trial {len(trials)}: {name}", **settings, **chosen)
        trials[name] = {key: result[key] for key in ("tokens_per_s", "peak_mb")}
        return result["tokens_per_s"], chosen

    first = {"group": True, "batch": batch, "accumulate": 1}
    best = max((tried({"bf16": bf16, **first}) for bf16 in ("weights", "autocast")), key=lambda pair: pair[0])
    others = [{"group": False}, *({"batch": max(1, round(batch / pieces)), "accumulate": pieces} for pieces in (2, 4))]
    for other in others:
        best = max(best, tried({**best[1], **other}), key=lambda pair: pair[0])
    tried({**best[1], "bf16": "pure"})
    return best[1], trials


def peer_of(text: str) -> dict[str, Any]:
    """The Trainer's settings from `pure,random,2,7`."""
    bf16, order, accumulate, batch = text.split(",")
    if bf16 not in ("weights", "autocast", "pure") or order not in ("grouped", "random"):
        raise argparse.ArgumentTypeError("must look like weights,grouped,1,12")
    return {"bf16": bf16, "group": order == "grouped", "batch": int(batch), "accumulate": int(accumulate)}


def against_peft(place: Place, about: dict[str, Any], options: argparse.Namespace) -> bool:
    """The first part. Returns whether it may be believed."""
    peer, trials = (options.peer, {}) if options.peer else choose_peer(place, options)
    runs: dict[str, list[dict[str, Any]]] = {"Ingle": [], "PEFT": []}
    for seed in range(options.rounds):
        for name, side in (("Ingle", "ours"), ("PEFT", "peft")):
            extra = peer if side == "peft" else {}
            runs[name].append(run(place, side, f"{side}-{seed}", **settings_of(options, seed), **extra))
    paths = [path for results in runs.values() for result in results for path in result["adapters"].values()]
    say(f"judging {len(paths)} adapters …")
    held_out = run(place, "judge", "judge", adapters=paths)["held_out"]
    curves = {
        name: [[held_out[""], *(held_out[result["adapters"][at]] for at in sorted(result["adapters"], key=float))] for result in results]
        for name, results in runs.items()
    }
    faults = find_faults(place, runs, curves)
    rows: list[list[object]] = [["", "tokens/s", "peak memory, MB", "held-out loss, from the start to the end (median of seeds)"]]
    figures = {}
    for name, results in runs.items():
        speed, memory = (Figure(tuple(result[key] for result in results)) for key in ("tokens_per_s", "peak_mb"))
        figures[name] = speed, memory
        curve = [statistics.median(values) for values in zip(*curves[name], strict=True)]
        rows.append([name, speed, memory, " → ".join(f"{value:.3f}" for value in curve)])
    title = f"LoRA r{options.rank}, all linears; {about['examples']} conversations of {about['suite']}, {about['tokens']:,} tokens"
    show(title, rows)
    padding = statistics.median(result["padding"] for result in runs["PEFT"])
    print(
        f"PEFT's fastest way: {peer}; padding {padding:.1%}; steps {len(runs['Ingle'][0]['tokens'])} and {len(runs['PEFT'][0]['tokens'])}"
    )
    result: dict[str, Any] = {
        "data": about,
        "batch_tokens": options.batch_tokens,
        "pieces": options.pieces,
        "peer": peer,
        "trials": trials,
        "curves": curves,
        "faults": faults,
    }
    result["runs"] = {name: {"tokens_per_s": speed.table(), "peak_mb": memory.table()} for name, (speed, memory) in figures.items()}
    if not faults:
        faster, smaller = (ratios(mine, theirs) for mine, theirs in zip(figures["Ingle"], figures["PEFT"], strict=True))
        print(f"tokens/s, ratio: {faster}, bar ≥ {BARS['tokens_per_s']}: {_word(faster.median >= BARS['tokens_per_s'])}")
        print(f"memory, ratio: {smaller}, bar ≤ {BARS['memory']}: {_word(smaller.median <= BARS['memory'])}")
        result |= {"tokens_per_s_ratio": faster.table(), "memory_ratio": smaller.table()}
    for fault in faults:
        print(f"NO RATIO: {fault}")
    finish("train", result)
    return not faults


def find_faults(place: Place, runs: dict[str, list[dict[str, Any]]], curves: dict[str, list[list[float]]]) -> list[str]:
    """Why the two would not have done the same."""
    faults = []
    for name, results in runs.items():
        read = {sum(result["tokens"]) for result in results}
        if read != {place.tokens}:
            faults.append(f"{name} read {read} tokens, not {place.tokens}")
        if any(curve[-1] >= curve[0] for curve in curves[name]):
            faults.append(f"{name} did not learn")
    if len({result["trained"] for results in runs.values() for result in results}) > 1:
        faults.append("not the same number of parameters was trained")
    ends = {name: [curve[-1] for curve in each] for name, each in curves.items()}
    noise = max(SAME_NATS, *(max(values) - min(values) for values in ends.values()))
    apart = abs(statistics.mean(ends["Ingle"]) - statistics.mean(ends["PEFT"]))
    if apart > noise:
        faults.append(f"held-out losses are {apart:.3f} nats apart, and seeds {noise:.3f}")
    return faults


def with_cache(place: Place, about: dict[str, Any], options: argparse.Namespace) -> bool:
    """The second part."""
    runs: dict[str, list[dict[str, Any]]] = {"cached": [], "not cached": []}
    for seed in range(options.rounds):
        for name, cache_mb in (("cached", options.cache_mb), ("not cached", 0)):
            settings = settings_of(options, seed, layers="upper-third", epochs=options.epochs, cache_mb=cache_mb, places=0)
            runs[name].append(run(place, "ours", f"{name.replace(' ', '-')}-{seed}", **settings))
    first, later = (Figure(tuple(by_epoch(result)[i] for result in runs["cached"])) for i in (0, 1))
    plain = Figure(tuple(result["tokens_per_s"] for result in runs["not cached"]))
    memory = {name: Figure(tuple(result["peak_mb"] for result in results)) for name, results in runs.items()}
    apart = max(abs(a["losses"][-1] - b["losses"][-1]) for a, b in zip(*runs.values(), strict=True))
    faults = [f"the last step's losses are {apart:.3f} nats apart"] if apart > SAME_NATS else []
    whole = (options.epochs - 1) / options.epochs
    if any(result["cache_hit_rate"] < whole - 1e-9 for result in runs["cached"]):
        faults.append("not all documents came from the cache: raise --cache-mb")
    rows: list[list[object]] = [["", "tokens/s", "peak memory, MB"], ["first epoch", first, memory["cached"]], ["later epochs", later, ""]]
    show(
        f"LoRA r{options.rank} in the upper third; {about['tokens']:,} tokens an epoch",
        [*rows, ["not cached", plain, memory["not cached"]]],
    )
    result: dict[str, Any] = {"data": about, "epochs": options.epochs, "faults": faults, "first": first.table(), "later": later.table()}
    result |= {"not_cached": plain.table(), "peak_mb": {name: figure.table() for name, figure in memory.items()}}
    if not faults:
        gain = ratios(later, first)
        print(f"later against first: {gain}, bar ≥ {BARS['cached']}: {_word(gain.median >= BARS['cached'])}")
        print(f"later against a run without cache: {ratios(later, plain)}")
        result |= {"later_to_first": gain.table(), "later_to_not_cached": ratios(later, plain).table()}
    for fault in faults:
        print(f"NO RATIO: {fault}")
    finish("train_cache", result)
    return not faults


def by_epoch(result: dict[str, Any]) -> tuple[float, float]:
    """tokens/s of the first epoch, and of all later ones."""
    edge = sum(epoch <= 1 + 1e-9 for epoch in result["epochs"])
    return rate(result, min(WARM_STEPS, edge - 1), edge), rate(result, edge)


def _word(holds: bool) -> str:
    return "held" if holds else "MISSED"


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--part", choices=("peft", "cache"), default="peft")
    parser.add_argument("--suite", default="debian-fr", help="xsum, debian-fr or debian-de")
    parser.add_argument("--examples", type=int, default=320)
    parser.add_argument("--held-out", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=2048, help="no document may be longer")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="of a step")
    parser.add_argument("--pieces", type=int, default=2, help="batches that make a step: more take less memory, and a little longer")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3, help="each with its own seed")
    parser.add_argument("--places", type=int, default=3, help="of the run at which held-out loss is measured")
    parser.add_argument("--trial-steps", type=int, default=8, help="of each way to set the Trainer")
    parser.add_argument(
        "--peer", type=peer_of, help="how to set it, untried: weights, autocast or pure; grouped or random; steps × documents"
    )
    parser.add_argument("--folder", type=Path, help="keep all runs there, so that an interrupted comparison goes on")
    parser.add_argument("--epochs", type=int, default=3, help="of --part cache")
    parser.add_argument("--cache-mb", type=int, default=1024)
    options = parser.parse_args()
    if min(options.trial_steps, options.rounds, options.places, options.pieces) < 1 or options.epochs < 2:
        parser.error("--trial-steps, --rounds and --places must be at least 1, --epochs at least 2")
    with tempfile.TemporaryDirectory(prefix="ingle-train-") as scratch:
        place, about = prepare((options.folder or Path(scratch)).resolve(), options)
        good = {"peft": against_peft, "cache": with_cache}[options.part](place, about, options)
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
