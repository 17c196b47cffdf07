"""Whether what was taught is what is said: the taught question itself, at the sampling that users have, three times each.

An answer is right if it holds the key and has at most six words beyond the taught ones: the right word inside a false sentence is a
failure. In turn: with memory, as it is served; with the same note in the prompt and free words; by the untouched model; and by the lesson
in the weights alone. Thirty corrections of data/adapt_test.txt. The last line is JSON.

    python bench/adapt_said.py [--limit 30] [--home FOLDER] [--no-lessons]
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from adapt_data import Correction, hit, read
from adapt_home import FOLDER, OWNER, Pupil, bench_home, request_of
from harness import finish, show
from ingle.adapt.choosing import Choice
from ingle.app.settings import SamplingSettings
from ingle.engine.answer import write
from ingle.home.lessons import list_lessons
from ingle.measure.intervals import wilson
from servers import say

TIMES, BEYOND, TOKENS = 3, 6, 128


def right(one: Correction, text: str) -> bool:
    """The key is there, and little else."""
    return hit(text, one.accept) and len(text.split()) <= len(one.answer.split()) + BEYOND


def said(pupil: Pupil, some: Sequence[Correction], chosen: Callable[[str], Choice]) -> dict[str, Any]:
    """Shares of answers with the key, and of right ones."""
    keys, good, wrong = [], [], []
    for one in some:
        for seed in range(TIMES):
            choice = chosen(one.question)
            drawn = SamplingSettings().sampling(seed) if not choice.lessons else replace(choice.request.sampling, seed=seed)
            [(_, text)] = write(choice.model, [replace(choice.request, sampling=drawn)])
            keys.append(hit(text, one.accept))
            good.append(right(one, text))
            if not good[-1]:
                wrong.append({"asked": one.question, "taught": one.answer, "said": text})
    interval = wilson(sum(good), len(good))
    say(f"{sum(keys)} of {len(keys)} hold the key, {sum(good)} and little else")
    return {
        "n": len(good),
        "key": sum(keys) / len(keys),
        "right": sum(good) / len(good),
        "low": interval.low,
        "high": interval.high,
        "wrong": wrong[:3],
    }


def main() -> None:
    """Teaches, asks, learns, asks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=int, default=30)
    parser.add_argument("--home", type=Path, default=FOLDER)
    parser.add_argument("--no-lessons", action="store_true")
    asked = parser.parse_args()
    pupil, some = Pupil(bench_home(asked.home, "said", learns=True)), read("test").first(asked.limit).corrections
    for one in some:
        pupil.teach(one.question, one.answer)

    def choose(question: str, memory: bool) -> Choice:
        request = request_of(question, TOKENS)
        return pupil.chooser.choose(OWNER, pupil.model, pupil.kept, request, memory)

    def free(question: str) -> Choice:
        choice = choose(question, True)
        return replace(choice, request=replace(choice.request, constraint=None))

    result = {"memory": said(pupil, some, lambda text: choose(text, True)), "a note, free words": said(pupil, some, free)}
    result["untouched"] = said(pupil, some, lambda text: Choice(pupil.model, request_of(text, TOKENS)))
    if not asked.no_lessons:
        pupil.learn()
        held = {id_ for lesson in list_lessons(pupil.engine, OWNER, acting=True) for id_ in lesson.examples}
        result["lesson"] = said(pupil, some, lambda text: choose(text, False)) | {"learned": len(held)}
        result["lesson and memory"] = said(pupil, some, lambda text: choose(text, True))
    rows = [["", "n", "holds the key", "and little else"]]
    rows += [
        [name, one["n"], f"{one['key']:.3f}", f"{one['right']:.3f} ({one['low']:.3f} – {one['high']:.3f})"] for name, one in result.items()
    ]
    show("what was taught, asked as it was taught", rows)
    finish("adapt_said", result)


if __name__ == "__main__":
    main()
