"""Every tuning method at one budget: the same examples of one recipe, as many steps, each with its own defaults and learning rate.

    python bench/methods.py [recipes/classify.toml]

As PEFT's own method_comparison does it, on a small task: quality on held-out items, forgetting on general text, trained parameters,
tokens/s and peak memory of training. What is finished is not done again; what `bench/recipes.py` made of the same recipe is shared.
"""

import json
from pathlib import Path

from harness import finish
from ingle.core.errors import IngleError
from ingle.core.files import write_atomic
from ingle.core.registry import titles
from ingle.home.kept import get_kept
from ingle.tuning.recipe import read_recipe
from ingle.tuning.tuning_method import METHODS
from servers import say, start_bench
from tuned import HEAD, HOME, bench_home, check_contamination, markdown, result, trained

EXAMPLES = """  python bench/methods.py --out methods.json
  python bench/methods.py recipes/classify.toml --methods lora,ia3
"""


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("recipe", nargs="?", type=Path, default=Path(__file__).parents[1] / "recipes" / "classify.toml")
    parser.add_argument("--methods", default=",".join(titles(METHODS)))
    parser.add_argument("--home", type=Path, default=HOME, help="where deltas and finished measurements are kept")
    parser.add_argument("--out", type=Path, help="write all results to this file, after each method")
    options = parser.parse_args()
    recipe, home = read_recipe(options.recipe), bench_home(options.home)
    contamination = check_contamination(recipe, home)
    base = result(home, recipe, "base", get_kept(home, recipe.model))
    results, failed = [base], dict[str, str]()
    for method in options.methods.split(","):
        try:
            kept = trained(recipe, options.recipe, home, method)
            results.append(result(home, recipe, method, kept, base))
        except (IngleError, SystemExit) as error:
            failed[method] = str(error)
            say(f"{method}: {error}")
            continue
        if options.out is not None:
            write_atomic(options.out, json.dumps([one.table() for one in results], indent=1).encode() + b"\n")
    head = [*HEAD, ""]
    head[1] = f"{base.quality.name.replace('_', ' ')}, n = {base.quality.n} (95 %)"
    ordered = [base, *sorted(results[1:], key=lambda one: -one.quality.value)]
    about = {base.name: "", **titles(METHODS)}
    print(f"\n{recipe.title}\n\n" + markdown([head, *([one.name, *one.row(), about[one.name]] for one in ordered)]))
    for method, error in failed.items():
        print(f"{method} FAILED: {error}")
    finish(
        "methods",
        {"recipe": options.recipe.name, "contamination": contamination, "results": [one.table() for one in results], "failed": failed},
    )
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
