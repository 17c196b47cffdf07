"""Files of a hub repository, pinned by commit. The hub's own library lists them and logs in; `fetch` downloads them."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ingle.core.errors import PullError
from ingle.core.files import os_errors
from ingle.core.progress import FetchProgress
from ingle.home.fetch import Remote, fetch, make_opener, need_space
from ingle.home.kept_file import KeptFile
from ingle.home.source import COMPANIONS, INDEX, HubSource, choose_files

_OFFLINE = "Check the network (and HF_ENDPOINT, if you set it) and try again; models that are kept already need no network."
_TOKEN = "Ask for access on its page, then log in with `hf auth login` or set HF_TOKEN."


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A repository at one commit."""

    repo: str
    commit: str
    files: tuple[Remote, ...]
    licence: str


def resolve(source: HubSource, endpoint: str | None = None) -> Snapshot:
    """Ask the hub for the revision's present commit and its files.

    Raises PullError: no network, unknown or private repository, unknown revision, gated, offline mode.
    """
    from huggingface_hub import HfApi, get_token, hf_hub_url
    from huggingface_hub import errors as hub

    try:
        info = HfApi(endpoint=endpoint).model_info(source.repo, revision=source.revision or None, files_metadata=True, timeout=30)
    except hub.GatedRepoError as error:
        raise PullError(source.repo, "is open only to those who asked for access", "", _TOKEN) from error
    except hub.RevisionNotFoundError as error:
        raise PullError(
            source.repo, f"{source.repo} has no revision {source.revision}", "", "Give a branch, a tag or a whole commit."
        ) from error
    except (hub.RepositoryNotFoundError, hub.HFValidationError) as error:
        raise PullError(
            source.repo, f"The hub has no repository {source.repo}", "", f"Check the spelling. If it is private: {_TOKEN}"
        ) from error
    except hub.OfflineModeIsEnabled as error:
        raise PullError(source.repo, "can't be asked for in offline mode", "HF_HUB_OFFLINE=1", "Unset it to pull.") from error
    except Exception as error:
        # Connection errors are of another library in every generation of the hub's client.
        raise PullError(source.repo, "The hub did not answer", f"{type(error).__name__}: {error}".splitlines()[0], _OFFLINE) from error
    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    files = []
    for file in info.siblings or ():
        url = hf_hub_url(source.repo, file.rfilename, revision=info.sha, endpoint=endpoint)
        files.append(Remote(file.rfilename, url, file.size, file.lfs.sha256 if file.lfs else None, headers))
    licence = next((tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")), "")
    return Snapshot(source.repo, str(info.sha), tuple(files), licence)


def bring_from_hub(
    source: HubSource, snapshot: Snapshot, downloads: Path, folder: Path, look: Callable[[Path], None], progress: FetchProgress
) -> tuple[KeptFile, ...]:
    """Download the needed files to `downloads` (where they stay for the next attempt) and link them into `folder`.

    `look` may refuse the files that come before the weights, which are large. Raises what it raises; PullError and HomeError, as `fetch`
    and `choose_files` do.
    """
    opener = make_opener()
    remotes = {remote.name: remote for remote in snapshot.files}

    def read_index() -> bytes:
        path = downloads / INDEX
        fetch(remotes[INDEX], path, progress, opener)
        return path.read_bytes()

    chosen = _choose(source, remotes, read_index)
    paths = {name: downloads / Path(name).name for name in chosen}
    need_space(folder, sum(_missing(remotes[name], path) for name, path in paths.items()))
    files = list[KeptFile]()
    for name, path in paths.items():
        if name not in COMPANIONS and files and files[-1].name in COMPANIONS:
            look(folder)
        sha256 = fetch(remotes[name], path, progress, opener)
        link_or_copy(path, folder / path.name)
        files.append(KeptFile(path.name, path.stat().st_size, sha256))
    return tuple(files)


def link_or_copy(source: Path, target: Path) -> None:
    """Link a file of the home at a second place, or copy it where the file system has no links."""
    with os_errors(target):
        try:
            target.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, target)


def _choose(source: HubSource, remotes: dict[str, Remote], read_index: Callable[[], bytes]) -> list[str]:
    if not source.file:
        return choose_files(source.repo, [name for name in remotes if "/" not in name or name.lower().endswith(".gguf")], read_index)
    if source.file in remotes:
        return [source.file]
    available = sorted(name for name in remotes if name.lower().endswith(".gguf"))
    cure = f"It holds {', '.join(available)}." if available else "It holds no GGUF file."
    raise PullError(source.repo, "must hold the file", source.file, cure)


def _missing(remote: Remote, path: Path) -> int:
    part = path.with_name(path.name + ".part")
    have = sum(p.stat().st_size for p in (path, part) if p.exists())
    return max(0, (remote.size or 0) - have)
