"""The page's files, which talk to the API and to nothing else."""

from functools import cache
from pathlib import Path

from ingle import __version__
from ingle.core.digest import digest_bytes

SITE = Path(__file__).parent / "site"
YEAR_S = 365 * 86400
_SERVED = (".js", ".css", ".svg")
_ALONE = {"theme.js", "updates.js", "voice.js", "microphone.js"}  # scripts that no module imports


@cache
def site_files() -> dict[str, Path]:
    """Return the files that browsers may have, by their names below `site_root`."""
    return {str(path.relative_to(SITE)): path for path in sorted(SITE.rglob("*")) if path.suffix in _SERVED}


@cache
def site_root() -> str:
    """Return the base URL of the files. It holds their digest, so browsers may keep them for a year."""
    return f"/site/{digest_bytes(b''.join(path.read_bytes() for path in site_files().values()))[:16]}"


@cache
def index() -> str:
    """Return the page's HTML."""
    modules = sorted(name for name in site_files() if name.endswith(".js") and name not in _ALONE)
    links = (f'<link rel="modulepreload" href="{site_root()}/{name}">' for name in modules)  # all at once, and not as each is imported
    icons = site_text("icons.svg")
    return filled("index.html", {"version": __version__, "icons": icons, "modules": "\n    ".join(links)})


def filled(name: str, values: dict[str, str]) -> str:
    """Return one of the site's HTML files. `values` stand where it has their names in double braces, as they are: escape them."""
    page = site_text(name)
    for key, value in {"root": site_root(), **values}.items():
        page = page.replace(f"{{{{{key}}}}}", value)
    return page


@cache
def site_text(name: str) -> str:
    """Return the text of a file of the site."""
    return (SITE / name).read_text("utf-8")
