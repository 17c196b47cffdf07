"""What the benchmarks of tuning share: a home of their own, one training in one process, and what is measured of a delta.

    python bench/tuned.py RECIPE METHOD HOME [KEY=VALUE …]      trains one method as a recipe says, and prints one JSON line

A delta is called after recipe and method, and kept in that home. One that is there already, made with the same settings, is not made again;
what was measured of it is kept too. So whatever is interrupted goes on.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ingle.core.digest import canonical_json
from ingle.core.errors import IngleError
from ingle.core.report import Report
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.home.deltas import delta_report, list_deltas
from ingle.home.kept import Kept, get_kept
from ingle.home.place import Home, find_home
from ingle.measure.figures import Forgetting, TextBits, forgetting
from ingle.measure.measuring import Options, SuiteResult, run_suite
from ingle.measure.suites import check_parts, find_suite
from ingle.tuning.kept_model import subject_of
from ingle.tuning.recipe import Measured, Recipe, read_recipe
from ingle.tuning.tune_settings import TuneSettings, plain
from model import smollm2
from servers import CACHE, own_home, say

HOME = CACHE.parent / "tuning"
_PAPER = {"lora": "LoRA", "houlsby": "bottleneck adapter (Houlsby)", "ia3": "IA³", "dora": "DoRA", "full": "full fine-tune"}


@dataclass(frozen=True)
class Result:
    """What is known of one model on one task."""

    name: str
    quality: Report
    forgetting: Forgetting | None
    general: SuiteResult
    train: dict[str, Any] | None = None
    """Of the delta's report; None for the base."""

    def table(self) -> dict[str, Any]:
        """Plain values."""
        found: dict[str, Any] = {"name": self.name, "quality": _figure(self.quality), "general_bits_per_byte": _figure(self.general.main)}
        if self.forgetting is not None:
            change = self.forgetting.change
            found["forgetting"] = {"value": change.value, "low": change.interval.low, "high": change.interval.high, "n": self.forgetting.n}
        keys = ("trained_parameters", "steps", "tokens", "seconds", "tokens_per_s", "peak_bytes", "first_held_out", "held_out", "precision")
        return found if self.train is None else {**found, **{key: self.train[key] for key in keys}}

    def row(self) -> list[str]:
        """Cells of a table, behind the name."""
        quality = f"{self.quality.value:.4f} ({self.quality.low:.4f} – {self.quality.high:.4f})"
        if self.forgetting is None or self.train is None:
            return [quality, "", "", "", "", "", ""]
        change, train = self.forgetting.change, self.train
        lost = f"{change.value:+.4f} ({change.interval.low:+.4f} – {change.interval.high:+.4f})"
        figures = [f"{train['trained_parameters']:,}", f"{train['seconds']:.0f}", f"{train['tokens_per_s']:.0f}"]
        return [quality, lost, *figures, f"{train['peak_bytes'] / 1e6:,.0f}", "not metered"]


HEAD = ["", "quality (95 %)", "forgetting, bits/byte (95 %)", "trained parameters", "seconds", "tokens/s", "peak MB", "joules"]


def name_of(method: str) -> str:
    """What a method is called in tables."""
    return _PAPER.get(method, method)


def bench_home(folder: Path) -> Home:
    """A home for these benchmarks, which lasts: the real one's models and what was fetched, whatever is made from them, nobody's ledger."""
    smollm2()  # says what to do if it is not kept
    real, home = find_home(), own_home(folder)
    for part in (real.bases, real.deltas, real.models):
        shutil.copytree(part, home.root / part.name, dirs_exist_ok=True)
    return home


def check_contamination(recipe: Recipe, home: Home) -> dict[str, Any]:
    """How much of what is measured on stands in what is trained on; it is said, and returned."""
    suite = find_suite(recipe.suite)
    found = check_parts(suite, suite.read(home, lambda *_: None))
    shared = len(found.overlapping)
    print(f"contamination: {len(found.exact)} of {found.n} held-out items stand in the training part, {shared} share {found.words} words")
    return {"n": found.n, "exact": len(found.exact), "overlapping": shared, "words": found.words}


def trained(recipe: Recipe, path: Path, home: Home, method: str, overrides: tuple[str, ...] = ()) -> Kept:
    """The model with the method's delta: kept from before, or trained in a process of its own. `overrides` are those of the recipe."""
    base, name, settings = get_kept(home, recipe.model), f"{recipe.name}-{method}", unjudged(recipe.settings(method))
    for delta in list_deltas(home, base.digest):
        if delta.name == name:
            if delta.origin.get("settings") != canonical_json(plain(settings, course_only=True)).decode():
                raise SystemExit(f"{base.name}+{name} was made with other settings; delete {home.delta_folder(delta.digest)}")
            return get_kept(home, f"{base.name}+{name}")
    say(f"training {name} …")
    command = [sys.executable, __file__, str(path), method, str(home.root), *overrides]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{method} failed: {' '.join(command)}")
    return get_kept(home, f"{base.name}+{name}")


def unjudged(settings: TuneSettings) -> TuneSettings:
    """Without the measurements that `tune` makes itself: they would count into the process's memory."""
    return replace(settings, judge=replace(settings.judge, forgetting=0, held_out=0))


def measured(home: Home, kept: Kept, wanted: Measured, shots: int = 0) -> SuiteResult:
    """What a kept model does on a suite. What was measured before is not measured again."""

    def tell(label: str, done: int, total: int) -> None:
        if done == total or done % 50 == 0:
            say(f"{kept.name}, {label}: {done} of {total}")

    subject = subject_of(open_model(kept_source(home, kept)), lambda: False)
    return run_suite(home, find_suite(wanted.suite), subject, Options(wanted.items, shots), tell)


def result(home: Home, recipe: Recipe, name: str, kept: Kept, before: Result | None = None, shots: int = 0) -> Result:
    """Quality and forgetting of a kept model; `before` is the base's."""
    task = measured(home, kept, recipe.measure, shots)
    general = before.general if shots and before is not None else measured(home, kept, recipe.forgetting)
    report = delta_report(home, kept.deltas[-1]) if kept.deltas else None
    lost = lost_between(before.general, general) if before is not None and kept.deltas else None
    return Result(name, task.main, lost, general, None if report is None else report["train"])


def simple_rule(home: Home, recipe: Recipe, base: Kept) -> Report:
    """The simple baseline that the suite has."""
    suite = find_suite(recipe.measure.suite)
    reports = {report.name: report for report in measured(home, base, recipe.measure).reports}
    rule = suite.baseline.replace("-", "_")
    return reports.get(f"baseline_{rule}") or reports[f"{suite.main}_{rule}"]


def lost_between(before: SuiteResult, after: SuiteResult) -> Forgetting:
    """How many bits per byte more the second costs, paired by document."""
    sides = [
        {str(row["asked"]): TextBits(**{key: row[key] for key in TextBits.__dataclass_fields__}) for row in side.rows}
        for side in (before, after)
    ]
    return forgetting(sides[0], sides[1])


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _figure(report: Report) -> dict[str, Any]:
    return {"figure": report.name, "value": report.value, "low": report.low, "high": report.high, "n": report.n, "unit": report.unit}


def main() -> None:
    from ingle.home.deltas import put_candidate
    from ingle.train.making import RunWatch
    from ingle.tuning.tune import tune

    path, method, home = Path(sys.argv[1]), sys.argv[2], Home(Path(sys.argv[3]))
    os.environ.setdefault("INGLE_KERNEL_CACHE", str(find_home().jit))
    recipe = read_recipe(path, tuple(sys.argv[4:]))
    watch = RunWatch(train=partial(_tell, method), say=say)
    name, settings = f"{recipe.name}-{method}", unjudged(recipe.settings(method))
    # Methods are compared as they are: what the gate would refuse is measured too.
    done = tune(home, get_kept(home, recipe.model), recipe.data, name, settings, lambda made, _: put_candidate(home, made), watch)
    print(json.dumps({"delta": done.delta.digest, "train": done.report["train"]}))


def _tell(method: str, at: Any) -> None:
    if at.step % max(1, at.steps // 10) == 0:
        say(f"{method}: step {at.step} of {at.steps}, loss {at.loss:.3f}, {at.tokens_per_s:.0f} tokens/s, {at.seconds_left:.0f} s left")


if __name__ == "__main__":
    try:
        main()
    except IngleError as error:
        raise SystemExit(str(error)) from error
