"""The parts of a hybrid that carry what lies far back, each with a model that lacks it: where in the model did an answer come from?

A part loses its sight beyond the window (engine/windowed.py); what the answer then loses is measured as of any other cause. Beside the
retrieval groups stand, by chance, as many of the other groups.
"""

import random
from dataclasses import dataclass
from typing import Literal

from ingle.core.errors import ConfigError
from ingle.engine.language_model import LanguageModel
from ingle.engine.windowed import Group, remembering_groups, retrieval_groups, widest_reach, without_sight

PartKind = Literal["retrieval", "recurrent", "groups"]  # all retrieval groups; all recurrent memories; as many other groups, by chance


@dataclass(frozen=True, slots=True)
class Part:
    kind: PartKind
    groups: tuple[Group, ...]  # the groups that see no further than their window
    model: LanguageModel

    @property
    def id(self) -> str:
        """Its groups as `ingle show` names them, layer.group; `all` for the memories, which are too many to name."""
        return "all" if self.kind == "recurrent" else ", ".join(f"{layer}.{group}" for layer, group in self.groups)


def parts_of(model: LanguageModel, draws: int = 1, seed: int = 0) -> tuple[Part, ...]:
    """Return the parts that can be switched off: the retrieval groups, the memories, and `draws` sets of other groups by chance.

    The same seed draws the same groups. A part that the model doesn't have is not among them. Takes some milliseconds for each.
    Raises ConfigError for a transformer, and as `without_sight` does.
    """
    config = model.backend.config
    if config.is_transformer:
        cure = "Ask for its sentences or for what it was taught, or make a hybrid of it: ingle make hybridize."
        rule = f"{model.name} is no hybrid: all its groups see the whole text, so there is no part that alone carries what lies far back"
        raise ConfigError("model", rule, "", cure)
    if widest_reach(config) is None:
        rule = f"{model.name} has no windows, so a group that is switched off would see nothing"
        raise ConfigError("model", rule, "", "Ask for its sentences, or for what it was taught.")
    retrieval, recurrent = retrieval_groups(config), remembering_groups(config)
    chosen: list[tuple[PartKind, tuple[Group, ...]]] = [("retrieval", retrieval), ("recurrent", recurrent)]
    for number in range(draws):
        draw = random.Random(f"{seed} {number}")
        chosen.append(("groups", tuple(sorted(draw.sample(recurrent, min(len(retrieval), len(recurrent)))))))
    return tuple(Part(kind, groups, without_sight(model, groups)) for kind, groups in chosen if groups)
