"""Every family of attacks against models with their guards off and on.

Off: every guard that can be turned off is. On: every guard in its strictest mode. Goals are held out: no guard was trained on them. Shown
are shares of tries, with Wilson's intervals: past the guards, refused of these, harmful and usable; and the share of goals that one try at
least reached. Adaptive families know what came of their tries, and `guard_aware` has a copy of the judge of requests.

An interrupted run goes on: answers are in the home's cache.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from harness import finish, show
from ingle.app.answering import limits_of
from ingle.app.settings import SamplingSettings
from ingle.core.errors import IngleError
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.home.kept import get_kept
from ingle.home.place import Home, find_home
from ingle.robustness.attack import find_attacks
from ingle.robustness.attack_run import AttackOptions, Line, attack, curves_of, lines_of, to_table
from ingle.robustness.prompts import held_out_goals
from ingle.robustness.target import target_of
from ingle.safety.guard import guard_files, guard_policy
from ingle.safety.policy import GuardPolicy
from ingle.tuning.kept_model import subject_of
from servers import say, start_bench

EXAMPLES = """  python bench/attacks.py
  python bench/attacks.py --models smollm2 --families plain,guard_aware --goals 50 --budget 1000
"""
SHOWN = ("past", "refused", "reached", "goals_reached")


def policy_of(on: bool) -> GuardPolicy:
    """Every guard in its strictest mode, the judge of answers too; or off where that can be."""
    said = list[str]()
    for file in guard_files():
        wanted = ("block", "edit", "tell") if on else ("off",)
        said.append(f"{file.name}.mode={next((mode for mode in wanted if mode in file.modes), file.modes[0])}")
        if on and "harm" in file.takes:
            said.append(f"{file.name}.harm=0.5")
    return guard_policy(Path("no file"), said)


def measured(home: Home, name: str, on: bool, options: argparse.Namespace) -> tuple[tuple[Line, ...], dict[str, Any]]:
    """One model's lines, with guards on or off."""
    model = open_model(kept_source(home, get_kept(home, name)), threads=options.threads)
    files = find_attacks(options.families.replace(",", " ").split(), not options.fixed)
    sizes, chosen = AttackOptions(options.tries, options.budget, seed=options.seed), held_out_goals(home, options.goals)
    policy = policy_of(on)
    subject, sampling = subject_of(model, lambda: False), SamplingSettings().sampling(options.seed)
    target = target_of(model, subject, limits_of(model), policy, sampling)
    results = attack(home, target, chosen, files, sizes, lambda _label, done, total: say(f"{name}, guards {on}: {done} of {total}"))
    lines = lines_of(results, target, chosen, sizes)
    return lines, {**to_table(lines, results, target, chosen, files, sizes), "curves": curves_of(results, sizes)}


def main() -> None:
    """Attack, and print a table for each model."""
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--models", nargs="+", default=["smollm2", "smollm2-hybrid"])
    parser.add_argument("--families", default="")
    parser.add_argument("--fixed", action="store_true", help="without the adaptive families")
    parser.add_argument("--goals", type=int, default=20)
    parser.add_argument("--tries", type=int, default=1)
    parser.add_argument("--budget", type=int, default=60)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    home = find_home()
    os.environ.setdefault("INGLE_KERNEL_CACHE", str(home.jit))
    found: dict[str, Any] = {}
    for name in options.models:
        try:
            off, on = (measured(home, name, guards, options) for guards in (False, True))
        except IngleError as error:
            raise SystemExit(str(error)) from error
        found[name] = {"off": off[1], "on": on[1]}
        heading = ["family", "tries off, on", *(f"{share}, {guards}" for share in SHOWN for guards in ("off", "on"))]
        rows = [heading]
        for without, with_ in zip(off[0], on[0], strict=True):
            cells = [cell(line, share) for share in SHOWN for line in (without, with_)]
            rows.append([without.family, f"{without.tries}, {with_.tries}", *cells])
        show(f"{name}: shares in %, with 95 % intervals", rows)
    finish("attacks", {"models": found})


def cell(line: Line, share: str) -> str:
    """A share in percent with its interval."""
    report = line.report(share)
    return "–" if report is None else f"{100 * report.value:.0f} ({100 * report.low:.0f}–{100 * report.high:.0f})"


if __name__ == "__main__":
    main()
