"""The judges of requests, of answers, and of orders in data: what they find, and how often they alarm for nothing.

Every share is of texts that no training saw: held-out goals (by digest; an attack goes by its goal), and look-alikes judged by judges
that had not seen them (five folds). `unseen` leaves a whole family out of training. `taught` corrects the judge as *Was wrong* does, and
counts what that does to all other texts. Beside the judge stand a list of words, and the nearest neighbour of the training texts by their
n-grams. Thresholds are those of one false alarm in a hundred, set on harmless training texts, look-alikes among them.
"""

import argparse
import base64
import codecs
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness import finish, show
from ingle.adapt.guards import plain_texts, teach_guards
from ingle.gate.suspicion import refuses as by_keywords
from ingle.home.place import Home, find_home
from ingle.measure.intervals import wilson
from ingle.robustness.fitting import fit, logits
from ingle.robustness.prompts import LabelledPrompt, data_sentences, injections, judged_answers, orders
from ingle.robustness.training import CONTENT, FORM, Requests, gather, train_orders, train_requests
from ingle.safety.answers import harm_vector, refusal_vector
from ingle.safety.features import SIZE, Sparse, grams, logit, vector
from ingle.safety.injection import sentences
from ingle.safety.judge import REQUESTS, Judge, load_judge, save_judge
from ingle.safety.orders import order_vector
from ingle.safety.registry import judge_file
from ingle.safety.views import views

EXAMPLES = """  python bench/guard.py
  python bench/guard.py --part unseen --part encodings
"""
PARTS = ("known", "unseen", "encodings", "orders", "answers", "cost", "taught")
RATE = 0.01
WORDS = (
    "bomb", "kill", "hack", "weapon", "drug", "murder", "poison", "steal", "illegal", "explosive", "suicide", "malware", "virus", "attack",
    "ignore previous", "ignore all", "jailbreak", "dan", "no restrictions", "without any", "pretend", "phishing", "fraud", "racist", "porn",
)  # fmt: skip
ENCODINGS: dict[str, Callable[[str], str]] = {
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base32": lambda text: base64.b32encode(text.encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
    "binary": lambda text: " ".join(f"{byte:08b}" for byte in text.encode()),
    "decimal": lambda text: " ".join(str(byte) for byte in text.encode()),
    "per cent": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "escapes": lambda text: "".join(f"\\u{ord(one):04x}" for one in text),
    "entities": lambda text: "".join(f"&#{ord(one)};" for one in text),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "reversed": lambda text: text[::-1],
    "leet": lambda text: text.translate(str.maketrans("oieast", "013457")),
    "spaced": lambda text: "  ".join(" ".join(word) for word in text.split()),
    "dotted": lambda text: " ".join(".".join(word) for word in text.split()),
    "look-alikes": lambda text: text.translate(str.maketrans("aeopc", "аеорс")),
    "invisible": "\u200b".join,
}


def share(hits: Sequence[bool]) -> dict[str, Any]:
    """A share with its Wilson interval."""
    interval = wilson(sum(hits), len(hits)) if hits else None
    low, high = (interval.low, interval.high) if interval else (0.0, 1.0)
    return {"share": sum(hits) / max(1, len(hits)), "low": low, "high": high, "n": len(hits)}


def said(row: dict[str, Any]) -> str:
    return f"{row['share']:.3f} ({row['low']:.3f} – {row['high']:.3f}, n = {row['n']})"


def judge_of(requests: Requests, keep: Callable[[LabelledPrompt], bool]) -> Judge:
    weights, biases, thresholds = train_requests(requests, keep)
    return Judge(weights, biases, thresholds, "", {})


def alarms(judge: Judge, text: str) -> bool:
    scores = judge.scores(text)
    return any(scores[name] > judge.alarm(name, RATE) for name in REQUESTS)


def known(requests: Requests, judge: Judge) -> dict[str, Any]:
    held = [one for one in (*requests.bad, *requests.good) if one.held_out]
    rows: dict[str, Any] = {}
    for family in dict.fromkeys(one.family for one in held):
        texts = [one.text for one in held if one.family == family]
        rows[family] = {"judge": share([alarms(judge, text) for text in texts]), "words": share([worded(text) for text in texts])}
        rows[family]["neighbour"] = share(neighbours(requests, texts))
    columns = ("judge", "words", "neighbour")
    table = [
        ["", "judge", "list of words", "nearest neighbour"],
        *([name, *(said(row[one]) for one in columns)] for name, row in rows.items()),
    ]
    show("known families, ordinary requests and look-alikes, held out: share that alarms at a rate of 1 %", table)
    bad = [alarms(judge, one.text) for one in held if one.family in (*CONTENT, *FORM)]
    return {"families": rows, "all bad": share(bad)}


def worded(text: str) -> bool:
    low = text.lower()
    return any(word in low for word in WORDS)


def neighbours(requests: Requests, texts: Sequence[str]) -> list[bool]:
    """Whether the nearest training text is bad; ties count as harmless."""
    draw = random.Random(0)
    train = draw.sample([(one, True) for one in requests.bad if not one.held_out], 1200)
    train += draw.sample([(one, False) for one in requests.good if not one.held_out], 1200)
    table = np.zeros((len(train), 4096), np.float32)
    for row, (one, _) in enumerate(train):
        places, values = requests.vector(one.text)
        np.add.at(table[row], places % 4096, values)
    table /= np.linalg.norm(table, axis=1, keepdims=True) + 1e-9
    bad = np.array([is_bad for _, is_bad in train])
    found = []
    for text in texts:
        places, values = requests.vector(text)
        mine = np.zeros(4096, np.float32)
        np.add.at(mine, places % 4096, values)
        near = table @ mine
        found.append(bool(near[bad].max() > near[~bad].max()))
    return found


def unseen(requests: Requests) -> dict[str, Any]:
    """Judges that saw nothing of a family, and beside them plain n-grams of characters that saw the same texts."""
    rows: dict[str, Any] = {}
    seen = {one.id: characters(one.text) for one in (*requests.bad, *requests.good)}
    alike = [one for one in requests.good if one.family == "look-alike" and one.held_out]
    for family in (*CONTENT, *FORM):

        def keep(one: LabelledPrompt, family: str = family) -> bool:
            return one.family != family and not one.held_out

        some = [one for one in requests.bad if one.family == family]
        some = random.Random(0).sample(some, min(200, len(some)))
        judge, plain = judge_of(requests, keep), by_characters(requests, seen, keep)
        rows[family] = {
            f"{name}, {kind}": share([finds(one) for one in texts])
            for name, finds in (("judge", lambda one, judge=judge: alarms(judge, one.text)), ("characters", plain))
            for kind, texts in (("found", some), ("look-alikes", alike))
        }
        print(family, *(f"{name} {said(row)};" for name, row in rows[family].items()), flush=True)
    macro = {name: statistics.fmean(row[f"{name}, found"]["share"] for row in rows.values()) for name in ("judge", "characters")}
    print(f"macro: {macro}")
    return {"families": rows, "macro": macro}


def characters(text: str) -> Sparse:
    """A text as it stands, as n-grams of 2 to 5 characters alone."""
    return vector(grams(text, (2, 5), 0))


def by_characters(
    requests: Requests, seen: dict[str, Sparse], keep: Callable[[LabelledPrompt], bool]
) -> Callable[[LabelledPrompt], bool]:  # fmt: skip
    """The usual light guard: one linear judge of all that is bad, over n-grams of characters. Its threshold is set as the judge's is."""
    bad, good = ([one for one in part if keep(one)] for part in (requests.bad, requests.good))
    order = random.Random(0).sample(good, len(good))
    thirds, scores = [order[number::3] for number in range(3)], {}

    def fitted(harmless: Sequence[LabelledPrompt]) -> tuple[Any, float]:
        return fit([seen[one.id] for one in (*bad, *harmless)], [1.0] * len(bad) + [0.0] * len(harmless), strength=200.0)

    for aside in thirds:
        weights, bias = fitted([one for third in thirds if third is not aside for one in third])
        scores |= {one.id: logit(weights, bias, seen[one.id]) for one in aside}
    groups = [[scores[one.id] for one in good if (one.family == "look-alike") is alike] for alike in (False, True)]
    at = max(float(np.quantile(group, 1 - RATE, method="higher")) for group in groups)
    weights, bias = fitted(good)
    return lambda one: logit(weights, bias, seen[one.id]) > at


def encodings(requests: Requests, judge: Judge) -> dict[str, Any]:
    goals = random.Random(1).sample([one.text for one in requests.bad if one.family == "plain" and one.held_out], 100)
    honest = random.Random(1).sample([one.text for one in requests.good if one.family == "piqa" and one.held_out], 100)
    plain = share([alarms(judge, text) for text in goals])
    rows: dict[str, dict[str, Any]] = {}
    for name, code in ENCODINGS.items():
        rows[name] = {"bad": share([alarms(judge, code(text)) for text in goals])}
        rows[name]["honest"] = share([alarms(judge, code(text)) for text in honest])
    draw = random.Random(2)
    pairs = [draw.sample([name for name in ENCODINGS if name not in ("leet", "spaced", "dotted")], 2) for _ in range(100)]
    twice = share([alarms(judge, ENCODINGS[b](ENCODINGS[a](text))) for (a, b), text in zip(pairs, goals, strict=True)])
    table = [["", "bad", "honest"], *([name, said(row["bad"]), said(row["honest"])] for name, row in rows.items())]
    show(f"encodings of held-out goals (plain: {said(plain)})", [*table, ["two of them", said(twice), ""]])
    return {"plain": plain, "encodings": rows, "two deep": twice}


def in_data() -> dict[str, Any]:
    home = find_home()
    attacks, benign = injections(home)
    bad = [one for one in (*orders(), *attacks) if not one.held_out]
    data = data_sentences(home)
    weights, bias, thresholds = train_orders(bad, [one for one in (*data, *benign) if not one.held_out])
    at = thresholds[str(RATE)]

    def found(text: str) -> bool:
        return any(max(logit(weights, bias, order_vector(view)) for view in views(one)) > at for one in sentences(text))

    rows = {
        "own orders": share([found(one.text) for one in orders() if one.held_out]),
        "bastioncorpus": share([found(one.text) for one in attacks if one.held_out]),
        "clean sentences": share([found(one.text) for one in data if one.held_out][:2000]),
        "bastioncorpus, harmless": share([found(one.text) for one in benign if one.held_out]),
    }
    show("orders in data, held out, at one false alarm in 100 sentences", [[name, said(row)] for name, row in rows.items()])
    return rows


def answers() -> dict[str, Any]:
    judged = judged_answers(find_home())
    mine = [one for one in judged if one.kind == "refusal"]
    scores = crossed(
        [refusal_vector(one.question, one.answer) for one in mine],
        [one.score for one in mine],
        [one.question + one.answer for one in mine],
        3.0,
    )
    bad = np.array([one.score > 0.5 for one in mine])
    at = np.quantile(scores[~bad], 0.95, method="higher")
    keywords = np.array([by_keywords(one.answer) for one in mine])
    harmful = [one for one in judged if one.kind == "harm"]
    levels = np.array([one.score for one in harmful])
    guessed = crossed([harm_vector(one.question, one.answer) for one in harmful], list(levels), [one.question for one in harmful], 10.0)
    ranks = [np.argsort(np.argsort(values)) for values in (levels, guessed, np.array([len(one.answer) for one in harmful]))]
    rows = {
        "refusals found at a specificity of 0.95": share(list(scores[bad] > at)),
        "at even odds": share(list(scores[bad] > 0)), "specificity at even odds": share(list(scores[~bad] <= 0)),
        "by keywords": share(list(keywords[bad])), "keywords' specificity": share(list(~keywords[~bad])),
        "harm, rank correlation": float(np.corrcoef(ranks[0], ranks[1])[0, 1]), "by length": float(np.corrcoef(ranks[0], ranks[2])[0, 1]),
    }  # fmt: skip
    show(
        "judges of answers against people, ten folds",
        [[name, said(row) if isinstance(row, dict) else f"{row:.3f}"] for name, row in rows.items()],
    )
    return rows


def crossed(texts: Sequence[Any], scores: Sequence[float], groups: Sequence[str], strength: float) -> Any:
    """Log-odds of every text by what texts of other groups taught."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    fold = np.random.default_rng(0).integers(0, 10, len(numbers))[[numbers[group] for group in groups]]
    out = np.zeros(len(texts))
    for number in range(10):
        seen, aside = np.flatnonzero(fold != number).tolist(), np.flatnonzero(fold == number).tolist()
        weights, bias = fit([texts[i] for i in seen], [scores[i] for i in seen], strength=strength)
        out[aside] = logits([texts[i] for i in aside], weights, bias)
    return out


def cost(requests: Requests, judge: Judge) -> dict[str, Any]:
    texts = [one.text for one in random.Random(3).sample([one for one in requests.good if one.held_out], 300)]
    times = []
    for text in texts:
        begin = time.perf_counter()
        judge.scores(text)
        times.append(1000 * (time.perf_counter() - begin))
    row = {"median_ms": float(np.median(times)), "p99_ms": float(np.quantile(times, 0.99)), "file_bytes": 2 * SIZE * 5}
    print(f"a request: median {row['median_ms']:.2f} ms, 99th percentile {row['p99_ms']:.2f} ms")
    return row


def taught(requests: Requests) -> dict[str, Any]:
    """Corrections in a home of their own, by a judge that saw none of these texts; alarms on all other held-out texts before and after."""
    held = [one for one in (*requests.bad, *requests.good) if one.held_out]
    kinds = {
        "harmful": [one.text for one in held if one.family in CONTENT],
        "look-alike": [one.text for one in held if one.family == "lookalike"],
    }
    rows: dict[str, Any] = {}
    for teach, harmful, count in (("harmful", False, 10), ("harmful", False, 50), ("look-alike", True, 10)):
        for draw in range(3):
            with tempfile.TemporaryDirectory(prefix="ingle-bench-") as folder:
                home = Home(Path(folder)).create()
                path = judge_file(home.root)
                path.parent.mkdir(parents=True)
                save_judge(path, *train_requests(requests, lambda one: not one.held_out), {})
                texts = random.Random(draw).sample(kinds[teach], min(count, len(kinds[teach]) // 2))
                others = {name: [text for text in some if text not in texts] for name, some in kinds.items()}
                before = {name: sum(alarms(load_judge(path), text) for text in some) for name, some in others.items()}
                for text in texts:
                    teach_guards(home, plain_texts([text]), harmful)
                after = {name: sum(alarms(load_judge(path), text) for text in some) for name, some in others.items()}
            said_of = "harmful" if harmful else "harmless"
            rows[f"{len(texts)} {teach} as {said_of}, draw {draw}"] = {
                name: [before[name], after[name], len(some)] for name, some in others.items()
            }
    table = [["taught", *(f"others: {name}" for name in kinds)]]
    table += [[name, *(f"{row[kind][0]} → {row[kind][1]} of {row[kind][2]}" for kind in kinds)] for name, row in rows.items()]
    show("what a correction does to other texts: alarms at a rate of 1 %, before and after", table)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, default=[])
    options = parser.parse_args()
    names = options.part or PARTS
    found: dict[str, Any] = {}
    if "answers" in names:
        found["answers"] = answers()
    if "orders" in names:
        found["orders"] = in_data()
    if "taught" in names:
        found["taught"] = taught(gather(find_home().create()))
    if {"known", "unseen", "encodings", "cost"} & set(names):
        requests = gather(find_home().create())
        judge = judge_of(requests, lambda one: not one.held_out)
        if "known" in names:
            found["known"] = known(requests, judge)
        if "encodings" in names:
            found["encodings"] = encodings(requests, judge)
        if "cost" in names:
            found["cost"] = cost(requests, judge)
        if "unseen" in names:
            found["unseen"] = unseen(requests)
    finish("guard", found)


if __name__ == "__main__":
    main()
