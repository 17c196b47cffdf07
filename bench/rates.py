"""Learning rates: each method trained on a recipe's examples at several rates, and the one that is taken.

    python bench/rates.py recipes/classify.toml

Taken is the smallest rate whose held-out loss is at most 2 % above the lowest: a larger one moves the model further for nothing.
Held out here is a part of the recipe's own examples (15 %), so nothing that is measured elsewhere has a say. Forgetting (bits per byte
of general text, after minus before) is shown, and not looked at. What is finished is not done again.

Every method gets as many rates: its own default, a fifth and a half of it, and twice as much.
"""

import json
from pathlib import Path
from typing import Any

from harness import finish
from ingle.core.errors import IngleError
from ingle.core.files import write_atomic
from ingle.home.deltas import delta_report
from ingle.home.kept import get_kept
from ingle.tuning.recipe import read_recipe
from ingle.tuning.tuning_method import find_method
from servers import say, start_bench
from tuned import HOME, bench_home, lost_between, markdown, measured, name_of, trained

EXAMPLES = """  python bench/rates.py recipes/classify.toml --methods lora,full --out rates.json
"""
FACTORS = (0.2, 0.5, 1.0, 2.0)
HELD_OUT = 0.15
NEAR = 1.02  # of the lowest loss


def chosen(losses: dict[float, float]) -> float:
    """The smallest rate whose loss is near the lowest."""
    return min(rate for rate, loss in losses.items() if loss <= NEAR * min(losses.values()))


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--methods", default="lora,houlsby,ia3,full")
    parser.add_argument("--home", type=Path, default=HOME, help="where deltas and finished measurements are kept")
    parser.add_argument("--out", type=Path, help="write all results to this file, after each method")
    options = parser.parse_args()
    plain, home = read_recipe(options.recipe), bench_home(options.home)
    before = measured(home, get_kept(home, plain.model), plain.forgetting)
    found: dict[str, Any] = {}
    rows = [["", "learning rate", "held-out loss, nats", "forgetting, bits/byte (95 %)"]]
    for method in options.methods.split(","):
        sides: dict[float, dict[str, float]] = {}
        for factor in FACTORS:
            rate = float(f"{find_method(method).RATE * factor:.1g}")
            overrides = (f"name={plain.name}-{rate:g}", f"tune.data.held_out={HELD_OUT}", f"rates.{method}={rate}")
            try:
                kept = trained(read_recipe(options.recipe, overrides), options.recipe, home, method, overrides)
            except (IngleError, SystemExit) as error:
                say(f"{method} at {rate:g}: {error}")
                continue
            lost = lost_between(before, measured(home, kept, plain.forgetting)).change
            loss = delta_report(home, kept.deltas[-1])["train"]["held_out"]
            sides[rate] = {"held_out": loss, "forgetting": lost.value, "low": lost.interval.low, "high": lost.interval.high}
            say(f"{method} at {rate:g}: held-out loss {loss:.4f}, forgetting {lost.value:+.4f}")
        if not sides:
            continue
        taken = chosen({rate: side["held_out"] for rate, side in sides.items()})
        found[method] = {"taken": taken, "rates": {f"{rate:g}": side for rate, side in sides.items()}}
        for rate, side in sides.items():
            mark = f"**{rate:g}**" if rate == taken else f"{rate:g}"
            lost_text = f"{side['forgetting']:+.4f} ({side['low']:+.4f} – {side['high']:+.4f})"
            rows.append([name_of(method), mark, f"{side['held_out']:.4f}", lost_text])
        if options.out is not None:
            write_atomic(options.out, json.dumps(found, indent=1).encode() + b"\n")
    print("\n" + markdown(rows) + "\n")
    finish("rates", {"recipe": options.recipe.name, "methods": found})


if __name__ == "__main__":
    main()
