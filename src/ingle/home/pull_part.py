"""Brings a part: every archive, every piece, every byte checked; then it is kept by one rename and one note."""

from ingle.core.files import sync_folder
from ingle.core.progress import FetchProgress
from ingle.home.archives import bring_files
from ingle.home.base import Base, describe_base, read_base, write_base
from ingle.home.catalogue import Archived
from ingle.home.parts import adopt_part, is_kept, list_parts
from ingle.home.place import Home
from ingle.home.staging import staging


def pull_part(home: Home, entry: Archived, progress: FetchProgress) -> tuple[Base, bool]:
    """Bring a part, every byte checked, and return its base and whether it was kept already.

    A failure leaves nothing half; partial downloads stay for the next attempt. Raises PullError, HomeError.
    """
    home.create()
    with home.lock(f"pull-{entry.digest[:16]}"):
        if is_kept(home, entry.name):
            kept = {part.name: part.base for part in list_parts(home)}[entry.name]
            if kept == entry.digest:
                return read_base(home, kept), True
        with staging(home) as folder:
            bring_files((entry,), home.downloads / entry.digest[:16], folder, progress)
            base = describe_base(entry.kept, f"catalogue:{entry.name}", entry.archives[0].version, entry.licence)
            write_base(folder, base)
            sync_folder(folder)
            adopt_part(home, folder, base, entry.name)
    return base, False
