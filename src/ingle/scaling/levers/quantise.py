"""Fewer bits a weight: loss goes up a little, joules a token go down."""

from ingle.scaling.lever import CommandLever, Errand


def arguments(errand: Errand) -> tuple[str, ...]:
    """Return the arguments of `ingle`."""
    return ("quantise", "smollm2", "--bits", "3.75", "--recover", f"{errand.minutes:.3g}", "--name", f"{errand.sweep}-lighter")


LEVER = CommandLever(
    "store SmolLM2 in fewer bits", "smollm2", arguments, lambda errand: f"smollm2+{errand.sweep}-lighter", "It takes less memory."
)
