"""SmolLM2, fine-tuned on the sweep's text: it has read two trillion tokens already."""

from ingle.scaling.lever import CommandLever, Errand

TOKENS_PER_S = 900
"""Measured with LoRA of rank 16 on two cores (LOG.md)."""
STEP = 2048


def arguments(errand: Errand) -> tuple[str, ...]:
    """Return the arguments of `ingle`."""
    steps = max(1, round(errand.minutes * 60 * TOKENS_PER_S / STEP))
    settings = (f"train.max_steps={steps}", f"train.batch_tokens={STEP}")
    return ("tune", "smollm2", *errand.sources, "--name", f"{errand.sweep}-tuned", *(f"--set={one}" for one in settings))


LEVER = CommandLever(
    "fine-tune SmolLM2 on the same text", "smollm2", arguments, lambda errand: f"smollm2+{errand.sweep}-tuned",
    "A model of 135 million parameters costs more joules a token than the sweep's own.",
)  # fmt: skip
