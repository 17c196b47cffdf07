"""How many examples Hypothesis tries: few and always the same ones, so that chance decides nothing; many new ones in `make slow`."""

from hypothesis import settings

FEW = 25
settings.register_profile("few", deadline=None, derandomize=True, max_examples=FEW)
settings.register_profile("slow", deadline=None, max_examples=1000)
settings.load_profile("few")


def examples(most: int) -> settings:
    """At most so many examples in `make slow`, and few elsewhere."""
    return settings(max_examples=min(most, settings().max_examples))
