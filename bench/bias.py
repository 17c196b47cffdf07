"""Figures about people: a table of every suite, how changes of a model move it, and what simple rules would score.

    python bench/bias.py --models smollm2 smollm2:int4 smollm2-hybrid smollm2+hard smollm2+fair [--items 150] [--json FILE]
    python bench/bias.py --rules                   # no model: shorter texts, commoner words
    python bench/bias.py --lm-eval 200             # CrowS-Pairs beside lm-eval's own figure, on the same items (needs lm-eval)

A name is a kept model, with `:int4`, `:int8` or `:fp32` behind it for a format. The first is what the others are compared with, item by
item: `nearer` and `farther` (to one half) only where the paired bootstrap is sure; groups are corrected for their number (Holm).
Items: the first of each suite in its fixed order; 0 = all. What was measured before comes from the home's cache.
"""

import argparse
import json
import math
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from drift import opened
from harness import finish, show
from ingle.ethics.audit import FULL, Shift, run_suites, shift_table, shifts
from ingle.home.place import Home, find_home
from ingle.measure.data_sets import Pair, part
from ingle.measure.intervals import wilson
from ingle.measure.measuring import Options, SuiteResult, run_suite
from ingle.measure.suites import SUITES, find_suite, training_rows
from ingle.tuning.kept_model import subject_of

PAIRS = tuple(name for name in FULL if SUITES[name].kind == "pairs")
_WORD = re.compile(r"\w+")


def drift(home: Home, names: Sequence[str], items: int, out: Path | None) -> None:
    """The table of models."""
    results: dict[str, tuple[SuiteResult, ...]] = {}
    for name in names:
        subject = subject_of(opened(home, name), lambda: False)
        results[name] = run_suites(home, subject, dict.fromkeys(FULL, items), progress=said(name))
    first = results[names[0]]
    found = {name: shifts(first, result) for name, result in results.items() if name != names[0]}
    rows = [["model", *(f"{suite}, {one.main.name}" for suite, one in zip(FULL, first, strict=True)), "farther or worse, surely"]]
    for name, result in results.items():
        moved = {one.suite: one.verdict for one in found.get(name, ()) if not one.group and one.figure != "language"}
        rows.append([name, *(cell(one, moved.get(one.suite, "")) for one in result), ", ".join(worse(found.get(name, ()))) or "–"])
    show(
        f"What models think of people, {items or 'all'} items of each suite (95 %); the first row is what the others are compared with",
        rows,
    )
    table = {
        name: {"reports": [report_row(one) for one in result], "shifts": shift_table(found.get(name, ()))}
        for name, result in results.items()
    }
    if out is not None:
        out.write_text(json.dumps(table, indent=1))
    finish("bias", {"items": items, "models": {name: {one.suite: one.main.value for one in result} for name, result in results.items()}})


def said(name: str) -> Callable[[str, int, int], None]:
    """Progress on standard error, a line for every suite."""

    def heard(label: str, done: int, total: int) -> None:
        if done in (0, total):
            print(f"{name}: {label}, {done} of {total}", file=sys.stderr)

    return heard


def cell(one: SuiteResult, verdict: str) -> str:
    """A main figure with its interval, and whether it moved."""
    main = one.main
    scale, form = (100, ".1f") if main.unit == "share" else (1, ".3f")
    text = f"{scale * main.value:{form}} ({scale * main.low:{form}}–{scale * main.high:{form}})"
    return text if verdict in ("", "same") else f"{text} {verdict}"


def worse(found: Sequence[Shift]) -> Iterator[str]:
    """Names of the suites and groups that are surely farther or worse."""
    for one in found:
        if one.verdict in ("farther", "worse"):
            yield f"{one.suite} {one.group or one.figure}"


def report_row(one: SuiteResult) -> dict[str, Any]:
    """A suite's figures as plain values."""
    return {"suite": one.suite, "notes": list(one.notes), "figures": {r.name: [r.value, r.low, r.high, r.n] for r in one.reports}}


def rules(home: Home) -> None:
    """Score of a rule that knows nothing of people: the shorter text, or the one with commoner words."""
    counts = Counter(
        word for suite in ("wiki-bits", "xsum-bits") for row in training_rows(find_suite(suite), home) for word in words(row["text"])
    )
    total = sum(counts.values()) + len(counts) + 1

    def common(text: str) -> float:
        return sum(math.log((counts[word] + 1) / total) for word in words(text))

    def common_per_byte(text: str) -> float:
        return common(text) / len(text.encode())

    scorers: dict[str, Callable[[str], float]] = {
        "shorter": lambda text: -len(text.encode()), "commoner words": common, "commoner words, per byte": common_per_byte,
    }  # fmt: skip
    rows, found = [["suite", *(f"{name} (95 %)" for name in scorers)]], dict[str, dict[str, float]]()
    for suite in PAIRS:
        items: list[Pair] = part(find_suite(suite).read(home, lambda *_: None), "held_out", 1.0)
        line = [suite]
        for name, score in scorers.items():
            differ = [pair for pair in items if score(pair.texts[0]) != score(pair.texts[1])]
            likelier = sum(score(pair.texts[0]) > score(pair.texts[1]) for pair in differ)
            interval = wilson(likelier, len(differ))
            line.append(f"{100 * likelier / len(differ):.1f} ({100 * interval.low:.1f}–{100 * interval.high:.1f}, n = {len(differ)})")
            found.setdefault(suite, {})[name] = likelier / len(differ)
        rows.append(line)
    show("Share of stereotypes that a rule without a model would prefer; pairs on which it has no preference are left out", rows)
    finish("bias_rules", {"words": total, "shares": found})


def words(text: str) -> list[str]:
    """Words in lower case."""
    return _WORD.findall(text.casefold())


def beside_lm_eval(home: Home, count: int) -> None:
    """CrowS-Pairs by lm-eval's own task on Hugging Face, and by ours, on the same items, both in float32."""
    import lm_eval as package

    from serve_eval import lm_eval, log_likelihoods, write_weights

    suite, task = find_suite("crows-pairs"), "crows_pairs_drawn"
    items: list[Pair] = part(suite.read(home, lambda *_: None), "held_out", 1.0)[: count or None]
    ours = run_suite(home, suite, subject_of(opened(home, "smollm2:fp32"), lambda: False), Options(count), said("ours"))
    with tempfile.TemporaryDirectory(prefix="ingle-bias-") as place:
        folder = Path(place)
        rows = [{"sent_more": pair.texts[0], "sent_less": pair.texts[1], "bias_type": pair.about} for pair in items]
        (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        theirs = Path(package.__file__).parent / "tasks" / "crows_pairs" / "crows_pairs_english.yaml"
        table = {
            "include": str(theirs), "task": task, "dataset_path": "json", "dataset_name": None,
            "dataset_kwargs": {"data_files": {"test": str(folder / "items.jsonl")}},
        }  # fmt: skip
        (folder / f"{task}.yaml").write_text(json.dumps(table))  # JSON is YAML
        write_weights(folder / "weights")
        # The token before a text is ours: <|endoftext|>, number 0; lm-eval would take the one that ends a turn.
        model = {"pretrained": folder / "weights", "dtype": "float32", "prefix_token_id": 0}
        samples = lm_eval("hf", "hf", model, folder, 8, task)
    values = log_likelihoods(samples)
    by_us = {row["id"]: row["nats"] for row in ours.rows}
    off = max(abs(a - b) for pair, line in zip(items, values, strict=True) for a, b in zip(by_us[pair.id], line, strict=True))
    share = sum(float(sample["pct_stereotype"]) for sample in samples) / len(samples)
    apart = sum(float(sample["likelihood_diff"]) for sample in samples) / len(samples)
    distance = next(report.value for report in ours.reports if report.name == "distance")
    show(
        f"CrowS-Pairs, {len(items)} items, float32",
        [["", "stereotypes", "likelihood_diff, nats"], ["lm-eval, Hugging Face", f"{share:.4f}", f"{apart:.4f}"],
         ["ingle measure", f"{ours.main.value:.4f}", f"{distance:.4f}"]],
    )  # fmt: skip
    finish(
        "bias_lm_eval",
        {"items": len(items), "share": [share, ours.main.value], "distance": [apart, distance], "largest_difference_nats": off},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument("--items", type=int, default=150)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rules", action="store_true")
    parser.add_argument("--lm-eval", type=int, metavar="ITEMS", dest="lm_eval")
    options = parser.parse_args()
    home = find_home()
    if options.rules:
        rules(home)
    if options.lm_eval is not None:
        beside_lm_eval(home, options.lm_eval)
    if options.models:
        drift(home, options.models, options.items, options.json)


if __name__ == "__main__":
    main()
