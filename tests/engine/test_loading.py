"""Opening a kept model: packed once, checked at every start, told apart by format, and damage is said."""

import gc
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Barrier
from typing import Any
from weakref import ref

import numpy as np
import pytest

from ingle.core.candidate import Candidate
from ingle.core.digest import digest_file
from ingle.core.errors import CheckpointError, DeltaError, HomeError, IngleError, NotKept
from ingle.core.message import Request, Sampling
from ingle.engine import loading, packs
from ingle.engine.answer import answer
from ingle.engine.backend import Segment
from ingle.engine.delta_kinds import MERGED, Change, additions_of, merged, virtual_of
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import Opener, open_model
from ingle.engine.packs import Source, candidate_source, kept_source, list_packs
from ingle.engine.threads import Cores
from ingle.engine.tryout import warm_apart
from ingle.home.deltas import delta_tensors, get_delta, put_delta
from ingle.home.kept import Kept, get_kept, remove
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.kernels import jit
from ingle.kernels.layout import INT8
from ingle.model.checkpoint import Checkpoint, open_checkpoint
from ingle.model.export_formats import write_hf
from ingle.model.tensor import expected_shapes
from ingle.model.tokenizer import Tokenizer, open_tokenizer
from tests.engine.test_answer import byte_tokenizer
from tests.engine.test_delta_kinds import DOWN, OUT, K, Q, random_change
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config, tokens, unpacked
from tests.waiting import PATIENCE_S


@pytest.fixture
def source(tmp_path: Path) -> Source:
    config = tiny_config(vocab=260, hidden=64, mlp=96, dim=16)
    checkpoint = random_checkpoint(config)
    folder = tmp_path / "base"
    write_hf(folder, config, lambda name: checkpoint.tensor(name).to_float32(), "float32", byte_tokenizer())
    return Source("tiny", folder, "digest", tmp_path / "packs")


def words(source: Source, format_: str) -> str:
    request = Request(prompt="hello", max_tokens=12, sampling=Sampling(logit_bias=((256, -100.0),)))
    return "".join(chunk.text for chunk in answer(open_model(source, format_, 1), request))


def test_a_pack_is_made_once_and_used_again(source: Source) -> None:
    seen: list[str] = []
    first = open_model(source, "int8", 1, progress=lambda what, _done, _all: seen.append(what))
    assert "packing weights" in seen
    seen.clear()
    again = open_model(source, "int8", 1, progress=lambda what, _done, _all: seen.append(what))
    assert "packing weights" not in seen
    assert first.backend.digest == again.backend.digest
    assert words(source, "int8") == words(source, "int8")


def test_formats_are_different_models(source: Source) -> None:
    digests = {format_: open_model(source, format_, 1).backend.digest for format_ in ("auto", "int4", "bf16", "fp32")}
    assert len(set(digests.values())) == 4
    assert {info.format for info in list_packs(source)} == set(digests)
    exact = dict(unpacked(source.packs / "fp32", next(info for info in list_packs(source) if info.format == "fp32")))
    checkpoint = random_checkpoint(tiny_config(vocab=260, hidden=64, mlp=96, dim=16))
    for name, values in exact.items():
        np.testing.assert_array_equal(values, checkpoint.tensor(name).to_float32())


def test_a_flipped_bit_in_a_pack_is_found_at_the_next_start(source: Source) -> None:
    open_model(source, "int4", 1)
    path = source.packs / "int4" / "weights.bin"
    data = bytearray(path.read_bytes())
    data[100] ^= 4
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="Delete the folder"):
        open_model(source, "int4", 1)


def test_a_pack_that_was_never_finished_is_made_again(source: Source) -> None:
    open_model(source, "int4", 1)
    expected = words(source, "int4")
    (source.packs / "int4" / "pack.json").unlink()
    (source.packs / "int4" / "weights.bin").write_bytes(b"half")
    assert words(source, "int4") == expected


def test_what_a_killed_packing_left_goes_with_the_next(source: Source) -> None:
    folder = source.packs / "int4"
    folder.mkdir(parents=True)
    (folder / ".weights.bin.abcd.part").write_bytes(b"half" * 1000)
    open_model(source, "int4", 1)
    assert not list(folder.glob(".*.part"))


def test_two_that_pack_the_same_model_pack_it_once(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    packed, real, start = list[str](), packs.pack_checkpoint, Barrier(2)

    def pack(*asked: Any) -> Any:
        packed.append(asked[2])
        return real(*asked)

    def open_one(_: int) -> str:
        start.wait(PATIENCE_S)
        return open_model(source, "int4", 1).backend.digest

    monkeypatch.setattr("ingle.engine.packs.pack_checkpoint", pack)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(open_one, range(2))
    assert first == second and packed == ["int4"]


@pytest.mark.parametrize(
    "begin",
    [
        lambda home, kept: warm_apart(home, kept, "fp32", "auto"),
        lambda _home, _kept: jit._build_one("no_such_kernel"),
    ],
)
def test_no_file_of_the_folder_where_one_stands_is_run(
    begin: Callable[[Home, Kept], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "queue", "random"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w'); raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IngleError):
        begin(Home(tmp_path / "home"), Kept("x", "0" * 64, (), ""))
    assert not (tmp_path / "ran").exists()


@dataclass
class Place:
    """A home that keeps "tiny"."""

    home: Home
    checkpoint: Checkpoint

    def put(self, model: str, name: str, kind: str, seed: int = 0) -> Kept:
        """A random delta of that kind on that model."""
        config = self.checkpoint.config
        if kind in ("prefix", "prompt"):
            parts = np.random.default_rng(seed).standard_normal((2, len(config.layers), config.num_kv_heads, 7, config.head_dim))
            change = Change(name, kind, dict(zip(("prefix.keys", "prefix.values"), parts.astype(np.float32), strict=True)))
        else:
            change = random_change(config, kind, seed, (OUT, DOWN) if kind == "bottleneck" else (Q, K, DOWN))
        put_delta(self.home, name, kind, get_kept(self.home, model).digest, change.tensors, {"seed": str(seed)})
        return get_kept(self.home, f"{model}+{name}")

    def changes(self, kept: Kept) -> list[Change]:
        deltas = [get_delta(self.home, digest) for digest in kept.deltas]
        return [Change(delta.name, delta.kind, delta_tensors(self.home, delta)) for delta in deltas]


@pytest.fixture
def place(tmp_path: Path, source: Source) -> Place:
    home = Home(tmp_path / "home")
    pull(home, str(source.folder), lambda _folder: None, "tiny")
    return Place(home, random_checkpoint(tiny_config(vocab=260, hidden=64, mlp=96, dim=16)))


IDS = tokens(tiny_config(vocab=260), 60)


def logits(model: LanguageModel) -> np.ndarray:
    backend = model.backend
    return backend.forward([Segment(backend.new_state(), IDS, "all", model.adapter)])[0].copy()


STACKS = [
    "full",
    "bias ia3",
    "dora",
    "lora",
    "lora lora",
    "full lora",
    "lora full",
    "bottleneck",
    "lora bottleneck",
    "prefix",
    "full lora prompt",
]


@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_is_what_its_deltas_mean(place: Place, tmp_path: Path, stack: str) -> None:
    name = "tiny"
    for seed, kind in enumerate(stack.split()):
        name = place.put(name, f"{kind}{seed}", kind, seed).name
    kept = get_kept(place.home, name)
    model = open_model(kept_source(place.home, kept), "fp32", 1)
    got = logits(model)
    assert got.shape == (60, 260)
    changes = place.changes(kept)
    real = [change for change in changes if change.kind in MERGED]
    whole = merged(place.checkpoint, real)
    backend = backend_of(tmp_path / "whole", whole)
    adapter = None
    if changes[-1].kind == "bottleneck":
        adapter = backend.adapter(additions_of(backend.config, changes[-1:], whole), "b")
    if changes[-1].kind in ("prefix", "prompt"):
        backend = backend_of(tmp_path / "again", whole).beginning_with(*virtual_of(whole.config, changes[-1]), "p")
    expected = logits(LanguageModel("whole", backend, model.tokenizer, adapter))
    plain = logits(open_model(kept_source(place.home, get_kept(place.home, "tiny")), "fp32", 1))
    effect = np.abs(expected - plain).max()
    assert effect > 0.1
    # What is merged is exact; a low-rank addition beside the weights is rounded to 8 bits, and so is a bottleneck in the same way.
    assert np.abs(got - expected).max() < (0.03 * effect if "lora" in stack.split()[-2:] else 1e-4)


def test_every_stack_is_another_model_and_the_base_stays_what_it_was(place: Place) -> None:
    base_files = {path: digest_file(path) for path in place.home.bases.rglob("*") if path.is_file()}
    opener = Opener("int8", Cores(1))
    base = opener(place.home, get_kept(place.home, "tiny"))
    before = logits(base)
    names = [place.put("tiny", kind, kind).name for kind in ("lora", "full", "prefix", "bottleneck")]
    names += [place.put("tiny+full", "lora", "lora", 1).name, place.put("tiny+lora", "prompt", "prompt", 2).name]
    models = [base, *(opener(place.home, get_kept(place.home, name)) for name in names)]
    assert len({model.digest for model in models}) == len(models)
    answers = [logits(model) for model in models]
    for i, one in enumerate(answers):
        for other in answers[:i]:
            assert np.abs(one - other).max() > 0.05
    for name in ("tiny+lora+prompt", "tiny+full+lora", "tiny+lora", "tiny+full", "tiny+prefix", "tiny+bottleneck"):
        remove(place.home, name)
    np.testing.assert_array_equal(logits(base), before)
    np.testing.assert_array_equal(logits(open_model(kept_source(place.home, get_kept(place.home, "tiny")), "int8", 1)), before)
    assert {path: digest_file(path) for path in place.home.bases.rglob("*") if path.is_file()} == base_files
    assert [path.name for path in place.home.packs.iterdir()] == [get_kept(place.home, "tiny").base], "what was packed with deltas is gone"


def test_models_with_the_same_weights_share_them(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    both = Barrier(2)  # the weights of tiny and of tiny+ia3 are opened at the same time

    def opened(folder: Path) -> Tokenizer:
        both.wait(PATIENCE_S)
        return open_tokenizer(folder)

    monkeypatch.setattr(loading, "open_tokenizer", opened)
    names = ["tiny", *(place.put("tiny", kind, kind).name for kind in ("lora", "prefix", "bottleneck", "ia3"))]
    names.append(place.put("tiny+ia3", "lora", "lora").name)
    opener = Opener("int8", Cores(1))
    with ThreadPoolExecutor(6) as pool:
        models = dict(zip(names, pool.map(lambda name: opener(place.home, get_kept(place.home, name)), names), strict=True))
    runners = {name: model.backend.runner for name, model in models.items()}
    base, merged_too = runners["tiny"], runners["tiny+ia3"]
    assert runners == {name: merged_too if "ia3" in name else base for name in names}
    assert base is not merged_too
    assert len({id(model.tokenizer) for model in models.values()}) == 1
    watched = ref(base)
    del base, runners, models["tiny"], models["tiny+prefix"], models["tiny+bottleneck"]
    gc.collect()
    again = opener(place.home, get_kept(place.home, "tiny"))
    assert again.backend is watched(), "as long as one of them lives"
    del again, models["tiny+lora"]
    gc.collect()
    assert watched() is None, "and no longer"


def test_a_pack_with_deltas_is_made_once(place: Place) -> None:
    kept = place.put("tiny", "full", "full")
    seen: list[str] = []
    for _ in range(2):
        open_model(kept_source(place.home, kept), "int8", 1, progress=lambda what, _done, _all: seen.append(what))
    assert seen.count("packing weights") == len(expected_shapes(place.checkpoint.config)) + 1


def test_deltas_that_cannot_be_served_say_why(place: Place) -> None:
    lora, bottleneck = place.put("tiny", "lora", "lora"), place.put("tiny", "bottleneck", "bottleneck")
    after = place.put("tiny+bottleneck", "more", "lora")
    with pytest.raises(DeltaError, match="not the last"):
        kept_source(place.home, after)
    with pytest.raises(DeltaError, match="was made for base"):
        kept_source(place.home, replace(lora, deltas=bottleneck.deltas + lora.deltas))
    with pytest.raises(NotKept):
        kept_source(place.home, replace(lora, deltas=("0" * 64,)))
    path = place.home.delta_folder(lora.deltas[0]) / "tensors.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(HomeError, match="as it was kept"):
        open_model(kept_source(place.home, lora), "int8", 1)
    put_delta(place.home, "odd", "holes", lora.base, {"a": np.ones(3, np.float32)}, {})
    with pytest.raises(DeltaError, match="known kind"):
        open_model(kept_source(place.home, get_kept(place.home, "tiny+odd")), "int8", 1)
    with pytest.raises(DeltaError, match="known kind"):  # the same, told by the process that packs
        Opener("int8", Cores(1))(place.home, get_kept(place.home, "tiny+odd"))
    large = {part: np.full((2, 2, 3, 16), 1e6, np.float32) for part in ("prefix.keys", "prefix.values")}
    put_delta(place.home, "large", "prefix", lora.base, large, {})
    with pytest.raises(DeltaError, match="float16"):
        open_model(kept_source(place.home, get_kept(place.home, "tiny+large")), "int8", 1)


def test_real_weights_keep_their_four_bits_where_no_delta_touched_them(smollm2_home: Home, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.root.mkdir()
    (home.root / "bases").symlink_to(smollm2_home.bases)
    shutil.copytree(smollm2_home.models, home.models)
    kept = get_kept(home, "smollm2")
    home.packs.mkdir()
    home.pack_folder(kept.base).symlink_to(smollm2_home.pack_folder(kept.base))
    config = open_checkpoint(home.base_folder(kept.base)).config
    change = random_change(config, "lora", 1, (Q, DOWN))
    small = dict(change.tensors)
    beside_digest = put_delta(home, "beside", "lora", kept.base, small, {}).digest
    put_delta(
        home, "same", "ia3", get_kept(home, "smollm2+beside").digest, {f"{Q}.ia3_l": np.ones((config.hidden_size, 1), np.float32)}, {}
    )
    beside, whole = (open_model(kept_source(home, get_kept(home, name))) for name in ("smollm2+beside", "smollm2+beside+same"))
    [info] = list_packs(kept_source(home, get_kept(home, "smollm2+beside+same")))
    [before] = list_packs(kept_source(home, get_kept(home, "smollm2+beside")))
    changed = {name for name, place in info.places.items() if place.kind != before.places[name].kind}
    assert changed == {f"{Q}.weight", f"{DOWN}.weight"}
    assert {info.places[name].kind for name in changed} == {INT8}
    assert (before.base_digest, info.base_digest) == (kept.base, get_kept(home, "smollm2+beside+same").digest)
    first, second = logits(beside), logits(whole)
    plain = logits(LanguageModel("smollm2", beside.backend, beside.tokenizer))
    effect = np.abs(first - plain).max(axis=1).mean()
    assert effect > 0.5, f"{beside_digest} does something"
    # Merged or beside the weights it is the same delta, but for the rounding of either.
    assert np.abs(first - second).max(axis=1).mean() < 0.2 * effect


@pytest.mark.parametrize("kind", ["lora", "dora", "bottleneck", "prefix"])
def test_a_candidate_is_opened_exactly_as_it_would_be_served_if_it_were_kept(place: Place, kind: str) -> None:
    kept = place.put("tiny", "kept", kind, 3)
    [delta] = [get_delta(place.home, digest) for digest in kept.deltas]
    tensors = delta_tensors(place.home, delta)
    expected = open_model(kept_source(place.home, kept), "fp32", 1)
    remove(place.home, kept.name)
    below = get_kept(place.home, "tiny")
    candidate = Candidate("kept", kind, below.digest, tensors, delta.origin)
    opened = Opener("fp32", Cores(1)).open(candidate_source(place.home, below, candidate))
    assert opened.name == "tiny+kept"
    assert opened.digest == expected.digest
    rows = [
        model.backend.forward([Segment(model.backend.new_state(), IDS, adapter=model.adapter)])[0].copy() for model in (expected, opened)
    ]
    np.testing.assert_array_equal(*rows)
    assert not list(place.home.deltas.iterdir())
    with pytest.raises(DeltaError):
        candidate_source(place.home, below, replace(candidate, base_digest="0" * 64))
