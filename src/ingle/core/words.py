"""Numbers in sentences."""


def counted(number: int, noun: str) -> str:
    """`1 token`, `1,200 tokens`; the noun in the singular, with a plural in s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
