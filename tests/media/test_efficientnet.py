"""The eye against PyTorch's own operations, with random weights of the right shapes; nothing is fetched."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from ingle.core.errors import CheckpointError
from ingle.media.eyes.efficientnet import FEATURES, SIDE, Eye, convolutions
from tests.media.eye import BLOCKS, random_weights


@torch.no_grad()
def by_pytorch(tensors: dict[str, torch.Tensor], pixels: np.ndarray) -> np.ndarray:
    def layer(x: torch.Tensor, conv: str, norm: str, step: int = 1, groups: int = 1) -> torch.Tensor:
        weight = tensors[f"{conv}.weight"]
        border = max((-(-x.shape[-1] // step) - 1) * step + weight.shape[-1] - x.shape[-1], 0)
        x = functional.pad(x, (border // 2, border - border // 2) * 2)
        mean, variance, gain, shift = (tensors[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(functional.conv2d(x, weight, stride=step, groups=groups), mean, variance, gain, shift, eps=1e-3)

    x = (torch.from_numpy(pixels).float().permute(2, 0, 1)[None] - 127) / 128
    x = functional.relu6(layer(x, "_conv_stem", "_bn0", 2))
    for i, (_size, step, out, wider) in enumerate(BLOCKS):
        name, y = f"_blocks.{i}", x
        if wider > 1:
            y = functional.relu6(layer(y, f"{name}._expand_conv", f"{name}._bn0"))
        y = functional.relu6(layer(y, f"{name}._depthwise_conv", f"{name}._bn1", step, y.shape[1]))
        y = layer(y, f"{name}._project_conv", f"{name}._bn2")
        x = x + y if step == 1 and x.shape[1] == out else y
    return functional.relu6(layer(x, "_conv_head", "_bn1"))[0].permute(1, 2, 0).numpy()


def test_the_eye_is_pytorchs_network(tmp_path: Path) -> None:
    tensors = random_weights()
    torch.save(tensors, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    eye = Eye(tmp_path / "x.pth", threads=2)
    for seed in (0, 1):
        pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
        got, expected = eye.look(pixels), by_pytorch(tensors, pixels)
        assert got.shape == (7, 7, FEATURES)
        assert expected.std() > 0.1, "something is seen"
        np.testing.assert_allclose(got, expected, atol=5e-3)  # of up to 6, after 50 layers of random weights
    assert np.abs(eye.head[0] - tensors["_fc.weight"].numpy()).max() == 0


def test_another_network_is_refused() -> None:
    tensors = {name: tensor.numpy() for name, tensor in random_weights().items() if not name.startswith("_blocks.7.")}
    with pytest.raises(CheckpointError, match="must hold its own tensors"):
        convolutions(tensors)
