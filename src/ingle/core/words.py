"""Numbers and quotations in sentences."""


def counted(number: int, noun: str) -> str:
    """Return `1 token`, `1,200 tokens`. The noun is given in the singular and takes an s in the plural."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shortened(text: str, most: int = 90) -> str:
    """Return the beginning of a text in one line, at most so many characters."""
    words = " ".join(text.split())
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"
