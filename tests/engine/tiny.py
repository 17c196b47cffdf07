"""Tiny random models on the CPU backend, without files of any other format in between."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ingle.core.spec import LayerSpec, ModelConfig, Rope, Ways
from ingle.engine import packs
from ingle.engine.backend import Backend, Segment
from ingle.engine.threads import Cores
from ingle.home.lean import WEIGHTS
from ingle.kernels.panels import PackedLinear, unpack
from ingle.model.checkpoint import Checkpoint
from ingle.model.hf_config import all_frequencies
from ingle.model.tensor import Tensor, expected_shapes
from tests.kernels.k_rows import random_rows


def tiny_config(
    hidden: int = 48, mlp: int = 80, heads: int = 4, groups: int = 2, dim: int = 12, vocab: int = 70, layers: tuple[LayerSpec, ...] = (),
    context: int = 2000, qk_norm: bool = False, biases: bool = False, tied: bool = True, rope: Rope = Rope(), ways: Ways = Ways(),  # noqa: B008 - frozen
) -> ModelConfig:  # fmt: skip
    layers = layers or (LayerSpec(tuple(range(groups))),) * 2
    return ModelConfig(
        "llama", vocab, hidden, mlp, heads, groups, dim, layers, context, rope, tie_embeddings=tied, qkv_bias=biases, output_bias=biases,
        mlp_bias=biases, qk_norm=qk_norm, ways=ways,
    )  # fmt: skip


def random_checkpoint(config: ModelConfig, seed: int = 0) -> Checkpoint:
    draw, stored = np.random.default_rng(seed), {}
    for name, shape in expected_shapes(config).items():
        middle, spread = (1.0, 0.2) if "norm" in name else (0.0, 0.15)
        values = (middle + spread * draw.standard_normal(shape)).astype(np.float32)
        stored[name] = Tensor(name, shape, "F32", values.view(np.uint8).reshape(*shape[:-1], -1))
    return Checkpoint(config, (Path("random"),), stored)


def in_blocks(checkpoint: Checkpoint, kind: str) -> Checkpoint:
    """The same shapes with random K-quants for all matrices, whose columns must be multiples of 256."""
    stored = {}
    for number, (name, tensor) in enumerate(checkpoint.stored.items()):
        stored[name] = tensor
        if len(tensor.shape) == 2:
            size = 0.15 / (4 * 32)  # of a unit, so that weights are about as large as the others
            raw = random_rows(kind, tensor.shape[0], tensor.shape[1] // 256, number, size)
            stored[name] = Tensor(name, tensor.shape, kind, raw)
    return Checkpoint(checkpoint.config, checkpoint.files, stored)


def backend_of(folder: Path, checkpoint: Checkpoint, format_: str = "fp32", threads: int = 2, cache: str = "float32") -> Backend:
    info = packs.pack_checkpoint(checkpoint, "base", format_, folder / format_)
    packs.check_pack(folder / format_, info)
    return Backend(folder / format_, info, Cores(threads), cache)


def unpacked(folder: Path, info: packs.PackInfo) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every tensor, by Hugging Face's name, as the kernels' float32: the naive reference of packing."""
    data = np.memmap(folder / WEIGHTS, np.uint8, "r")
    for name in expected_shapes(info.config):
        place = info.places[name]
        planes = [np.asarray(data[offset : offset + size]) for offset, size in place.planes]
        if place.kind == packs.VECTOR:
            yield name, planes[0].view(np.float32)[: place.columns].copy()
        elif place.kind == packs._TAPS:
            taps = planes[0].view(np.float32).reshape(place.columns, -1)[:, : place.rows]
            yield name, np.ascontiguousarray(taps.T)[:, None]
        elif place.kind in (packs._HEADS, packs._MAPS):
            yield name, _from_memory(place, planes[0].view(np.float32), info.config.head_dim)
        else:
            yield name, unpack(PackedLinear(place.kind, place.rows, place.columns, *planes))


def _from_memory(place: packs.PackedPlace, plane: np.ndarray, dim: int) -> np.ndarray:
    """Undo `packs._of_memory`."""
    width = dim + -dim % 16
    if place.kind == packs._HEADS:
        return plane.reshape(-1, width)[:, :dim].reshape(place.rows, place.columns)
    maps = plane.reshape(-1, width // 16, width, 16).swapaxes(2, 3).reshape(-1, width, width)
    return np.ascontiguousarray(maps[:, :dim, :dim]).reshape(place.rows, place.columns)


def angles_of(config: ModelConfig, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cosine and sine [count, dim/2] of the positions from 0, for each layer: what `naive.decoder` wants."""
    kinds = []
    for frequencies, scale in all_frequencies(config):
        angles = np.arange(count, dtype=np.float32)[:, None] * frequencies
        kinds.append((np.cos(angles) * scale, np.sin(angles) * scale))
    return [kinds[config.rope_of(i)] for i in range(len(config.layers))]


def read_in_cuts(backend: Backend, ids: list[int], cuts: list[int]) -> np.ndarray:
    """Logits of all tokens, read so many at a time by one state."""
    state, rows, start = backend.new_state(), [], 0
    for count in cuts:
        rows.append(backend.forward([Segment(state, ids[start : start + count], "all")])[0].copy())
        start += count
    assert state.length == len(ids)
    return np.concatenate(rows)


def tokens(config: ModelConfig, count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, config.vocab_size, count).tolist()
