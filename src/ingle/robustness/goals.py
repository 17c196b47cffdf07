"""The goals that a model is attacked with: plainly harmful requests that no guard was trained on."""

from collections.abc import Iterable

from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.core.progress import FetchProgress, silent
from ingle.home.place import Home
from ingle.robustness.harmful_prompts import goals
from ingle.robustness.prompts import LabelledPrompt


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
