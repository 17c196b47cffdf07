"""A lesson by our own kernels beside PyTorch's: seconds, how certain it gets, what it moves, memory. Corrections for fitting, SmolLM2-135M.

Both teach the same corrections with the default settings, in turn, one core each; each has taught one lesson before it is measured, so
that neither loads anything. Memory is the most that a process has for itself which teaches one lesson from its start,
files that it reads aside (Linux). The last line is JSON.

    python bench/lesson.py [--corrections 6]
"""

import argparse
import subprocess
import sys
import time
from typing import Any

from ingle.learn.lesson_settings import LessonSettings

from adapt_data import read
from harness import Figure, finish, ratios, show
from ingle.app.house import find_home
from ingle.core.example import Example
from ingle.engine.loading import Opener
from ingle.engine.threads import Cores
from ingle.home.kept import get_kept
from ingle.learn.lesson import LessonTeacher

MODEL = "smollm2"
PEAK = """
import sys, threading, time
sys.path.insert(0, "bench")
from ingle.core.process import own_bytes
from lesson import examples, teacher_of
found = [0]
def look():
    while True:
        found.append(own_bytes())
        time.sleep(0.01)
threading.Thread(target=look, daemon=True).start()
teacher_of(sys.argv[1]).lesson(examples(1))
print(max(found))
"""


def teacher_of(way: str) -> Any:
    """ "ours" or "PyTorch's"."""
    home = find_home()
    kept = get_kept(home, MODEL)
    if way == "ours":
        return LessonTeacher(home, kept, LessonSettings(), Opener(cores=Cores(1)))
    from lesson_pytorch import PyTorchTeacher  # only here: PyTorch takes memory

    return PyTorchTeacher(home, kept, LessonSettings())


def examples(count: int) -> list[Example]:
    """The first corrections, one of a family."""
    families = {one.id.rsplit("-", 1)[0]: one for one in read("dev").corrections}
    return [Example(one.id, "", MODEL, "correction", one.question, one.answer) for one in list(families.values())[:count]]


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corrections", type=int, default=6)
    some = examples(parser.parse_args().corrections)
    teachers = {way: teacher_of(way) for way in ("ours", "PyTorch's")}
    seconds: dict[str, list[float]] = {way: [] for way in teachers}
    reports: dict[str, list[dict[str, Any]]] = {way: [] for way in teachers}
    for teacher in teachers.values():
        teacher.lesson(some[:1])
    for number, one in enumerate(some):
        for way, teacher in teachers.items():
            began = time.perf_counter()
            taught = teacher.lesson([one])
            seconds[way].append(time.perf_counter() - began)
            reports[way].append(taught if isinstance(taught, dict) else taught.report)
        print(f"{number + 1} of {len(some)}", file=sys.stderr)
    rows, result = [["", "seconds", "steps", "certainty", "drift", "peak MB"]], dict[str, Any]()
    for way in teachers:
        peak = int(subprocess.run([sys.executable, "-c", PEAK, way], capture_output=True, text=True, check=True).stdout.split()[-1])
        figures = {name: Figure(tuple(float(one[name]) for one in reports[way])) for name in ("steps", "certainty", "drift")}
        whole = {"seconds": Figure(tuple(seconds[way])), **figures}
        result[way] = {name: figure.values for name, figure in whole.items()} | {"peak_mb": peak / 1e6}
        rows.append([way, *(f"{figure}" for figure in whole.values()), f"{peak / 1e6:.0f}"])
    pairs = ratios(Figure(tuple(seconds["ours"])), Figure(tuple(seconds["PyTorch's"])))
    show("a lesson", rows)
    print(f"ours / PyTorch's, by pair: {pairs}")
    finish("lesson", {**result, "ratio": pairs.values})


if __name__ == "__main__":
    main()
