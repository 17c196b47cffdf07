"""Learning while serving: a scripted user corrects 100 answers in a row, and what comes of it is measured. Bars are those of docs/adapt.md.

  next       right after each correction, before anything is learned of it: its own question, and its paraphrases (memory on)
  weights    memory off, all corrections learned: paraphrases; near-misses and unrelated questions against the untouched model, exactly
  bits       bits per byte of held-out text, as served to that user, and with a lesson forced beside every text
  speed      seconds of learning per correction while one client chats, and what the client notices (bench/adapt_speed.py)
  undo       undo and erase, bit for bit (bench/adapt_undo.py)
  baselines  base; prompt memory only; naive LoRA per correction; one batch fine-tune at the end (bench/adapt_baselines.py)

Answers are greedy, of at most 40 tokens, and go the way that a served answer goes. An answer counts if an accepted string occurs in it and
did not occur in the base's answer to the same question (ties are wrong). Intervals: 95 %, bootstrap by correction, seeds together.
What is done is written down at once; the same command goes on where it was killed.
"""

import argparse
import random
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import adapt_baselines
import adapt_speed
import adapt_undo
from adapt_bits import bits_change, held_out
from adapt_data import Correction, Corrections, hit, read
from adapt_home import FOLDER, MODEL, Log, Pupil, allow_other_code, bench_home, marks, plain_answers, share, shown
from harness import Figure, finish, show
from ingle.home.examples import list_examples
from ingle.home.lessons import list_lessons
from ingle.learn.learner import consolidate
from servers import say, start_bench

EXAMPLES = """  python bench/adapt.py
  python bench/adapt.py --part next --part weights --seeds 0
  python bench/adapt.py --data dev --limit 3 --seeds 0 --part weights
"""
PARTS = ("next", "weights", "bits", "speed", "undo", "baselines")
BARS = {"next": 90.0, "weights": 60.0, "unchanged": 98.0, "bits_percent": 1.0, "seconds": 20.0, "client_falls_percent": 25.0}


def base_answers(folder: Path, data: str, file: Corrections) -> Log:
    """What the untouched model says to everything."""
    log, pupil = Log(folder / f"base-{data}.jsonl"), Pupil(bench_home(folder, "base", learns=False))
    missing = [one for one in file.corrections if log.get("base", one.id) is None]
    for number, one in enumerate(missing, 1):
        texts = plain_answers(pupil.model, [one.question, *one.paraphrases, *one.near_misses])
        log.put("base", one.id, own=texts[0], paraphrases=texts[1 : 1 + len(one.paraphrases)], near=texts[1 + len(one.paraphrases) :])
        if number % 10 == 0:
            say(f"base: {number} of {len(missing)} corrections")
    if log.get("base", "unrelated") is None:
        log.put("base", "unrelated", texts=plain_answers(pupil.model, file.unrelated))
    return log


def course(pupil: Pupil, order: Sequence[Correction], log: Log, base: Log, learn: bool) -> None:
    """The user corrects, asks again, and the learner learns; in that order for each correction."""
    for number, one in enumerate(order, 1):
        if log.get("next", one.id) is None:
            pupil.teach(one.question, one.answer)
            answers = pupil.answers([one.question, *one.paraphrases], memory=True)
            before = _row(base, one.id)
            good = marks(one, [answer.text for answer in answers], [before["own"], *before["paraphrases"]])
            texts = [answer.text for answer in answers]
            log.put("next", one.id, hits=good, texts=texts, recalled=[bool(answer.memories) for answer in answers])
        if learn and log.get("learned", one.id) is None:
            began = time.perf_counter()
            outcomes = pupil.learn().outcomes
            [example] = [e for e in list_examples(pupil.engine, "") if (e.question, e.answer) == (one.question, one.answer)][-1:]
            seconds = time.perf_counter() - began if outcomes else None  # None: it had been learned when the bench was killed
            log.put("learned", one.id, seconds=seconds, state=example.state, reasons=list(example.reasons))
            say(f"{number} of {len(order)}: {one.id} {example.state} {'; '.join(example.reasons)}")
        elif number % 10 == 0:
            say(f"{number} of {len(order)} corrections taught")


def ask_at_the_end(
    pupil: Pupil, order: Sequence[Correction], unrelated: Sequence[str], log: Log, base: Log, what: str = "end"
) -> None:  # fmt: skip
    """Everything once more, memory off; and what must not change with memory on too."""
    for number, one in enumerate(order, 1):
        if log.get(what, one.id) is not None:
            continue
        before = _row(base, one.id)
        answers = pupil.answers([one.question, *one.paraphrases, *one.near_misses], memory=False)
        with_memory = pupil.answers(one.near_misses, memory=True)
        good = marks(one, [answer.text for answer in answers[: 1 + len(one.paraphrases)]], [before["own"], *before["paraphrases"]])
        near = answers[1 + len(one.paraphrases) :]
        same = [answer.text == old for answer, old in zip(near, before["near"], strict=True)]
        same_with = [answer.text == old for answer, old in zip(with_memory, before["near"], strict=True)]
        acted = [bool(answer.lessons) for answer in answers]
        log.put(what, one.id, hits=good, same=same, same_with_memory=same_with, acted=acted, texts=[answer.text for answer in answers])
        if number % 10 == 0:
            say(f"at the {what}: {number} of {len(order)} corrections asked")
    if log.get(what, "unrelated") is None:
        old = _row(base, "unrelated")["texts"]
        same, same_with = (
            [answer.text == text for answer, text in zip(pupil.answers(unrelated, memory=memory), old, strict=True)]
            for memory in (False, True)
        )
        log.put(what, "unrelated", same=same, same_with_memory=same_with)


def summary(order: Sequence[Correction], logs: Sequence[Log], base: Log, what: str) -> dict[str, Any]:
    """The figures of `next` or `end` (or a baseline's) over all seeds, a row for each correction."""

    def rows(key: str, part: slice) -> list[tuple[float, float]]:
        found = []
        for one in order:
            values = [flag for log in logs for flag in _row(log, one.id, what)[key][part]]
            found.append((float(sum(values)), float(len(values))))
        return found

    result = {"own": share(rows("hits", slice(0, 1))), "paraphrases": share(rows("hits", slice(1, None)))}
    ties = sum(hit(text, one.accept) for one in order for text in _row(base, one.id)["paraphrases"])
    result["paraphrases_right_before"] = ties
    for key in ("same", "same_with_memory"):
        if all(key in _row(log, one.id, what) for log in logs for one in order):
            near = rows(key, slice(None))
            flags = zip(*(_row(log, "unrelated", what)[key] for log in logs), strict=True)
            unrelated = [(float(sum(each)), float(len(each))) for each in flags]
            suffix = key.removeprefix("same")
            result[f"near{suffix}"], result[f"unrelated{suffix}"] = share(near), share(unrelated)
            result[f"unchanged{suffix}"] = share(near + unrelated)
    result["by_kind"] = {
        kind: share([row for one, row in zip(order, rows("hits", slice(1, None)), strict=True) if one.kind == kind])
        for kind in sorted({one.kind for one in order})
    }
    return result


def consolidated(pupil: Pupil) -> dict[str, Any]:
    """All lessons made into one, if the gate lets it in."""
    began = time.perf_counter()
    with pupil.home.lock("learner", timeout_s=0):
        outcomes = consolidate(pupil.learner()).outcomes
    lessons = list_lessons(pupil.engine, "", pupil.kept.digest, acting=True)
    reasons = [reason for outcome in outcomes for reason in outcome.reasons]
    return {"seconds": time.perf_counter() - began, "lessons": len(lessons), "reasons": reasons}


def learned(order: Sequence[Correction], logs: Sequence[Log]) -> dict[str, Any]:
    """How it was learned: seconds where nobody chats, and what was refused."""
    told = [_row(log, one.id, "learned") for log in logs for one in order]
    seconds = [row["seconds"] for row in told if row["seconds"] is not None]
    states = {state: sum(row["state"] == state for row in told) for state in sorted({row["state"] for row in told})}
    reasons = sorted({reason for row in told for reason in row["reasons"]})[:20]
    return {"states": states, "reasons": reasons, "seconds_alone": Figure(tuple(seconds)).table() if seconds else None}


def _row(log: Log, id_: str, what: str = "base") -> dict[str, Any]:
    row = log.get(what, id_)
    assert row is not None, f"{what} {id_} comes first"
    return row


def main() -> None:
    options = _options()
    folder, parts = options.home, options.part or list(PARTS)
    if options.any_code:
        allow_other_code(folder)
    file = read(options.data)
    file = file.first(options.limit or len(file.corrections))
    if options.fresh:
        for path in folder.glob(f"*{options.data}-{len(file.corrections)}-*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    base = base_answers(folder, options.data, file)
    result: dict[str, Any] = {
        "data": options.data,
        "corrections": len(file.corrections),
        "seeds": options.seeds,
        "model": MODEL,
        "bars": BARS,
    }
    table: list[list[object]] = [["", "own question", "paraphrases", "near-misses same", "unrelated same", "bits/byte", "s/correction"]]
    if {"next", "weights", "bits"} & set(parts):
        _ours(options, parts, file, base, result, table)
    if "baselines" in parts:
        adapt_baselines.run(folder, options.data, file, base, result, table, summary)
    if len(table) > 1:
        show(f"{len(file.corrections)} corrections in a row, percent (95 %); bars {BARS}", table)
    if "speed" in parts:
        result["speed"] = adapt_speed.run(folder, options.data, file.first(options.speed_corrections), options.fresh)
    if "undo" in parts:
        result["undo"] = adapt_undo.run(folder, options.data, file, options.cases, options.fresh)
    finish("adapt", result)
    sys.exit(bool(result.get("undo", {}).get("different")))


def _ours(
    options: argparse.Namespace, parts: Sequence[str], file: Corrections, base: Log, result: dict[str, Any], table: list[list[object]]
) -> None:
    logs, bits = [], []
    learn = options.learn and ("weights" in parts or "bits" in parts or "next" in parts)
    for seed in options.seeds:
        name = f"ours-{options.data}-{len(file.corrections)}-seed{seed}"
        pupil, log = Pupil(bench_home(options.home, name), seed), Log(options.home / f"{name}.jsonl")
        order = list(file.corrections)
        random.Random(seed).shuffle(order)
        say(f"seed {seed}")
        course(pupil, order, log, base, learn)
        if "weights" in parts and learn:
            ask_at_the_end(pupil, order, file.unrelated, log, base)
        if "bits" in parts and learn:
            if log.get("bits", "all") is None:
                log.put("bits", "all", **bits_change(pupil, held_out(pupil.home, options.documents)))
            bits.append(log.rows["bits", "all"])
        if options.consolidate and learn:
            if log.get("consolidated", "all") is None:
                log.put("consolidated", "all", **consolidated(pupil))
            ask_at_the_end(pupil, order, file.unrelated, log, base, "together")
        logs.append(log)
        pupil.close()
    if learn:
        result["learned"] = learned(file.corrections, logs)
    seconds = (result.get("learned") or {}).get("seconds_alone") or {}
    bits_shown = f"{max(one['served']['percent'] for one in bits):+.3f} %" if bits else ""
    if bits:
        result["bits"] = bits
    result["next"] = summary(file.corrections, logs, base, "next")
    table.append(["ours, next message", shown(result["next"]["own"]), shown(result["next"]["paraphrases"]), "", "", "", ""])
    if "weights" in parts and learn:
        end = result["weights"] = summary(file.corrections, logs, base, "end")
        cells = [shown(end[key]) for key in ("own", "paraphrases", "near", "unrelated")]
        table.append(["ours, weights alone", *cells, bits_shown, f"{seconds.get('median', 0):.1f}"])
        table.append(["ours, weights and memory", "", "", shown(end["near_with_memory"]), shown(end["unrelated_with_memory"]), "", ""])
        say(f"unchanged in all: {shown(end['unchanged'])}, with memory {shown(end['unchanged_with_memory'])}")
    if options.consolidate and learn:
        end = result["together"] = summary(file.corrections, logs, base, "together")
        result["consolidated"] = [log.rows["consolidated", "all"] for log in logs]
        table.append(["ours, consolidated", *(shown(end[key]) for key in ("own", "paraphrases", "near", "unrelated")), "", ""])


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _options() -> argparse.Namespace:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--part", action="append", choices=PARTS, help="several may be given; by default all")
    parser.add_argument("--data", default="test", help="dev, test, or another bench/data/adapt_NAME.json")
    parser.add_argument("--limit", type=int, default=0, help="corrections; 0 = all")
    parser.add_argument("--seeds", type=_numbers, default=[0, 1, 2], help="of the order and of lessons: 0,1,2")
    parser.add_argument("--no-learn", dest="learn", action="store_false", help="only teach and ask, with --part next")
    parser.add_argument("--consolidate", action="store_true", help="at the end make one lesson of all, and ask once more")
    parser.add_argument("--documents", type=int, default=60, help="of held-out text, for bits")
    parser.add_argument("--speed-corrections", type=int, default=20)
    parser.add_argument("--cases", type=int, default=20, help="of undo, and as many of erase")
    parser.add_argument("--home", type=Path, default=FOLDER, help="where runs and their homes are kept")
    parser.add_argument("--fresh", action="store_true", help="begin anew")
    parser.add_argument("--any-code", action="store_true", help="go on with homes that other code made")
    return parser.parse_args()


if __name__ == "__main__":
    main()
