"""Undo and erase, bit for bit: after them a model must say the same as one that was never taught.

undo    some corrections are learned; then one more is taught and learned, and undone. Logits on its own question, a paraphrase, a near-miss
        and an unrelated question must be bitwise those of before, while they differ in between on its own question.
erase   two corrections are learned, together in every second case; a copy of the home is set aside. One more is taught and learned, with
        the two in one lesson in those cases, and forgotten; what is left is learned again. Tensors and logits must be bitwise those of the
        copy, and no file of the home may hold the forgotten words.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adapt_data import Correction, Corrections
from adapt_home import OWNER, Log, Pupil, bench_home, copy_home, request_of
from harness import show
from ingle.adapt.forget import forget
from ingle.adapt.undo import undo
from ingle.core.example import Example
from ingle.engine.backend import Segment
from ingle.home.deltas import delta_tensors, get_delta
from ingle.home.lessons import list_lessons
from ingle.home.place import Home
from ingle.learn.learner import consolidate
from servers import say

SHORTEST = 8
"""Characters of a text that doesn't stand in files by chance."""


def run(folder: Path, data: str, file: Corrections, cases: int, fresh: bool) -> dict[str, Any]:
    """So many random cases of each."""
    name = f"undo-{data}-{len(file.corrections)}-cases"
    log = Log(folder / f"{name}.jsonl")
    draw = random.Random(7)
    plans = [draw.sample(file.corrections, 3) for _ in range(cases)]
    for number, plan in enumerate(plans, 1):
        for what, case in (("undo", _undo_case), ("erase", _erase_case)):
            if log.get(what, str(number)) is None:
                home = bench_home(folder, f"{name}-{what}", fresh=True)
                log.put(what, str(number), **case(home, plan, file.unrelated[number % len(file.unrelated)], number % 2 == 0))
                say(f"{what} {number} of {cases}: {log.get(what, str(number))}")
    rows = {what: [row for (kind, _), row in log.rows.items() if kind == what][:cases] for what in ("undo", "erase")}
    counted = {what: [row for row in found if row["counts"]] for what, found in rows.items()}
    same = {what: sum(row["same"] for row in found) for what, found in counted.items()}
    clean = sum(row["clean"] for row in counted["erase"])
    table: list[list[object]] = [["", "cases that count", "bit-identical", "no file holds the words"]]
    table += [["undo", len(counted["undo"]), same["undo"], ""], ["erase", len(counted["erase"]), same["erase"], clean]]
    show("undo and erase (a case counts if its correction was learned)", table)
    different = sum(len(found) - same[what] for what, found in counted.items()) + len(counted["erase"]) - clean
    return {
        "cases": cases,
        "counted": {what: len(found) for what, found in counted.items()},
        "same": same,
        "clean": clean,
        "different": different,
    }


def logits(pupil: Pupil, questions: Sequence[str]) -> list[np.ndarray]:
    """The last logits of each prompt, as it would be answered now, memory off."""
    found = []
    for question in questions:
        choice = pupil.chooser.choose(OWNER, pupil.model, pupil.kept, request_of(question), memory=False)
        ids, backend = choice.model.encode(choice.request), choice.model.backend
        [rows] = backend.forward([Segment(backend.new_state(), ids, "last", choice.model.adapter)])
        found.append(rows.copy())
    return found


def _undo_case(home: Home, plan: Sequence[Correction], unrelated: str, together: bool) -> dict[str, Any]:
    first, second, last = plan
    pupil = Pupil(home)
    for one in (first, second):
        pupil.teach(one.question, one.answer)
    pupil.learn()
    if together:
        _consolidated(pupil)
    questions = [last.question, last.paraphrases[0], last.near_misses[0], unrelated, first.question, second.question]
    before = logits(pupil, questions)
    example = pupil.teach(last.question, last.answer)
    counts = _learned(pupil, example)
    between = logits(pupil, questions)
    if counts:
        undo(home, pupil.engine, OWNER, example.id, pupil.ledger.append)
    after = logits(pupil, questions)
    pupil.close()
    acted = _equal(before[:1], between[:1])
    return {"counts": counts and not acted, "same": _equal(before, after)}


def _erase_case(home: Home, plan: Sequence[Correction], unrelated: str, together: bool) -> dict[str, Any]:
    *others, last = plan
    pupil = Pupil(home)
    for one in others:
        pupil.teach(one.question, one.answer)
    pupil.learn()
    if together:
        _consolidated(pupil)
    pupil.close()
    never = Pupil(copy_home(home, home.root.with_name(f"{home.root.name}-never")))
    pupil = Pupil(home)
    example = pupil.teach(last.question, last.answer)
    counts = _learned(pupil, example)
    if together:
        counts = counts and _consolidated(pupil)
    forget(home, pupil.engine, OWNER, example.id, pupil.ledger.append)
    pupil.learn()
    questions = [last.question, last.paraphrases[0], unrelated, *(one.question for one in others)]
    same = _equal(logits(pupil, questions), logits(never, questions)) and _tensors(pupil) == _tensors(never)
    pupil.close()
    never.close()
    return {"counts": counts, "same": same, "clean": not list(_holding(home, last, others)), "together": together}


def _learned(pupil: Pupil, example: Example) -> bool:
    pupil.learn()
    return any(example.id in lesson.examples for lesson in list_lessons(pupil.engine, OWNER, acting=True))


def _consolidated(pupil: Pupil) -> bool:
    """Whether all is one lesson now."""
    with pupil.home.lock("learner", timeout_s=0):
        consolidate(pupil.learner())
    return len(list_lessons(pupil.engine, OWNER, acting=True)) == 1


def _tensors(pupil: Pupil) -> list[dict[str, bytes]]:
    """Of all lessons that act, in the order of their examples."""
    lessons = sorted(list_lessons(pupil.engine, OWNER, acting=True), key=lambda lesson: lesson.examples)
    return [
        {name: value.tobytes() for name, value in delta_tensors(pupil.home, get_delta(pupil.home, lesson.digest)).items()}
        for lesson in lessons
    ]


def _equal(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> bool:
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def _holding(home: Home, gone: Correction, others: Sequence[Correction]) -> Iterator[Path]:
    """Files of the home in which words of a correction stand that are nobody else's."""
    kept = " ".join(f"{one.question} {one.answer}" for one in others)
    words = [text.encode() for text in (gone.question, gone.answer) if len(text) >= SHORTEST and text not in kept]
    for path in home.root.rglob("*"):
        # Bases and packs hold the vocabulary, in which single words may stand.
        if path.is_file() and path.relative_to(home.root).parts[0] not in ("bases", "packs", "cache"):
            data = path.read_bytes()
            if any(word in data for word in words):
                say(f"the words stand in {path.relative_to(home.root)}")
                yield path
