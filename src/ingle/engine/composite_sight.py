"""The sight that a model of several parts brings with it (Idefics3, SmolVLM): settings are read now, weights with the first picture.

Sizes that a `config.json` leaves out are transformers' defaults, as SmolVLM's files rely on.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_json
from ingle.core.errors import CheckpointError
from ingle.kernels.tower import EncoderShape, PackedProduct, TowerFormat, tower_kernels
from ingle.media.eyes.siglip import Siglip, SiglipShape, siglip_tensors
from ingle.media.picture import AROUND, MARKER, TileSettings
from ingle.media.sight import Gaze, TiledSight
from ingle.model.checkpoint import Checkpoint, open_checkpoint
from ingle.model.fields import Fields, read_json
from ingle.model.hf_config import blame_checkpoint, is_composite
from ingle.model.tokenizer import Tokenizer

_EYE, _CONNECTION = "model.vision_model.", "model.connector.modality_projection.proj.weight"
_LANCZOS = 1


def composite_sight(folder: Path, weights: str, format_: str, tokenizer: Tokenizer, threads: Callable[[], int]) -> TiledSight | None:
    """Return the sight of the model in a folder; None for a model of words alone. `weights`: digest of its files; `threads`: how many an
    eye may use now.

    Raises CheckpointError for sizes and settings that are wrong or don't go together.
    """
    if (eye := _config(folder)) is None:
        return None
    shape, joined, settings = _shape(eye), eye.whole("scale_factor", 2), _settings(folder)
    _check(folder, shape, joined, settings)
    for name in (AROUND, MARKER):
        if name not in tokenizer.control:
            raise CheckpointError(
                f"{folder}: tokenizer", "must have the control tokens of pictures", f"none named {name}", "Pull it again."
            )
    kind = _format(format_)

    def open_() -> Gaze:
        read = _reader(open_checkpoint(folder), folder, shape, joined)
        return Gaze(Siglip(shape, lambda name: read(_EYE + name), kind), joined, PackedProduct(read(_CONNECTION), None, kind))

    return TiledSight(digest_json([weights, kind]), settings, frozenset(tokenizer.control), open_, threads)


def sight_kernels(folder: Path, format_: str) -> list[str]:
    """Return the kernels that the sight of the model in a folder runs, beside those of words; empty for a model of words alone."""
    return tower_kernels(_format(format_))[0] if has_sight(folder) else []


def has_sight(folder: Path) -> bool:
    """Return whether the model in a folder came with an eye of its own. Raises CheckpointError for settings that can't be read."""
    return _config(folder) is not None


def check_composite(folder: Path, checkpoint: Checkpoint) -> None:
    """Raise CheckpointError unless a model's eye, if it has one, is complete and its settings go together. Reads no weights."""
    if (eye := _config(folder)) is not None:
        shape, joined = _shape(eye), eye.whole("scale_factor", 2)
        _check(folder, shape, joined, _settings(folder))
        _reader(checkpoint, folder, shape, joined)


def _config(folder: Path) -> Fields | None:
    """The settings of a model of pictures and words; None for a model of words alone."""
    path = folder / "config.json"
    if not path.exists() or not is_composite(table := read_json(path), str(path)):
        return None
    return Fields(table, str(path))


def _format(format_: str) -> TowerFormat:
    """Return the format of the eye of a model that is packed in this one."""
    return "fp32" if format_ == "fp32" else "bf16" if format_ == "bf16" else "int8"


def _shape(fields: Fields) -> SiglipShape:
    """Return the sizes of the eye in a `config.json`."""
    eye = Fields(fields.table_of("vision_config"), f"{fields.where}: vision_config")
    if eye.text("hidden_act", "gelu_pytorch_tanh") != "gelu_pytorch_tanh" or eye.whole("num_channels", 3) != 3:
        got = f"{eye.table.get('hidden_act')}, {eye.table.get('num_channels')} channels"
        raise CheckpointError(eye.where, "must be an eye with gelu_pytorch_tanh and 3 channels", got)
    with blame_checkpoint(eye.where):
        hidden, middle = eye.whole("hidden_size", 1152), eye.whole("intermediate_size", 3072)
        layers, heads = eye.whole("num_hidden_layers", 12), eye.whole("num_attention_heads", 16)
        encoder = EncoderShape(hidden, middle, layers, heads, eye.number("layer_norm_eps", 1e-6))
        return SiglipShape(encoder, eye.whole("image_size", 224), eye.whole("patch_size", 32))


def _settings(folder: Path) -> TileSettings:
    """Read `processor_config.json` or, of older files, `preprocessor_config.json`."""
    path = folder / "processor_config.json"
    inner = Fields(read_json(path), str(path)).table_of("image_processor") if path.exists() else {}
    where = f"{path}: image_processor" if inner else str(folder / "preprocessor_config.json")
    fields = Fields(inner or read_json(folder / "preprocessor_config.json"), where)
    if not fields.flag("do_resize", True):
        raise CheckpointError(f"{where}: do_resize", "must be true: pictures come in all sizes", False)
    longest, tile = (
        Fields(fields.table_of(key), f"{where}: {key}").whole("longest_edge", default)
        for key, default in (("size", 4 * 364), ("max_image_size", 364))
    )
    scale = fields.number("rescale_factor", 1 / 255) if fields.flag("do_rescale", True) else 1.0
    mean, spread = (_triple(fields, "image_mean"), _triple(fields, "image_std"))
    if not fields.flag("do_normalize", True):
        mean, spread = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    with blame_checkpoint(where):
        return TileSettings(longest, tile, fields.flag("do_image_splitting", True), fields.whole("resample", _LANCZOS), scale, mean, spread)


def _triple(fields: Fields, key: str) -> tuple[float, float, float]:
    value = fields.table.get(key) or [0.5, 0.5, 0.5]
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(one, int | float) and abs(one) < 1e6 for one in value):
        raise CheckpointError(f"{fields.where}: {key}", "must be three numbers", repr(value)[:80])
    return (float(value[0]), float(value[1]), float(value[2]))


def _check(folder: Path, shape: SiglipShape, joined: int, settings: TileSettings) -> None:
    """Raise CheckpointError unless tiles fit the eye, and its patches can be joined to as many vectors as the model expects."""
    side = settings.tile_px // shape.patch_px
    if settings.tile_px > shape.picture_px or settings.tile_px < shape.patch_px:
        rule = f"must be at most the eye's {shape.picture_px} pixels, and at least one patch of {shape.patch_px}"
        raise CheckpointError(f"{folder}: max_image_size", rule, settings.tile_px, "Its files are of two different models; pull it again.")
    if not 1 <= joined <= side or side % joined:
        raise CheckpointError(f"{folder}: scale_factor", f"must divide the {side} patches on a tile's side", joined)
    path = folder / "processor_config.json"
    expected = (side // joined) ** 2
    told = Fields(read_json(path), str(path)).whole("image_seq_len", expected) if path.exists() else expected
    if told != expected:
        cure = "Its files are of two different models; pull it again."
        raise CheckpointError(f"{path}: image_seq_len", f"must be {expected}, as the tiles, patches and scale_factor say", told, cure)


def _reader(checkpoint: Checkpoint, folder: Path, shape: SiglipShape, joined: int) -> Callable[[str], npt.NDArray[np.float32]]:
    """Return a function that reads a weight by its whole name. Raises CheckpointError unless exactly the right ones are there."""
    expected = {_EYE + name: size for name, size in siglip_tensors(shape).items()}
    expected[_CONNECTION] = (checkpoint.config.hidden_size, shape.encoder.hidden * joined**2)
    for name, size in expected.items():
        if name not in checkpoint.eye:
            raise CheckpointError(f"{folder}: {name}", "is missing", "", "The checkpoint is incomplete; pull it again.")
        if checkpoint.eye[name].shape != size:
            raise CheckpointError(f"{folder}: {name}", f"must have shape {size}, as the config says", checkpoint.eye[name].shape)
    for name in checkpoint.eye.keys() - expected.keys():
        cure = "This model has parts that Ingle would leave out; it cannot be run."
        raise CheckpointError(f"{folder}: {name}", "is not a tensor of an eye with this config", checkpoint.eye[name].shape, cure)

    def read(name: str) -> npt.NDArray[np.float32]:
        values: npt.NDArray[Any] = checkpoint.eye[name].to_float32()
        return values

    return read
