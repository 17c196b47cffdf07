"""Where the benchmarks' model and data lie: the home's kept `smollm2`, and documents from a pinned package."""

import json
import os
from pathlib import Path

from ingle.core.errors import IngleError
from ingle.home.kept import get_kept
from ingle.home.place import find_home


def smollm2() -> Path:
    """The GGUF file of the kept model `smollm2`; says how to get it if it is not kept."""
    home = find_home()
    os.environ.setdefault("INGLE_KERNEL_CACHE", str(home.jit))
    try:
        folder = home.base_folder(get_kept(home, "smollm2").base)
    except IngleError as error:
        raise SystemExit(str(error)) from error
    return next(folder.glob("*.gguf"))


def documents(count: int) -> tuple[list[str], str]:
    """The first documents of XSum's test part, and the SHA-256 of the file that they are from."""
    from ingle.core.digest import digest_file
    from ingle.home.datasets import dataset

    path = dataset(find_home(), "xsum")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line)["document"] for line, _ in zip(lines, range(count), strict=False)], digest_file(path)
