"""The catalogue of hub models: sizes against real files, names and near names, and a pull by a short name."""

from pathlib import Path

import pytest
from site_servers import REPO, Site

from ingle.core.errors import PullError
from ingle.home.base import read_base
from ingle.home.catalogue import (
    CATALOGUE,
    CONTEXT,
    GUARD_MODELS,
    HUB_MODELS,
    ON_HUB,
    PROCESS_BYTES,
    SETS,
    HubModel,
    close_names,
    known_names,
)
from ingle.home.model_size import BITS, QUANTISATIONS, ModelShape, cache_bytes, file_bytes, read_bytes
from ingle.home.names import check_name
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.home.source import HubSource, find_source
from ingle.kernels.formats import K_BYTES, K_COLUMNS

FILES = {
    "smollm2-1.7b": 1_055_609_824, "qwen3-0.6b": 639_446_688, "qwen3-1.7b": 1_107_409_472, "smollm3-3b": 1_915_305_312,
    "llama3.2-3b": 2_019_377_600, "phi4-mini": 2_491_874_272,
}  # fmt: skip
"""Bytes of files on the hub, as programs that pin them say."""
MADE = {
    ("0.36B", "Q4_K_M"): (ModelShape(32, 1024, 2560, 16, 4, 64, 49152), 244_503_008),
    ("1.7B", "Q4_K_M"): (ModelShape(24, 2048, 8192, 32, 32, 64, 49152), 1_055_609_088),
}
"""Files of bench/large.py: llama.cpp's own quantiser made them."""


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_the_hub_has_the_size_that_its_shape_tells(name: str) -> None:
    assert HUB_MODELS[name].nbytes == pytest.approx(FILES[name], rel=0.005)


@pytest.mark.parametrize("made", MADE, ids=" ".join)
def test_a_file_that_the_quantiser_made_has_it_too(made: tuple[str, str]) -> None:
    shape, nbytes = MADE[made]
    assert file_bytes(shape, made[1]) == pytest.approx(nbytes, rel=0.005)


def test_the_embedded_model_has_it_too() -> None:
    entry = CATALOGUE["smollm2"]
    assert entry.shape is not None
    assert file_bytes(entry.shape, entry.quantisation) == pytest.approx(entry.nbytes, rel=0.005)
    assert entry.shape.parameters == pytest.approx(134.5e6, rel=0.001)


def test_bits_are_those_of_the_blocks() -> None:
    for kind, size in K_BYTES.items():
        assert kind not in BITS or BITS[kind] == 8 * size / K_COLUMNS


def test_a_token_reads_all_but_an_embedding_that_is_not_the_output() -> None:
    tied, apart = ModelShape(2, 256, 512, 4, 2, 64, 1000), ModelShape(2, 256, 512, 4, 2, 64, 1000, tied=False)
    assert read_bytes(tied, "Q4_K_M") == read_bytes(apart, "Q4_K_M")
    assert apart.parameters - tied.parameters == 256_000
    assert file_bytes(apart, "Q4_K_M") - file_bytes(tied, "Q4_K_M") == 256_000 * 4.5 / 8
    assert sum(read_bytes(tied, "Q8_0").values()) == tied.parameters * 8.5 / 8
    assert cache_bytes(tied, 10) == 10 * 2 * 2 * 2 * 2 * 64
    layer = 2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 512
    assert tied.parameters == 256_000 + 2 * layer
    fused = ModelShape(2, 256, 512, 4, 2, 64, 1000, fused=True)
    assert fused.parameters == tied.parameters and read_bytes(fused, "Q4_K_M")["Q5_K"] == 2 * 256 * 512 * 5.5 / 8


def test_half_of_v_and_down_has_six_bits() -> None:
    kinds = [QUANTISATIONS["Q4_K_M"]("down", layer, 24) for layer in range(24)]
    assert [layer for layer, kind in enumerate(kinds) if kind == "Q6_K"] == [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]
    assert {QUANTISATIONS["Q4_K_M"](part, 0, 24) for part in ("q", "k", "o", "gate and up", "embedding")} == {"Q4_K"}


@pytest.mark.parametrize("model", ON_HUB.values(), ids=lambda model: model.name)
def test_entries_are_whole(model: HubModel) -> None:
    assert find_source(model.name) == HubSource(model.repo, model.file)
    assert check_name(model.name) == model.name
    assert model.name not in CATALOGUE and model.name not in SETS
    assert model.quantisation in QUANTISATIONS and model.licence and model.title
    assert find_source(f"{model.repo}/{model.file}".rstrip("/")) == find_source(model.name), "the long name is a source, too"
    assert model.memory_bytes == model.nbytes + cache_bytes(model.shape, CONTEXT) + PROCESS_BYTES
    twice = 1.9 if model.file else 1.7  # safetensors hold a tied matrix twice, the pack once
    assert twice * model.nbytes < model.disk_bytes < 2 * model.nbytes
    columns = {model.shape.hidden, model.shape.mlp, model.shape.heads * model.shape.head_dim}
    assert model.quantisation != "Q4_K_M" or not any(size % K_COLUMNS for size in columns), "the quantiser would take other blocks"
    assert 0.3e9 < model.shape.parameters < 9e9


def test_a_guard_has_the_size_that_its_repository_states() -> None:
    stated = {"guard": 1.5e9, "llama-guard": 3.0e9, "granite-guardian": 5.07e9}
    assert {name: pytest.approx(model.nbytes, rel=0.02) for name, model in GUARD_MODELS.items()} == stated


def test_there_are_sizes_for_every_machine() -> None:
    sizes = [model.nbytes for model in HUB_MODELS.values()]
    assert sizes == sorted(sizes) and len(sizes) >= 8


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        ("llama3", "llama3.2-3b"), ("Llama-3.2", "llama3.2-3b"), ("llama", "llama3.2-3b"), ("qwen", "qwen3-0.6b"), ("qwen3:8b", "qwen3-8b"),
        ("Qwen3-8B-Instruct", "qwen3-8b"), ("mistral7b", "mistral-7b"), ("mistral", "mistral-7b"), ("phi", "phi4-mini"),
        ("phi-4-mini", "phi4-mini"), ("mini", "phi4-mini"), ("smolm2", "smollm2"), ("smollm3", "smollm3-3b"), ("mistrl-7b", "mistral-7b"),
    ],
)  # fmt: skip
def test_near_names_are_suggested(asked: str, first: str) -> None:
    assert close_names(asked)[0] == first
    with pytest.raises(PullError, match=f"Did you mean {first}"):
        find_source(asked)


@pytest.mark.parametrize("asked", ["", "q", "-", "x" * 10_000, "zzzz", "…", "\x00", "3b" * 5000])
def test_what_is_near_nothing_suggests_nothing(asked: str) -> None:
    assert close_names(asked) == []


def test_a_family_suggests_all_its_sizes() -> None:
    assert close_names("qwen") == ["qwen3-0.6b", "qwen3-1.7b", "qwen3-8b"]
    assert len(close_names("smollm")) == 5 and set(close_names("smollm")) <= set(known_names())


def test_a_short_name_is_pulled_pinned_and_kept_under_it(home: Home, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    model = HUB_MODELS["qwen3-0.6b"]
    site.repo, site.files = model.repo, {model.file: b"GGUF" + bytes(1000), "other.gguf": b"never"}
    seen = list[list[str]]()

    def look(folder: Path) -> None:
        seen.append([path.name for path in folder.iterdir()])

    pulled = pull(home, model.name, look, endpoint=site.address)
    assert pulled.kept.name == model.name and seen == [[model.file]]
    base = read_base(home, pulled.base.digest)
    assert (base.source, base.revision, base.licence) == (f"hub:{model.repo}/{model.file}", site.commit, "mit")
    site.commit, site.requests = "b" * 40, []
    assert pull(home, model.name, look, endpoint=site.address).already and not site.requests, "the pin holds"
    assert pull(home, f"{model.repo}/{model.file}", look, endpoint=site.address, name="long").base == base


def test_a_repository_that_lost_the_file_says_what_it_has(home: Home, site: Site) -> None:
    model = HUB_MODELS["qwen3-0.6b"]
    site.repo, site.files = model.repo, {"Qwen3-0.6B-Q9.gguf": b""}
    with pytest.raises(PullError, match=r"must hold the file.*It holds Qwen3-0\.6B-Q9\.gguf"):
        pull(home, model.name, lambda _: None, endpoint=site.address)
    site.repo = REPO
    with pytest.raises(PullError, match="The hub has no repository Qwen/Qwen3-0"):
        pull(home, model.name, lambda _: None, endpoint=site.address)
