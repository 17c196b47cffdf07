"""Keys and values in int8 against float16: what is lost, how many bytes it is, and how fast is written after long texts.

    python bench/cache.py --part bytes --part bits --part recall
    python bench/cache.py --part decode

bytes    of a state, and for each token of it, at several lengths, as states say
bits     bits per byte of the second half of 2,048 tokens of held-out news, the first half read before; paired by document
recall   facts planted in 1,024 tokens (suite recall-1k), the same for both; paired
decode   tokens/s of writing after 1,000, 4,000 and 8,000 tokens, both in turn

Weights are the default model's own 4 bits (`--format` says otherwise). Intervals: 95 %, bootstrap over documents or facts.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np

from harness import Figure, alternate, finish, ratios, show
from ingle.core.errors import IngleError
from ingle.engine.backend import prefill, step
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.engine.scoring import score
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.measure.data_sets import part, xsum_texts
from ingle.measure.figures import TextBits, forgetting
from ingle.measure.intervals import paired_bootstrap
from ingle.measure.measuring import Options, run_suite
from ingle.measure.suites import XSUM_HELD_OUT, find_suite
from ingle.tuning.kept_model import subject_of
from servers import CACHE, say, start_bench
from tuned import bench_home

EXAMPLES = """  python bench/cache.py --part bytes --part bits --documents 60 --threads 1
  python bench/cache.py --part decode --rounds 7 --threads 2
"""
PARTS = ("bytes", "bits", "recall", "decode")
KINDS = ("float16", "int8")
CONTEXT, HALF, STEP = 2048, 1024, 64
LENGTHS = (1000, 4000, 8000)
BARS = {"bits_percent": 0.1, "bytes": 0.52}


def bytes_part(models: dict[str, LanguageModel]) -> dict[str, Any]:
    """Sizes of states that have read so many tokens."""
    rows: list[list[object]] = [["tokens", *(f"{kind}, bytes a token" for kind in KINDS), "int8 ÷ float16"]]
    found, draw = dict[int, dict[str, int]](), np.random.default_rng(0)
    for tokens in (64, 1024, 2048):
        ids = draw.integers(1000, 40000, tokens).tolist()
        found[tokens] = {}
        for kind, model in models.items():
            state = model.backend.new_state()
            prefill(model.backend, ids, state)
            assert state.nbytes == model.backend.state_bytes(tokens), "states say what was reserved for them"
            found[tokens][kind] = state.nbytes
        shown = [f"{found[tokens][kind] / tokens:,.0f}" for kind in KINDS]
        rows.append([f"{tokens:,}", *shown, f"{found[tokens]['int8'] / found[tokens]['float16']:.4f}"])
    show("state", rows)
    share = found[2048]["int8"] / found[2048]["float16"]
    return {"bytes": found, "share": share, "held": share <= BARS["bytes"]}


def bits_part(home: Home, models: dict[str, LanguageModel], count: int) -> dict[str, Any]:
    """Bits per byte of second halves, each document by both in turn."""
    texts = part(xsum_texts(home, lambda *_: None), "held_out", XSUM_HELD_OUT)
    tokenizer = models["int8"].tokenizer
    stream = [token for text in texts for token in tokenizer.encode(f"{text.text}\n\n")]
    documents = [stream[i : i + CONTEXT] for i in range(0, len(stream) - CONTEXT, CONTEXT)][:count]
    sides: dict[str, dict[str, TextBits]] = {kind: {} for kind in KINDS}
    for number, ids in enumerate(documents):
        nbytes = sum(len(tokenizer.token_bytes(token)) for token in ids[HALF:])
        for kind, model in models.items():
            [(_, [values])] = score(model.backend, [(ids[:HALF], (ids[HALF:],))])
            sides[kind][str(number)] = TextBits(float(-values.sum() / np.log(2)), nbytes, len(values), True)
        if number % 10 == 9:
            say(f"bits: {number + 1} of {len(documents)} documents")
    lost = forgetting(sides["float16"], sides["int8"])
    low, high = lost.relative.interval.low, lost.relative.interval.high
    rows = [["float16", "int8", "more, % (95 %)"], [f"{lost.before:.5f}", f"{lost.after:.5f}"]]
    rows[1].append(f"{lost.relative.value:+.4f} ({low:+.4f} – {high:+.4f}), {lost.worse} of {lost.n} worse")
    show(f"bits/byte, second half of {CONTEXT:,} tokens, {lost.n} documents", rows)
    found = {"float16": lost.before, "int8": lost.after, "percent": lost.relative.value, "low": low, "high": high, "n": lost.n}
    return {**found, "worse": lost.worse, "held": high <= BARS["bits_percent"]}


def recall_part(home: Home, models: dict[str, LanguageModel], items: int) -> dict[str, Any]:
    """Planted facts."""
    suite, right, told = find_suite("recall-1k"), dict[str, np.ndarray](), dict[str, str]()
    for kind, model in models.items():
        outcome = run_suite(home, suite, subject_of(model, lambda: False), Options(items))
        right[kind] = np.array([[float(row[outcome.main.name]), 1.0] for row in outcome.rows])
        told[kind] = f"{outcome.main.value:.3f} ({outcome.main.low:.3f} – {outcome.main.high:.3f})"
        say(f"recall: {kind} {told[kind]}")
    moved = paired_bootstrap(right["float16"], right["int8"])
    low, high = moved.interval.low, moved.interval.high
    show(
        f"facts recalled at 1,024 tokens, {items}",
        [[*KINDS, "difference"], [*told.values(), f"{moved.value:+.3f} ({low:+.3f} – {high:+.3f})"]],
    )
    return {"right": {kind: float(values[:, 0].mean()) for kind, values in right.items()}, "change": moved.value, "low": low, "high": high}


def decode_part(models: dict[str, LanguageModel], rounds: int) -> dict[str, Any]:
    """Speed after long texts, both in turn."""
    draw, states = np.random.default_rng(1), dict[tuple[str, int], Any]()
    for length in LENGTHS:
        ids = draw.integers(1000, 40000, length).tolist()
        for kind, model in models.items():
            states[kind, length] = model.backend.new_state()
            prefill(model.backend, ids, states[kind, length])
        say(f"decode: {length:,} tokens read")

    def speed(kind: str, length: int) -> float:
        state, backend = states[kind, length].fork(), models[kind].backend
        began = time.perf_counter()
        for token in range(STEP):
            step(backend, [(state, 2000 + token)])
        return STEP / (time.perf_counter() - began)

    runs = {f"{kind} {length}": (lambda k=kind, n=length: speed(k, n)) for length in LENGTHS for kind in KINDS}
    figures: dict[str, Figure] = alternate(rounds, runs)
    rows: list[list[object]] = [["after", *KINDS, "int8 ÷ float16"]]
    found = {}
    for length in LENGTHS:
        pair = {kind: figures[f"{kind} {length}"] for kind in KINDS}
        share = ratios(pair["int8"], pair["float16"])
        rows.append([f"{length:,}", *pair.values(), share])
        found[length] = {kind: figure.table() for kind, figure in pair.items()} | {"ratio": share.table()}
    show("decode, tokens/s, median (range)", rows)
    return {"tokens_per_s": found}


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--part", action="append", choices=PARTS, help="one or several; by default all")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--format", default="auto", help="of the weights")
    parser.add_argument("--documents", type=int, default=60, help="of 2,048 tokens")
    parser.add_argument("--items", type=int, default=60, help="facts")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--home", type=Path, default=CACHE.parent / "cache", help="where texts and finished measurements are kept")
    options = parser.parse_args()
    home, parts = bench_home(options.home), options.part or PARTS
    try:
        kept = get_kept(home, options.model)
    except IngleError as error:
        raise SystemExit(str(error)) from error
    models = {kind: open_model(kept_source(home, kept), options.format, options.threads, kind) for kind in KINDS}
    result: dict[str, Any] = {"model": kept.name, "digest": kept.digest, "format": options.format, "threads": options.threads}
    if "bytes" in parts:
        result["bytes"] = bytes_part(models)
    if "bits" in parts:
        result["bits"] = bits_part(home, models, options.documents)
    if "recall" in parts:
        result["recall"] = recall_part(home, models, options.items)
    if "decode" in parts:
        result["decode"] = decode_part(models, options.rounds)
    held = {name: result[name]["held"] for name in parts if "held" in result.get(name, {})}
    print(f"\nbars {BARS}: {held}")
    finish("cache", result)


if __name__ == "__main__":
    main()
