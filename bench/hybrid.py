"""A converted model against its original: state, loss, recall, and speed at long contexts.

    python bench/hybrid.py --model smollm2+hybrid
    python bench/hybrid.py --part recall --items 60
    python bench/hybrid.py --part bits --texts debian-bits      texts of a kind that no lesson has by default

Beside the hybrid stand others with the same retrieval groups and window: `window`, without memories, and `untaught`, whose memories have
the values that they begin with. They are made from the hybrid's own delta, in a home of the benchmark's own.

state    bytes at 8,192 tokens, as a share of the original's keys and values in the same precision
bits     bits per byte of the second half of 2,048 tokens (or --tokens) of held-out news (or --texts), paired by document; how much of
         what windows lose the memories give back
recall   facts planted in 1,024 to 8,192 tokens (suites recall-1k … recall-8k)
decode   tokens/s after 8,064 tokens, beside llama.cpp with the original, without and with flash attention
growth   the time of a token after 16,000 tokens over that after 1,000
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness import LLAMA, Engine, Figure, alternate, finish, over_best, ratios, show
from ingle.core.errors import IngleError
from ingle.core.progress import silent
from ingle.core.spec import ModelConfig
from ingle.core.state import StateLayout
from ingle.engine.backend import prefill, step
from ingle.engine.delta_kinds import LAYERS_KIND, spec_tensors
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source, open_weights
from ingle.engine.scoring import score
from ingle.home.deltas import delta_tensors, get_delta, put_delta
from ingle.home.kept import Kept, get_kept, list_kept
from ingle.home.place import Home, find_home
from ingle.measure.data_sets import part
from ingle.measure.figures import TextBits, forgetting
from ingle.measure.intervals import bootstrap, paired_bootstrap, ratio
from ingle.measure.measuring import Options, run_suite
from ingle.measure.subjects import choice_columns
from ingle.measure.suites import KINDS, find_suite, find_texts
from ingle.model.tokenizer import Tokenizer
from ingle.tuning.kept_model import subject_of
from model import smollm2
from servers import CACHE, say, start_bench
from tuned import bench_home

EXAMPLES = """  python bench/hybrid.py --model smollm2+hybrid
  python bench/hybrid.py --part recall --items 30 --lengths 1,2
"""
PARTS = ("state", "bits", "recall", "decode", "growth")
BARS = {"state": 1 / 6, "bits_percent": 0.3, "recall": 0.95, "decode": 3.0, "growth": 1.3}


def variants(home: Home, name: str) -> dict[str, Kept]:
    """The original, the hybrid, and the two made from it, all in the benchmark's home."""
    real = find_home()
    kept = get_kept(real, name)
    delta = get_delta(real, kept.deltas[-1])
    if delta.kind != LAYERS_KIND or len(kept.deltas) != 1:
        raise SystemExit(f"{name} must be a base with one delta of the kind {LAYERS_KIND}; `ingle make hybridize` makes one")
    original = next((one for one in list_kept(real) if one.base == kept.base and not one.deltas), None)
    if original is None:
        raise SystemExit(f"the model that {name} was made from must be kept too; `ingle pull` brings it")
    tensors = delta_tensors(real, delta)
    config = open_weights(real, kept).config
    plain = tuple(replace(spec, memory="none") if spec.memory != "none" else spec for spec in config.layers)
    made = {
        "hybrid": tensors,
        "window": spec_tensors(plain, config.num_kv_heads),
        "untaught": _untaught(tensors, config),
    }
    found = {"original": get_kept(home, original.name)}
    for variant, values in made.items():
        label = f"{variant}-{delta.digest[:8]}"
        try:
            found[variant] = get_kept(home, f"{original.name}+{label}")
        except IngleError:
            put_delta(home, label, LAYERS_KIND, found["original"].digest, values, {"from": delta.digest})
            found[variant] = get_kept(home, f"{original.name}+{label}")
    return found


def sight_of(config: ModelConfig) -> tuple[int, int]:
    """How many first tokens streaming groups see, and how many last ones: the same in all layers that have any."""
    return max((spec.sinks, spec.window) for spec in config.layers)


def _untaught(tensors: dict[str, Any], config: ModelConfig) -> dict[str, Any]:
    """The same with memories that have learnt nothing."""
    from ingle.model.module_parts import RecurrentMemory

    found = dict(tensors)
    for i, spec in enumerate(config.layers):
        if groups := len(spec.remembering(config.num_kv_heads)):
            memory = RecurrentMemory(config, groups)
            memory.begin()
            found |= {f"model.layers.{i}.self_attn.memory.{name}": values.numpy() for name, values in memory.state_dict().items()}
    return found


def passages(home: Home, tokenizer: Tokenizer, source: str, context: int) -> list[list[int]]:
    """Held-out texts of a suite on end, cut to so many tokens each."""
    suite = find_texts(source)
    texts = part(suite.read(home, silent), "held_out", suite.held_out)
    stream = [token for text in texts for token in tokenizer.encode(f"{text.text}\n\n")]
    return [stream[i : i + context] for i in range(0, len(stream) - context, context)]


def state_part(home: Home, kept: dict[str, Kept]) -> dict[str, Any]:
    """Bytes of states."""
    layouts = {name: StateLayout.of(open_weights(home, one).config) for name, one in kept.items()}
    rows: list[list[object]] = [["tokens", *layouts, "hybrid ÷ original"]]
    shares = {}
    for tokens in (128, 512, 1024, 2048, 4096, 8192):
        sizes = {name: layout.nbytes(tokens) for name, layout in layouts.items()}
        shares[tokens] = sizes["hybrid"] / sizes["original"]
        rows.append([f"{tokens:,}", *(f"{size / 1e6:.1f} MB" for size in sizes.values()), f"{shares[tokens]:.3f}"])
    show("state", rows)
    return {"share": shares, "held": shares[8192] <= BARS["state"]}


def bits_part(home: Home, models: dict[str, LanguageModel], count: int, context: int, source: str) -> dict[str, Any]:
    """Bits per byte of second halves, each model against the original; and the share of the windows' loss that memories give back."""
    half, tokenizer = context // 2, models["original"].tokenizer
    documents = passages(home, tokenizer, source, context)[:count]
    sides: dict[str, dict[str, TextBits]] = {}
    for name, model in models.items():
        found: dict[str, TextBits] = {}
        for number, [values] in score(model.backend, [(ids[:half], (ids[half:],)) for ids in documents]):
            second = documents[number][half:]
            nbytes = sum(len(tokenizer.token_bytes(token)) for token in second)
            found[str(number)] = TextBits(float(-values.sum() / np.log(2)), nbytes, len(second), True)
        sides[name] = found
        say(f"bits: {name} done")
    rows: list[list[object]] = [["", "bits/byte", "more than the original, % (95 %)"]]
    found_of = {}
    for name, side in sides.items():
        lost = forgetting(sides["original"], side)
        low, high = lost.relative.interval.low, lost.relative.interval.high
        rows.append([name, f"{lost.after:.4f}", f"{lost.relative.value:+.3f} ({low:+.3f} – {high:+.3f})"])
        found_of[name] = {"bits_per_byte": lost.after, "percent": lost.relative.value, "low": low, "high": high, "n": lost.n}
    show(f"{source}: second half of {context:,} tokens, {len(documents)} documents", rows)
    held = found_of["hybrid"]["percent"] <= BARS["bits_percent"]
    result: dict[str, Any] = {"models": found_of, "tokens": context, "texts": source, "held": held}
    if "window" in sides:
        bits = {name: np.array([one.bits for one in sides[name].values()]) for name in ("original", "hybrid", "window")}
        gap = np.stack([bits["window"] - bits["hybrid"], bits["window"] - bits["original"]], axis=1)
        closed, interval = float(ratio(gap.sum(axis=0))), bootstrap(gap)
        print(f"of what windows alone lose, memories give back {closed:.3f} ({interval.low:.3f} – {interval.high:.3f})")
        result["closed"] = [closed, interval.low, interval.high]
    return result


def recall_part(home: Home, models: dict[str, LanguageModel], items: int, lengths: Sequence[str]) -> dict[str, Any]:
    """Planted facts; and what memories add to windows, paired by fact."""
    result: dict[str, dict[str, Any]] = {}
    hits: dict[str, dict[str, np.ndarray]] = {}
    for length in lengths:
        for name, model in models.items():
            suite = find_suite(f"recall-{length}k")
            outcome = run_suite(home, suite, subject_of(model, lambda: False), Options(items))
            figures = {r.name: [r.value, r.low, r.high, r.n] for r in outcome.reports}
            result.setdefault(f"{length}k", {})[name] = figures
            hits.setdefault(f"{length}k", {})[name] = choice_columns([bool(row["recall"]) for row in outcome.rows])
            say(f"recall-{length}k, {name}: {figures['recall'][0]:.3f}")
    rows: list[list[object]] = [["", *models]]
    for length, sides in result.items():
        rows.append([length, *(f"{f['recall'][0]:.3f} ({f['recall'][1]:.3f} – {f['recall'][2]:.3f})" for f in sides.values())])
    show(f"facts recalled, {items} each (95 %)", rows)
    kinds = [["", *models]]
    for length, sides in result.items():
        for kind in KINDS:
            of = [f[f"recall_{kind}"] for f in sides.values() if f"recall_{kind}" in f]  # few facts are not of every kind
            kinds.append([f"{length}, {kind}s", *(f"{value:.3f} of {n}" for value, _, _, n in of)])
    show("the same by kind", kinds)
    added = {}
    for length, right in hits.items():
        if "window" in right:
            more = paired_bootstrap(right["window"], right["hybrid"])
            added[length] = [more.value, more.interval.low, more.interval.high]
    gains = [[length, f"{value:+.3f} ({low:+.3f} – {high:+.3f})"] for length, (value, low, high) in added.items()]
    if gains:
        show("hybrid − no memories, paired (95 %)", [["", "more facts recalled, share"], *gains])
    kept = {}
    for length, right in hits.items():
        pairs = np.concatenate([right["hybrid"], right["original"]], axis=1)[:, [0, 2]]
        share, interval = float(ratio(pairs.sum(axis=0))), bootstrap(pairs)
        kept[length] = [share, interval.low, interval.high]
    shares = [[length, f"{share:.3f} ({low:.3f} – {high:.3f})"] for length, (share, low, high) in kept.items()]
    show("hybrid ÷ original, paired (95 %)", [["", "facts recalled, ratio"], *shares])
    short = [share for length, share in kept.items() if length != "8k"]
    bar = BARS["recall"]
    verdict = {"held": all(share[0] >= bar for share in short), "shown": all(share[1] >= bar for share in short)}
    return {"lengths": result, "memories_add": added, "of_original": kept, **verdict}


def decode_part(home: Home, kept: dict[str, Kept], rounds: int) -> dict[str, Any]:
    """Speed after long texts."""
    engines = {
        "hybrid": Engine("kept", str(home.root), "2", kept["hybrid"].name),
        "original": Engine("kept", str(home.root), "2", kept["original"].name),
    } | {name: Engine(name, str(smollm2()), "2", "8320") for name in LLAMA}
    ids = np.random.default_rng(0).integers(1000, 40000, 8064).tolist()
    runs = {name: (lambda e=engine: 63 / e.ask(ids=ids, tokens=64)["rest_s"]) for name, engine in engines.items()}
    figures: dict[str, Figure] = alternate(rounds, runs)
    for engine in engines.values():
        engine.close()
    against = over_best(figures["hybrid"], [figures[name] for name in LLAMA])
    rows: list[list[object]] = [[*figures, "hybrid ÷ the faster llama.cpp"], [*figures.values(), against]]
    show("decode after 8,064 tokens, tokens/s", rows)
    held = against.median >= BARS["decode"]
    return {"tokens_per_s": {n: f.table() for n, f in figures.items()}, "ratio": against.table(), "held": held}


def growth_part(home: Home, hybrid: Kept, rounds: int) -> dict[str, Any]:
    """How much slower a long text makes it."""
    growth = {cache: growth_of(home, hybrid, rounds, cache) for cache in ("float16", "int8")}
    show("time of a token after 16,000 tokens over that after 1,000", [[*growth, "bar"], [*growth.values(), BARS["growth"]]])
    held = growth["float16"].median <= BARS["growth"]
    return {"ratio": {cache: figure.table() for cache, figure in growth.items()}, "held": held}


def growth_of(home: Home, kept: Kept, rounds: int, cache: str) -> Figure:
    """Time a token after 16,000 tokens over that after 1,000. Speed alone is measured: the model was not trained for such texts."""
    backend: Any = open_model(kept_source(home, kept), threads=2, cache=cache).backend
    backend.config = replace(backend.config, context_length=20000)
    draw, states = np.random.default_rng(1), {}
    for length in (1000, 16000):
        states[length] = backend.new_state()
        prefill(backend, draw.integers(1000, 40000, length).tolist(), states[length])

    def seconds(length: int) -> float:
        state = states[length].fork()
        start = time.perf_counter()
        for token in range(64):
            step(backend, [(state, 2000 + token)])
        return (time.perf_counter() - start) / 64

    figures = alternate(rounds, {str(length): (lambda n=length: seconds(n)) for length in states})
    return ratios(figures["16000"], figures["1000"])


def main() -> None:
    parser: argparse.ArgumentParser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--model", default="smollm2+hybrid", help="a hybrid that is kept in the real home")
    parser.add_argument("--part", action="append", choices=PARTS, help="one or several; by default all")
    parser.add_argument("--items", type=int, default=60, help="facts for each length")
    parser.add_argument("--lengths", default="1,2,4,8", help="of texts with facts, in thousands of tokens")
    parser.add_argument("--documents", type=int, default=40, help="of --tokens tokens")
    parser.add_argument("--tokens", type=int, default=2048, help="of each document, for bits per byte")
    parser.add_argument("--texts", default="xsum-bits", help="a suite of texts: xsum-bits, wiki-bits, debian-bits")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--variants", default="original,hybrid,window,untaught", help="beside which it is measured; the first two always")
    parser.add_argument("--home", type=Path, default=CACHE.parent / "hybrid", help="where variants and finished measurements are kept")
    options = parser.parse_args()
    home, parts = bench_home(options.home), options.part or PARTS
    asked = {"original", "hybrid", *options.variants.split(",")}
    kept = {name: one for name, one in variants(home, options.model).items() if name in asked}
    result: dict[str, Any] = {"model": options.model, "digest": kept["hybrid"].digest}
    if "state" in parts:
        result["state"] = state_part(home, kept)
    if "bits" in parts or "recall" in parts:
        models = {name: open_model(kept_source(home, one)) for name, one in kept.items()}
        if "bits" in parts:
            result["bits"] = bits_part(home, models, options.documents, options.tokens, options.texts)
        if "recall" in parts:
            result["recall"] = recall_part(home, models, options.items, options.lengths.split(","))
    if "decode" in parts:
        result["decode"] = decode_part(home, kept, options.rounds)
    if "growth" in parts:
        result["growth"] = growth_part(home, kept["hybrid"], options.rounds)
    print("\n" + "; ".join(f"{name}: {result[name]['held']}" for name in PARTS if name in result))
    finish("hybrid", result)


if __name__ == "__main__":
    try:
        main()
    except IngleError as error:
        raise SystemExit(str(error)) from error
