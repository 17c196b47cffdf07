"""Numbers in sentences."""


def counted(number: int, noun: str) -> str:
    """Return `1 token`, `1,200 tokens`. The noun is given in the singular and takes an s in the plural."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
