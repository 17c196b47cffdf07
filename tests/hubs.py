"""A hub on this machine that has one model of the catalogue, under its own name: a file of smollm2, so that it answers in words."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingle.home.catalogue import HUB_MODELS
from tests.home.site_servers import Site, serving

NAME = "smollm2-360m"
MODEL = HUB_MODELS[NAME]


@contextmanager
def catalogue_hub(gguf: Path) -> Iterator[Site]:
    """A hub whose file of `NAME` is this one."""
    with serving(Site(repo=MODEL.repo, files={MODEL.file: gguf.read_bytes(), "README.md": b"never"})) as site:
        yield site


def hub_environment(site: Site, folder: Path) -> dict[str, str]:
    """Variables by which a process finds that hub, and no other."""
    return {"HF_ENDPOINT": site.address, "HF_TOKEN_PATH": str(folder / "no-token"), "NO_PROXY": "*", "PIP_CONFIG_FILE": os.devnull}
