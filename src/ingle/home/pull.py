"""Pull a model: find it, bring it to staging, hash and check it, and only then keep it, by one rename and one name."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ingle.core.digest import digest_bytes
from ingle.core.errors import NotKept
from ingle.core.files import sync_folder
from ingle.core.progress import FetchProgress, silent
from ingle.home.archives import bring_files
from ingle.home.base import Base, describe_base, is_whole, list_bases, read_base, write_base
from ingle.home.catalogue import ON_HUB, Archived
from ingle.home.hub import Snapshot, bring_from_hub, resolve
from ingle.home.kept import Kept, adopt, get_kept, keep, refuse_taken
from ingle.home.kept_file import KeptFile
from ingle.home.local_files import bring_from_local, find_same, local_files
from ingle.home.names import check_name
from ingle.home.place import Home
from ingle.home.source import HubSource, LocalSource, Source, default_name, find_source, source_id
from ingle.home.staging import staging, sweep_downloads


@dataclass(frozen=True, slots=True)
class Pulled:
    """The result of a pull."""

    kept: Kept
    base: Base
    already: bool  # whether the base was here before, so that nothing was downloaded


def pull(
    home: Home,
    what: str,
    check: Callable[[Path], None],
    name: str | None = None,
    progress: FetchProgress = silent,
    waiting: Callable[[str], None] = lambda _: None,
    update: bool = False,
    endpoint: str | None = None,
) -> Pulled:
    """Bring a model home and give it a name (by default its own).

    `what`: see `find_source`. `check` gets the folder of files before they are kept (of a hub's repository also before the weights come)
    and raises if they are damaged or of an unknown kind. `waiting` hears of another process that is pulling the same. `update` asks the hub
    for its newest commit, or reads a local source again, and moves a taken name. `endpoint` is another hub's address. A failure or Ctrl-C
    leaves no half base; partial downloads stay for the next attempt.
    Raises PullError, ConfigError (name), HomeError, and what `check` raises.
    """
    source = find_source(what)
    name = check_name(name or (what if what in ON_HUB else default_name(source)))
    home.create()
    with home.lock(f"pull-{digest_bytes(source_id(source).encode())[:16]}", waiting):
        sweep_downloads(home)
        snapshot: Snapshot | None = None
        base_here = None if isinstance(source, HubSource) and update else _find_known(home, source, name, progress)
        if base_here is None and isinstance(source, HubSource):
            refuse_taken(home, name, None, update)  # before the network is asked for something that can't be kept
            progress(f"asking for {source.repo}", 0, None)
            snapshot = resolve(source, endpoint)
            base_here = _newest(home, [base for base in _of_source(home, source) if base.revision == snapshot.commit], name)
        if base_here is not None:
            refuse_taken(home, name, base_here.digest, update)
            return Pulled(keep(home, name, base_here.digest, replace=update), base_here, already=True)
        refuse_taken(home, name, None, update)
        with staging(home) as folder:
            base = _bring(home, source, snapshot, folder, check, progress)
            check(folder)
            write_base(folder, base)
            sync_folder(folder)
            kept = adopt(home, folder, base, name, replace=update)
        shutil.rmtree(_download_folder(home, source, snapshot), ignore_errors=True)
    return Pulled(kept, read_base(home, base.digest), already=False)


def _find_known(home: Home, source: Source, name: str, progress: FetchProgress) -> Base | None:
    """Return the base that this source is already kept as, without using the network."""
    if isinstance(source, LocalSource):
        return find_same(local_files(source), [base for base in list_bases(home) if is_whole(home, base)], progress)
    if isinstance(source, Archived):
        return _newest(home, [base for base in list_bases(home) if base.digest == source.digest and is_whole(home, base)], name)
    return _newest(home, [base for base in _of_source(home, source) if source.revision in ("", base.revision)], name)


def _of_source(home: Home, source: HubSource) -> list[Base]:
    return [base for base in list_bases(home) if base.source == source.id and is_whole(home, base)]


def _newest(home: Home, bases: list[Base], name: str) -> Base | None:
    """Return the base that `name` means already, else the one pulled last."""
    try:
        named = get_kept(home, name).base
    except NotKept:
        named = ""
    return max(bases, key=lambda base: (base.digest == named, base.pulled_at), default=None)


def _bring(
    home: Home, source: Source, snapshot: Snapshot | None, folder: Path, look: Callable[[Path], None], progress: FetchProgress
) -> Base:  # fmt: skip
    files: tuple[KeptFile, ...]
    if isinstance(source, Archived):
        bring_files((source,), _download_folder(home, source, None), folder, progress)
        files, revision, licence = source.kept, source.archives[0].version, source.licence
    elif isinstance(source, LocalSource):
        files, revision, licence = bring_from_local(local_files(source), folder, progress), "", ""
    else:
        assert snapshot is not None
        files = bring_from_hub(source, snapshot, _download_folder(home, source, snapshot), folder, look, progress)
        revision, licence = snapshot.commit, snapshot.licence
    return describe_base(files, source_id(source), revision, licence)


def _download_folder(home: Home, source: Source, snapshot: Snapshot | None) -> Path:
    """Return the folder of unfinished downloads of this source (at this commit); two sources never share one."""
    what = f"{source_id(source)}@{snapshot.commit if snapshot else ''}"
    return home.downloads / digest_bytes(what.encode())[:16]
