"""An eye with random weights of the right shapes, so that no test fetches one."""

import collections
from pathlib import Path

import torch

from ingle.core.digest import digest_file
from ingle.home.base import describe_base, write_base
from ingle.home.catalogue import PARTS
from ingle.home.kept_file import KeptFile
from ingle.home.parts import adopt_part
from ingle.home.place import Home
from ingle.media.eyes.efficientnet import CLASSES, FEATURES
from ingle.media.sight import EYE

STAGES = ((1, 3, 1, 16, 1), (2, 3, 2, 24, 6), (2, 5, 2, 40, 6), (3, 3, 2, 80, 6), (3, 5, 1, 112, 6), (4, 5, 2, 192, 6), (1, 3, 1, 320, 6))
"""Blocks, size of the filter, step of the first block, channels, and how many times wider it is inside: table 1 of arXiv 1905.11946."""
BLOCKS = [
    (size, step if i == 0 else 1, channels, wider) for blocks, size, step, channels, wider in STAGES for i in range(blocks)
]  # fmt: skip


def random_weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    tensors: collections.OrderedDict[str, torch.Tensor] = collections.OrderedDict()

    def add(conv: str, norm: str, out: int, into: int, size: int) -> None:
        tensors[f"{conv}.weight"] = torch.randn(out, into, size, size) / (into * size * size) ** 0.5
        tensors[f"{norm}.weight"], tensors[f"{norm}.bias"] = 1 + torch.rand(out), torch.randn(out)
        tensors[f"{norm}.running_mean"], tensors[f"{norm}.running_var"] = torch.randn(out), 0.5 + torch.rand(out)
        tensors[f"{norm}.num_batches_tracked"] = torch.tensor(1)

    add("_conv_stem", "_bn0", 32, 3, 3)
    channels = 32
    for i, (size, _step, out, wider) in enumerate(BLOCKS):
        inside = channels * wider
        if wider > 1:
            add(f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0", inside, channels, 1)
        add(f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1", inside, 1, size)
        add(f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2", out, inside, 1)
        channels = out
    add("_conv_head", "_bn1", FEATURES, channels, 1)
    tensors["_fc.weight"], tensors["_fc.bias"] = torch.randn(CLASSES, FEATURES), torch.randn(CLASSES)
    return tensors


def give_eye(home: Home, folder: Path) -> None:
    """Keep such an eye in a home, as if it had been pulled."""
    folder.mkdir()
    path = folder / PARTS[EYE].files[0].name
    torch.save(random_weights(), path, _use_new_zipfile_serialization=False)
    base = describe_base((KeptFile(path.name, path.stat().st_size, digest_file(path)),), "test", "", "")
    write_base(folder, base)
    adopt_part(home, folder, base, EYE)
