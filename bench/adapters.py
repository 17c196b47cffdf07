"""Many adapters in one batch, and deltas that come while others answer.

First: 8 sequences, each with another random LoRA of rank 16 on all linears, one token of each in every step, against the same 8 sequences
with the base alone, in alternating rounds. Before anything is timed, the logits of each sequence must be those of the same sequence alone
with its adapter, to the last bit; and those of the first layers must be their twins' in NumPy.

Then: a server writes 4 streams. A delta comes into its home and is asked for, and removed once it has answered; what is reported is the
longest wait between two pieces of one of the streams in that time, beside the longest one in the second before. Afterwards the base must
answer as before, with the same log-probabilities, and the delta not at all. Kinds that stay beside the weights (lora) are what the bar is
for; one that is merged (dora) shows what packing 135 million weights does to others.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from client import NO_END, Reply, ask, words
from harness import ROOT, Figure, alternate, finish, ratios, show
from ingle.core.spec import ModelConfig
from ingle.engine.adapter import Addition, linear_shapes
from ingle.engine.backend import Backend, Segment, prefill
from ingle.engine.loading import Opener
from ingle.engine.packs import pack_checkpoint, read_pack
from ingle.engine.threads import Cores
from ingle.home.deltas import put_delta
from ingle.home.kept import get_kept, remove
from ingle.home.place import Home
from ingle.kernels import layout as at
from ingle.model.checkpoint import open_checkpoint
from ingle.model.hf_config import inverse_frequencies
from model import smollm2
from servers import Server, say, scratch_home, start_bench, start_ingle, stopping

sys.path.insert(0, str(ROOT.parent))
from tests.engine.tiny import unpacked
from tests.kernels import naive
from tests.kernels.naive import unpack_adapter

EXAMPLES = """  python bench/adapters.py
  python bench/adapters.py --rounds 3 --tokens 32 --loads 2 --kinds lora
  python bench/adapters.py --only speed
"""
SLOWER_BAR, GAP_BAR_S = 0.15, 0.100
RANK = 16
STREAM_TOKENS = 4000
"""Longer than any delta takes; streams are ended when it is there."""
Additions = dict[str, Addition]


def random_lora(config: ModelConfig, rank: int, seed: int, size: float = 0.02) -> Additions:
    """An addition to every linear, as large as a trained one."""
    draw = np.random.default_rng(seed)

    def drawn(*shape: int) -> npt.NDArray[np.float32]:
        return (draw.standard_normal(shape) * size).astype(np.float32)

    return {name: Addition(drawn(rank, k), drawn(n, rank)) for name, (n, k) in linear_shapes(config).items()}


def tensors_of(kind: str, additions: Additions) -> dict[str, npt.NDArray[np.float32]]:
    """The same as a delta's tensors."""
    found: dict[str, npt.NDArray[np.float32]] = {}
    for name, added in additions.items():
        found |= {f"{name}.lora_A.weight": added.a, f"{name}.lora_B.weight": added.b}
        if kind == "dora":
            found[f"{name}.lora_magnitude_vector"] = np.ones(len(added.b), np.float32)
    return found


def check_alone(backend: Backend, adapters: Sequence[Any], ids: Sequence[int], tokens: int) -> None:
    """Ends the run unless every sequence of a batch has the logits that it has alone."""
    states = [backend.new_state() for _ in adapters]
    batch = [Segment(state, ids, "last", adapter) for state, adapter in zip(states, adapters, strict=True)]
    rows = [backend.forward(batch)]
    rows[0] = [row.copy() for row in rows[0]]
    for token in range(tokens):
        batch = [Segment(state, [token + i], "last", a) for i, (state, a) in enumerate(zip(states, adapters, strict=True))]
        rows.append([row.copy() for row in backend.forward(batch)])
    for i, adapter in enumerate(adapters):
        state = backend.new_state()
        asked = [list(ids), *([token + i] for token in range(tokens))]
        for step, some in enumerate(asked):
            [alone] = backend.forward([Segment(state, some, "last", adapter)])
            if not np.array_equal(alone, rows[step][i]):
                raise SystemExit(f"sequence {i} has other logits in a batch than alone, by {np.abs(alone - rows[step][i]).max()}")
    first = np.stack([row[0] for row in rows[-1]])
    if min(np.abs(first[i] - first[j]).max() for i in range(len(first)) for j in range(i)) < 1e-3:
        raise SystemExit("two adapters make no difference")


def check_twin(layers: int, rank: int) -> float:
    """Largest difference, relative to the largest logit, to NumPy on the first layers; ends the run if it is more than rounding."""
    whole = open_checkpoint(smollm2())
    cut = replace(whole, config=replace(whole.config, layers=whole.config.layers[:layers]))
    with tempfile.TemporaryDirectory() as folder:
        info = pack_checkpoint(cut, "twin", "fp32", Path(folder))
        assert read_pack(Path(folder)) is not None
        backend, additions = Backend(Path(folder), info, Cores(1), "float32"), random_lora(cut.config, rank, 99)
        ids = np.random.default_rng(0).integers(0, cut.config.vocab_size, 24).tolist()
        [got] = backend.forward([Segment(backend.new_state(), ids, "all", backend.adapter(additions, "twin"))])
        frequencies, scale = inverse_frequencies(cut.config)
        angles = np.arange(len(ids), dtype=np.float32)[:, None] * frequencies
        weights = dict(unpacked(Path(folder), info))
        rounded = {name.removesuffix(".weight") for name, place in info.places.items() if place.kind >= at.FLOAT_KINDS}
        turned = [(np.cos(angles) * scale, np.sin(angles) * scale)] * len(cut.config.layers)
        seen = unpack_adapter(cut.config, additions)
        expected = naive.decoder(cut.config, weights, ids, turned, frozenset(rounded), "float32", seen)
    apart = float(np.abs(got - expected).max() / np.abs(expected).max())
    if apart > 1e-3:
        raise SystemExit(f"the kernels differ from their twin in NumPy by {apart:.2e} of the largest logit")
    return apart


def speed(rounds: int, tokens: int, sequences: int, rank: int, threads: int, home: Home) -> dict[str, Any]:
    """Decode tokens/s of a batch, with another adapter for each sequence and without any."""
    backend = Opener(cores=Cores(threads))(home, get_kept(home, "smollm2")).backend.runner
    assert isinstance(backend, Backend)
    adapters = [backend.adapter(random_lora(backend.config, rank, seed), str(seed)) for seed in range(sequences)]
    ids = np.random.default_rng(1).integers(1000, 20000, 64).tolist()
    check_alone(backend, [*adapters, None], ids, 4)
    apart = check_twin(3, rank)
    say(f"correct: alone and in a batch the same bits; {apart:.1e} from NumPy")

    def decode(chosen: Sequence[Any]) -> float:
        states = [backend.new_state() for _ in chosen]
        for state in states:
            prefill(backend, ids, state)
        began = time.perf_counter()
        for token in range(tokens):
            backend.forward([Segment(state, [1000 + token], "last", a) for state, a in zip(states, chosen, strict=True)])
        return len(chosen) * tokens / (time.perf_counter() - began)

    figures = alternate(
        rounds,
        {
            "base": lambda: decode([None] * sequences),
            "one adapter for all": lambda: decode(adapters[:1] * sequences),
            "each its own": lambda: decode(adapters),
        },
    )
    names = list(figures)
    rows: list[list[object]] = [["batch", "tokens/s", "of the base's speed"]]
    rows += [[name, figures[name], "" if name == "base" else ratios(figures[name], figures["base"])] for name in names]
    show(f"SmolLM2-135M-Instruct Q4_1, {sequences} sequences a step, LoRA r = {rank} on all linears, {rounds} alternating rounds", rows)
    slower = 1 - ratios(figures["each its own"], figures["base"]).median
    print(f"{slower:.1%} slower with {sequences} adapters (bar {SLOWER_BAR:.0%}); {adapters[0].nbytes / 1e6:.2f} MB each")
    return {
        "tokens_per_s": {name: figure.table() for name, figure in figures.items()},
        "ratio": {name: ratios(figures[name], figures["base"]).table() for name in names[1:]},
        "slower": slower, "adapter_bytes": adapters[0].nbytes, "twin_difference": apart, "sequences": sequences, "rank": rank,
    }  # fmt: skip


@dataclass(frozen=True)
class Loaded:
    """What came of one delta that came while streams were written."""

    gap_s: float
    """Longest wait of a stream while it came and went."""
    before_s: float
    """Longest wait of a stream in a second before."""
    ready_s: float
    """From the moment at which the delta is kept to the end of its first answer of one token."""


def body(model: str, seed: int, tokens: int, **more: Any) -> dict[str, Any]:
    """A question with an answer of exactly so many tokens."""
    question = f"{words(20, seed)}: make a story of these words."
    asked = {"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": tokens, "seed": seed, "logit_bias": NO_END}
    return {**asked, **more}


def longest_wait(replies: Sequence[Reply], start: float, end: float) -> float:
    """Of any of these streams, in seconds: between two pieces of text of which the later one came within this time."""
    waits = []
    for reply in replies:
        times = [when for when, piece in reply.pieces if piece.startswith(b"data: {")]
        waits += [later - max(before, start) for before, later in pairwise(times) if start < later and before < end]
        waits.append(end - max(times[-1], start))
    return max(waits)


async def answer(server: Server, model: str) -> list[Any]:
    """What the base says, with the log-probabilities of the likeliest words."""
    reply = await ask(server, body(model, 5, 24, temperature=0.8, logprobs=True, top_logprobs=5))
    if reply.status != 200:
        raise SystemExit(f"{model}: {reply.pieces}")
    return [[choice["message"], choice["logprobs"]] for _, event in reply.events for choice in event["choices"]]


async def load_once(server: Server, home: Home, kind: str, turn: int, streams: int) -> Loaded:
    """Brings a delta into the home and asks for it, while streams are written; then removes it.

    It is made before, beside the home, and comes by a rename as `put_delta` ends with one: what is measured is the server's doing alone.
    """
    kept = get_kept(home, "smollm2")
    config = open_checkpoint(home.base_folder(kept.base)).config
    name, beside = f"{kind}{turn}", Home(home.root / "beside")
    made = put_delta(beside, name, kind, kept.digest, tensors_of(kind, random_lora(config, RANK, 1000 + turn)), {"seed": str(turn)})
    expected = await answer(server, "smollm2")
    running = [Reply() for _ in range(streams)]
    asked = (body("smollm2", 100 * turn + i, STREAM_TOKENS, temperature=0.8, stream=True) for i in range(streams))
    tasks = [asyncio.create_task(ask(server, one, reply=reply)) for one, reply in zip(asked, running, strict=True)]
    while any(len(reply.pieces) < 10 for reply in running):
        await asyncio.sleep(0.01)
    await asyncio.sleep(1.0)
    began = time.perf_counter()
    beside.delta_folder(made.digest).rename(home.delta_folder(made.digest))
    first = await ask(server, body(f"smollm2+{name}", turn, 1))
    answered = time.perf_counter()
    if first.status != 200:
        raise SystemExit(f"smollm2+{name}: {first.pieces}")
    remove(home, f"smollm2+{name}")
    if (await ask(server, body(f"smollm2+{name}", turn, 1))).status != 404:
        raise SystemExit("a delta that was removed still answers")
    await asyncio.sleep(0.2)
    ended = time.perf_counter()
    if any(task.done() for task in tasks):
        raise SystemExit("a stream ended, or broke off, while a delta came and went")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if await answer(server, "smollm2") != expected:
        raise SystemExit("the base answers otherwise than before the delta came")
    return Loaded(longest_wait(running, began, ended), longest_wait(running, began - 1, began), answered - began)


def loads(kinds: Sequence[str], count: int, streams: int, threads: int, home: Home) -> dict[str, Any]:
    """Waits of streams while deltas of these kinds come."""
    result: dict[str, Any] = {}
    rows: list[list[object]] = [["delta", "longest wait, s", "in the second before, s", "asked to answered, s"]]
    with stopping() as started:
        server = started(start_ingle(home, "--threads", str(threads)))
        for kind in kinds:
            found = []
            for turn in range(count):
                found.append(asyncio.run(load_once(server, home, kind, turn, streams)))
                say(f"{kind}: load {turn + 1} of {count}, {found[-1].gap_s * 1000:.0f} ms")
            waits, before, ready = (Figure(tuple(getattr(one, part) for one in found)) for part in ("gap_s", "before_s", "ready_s"))
            rows.append([kind, waits, before, ready])
            result[kind] = {"longest_wait_s": waits.table(), "wait_before_s": before.table(), "ready_s": ready.table()}
    show(f"{streams} streams while a delta comes (LoRA of rank {RANK} on all linears), median (range) of {count} loads", rows)
    print(
        f"longest wait of all while a lora came: {result['lora']['longest_wait_s']['high'] * 1000:.0f} ms (bar {GAP_BAR_S * 1000:.0f} ms)"
    )
    return {"loads": result, "streams": streams}


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=96, help="steps of a round")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--rank", type=int, default=RANK)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--loads", type=int, default=7)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--kinds", nargs="+", default=["lora", "dora"], choices=["lora", "dora"])
    parser.add_argument("--only", choices=["speed", "loads"])
    options = parser.parse_args()
    result: dict[str, Any] = {"bars": {"slower": SLOWER_BAR, "longest_wait_s": GAP_BAR_S}}
    missed = False
    with scratch_home() as home:
        if options.only != "loads":
            result |= speed(options.rounds, options.tokens, options.sequences, options.rank, options.threads, home)
            missed |= result["slower"] > SLOWER_BAR
        if options.only != "speed":
            result |= loads(options.kinds, options.loads, options.streams, options.threads, home)
            missed |= "lora" in result["loads"] and result["loads"]["lora"]["longest_wait_s"]["high"] > GAP_BAR_S
    finish("adapters", result)
    sys.exit(missed)


if __name__ == "__main__":
    main()
