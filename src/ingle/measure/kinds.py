"""Kinds of suites: how each is planned for a model, and the figures from its rows."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from ingle.core.digest import digest_json
from ingle.core.message import Message, Request, Sampling
from ingle.core.report import Report
from ingle.measure import bits, choice, recall, text_match
from ingle.measure.finished import Row
from ingle.measure.gather import ItemPlan
from ingle.measure.intervals import Interval, paired_bootstrap
from ingle.measure.items import Exercise, Question, Text
from ingle.measure.names import report_names
from ingle.measure.pairs import plan_pairs, report_pairs
from ingle.measure.setting import Figures, Reporter, Setting, with_ones
from ingle.measure.subject import begin_id

UNITS = {**dict.fromkeys(text_match.ROUGE, "F1"), "chrf": "chrF2", "exact_match": "share"}
"""Units of the metrics of written answers."""


def plan_bits(setting: Setting) -> list[ItemPlan]:
    """Plan documents in windows that fit the model."""
    subject = setting.subject
    window, begin = min(bits.WINDOW_TOKENS, subject.context_length), begin_id(subject.tokenizer)
    plans = []
    for item in setting.items:
        assert isinstance(item, Text)
        reading = bits.read_text(subject.tokenizer, item.text, begin, window)
        key = digest_json(["bits", item.text, begin, window, bits.CARRY])

        def scored(parts: Sequence[Any], reading: bits.TextReading = reading) -> Row:
            return asdict(reading.bits(parts))

        plans.append(ItemPlan(item.id, key, [item.text], reading.tasks, scored))
    return plans


def report_bits(setting: Setting, rows: Sequence[Row], data_digest: str) -> Figures:
    """Report the micro average, and the macro average over documents."""
    texts = [bits.TextBits(**row) for row in rows]
    make = Reporter(setting, data_digest, len(texts))
    tables = {"bits_per_byte": bits.columns(texts), "bits_per_byte_macro": bits.macro_columns(texts)}
    reports = tuple(make.ratio(name, "bits/byte", table) for name, table in tables.items())
    changed = sum(not text.exact for text in texts)
    begin = setting.subject.tokenizer.fast.id_to_token(begin_id(setting.subject.tokenizer))
    notes = [f"{sum(text.nbytes for text in texts):,} bytes; the first token of each text is conditional on {begin}"]
    if changed:
        notes.append(f"{changed} texts have characters that this vocabulary can't spell: their bits are too low")
    return Figures(reports, tuple(asdict(text) for text in texts), tuple(notes))


def plan_choice(setting: Setting) -> list[ItemPlan]:
    """Plan questions with their answers as endings."""
    subject, plans = setting.subject, []
    for item in setting.items:
        assert isinstance(item, Question)
        prompt = choice.make_prompt(item, setting.suite.stem, setting.style, setting.shots)
        task, cut = choice.make_task(subject.tokenizer, prompt, subject.context_length)
        inputs = [prompt.given, list(prompt.endings), item.gold]

        def scored(parts: Any, item: Question = item, prompt: choice.Prompt = prompt, cut: bool = cut) -> Row:
            return {**asdict(choice.read_scores(item, prompt, parts[0])), "cut": cut}

        plans.append(ItemPlan(item.id, digest_json(["choice", *inputs, subject.context_length]), inputs, (task,), scored))
    return plans


def report_choice(setting: Setting, rows: Sequence[Row], data_digest: str) -> Figures:
    """Report accuracy by the sum of log-probabilities and per byte, and a simple rule's."""
    scores = [choice.Scores(tuple(row["nats"]), tuple(row["nbytes"]), row["gold"]) for row in rows]
    make = Reporter(setting, data_digest, len(scores))
    answers = {"accuracy": [score.right for score in scores], "accuracy_per_byte": [score.right_per_byte for score in scores]}
    reports = [make.share(name, right) for name, right in answers.items()]
    reports.sort(key=lambda report: report.name != setting.suite.main)
    if setting.suite.baseline == "majority":
        reports.append(make.share("baseline_majority", choice.majority(setting.training, setting.items), of_model=False))
    elif setting.suite.baseline == "chance":
        chance = sum(1 / len(item.options) for item in setting.items) / len(setting.items)
        reports.append(make.report("baseline_chance", chance, "share", Interval(chance, chance, "exact"), of_model=False))
    reports += _by_kind(setting, data_digest, answers[setting.suite.main])
    cut = sum(row["cut"] for row in rows)
    notes = (f"{cut} prompts were longer than the context and lost their beginning",) if cut else ()
    details = [
        {"nats": s.nats, "nbytes": s.nbytes, "gold": s.gold, "about": item.about, **{name: answers[name][i] for name in answers}}
        for i, (s, item) in enumerate(zip(scores, setting.items, strict=True))
    ]
    return Figures(tuple(reports), tuple(details), notes)


def _by_kind(setting: Setting, data_digest: str, right: Sequence[bool]) -> list[Report]:
    """Report the main figure of each kind of question, where there are several."""
    kinds = {
        item.about: [hit for hit, other in zip(right, setting.items, strict=True) if other.about == item.about] for item in setting.items
    }
    main = setting.suite.main
    return [Reporter(setting, data_digest, len(hits)).share(f"{main}_{kind}", hits) for kind, hits in sorted(kinds.items()) if kind]


def plan_write(setting: Setting) -> list[ItemPlan]:
    """Plan requests in the model's own template, examples as earlier turns, answered greedily."""
    shots = [message for shot in setting.shots for message in (Message.of("user", shot.ask), Message.of("assistant", shot.reference))]
    plans = []
    for item in setting.items:
        assert isinstance(item, Exercise)
        request = Request(
            messages=(*shots, Message.of("user", item.ask)), max_tokens=setting.suite.max_tokens, sampling=Sampling(temperature=0.0, seed=0)
        )
        turns = [[message.role, message.text] for message in request.messages]
        inputs = [turns, item.reference]
        plans.append(ItemPlan(item.id, digest_json(["write", turns, setting.suite.max_tokens]), inputs, request=request))
    return plans


def report_write(setting: Setting, rows: Sequence[Row], data_digest: str) -> Figures:
    """Report each metric of the model and of the simple rule, and their distance in the main one."""
    answers, references = [row["text"].strip() for row in rows], [item.reference for item in setting.items]
    simple = [item.baseline for item in setting.items]
    make = Reporter(setting, data_digest, len(rows))
    names, baseline = setting.suite.metrics, setting.suite.baseline.replace("-", "_")
    mine, theirs = text_match.scores(names, answers, references), text_match.scores(names, simple, references)
    reports = [make.mean(name, UNITS[name], values) for name, values in mine.items()]
    reports += [make.mean(f"{name}_{baseline}", UNITS[name], values, of_model=False) for name, values in theirs.items()]
    main = setting.suite.main
    gap = paired_bootstrap(with_ones(theirs[main]), with_ones(mine[main]), seed=setting.seed)
    reports.append(make.difference(f"{main}_above_{baseline}", UNITS[main], gap))
    notes = []
    if "chrf" in names:
        notes.append(f"chrF2 of all answers together (as papers report it): {text_match.corpus_chrf(answers, references):.2f}")
    empty = sum(not answer for answer in answers)
    if empty:
        notes.append(f"{empty} answers are empty")
    details = [{"text": answers[i], "reference": references[i], **{name: float(mine[name][i]) for name in names}} for i in range(len(rows))]
    return Figures(tuple(reports), tuple(details), tuple(notes))


def plan_recall(setting: Setting) -> list[ItemPlan]:
    """Plan texts up to the question, answered greedily."""
    plans, subject = [], setting.subject
    for item in setting.items:
        assert isinstance(item, recall.Planted)
        ids, answer = recall.assemble(subject.tokenizer, item)
        request = Request(prompt=tuple(ids), max_tokens=len(answer) + 2, sampling=Sampling(temperature=0.0, seed=0))
        inputs = [item.id, item.fact.said, item.depth, digest_json(item.texts)]
        plans.append(ItemPlan(item.id, digest_json(["recall", ids, len(answer)]), inputs, request=request))
    return plans


def report_recall(setting: Setting, rows: Sequence[Row], data_digest: str) -> Figures:
    """Report the share of facts that were recalled, of all and of each kind."""
    right = [recall.is_recalled(row["text"], item.fact) for row, item in zip(rows, setting.items, strict=True)]
    reports = [Reporter(setting, data_digest, len(rows)).share("recall", right)]
    for kind in recall.KINDS:
        mine = [hit for hit, item in zip(right, setting.items, strict=True) if item.fact.kind == kind]
        if mine:
            reports.append(Reporter(setting, data_digest, len(mine)).share(f"recall_{kind}", mine))
    details = [
        {"text": row["text"], "answer": item.fact.answer, "kind": item.fact.kind, "depth": item.depth, "recall": hit}
        for row, item, hit in zip(rows, setting.items, right, strict=True)
    ]
    return Figures(tuple(reports), tuple(details))


KINDS: dict[str, tuple[Callable[[Setting], list[ItemPlan]], Callable[[Setting, Sequence[Row], str], Figures]]] = {
    "bits": (plan_bits, report_bits),
    "choice": (plan_choice, report_choice),
    "write": (plan_write, report_write),
    "recall": (plan_recall, report_recall),
    "pairs": (plan_pairs, report_pairs),
    "names": (plan_pairs, report_names),
}
"""For each kind: the function that plans it, and the one that reports its rows."""
