"""The page's static files: styles, icons and components in JavaScript."""

from functools import cache
from pathlib import Path

from ingle.core.digest import digest_bytes

FOLDER = Path(__file__).parent / "static"
YEAR_S = 365 * 86400


@cache
def static_root() -> str:
    """Return the base URL of the static files. It contains their digest, so browsers may cache them for a year."""
    every = b"".join(path.read_bytes() for path in sorted(FOLDER.iterdir()) if path.is_file())
    return f"/page/{digest_bytes(every)[:16]}"


def static_url(name: str) -> str:
    """Return the URL of a static file."""
    return f"{static_root()}/{name}"


@cache
def static_text(name: str) -> str:
    """Return the text of a static file."""
    return (FOLDER / name).read_text("utf-8")
