"""A recipe's whole table: the base, with examples in its prompt, tuned by several methods, tuned whole, and a simple rule.

    python bench/recipes.py recipes/classify.toml

Every method learns from the same examples for as many steps, in a process of its own, by the recipe's settings and its own learning rate.
Quality: the recipe's suite, on items that are never learnt from, as the model is served. Forgetting: bits per byte of general text, after
minus before, paired by document. Seconds and peak memory are those of training. What is finished is not done again.

Two bars: the best method that is not full fine-tuning beats the base, with and without examples in its prompt, by intervals that don't
overlap; and it forgets less than full fine-tuning.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from harness import finish, machine
from ingle.core.errors import IngleError
from ingle.core.files import write_atomic
from ingle.home.kept import get_kept
from ingle.measure.suites import find_suite
from ingle.tuning.recipe import Recipe, read_recipe
from servers import start_bench
from tuned import HEAD, HOME, Result, bench_home, check_contamination, lost_between, markdown, name_of, result, simple_rule, trained

EXAMPLES = """  python bench/recipes.py recipes/classify.toml --out classify.json
  python bench/recipes.py recipes/*.toml --methods lora,houlsby,ia3,dora,full
"""


def run(path: Path, methods: list[str], home_folder: Path, out: Path | None) -> dict[str, Any]:
    """One recipe."""
    recipe, home = read_recipe(path), bench_home(home_folder)
    base = get_kept(home, recipe.model)
    print(f"\n## {recipe.title}\n")
    contamination = check_contamination(recipe, home)
    rule, higher = simple_rule(home, recipe, base), find_suite(recipe.measure.suite).higher_is_better
    plain = result(home, recipe, "base", base)
    results = [plain, result(home, recipe, f"base, {recipe.measure.shots} examples in its prompt", base, plain, recipe.measure.shots)]
    table: dict[str, Any] = {"recipe": path.name, "title": recipe.title, "machine": machine(), "contamination": contamination}
    table |= {"suite": recipe.measure.suite, "rule": {"name": rule.name, "value": rule.value, "low": rule.low, "high": rule.high}}
    tuned: dict[str, Result] = {}
    for method in methods:
        kept = trained(recipe, path, home, method)
        tuned[method] = result(home, recipe, name_of(method), kept, plain)
        _write(out, table | {"results": [one.table() for one in (*results, *tuned.values())]})
    baseline = [rule.name.replace("_", " "), f"{rule.value:.4f} ({rule.low:.4f} – {rule.high:.4f})", *[""] * (len(HEAD) - 2)]
    head = [*HEAD]
    head[1] = f"{plain.quality.name.replace('_', ' ')}, n = {plain.quality.n} (95 %)"
    print("\n" + markdown([head, baseline, *([one.name, *one.row()] for one in (*results, *tuned.values()))]) + "\n")
    table["results"] = [one.table() for one in (*results, *tuned.values())]
    table["bars"] = bars(recipe, results, tuned, higher)
    for name, bar in table["bars"].items():
        print(f"{name}: {'held' if bar['held'] else 'MISSED'} ({bar['why']})")
    _write(out, table)
    return table


def bars(recipe: Recipe, bases: list[Result], tuned: dict[str, Result], higher: bool) -> dict[str, dict[str, Any]]:
    """Whether the best method that isn't full fine-tuning beats the base, and forgets less than full fine-tuning."""
    others = {name: one for name, one in tuned.items() if name != "full"}
    if not others:
        return {}
    sign = 1 if higher else -1
    best = max(others.values(), key=lambda one: sign * one.quality.value)
    strongest = max(bases, key=lambda one: sign * one.quality.value)
    apart = best.quality.low > strongest.quality.high if higher else best.quality.high < strongest.quality.low
    found = {"beats the base": {"held": apart, "why": f"{best.name} against {strongest.name}"}}
    if "full" in tuned:
        more = lost_between(best.general, tuned["full"].general).change
        range_ = f"{more.interval.low:+.4f} – {more.interval.high:+.4f}"
        why = f"full fine-tuning costs {more.value:+.4f} bits/byte more than {best.name} ({range_})"
        found["forgets less than full fine-tuning"] = {"held": more.interval.low > 0, "why": why}
    return found


def _write(out: Path | None, table: dict[str, Any]) -> None:
    if out is not None:
        write_atomic(out, json.dumps(table, indent=1, ensure_ascii=False).encode() + b"\n")


def main() -> None:
    parser: argparse.ArgumentParser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("recipes", nargs="+", type=Path, metavar="RECIPE")
    parser.add_argument("--methods", default="lora,houlsby,ia3,full")
    parser.add_argument("--home", type=Path, default=HOME, help="where deltas and finished measurements are kept")
    parser.add_argument("--out", type=Path, help="write all results to this file, after each method; for one recipe")
    options = parser.parse_args()
    if options.out is not None and len(options.recipes) > 1:
        raise SystemExit("--out is for one recipe")
    try:
        tables = [run(path, options.methods.split(","), options.home, options.out) for path in options.recipes]
    except IngleError as error:
        raise SystemExit(str(error)) from error
    finish("recipes", {"recipes": tables})
    raise SystemExit(0 if all(bar["held"] for table in tables for bar in table["bars"].values()) else 1)


if __name__ == "__main__":
    main()
