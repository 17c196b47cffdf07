"""What goes into the first trained layer is kept without changing a bit, used again, and never trusted when it is damaged."""

import dataclasses
from pathlib import Path

import pytest
import torch

from ingle.core.errors import HomeError
from ingle.train import loop
from ingle.train.checkpoints import TRAINED, load_tensors
from ingle.train.forward import final_states, lower_states
from ingle.train.loop import Activations, train
from ingle.train.loop_settings import TrainReport, TrainSettings, TrainWatch
from ingle.train.packing import ROUND, make_batch
from tests.engine.tiny import tiny_config
from tests.train.tiny_train import HYBRID, corpus_of, documents, some_data, tiny_module, trained_parts

SETTINGS = TrainSettings(epochs=3, batch_tokens=64, precision="bf16", cache_mb=1, checkpoint_minutes=0)


@pytest.fixture(autouse=True)
def any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told that bfloat16 is slow here."""
    monkeypatch.setattr(loop, "multiplies_bf16", lambda _: True)


def run(folder: Path, settings: TrainSettings = SETTINGS, parts: tuple[str, ...] = ("layers.2.",)) -> tuple[TrainReport, list[str]]:
    said: list[str] = []
    module = tiny_module(tiny_config(layers=HYBRID))
    return train(module, trained_parts(module, *parts), some_data(), settings, folder, TrainWatch(say=said.append)), said


def test_kept_or_not_the_result_is_the_same_to_the_last_bit(tmp_path: Path) -> None:
    report, said = run(tmp_path / "kept")
    assert not said
    assert report.cache_hit_rate == pytest.approx(1 - 24 / (24 + 2 * 20 + 3 * 4))  # 20 to learn from thrice, 4 held out measured 4 times
    memory, _ = run(tmp_path / "memory", dataclasses.replace(SETTINGS, cache_on_disk=False))
    assert memory.cache_hit_rate == report.cache_hit_rate
    assert (tmp_path / "memory" / TRAINED).read_bytes() == (tmp_path / "kept" / TRAINED).read_bytes()
    plain, _ = run(tmp_path / "plain", dataclasses.replace(SETTINGS, cache_mb=0))
    assert plain.cache_hit_rate is None
    assert plain.loss == pytest.approx(report.loss, rel=2e-2), "without a cache the lower layers run in rows: the same but for rounding"
    kept = load_tensors(tmp_path / "kept" / TRAINED)
    for name, tensor in load_tensors(tmp_path / "plain" / TRAINED).items():
        torch.testing.assert_close(tensor, kept[name], rtol=0.1, atol=5e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_are_those_of_each_document_alone(tmp_path: Path, dtype: torch.dtype) -> None:
    module = tiny_module(tiny_config(layers=HYBRID)).to(dtype)
    corpus = corpus_of(documents([5, 9, 3, 12]))
    whole = corpus.bounds[2] * 48 * dtype.itemsize  # room for two
    cache = Activations(module, corpus, 2, int(whole), tmp_path)
    assert cache.share_kept == 0.5
    for _ in range(2):
        batch = make_batch(corpus, [3, 0, 1])
        alone = [lower_states(module, torch.from_numpy(corpus.document(i).ids).long(), 2) for i in (3, 0, 1)]
        states = cache.states(batch)
        assert torch.equal(states[: batch.tokens], torch.cat(alone))
        assert len(states) == len(batch.ids) == ROUND
    assert (cache.hits, cache.misses) == (2, 4)
    with torch.no_grad():
        a, b = final_states(module, batch, 2, cache.states(batch)), final_states(module, batch)
    torch.testing.assert_close(a, b, rtol=1e-4 if dtype == torch.float32 else 0.1, atol=1e-4 if dtype == torch.float32 else 0.1)


def test_a_file_is_used_again_unless_model_or_data_differ_or_it_is_damaged(tmp_path: Path) -> None:
    config, corpus = tiny_config(layers=HYBRID), corpus_of(documents([5, 9, 3]))
    batch = make_batch(corpus, [0, 1, 2])

    def hits(seed: int = 0, first: int = 1, data: int = 0) -> int:
        used = corpus if not data else corpus_of(documents([5, 9, 3], seed=data))
        cache = Activations(tiny_module(config, seed), used, first, 1 << 20, tmp_path)
        states = cache.states(make_batch(used, [0, 1, 2]))
        if not data:
            expected = lower_states(tiny_module(config, seed), batch.ids, first, batch.edges)
            torch.testing.assert_close(states[: batch.tokens], expected[: batch.tokens], rtol=1e-4, atol=1e-5)
        return cache.hits

    assert [hits(), hits()] == [0, 3]
    assert hits(seed=1) == hits(first=2) == hits(data=1) == 0
    assert hits() == 3
    [path] = (p for p in tmp_path.glob("*.states") if hits_path(p, config, corpus))
    raw = bytearray(path.read_bytes())
    raw[6 * 48 * 4] ^= 1  # in the second document
    path.write_bytes(raw)
    assert [hits(), hits()] == [2, 3]


def hits_path(path: Path, config: object, corpus: object) -> bool:
    """Whether this is the file of the module with seed 0 and first layer 1."""
    cache = Activations(tiny_module(config), corpus, 1, 1 << 20, path.parent)  # type: ignore[arg-type]
    return cache._digest()[:16] in path.name


def test_what_does_not_pay_is_said(tmp_path: Path) -> None:
    _, said = run(tmp_path / "a", parts=("layers.0.mlp",))
    assert said == ["the cache of lower layers does nothing here: a parameter of the first layer, or below it, is trained"]
    module, said, data = tiny_module(tiny_config(layers=HYBRID)), [], some_data(held_out=0)
    settings = dataclasses.replace(SETTINGS, epochs=1)
    report = train(module, trained_parts(module, "layers.2."), data, settings, tmp_path / "b", TrainWatch(say=said.append))
    assert report.cache_hit_rate == 0
    assert "was never hit" in said[0]


def test_a_full_disk_is_found_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "activations"
    blocked.write_text("a file where the folder should be")
    with pytest.raises(HomeError):
        run(tmp_path)
