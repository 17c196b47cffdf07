"""The task recipes on a hybrid: is a task learnt on it as well as on its original?

    python bench/hybrid_recipes.py --model smollm2+hybrid

Each recipe's own method is trained twice by the recipe's settings, on the original and on the hybrid, each in a process of its own, from
the same examples in the same order. Measured are the recipe's suite on items that are never learnt from, before and after, and what was
forgotten of general text. What is no longer than its window a hybrid reads as its original does: of short documents its memories are
asked nothing.

Bar: what the hybrid has learnt is within the interval of the original, or better. What is finished is not done again.
"""

import argparse
from pathlib import Path
from typing import Any

from harness import ROOT, finish, show
from hybrid import sight_of, variants
from ingle.core.errors import IngleError
from ingle.engine.packs import open_weights
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.measure.suites import find_suite
from ingle.tuning.recipe import read_recipe
from servers import CACHE, start_bench
from tuned import Result, bench_home, result, trained

EXAMPLES = """  python bench/hybrid_recipes.py --model smollm2+hybrid --recipe recipes/summarise.toml
"""
RECIPES = sorted((ROOT.parent / "recipes").glob("*.toml"))


def of_recipe(home: Home, path: Path, names: dict[str, str]) -> dict[str, Any]:
    """One recipe, on each side."""
    rows: list[list[object]] = [["", "before (95 %)", "after (95 %)", "forgetting, bits/byte (95 %)", "trained for, s"]]
    sides: dict[str, Result] = {}
    for side, name in names.items():
        told = (f"model={name}",)
        recipe = read_recipe(path, told)
        method, plain = recipe.settings().method, result(home, recipe, side, get_kept(home, name))
        sides[side] = after = result(home, recipe, f"{side}, {method}", trained(recipe, path, home, method, told), plain)
        quality, lost, _, seconds, *_ = after.row()
        rows.append([side, plain.row()[0], quality, lost, seconds])
    recipe, [original, hybrid] = read_recipe(path), [side.quality for side in sides.values()]
    higher = find_suite(recipe.measure.suite).higher_is_better
    held = hybrid.value >= original.low if higher else hybrid.value <= original.high
    show(f"{recipe.title}: {original.name.replace('_', ' ')}, n = {original.n}", rows)
    print("held" if held else "MISSED")
    return {"recipe": path.name, "sides": {side: one.table() for side, one in sides.items()}, "held": held}


def main() -> None:
    parser: argparse.ArgumentParser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--model", default="smollm2+hybrid", help="a hybrid that is kept in the real home")
    parser.add_argument("--recipe", action="append", type=Path, help="one or several; by default all three")
    parser.add_argument("--home", type=Path, default=CACHE.parent / "hybrid", help="where deltas and finished measurements are kept")
    options = parser.parse_args()
    home = bench_home(options.home)
    kept = variants(home, options.model)
    names = {side: kept[side].name for side in ("original", "hybrid")}
    tables = [of_recipe(home, path, names) for path in options.recipe or RECIPES]
    finish("hybrid_recipes", {"model": options.model, "window": sight_of(open_weights(home, kept["hybrid"]).config)[1], "recipes": tables})


if __name__ == "__main__":
    try:
        main()
    except IngleError as error:
        raise SystemExit(str(error)) from error
