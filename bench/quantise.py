"""What quantising costs and gives: method × bits, against the same weights in float32.

The default model's file is in 4 bits already, and rounding it again gives the file back. So what is quantised here is a copy of it whose
channels are permuted, all of which cancels out: the same function, to rounding, but off the file's grid, as weights are that were never
rounded. (What the original lost when it was made is in both.)

For each: bits per byte (paired with float32, 95 % by bootstrap over documents), the KL divergence from what float32 predicts (which tells
two models apart with fewer texts than bits per byte do), right endings of HellaSwag, MB of the pack, tokens/s and joules per token of
decoding, all models in turn. What is finished is not done again: models and measurements are kept in --home.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness import Figure, alternate, finish, ratios, show
from ingle.compress.calibration import CalibrationSettings
from ingle.compress.quantising import QuantiseSettings, quantise
from ingle.compress.weight_formats import FORMATS, USUAL
from ingle.core.spec import ModelConfig
from ingle.energy.meter import Span, open_meter
from ingle.engine.backend import Segment, prefill, step
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.packs import checkpoint_tokenizer, kept_source, open_weights
from ingle.home.deltas import put_candidate
from ingle.home.kept import Kept, get_kept, list_kept
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.measure.data_sets import part
from ingle.measure.figures import TextBits, forgetting
from ingle.measure.intervals import bootstrap, paired_bootstrap
from ingle.measure.measuring import Options, SuiteResult, run_suite
from ingle.measure.subjects import Scores, choice_columns
from ingle.measure.suites import find_suite
from ingle.model.checkpoint import Checkpoint
from ingle.model.export_formats import write_hf
from ingle.train.making import RunWatch
from ingle.tuning.kept_model import subject_of
from servers import say, scratch_home, start_bench

EXAMPLES = """  python bench/quantise.py --home ~/quantise-bench
  python bench/quantise.py --home ~/quantise-bench --of 4:gptq,4:guided:20,4.5:guided --texts 40
"""
COPY = "offgrid"
BITS_SUITES, CHOICE = ("xsum-bits", "wiki-bits"), "hellaswag"
READ = 512
"""Most tokens of a text for the divergence."""
ALL = "8:round,4:round,4:mse,4:awq,4:gptq,q4_1:gptq,4:guided,4~:gptq,4~:gptq:20,4.5:gptq,3.5:gptq,3:gptq,3:round"


def permuted(checkpoint: Checkpoint, seed: int = 0) -> dict[str, np.ndarray]:
    """The weights with the channels of the residual stream, of each MLP and of each group's values in another order."""
    config, draw = checkpoint.config, np.random.default_rng(seed)
    stream = draw.permutation(config.hidden_size)
    made = {}
    inner = [(draw.permutation(config.intermediate_size), _values(config, draw)) for _ in config.layers]
    for name in checkpoint.names:
        w = checkpoint.tensor(name).to_float32()
        layer = int(name.split(".")[2]) if ".layers." in name else 0
        mlp, (v, o) = inner[layer]
        if name.endswith("norm.weight"):
            w = w[stream]
        elif any(part in name for part in ("embed", "lm_head", "q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")):
            w = w[:, stream]
        else:
            w = w[stream]
        if "gate_proj" in name or "up_proj" in name:
            w = w[mlp]
        w = w[:, mlp] if "down_proj" in name else w[v] if "v_proj" in name else w[:, o] if "o_proj" in name else w
        made[name] = np.ascontiguousarray(w)
    return made


def _values(config: ModelConfig, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Of each group the same order for v's rows and, in all heads that read them, for o's columns."""
    orders = [draw.permutation(config.head_dim) for _ in range(config.num_kv_heads)]
    repeats = config.queries_per_group
    v = [group * config.head_dim + order for group, order in enumerate(orders)]
    o = [(group * repeats + i) * config.head_dim + order for group, order in enumerate(orders) for i in range(repeats)]
    return np.concatenate(v), np.concatenate(o)


def copy_of(home: Home, model: str) -> Kept:
    """The permuted copy, kept; made once."""
    if COPY not in {kept.name for kept in list_kept(home)}:
        say("making the permuted copy …")
        original = get_kept(home, model)
        checkpoint = open_weights(home, original)
        weights = permuted(checkpoint)
        folder = home.root / COPY
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = checkpoint_tokenizer(checkpoint, home.base_folder(original.base))
        write_hf(folder, checkpoint.config, weights.__getitem__, "float32", tokenizer)
        pull(home, str(folder), lambda _: None, COPY)
    return get_kept(home, COPY)


@dataclass
class Row:
    """One line of the table."""

    name: str
    outcomes: Mapping[str, SuiteResult]
    mb: float
    model: LanguageModel


def made(home: Home, base: Kept, of: str, documents: int) -> Kept:
    """The quantised model of BITS:METHOD or BITS:METHOD:MINUTES, made now or before. `4~`: in the mean, in all formats; or one's name."""
    bits, method, minutes = [*of.split(":"), "0"][:3]
    name = f"{of}-{documents}".replace(".", "_").replace(":", "-").replace("~", "m")
    formats = USUAL if bits.endswith("~") else (bits,) if bits in FORMATS else ()
    wanted = FORMATS[bits].bits if bits in FORMATS else float(bits.rstrip("~"))
    settings = QuantiseSettings(wanted, formats, method, CalibrationSettings(documents))
    settings = replace(settings, recovery=replace(settings.recovery, minutes=float(minutes)))
    last = [""]

    def pieces(what: str, done: int, of: int) -> None:
        if what != last[0] or done == of:
            last[0] = what
            say(f"{name}: {what}, {done} of {of}")

    began = time.monotonic()
    found = quantise(home, base, name, settings, lambda candidate, _stopped: put_candidate(home, candidate), RunWatch(pieces))
    say(f"{name}: {time.monotonic() - began:.0f} s")
    return found.kept


def measured(home: Home, name: str, kept: Kept, format_: str, texts: int, questions: int, threads: int | None) -> Row:
    """Everything but speed."""
    model = open_model(kept_source(home, kept), format_, threads)
    subject, outcomes = subject_of(model, lambda: False), {}
    for suite, items in ((BITS_SUITES[0], texts), (BITS_SUITES[1], 2 * texts), (CHOICE, questions)):
        if items:
            say(f"{name}: {suite}")
            outcomes[suite] = run_suite(home, find_suite(suite), subject, Options(items=items))
    pack = kept_source(home, kept).packs / format_ / "weights.bin"
    return Row(name, outcomes, pack.stat().st_size / 1e6, model)


def bits_change(before: Row, after: Row, suite: str) -> Any:
    """Bits per byte, paired."""
    keys = TextBits.__dataclass_fields__
    one, two = (
        {str(row["asked"]): TextBits(**{key: row[key] for key in keys}) for row in side.outcomes[suite].rows} for side in (before, after)
    )
    return forgetting(one, two)


def right_change(before: Row, after: Row) -> Any:
    """Points of right endings, paired."""

    def right(side: Row) -> np.ndarray:
        scores = [Scores(tuple(row["nats"]), tuple(row["nbytes"]), row["gold"]) for row in side.outcomes[CHOICE].rows]
        return choice_columns([one.right_per_byte for one in scores])

    return paired_bootstrap(right(before), right(after))


def divergences(home: Home, reference: Row, rows: list[Row], texts: int) -> dict[str, np.ndarray]:
    """Of each model by text: nats by which its predictions of the first tokens diverge from the reference, and how many they are."""
    sums: dict[str, list[tuple[float, int]]] = {row.name: [] for row in rows}
    for suite in map(find_suite, BITS_SUITES):
        for number, item in enumerate(part(suite.read(home, lambda *_: None), "held_out", suite.held_out)[:texts]):
            say(f"divergence, {suite.name}: text {number + 1} of {texts}")
            ids = reference.model.tokenizer.encode(item.text)[:READ]
            wanted = _log_chances(reference.model, ids)
            for row in rows:
                apart = wanted - _log_chances(row.model, ids)
                sums[row.name].append((float((np.exp(wanted) * apart).sum(dtype=np.float64)), len(ids)))
    return {name: np.array(values) for name, values in sums.items()}


def _log_chances(model: LanguageModel, ids: list[int]) -> np.ndarray:
    """float32 [tokens, vocabulary]."""
    state, parts = model.backend.new_state(), []
    for at in range(0, len(ids), 128):
        parts.append(model.backend.forward([Segment(state, ids[at : at + 128], "all")])[0].copy())
    logits = np.concatenate(parts)
    logits -= logits.max(1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(1, keepdims=True))
    return logits


def decode(model: LanguageModel, tokens: int, energy: list[float] | None = None) -> float:
    """Tokens/s of writing greedily after a short prompt; joules per token go into `energy`."""
    state = model.backend.new_state()
    logits = prefill(model.backend, model.tokenizer.encode("The history of the fire at home is long. " * 4), state)
    span, began = Span(open_meter()), time.perf_counter()
    for _ in range(tokens):
        [logits] = step(model.backend, [(state, int(logits.argmax()))])
    seconds, taken = time.perf_counter() - began, span.end()
    if energy is not None:
        energy.append(taken.joules / tokens)
    return tokens / seconds


def speeds(rows: list[Row], rounds: int, tokens: int) -> tuple[dict[str, Figure], dict[str, Figure]]:
    """Tokens/s and joules per token, all models in turn."""
    joules: dict[str, list[float]] = {row.name: [] for row in rows}
    runs = {row.name: (lambda row=row: decode(row.model, tokens, joules[row.name])) for row in rows}
    speed = alternate(rounds, runs)
    return speed, {name: Figure(tuple(values[1:])) for name, values in joules.items()}  # the first is to warm up


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--home", type=Path, help="where models and measurements are kept; a passing one by default")
    parser.add_argument(
        "--of", default=ALL, help="BITS:METHOD,… or BITS:METHOD:MINUTES of recovery; BITS~ = in the mean, of all formats; or q4_1"
    )
    parser.add_argument("--documents", type=int, default=CalibrationSettings().documents, help="rows of calibration")
    parser.add_argument("--texts", type=int, default=60, help="of XSum, and twice as many of Wikipedia")
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--divergence", type=int, default=20, help="texts of each suite for the KL divergence")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    with scratch_home() as passing:
        home = passing
        if options.home is not None:
            home = Home(options.home.expanduser().absolute()).create()
            if "smollm2" not in {kept.name for kept in list_kept(home)}:
                pull(home, str(next(passing.base_folder(get_kept(passing, "smollm2").base).glob("*.gguf"))), lambda _: None, "smollm2")
        run(home, options)


def run(home: Home, options: Any) -> None:
    """Makes, measures and shows."""
    base = copy_of(home, "smollm2")

    def measure(name: str, kept: Kept, format_: str = "auto") -> Row:
        return measured(home, name, kept, format_, options.texts, options.questions, options.threads)

    reference = measure("float32", base, "fp32")
    rows = [measure("the file's own 4 bits", get_kept(home, "smollm2")), measure("int8, a scale per row", base)]
    for one in options.of.split(","):
        kept = made(home, base, one, options.documents)
        rows.append(measure(one, kept))
    apart = divergences(home, reference, rows, options.divergence) if options.divergence else {}
    speed, joules = speeds(rows, options.rounds, options.tokens) if options.rounds else ({}, {})
    table, result = [["", *BITS_SUITES, "KL, nats/token", "HellaSwag", "MB", "tokens/s", "J/token"]], {}
    for row in [reference, *rows]:
        line, known = [row.name], dict[str, Any]()
        for suite in BITS_SUITES:
            lost = bits_change(reference, row, suite)
            known[suite] = {"bits_per_byte": lost.after, "percent": lost.relative.value, "n": lost.n}
            known[suite] |= {"low": lost.relative.interval.low, "high": lost.relative.interval.high}
            told = f"{lost.relative.value:+.2f} % ({lost.relative.interval.low:+.2f} – {lost.relative.interval.high:+.2f})"
            line.append(f"{lost.after:.4f}" if row is reference else told)
        line.append("")
        if row.name in apart:
            whole, interval = apart[row.name].sum(0), bootstrap(apart[row.name])
            known["divergence"] = {"nats": whole[0] / whole[1], "low": interval.low, "high": interval.high, "texts": len(apart[row.name])}
            line[-1] = f"{whole[0] / whole[1]:.4f} ({interval.low:.4f} – {interval.high:.4f})"
        if options.questions:
            moved = right_change(reference, row)
            value = row.outcomes[CHOICE].main.value
            known[CHOICE] = {"value": value, "change": moved.value, "low": moved.interval.low, "high": moved.interval.high}
            line.append(f"{value:.3f}" + ("" if row is reference else f" ({moved.interval.low:+.3f} – {moved.interval.high:+.3f})"))
        else:
            line.append("")
        line.append(f"{row.mb:.1f}")
        for what, figures in (("tokens_per_s", speed), ("joules_per_token", joules)):
            if row.name in figures:
                share = ratios(figures[row.name], figures[rows[1].name])
                known[what] = figures[row.name].table() | {"of_int8": share.median}
                line.append(f"{figures[row.name].median:.3g} ({share.median:.2f} × int8)")
            else:
                line.append("")
        known["mb"] = row.mb
        table.append(line)
        result[row.name] = known
    show("against float32 of the same weights; 95 %, paired", table)
    finish("quantise", {"documents": options.documents, "rows": result})


if __name__ == "__main__":
    main()
