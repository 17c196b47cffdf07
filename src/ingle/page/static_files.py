"""The files of the page that browsers load: styles, icons, and the few parts that are written in JavaScript."""

from functools import cache
from pathlib import Path

from ingle.core.digest import digest_bytes

FOLDER = Path(__file__).parent / "static"
YEAR_S = 365 * 86400


@cache
def static_root() -> str:
    """Where they lie for a browser. Their digest is part of it, so they can be kept there for a year."""
    every = b"".join(path.read_bytes() for path in sorted(FOLDER.iterdir()) if path.is_file())
    return f"/page/{digest_bytes(every)[:16]}"


def static_url(name: str) -> str:
    """Where one of them lies."""
    return f"{static_root()}/{name}"


@cache
def static_text(name: str) -> str:
    """What one of them says."""
    return (FOLDER / name).read_text("utf-8")
