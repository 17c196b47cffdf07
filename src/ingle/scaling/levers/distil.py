"""A pruned SmolLM2 that follows the whole one on the sweep's text."""

from ingle.scaling.lever import CommandLever, Errand
from ingle.scaling.levers.finetune import STEP, TOKENS_PER_S


def arguments(errand: Errand) -> tuple[str, ...]:
    """Return the arguments of `ingle`. The teacher reads every text, too: a third of the time."""
    steps = max(1, round(errand.minutes * 60 * TOKENS_PER_S * 0.67 / STEP))
    settings = (f"train.max_steps={steps}", f"train.batch_tokens={STEP}")
    named = ("--teacher", "smollm2", "--name", f"{errand.sweep}-distilled")
    return ("tune", f"smollm2+{errand.sweep}-pruned", *errand.sources, *named, *(f"--set={one}" for one in settings))


def made(errand: Errand) -> str:
    """Return the name of the model that it makes."""
    return f"smollm2+{errand.sweep}-pruned+{errand.sweep}-distilled"


LEVER = CommandLever(
    "let a pruned SmolLM2 follow the whole one", "smollm2, pruned", arguments, made, "It begins with what the lever prune makes."
)
