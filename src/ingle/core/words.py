"""Numbers and quotations in sentences."""


def counted(number: int, noun: str) -> str:
    """Return `1 token`, `1,200 tokens`. The noun is given in the singular and takes an s in the plural."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shortened(text: str, most: int = 90) -> str:
    """Return the beginning of a text in one line, at most so many characters."""
    words = " ".join(text.split())
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"


def size(nbytes: float) -> str:
    """Return a number of bytes for people: 98.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"
