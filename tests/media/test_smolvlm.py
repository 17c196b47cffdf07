"""Models that bring their own sight, against transformers: pixels, features, vectors, ids and logits of tiny random ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ingle.core.media import Picture
from ingle.engine.composite_sight import _shape, composite_sight
from ingle.engine.language_model import Seer, seen_prompt
from ingle.media.eyes.siglip import Siglip, patches_of, positions
from ingle.media.picture import TileSettings, cut, normalised
from ingle.media.sight import TiledSight, neighbours_joined
from ingle.model.checkpoint import open_checkpoint
from ingle.model.fields import Fields
from ingle.model.hf_config import config_from_hf
from ingle.model.tokenizer import open_tokenizer
from tests.engine.tiny import backend_of
from tests.media.smolvlm import SHAPES, TILE, all_logits, picture, png, processor, save

CLOSE = 1e-4


class Opened:
    """A folder opened by both."""

    def __init__(self, folder: Path, kind: str, older: bool, places: bool) -> None:
        self.folder, self.places = folder, places
        self.theirs = save(folder, kind, older, places)
        self.tokenizer = open_tokenizer(folder)
        sight = composite_sight(folder, "digest", "fp32", self.tokenizer, lambda: 2)
        assert sight is not None
        self.sight: TiledSight = sight
        self.backend = backend_of(folder / "packs", open_checkpoint(folder))

    def inputs(self, text: str, *pictures: np.ndarray) -> Any:
        images = [Image.fromarray(pixels) for pixels in pictures]
        return processor(self.places)(text=text, images=images, return_tensors="pt", add_special_tokens=False)


@pytest.fixture(scope="module", params=[("Idefics3", False, True), ("SmolVLM", True, False)], ids=["new", "older"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return Opened(tmp_path_factory.mktemp("smolvlm"), *request.param)


SPARSE: dict[str, Any] = {
    "architectures": ["SmolVLMForConditionalGeneration"], "image_token_id": 49190, "model_type": "smolvlm", "scale_factor": 4,
    "tie_word_embeddings": False, "vocab_size": 49280,
    "text_config": {
        "architectures": ["VLlama3ForCausalLM"], "head_dim": 64, "hidden_size": 960, "intermediate_size": 2560, "model_type": "llama",
        "max_position_embeddings": 8192, "num_attention_heads": 15, "num_hidden_layers": 32, "num_key_value_heads": 5, "pad_token_id": 2,
        "pixel_shuffle_factor": 4, "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_theta": 100000, "vocab_size": 49280,
    },
    "vision_config": {"hidden_size": 768, "image_size": 512, "model_type": "smolvlm_vision", "num_attention_heads": 12, "patch_size": 16},
}  # fmt: skip
"""As SmolVLM2-500M's: it leaves out what its class has as a default."""


def test_what_a_config_leaves_out_is_transformers_default() -> None:
    from transformers import SmolVLMConfig

    theirs, config = SmolVLMConfig(**SPARSE), config_from_hf(SPARSE)
    eye, shape = theirs.vision_config, _shape(Fields(SPARSE, "config.json"))
    assert (config.hidden_size, len(config.layers), config.num_kv_heads, config.head_dim) == (960, 32, 5, 64)
    assert (config.tie_embeddings, config.rope.theta, config.context_length) == (theirs.tie_word_embeddings, 100000.0, 8192)
    sizes = shape.encoder.hidden, shape.encoder.middle, shape.encoder.layers, shape.encoder.heads, shape.encoder.eps
    assert sizes == (eye.hidden_size, eye.intermediate_size, eye.num_hidden_layers, eye.num_attention_heads, eye.layer_norm_eps)
    assert (shape.picture_px, shape.patch_px) == (eye.image_size, eye.patch_size)
    bare = {"model_type": "idefics3", "text_config": SPARSE["text_config"], "vision_config": {}}
    assert _shape(Fields(bare, "config.json")).encoder.hidden == 1152


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("splits", "longest"), [(True, 4 * TILE), (True, TILE), (True, 150), (False, 4 * TILE)])
def test_tiles_are_the_processors_to_the_byte(shape: str, splits: bool, longest: int) -> None:
    settings = TileSettings(longest, TILE, splits, 1, 1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    tiles = cut(Picture(picture(shape)), settings)
    theirs = processor(True, splits, longest).image_processor(Image.fromarray(picture(shape)), return_tensors="np")
    assert (tiles.rows, tiles.columns) == (theirs["rows"][0][0], theirs["cols"][0][0])
    ours = np.stack([normalised(pixels, settings) for pixels in tiles.pixels])
    assert ours.shape == theirs["pixel_values"][0].transpose(0, 2, 3, 1).shape
    assert np.abs(ours - theirs["pixel_values"][0].transpose(0, 2, 3, 1)).max() < 1e-6
    raw = processor(True, splits, longest).image_processor(
        Image.fromarray(picture(shape)), do_normalize=False, do_rescale=False, return_tensors="np"
    )
    assert np.array_equal(np.stack(tiles.pixels), raw["pixel_values"][0].transpose(0, 2, 3, 1))


def test_features_and_vectors_are_transformers(both: Opened) -> None:
    import torch

    pixels = normalised(picture("one tile"), both.sight._settings)
    gaze = both.sight._open()
    given = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    with torch.no_grad():
        eye = both.theirs.model.vision_model(given).last_hidden_state[0].numpy()
        joined = both.theirs.model.connector(torch.from_numpy(eye)[None])[0].numpy()
    got = gaze.eye(pixels, 2)
    assert np.abs(eye).max() > 0.5
    assert np.abs(got - eye).max() < CLOSE
    assert np.abs(gaze(pixels, 2) - joined).max() < CLOSE
    assert np.abs(gaze.connection(neighbours_joined(eye, gaze.joined), 1) - joined).max() < CLOSE


def test_a_fingerprint_is_of_length_one_and_tells_pictures_apart(both: Opened) -> None:
    def mark(shape: str) -> np.ndarray:
        shown = Picture(picture(shape))
        return both.sight.fingerprint(shown, both.sight.see(shown))

    assert abs(np.linalg.norm(mark("square")) - 1) < 1e-5
    assert np.array_equal(mark("square"), mark("square"))
    assert not np.array_equal(mark("square"), mark("tall"))


@pytest.mark.parametrize(("height", "width"), [(TILE, 12), (8, TILE), (20, 20), (4, 4)])
def test_a_partial_picture_has_transformers_positions(both: Opened, height: int, width: int) -> None:
    import torch

    pixels = normalised(picture("one tile"), both.sight._settings)
    pixels[height:], pixels[:, width:] = 0, 0
    eye: Siglip = both.sight._open().eye
    size = eye.shape.patch_px
    mask = torch.zeros(1, eye.shape.side, eye.shape.side, dtype=torch.bool)
    mask[:, : height // size, : width // size] = True
    with torch.no_grad():
        theirs = both.theirs.model.vision_model(torch.from_numpy(pixels).permute(2, 0, 1)[None], patch_attention_mask=mask)
    expected = theirs.last_hidden_state[0][mask.flatten()].numpy()
    assert np.abs(eye(pixels[:height, :width], 2) - expected).max() < CLOSE


@pytest.mark.parametrize("side", [2, 8, 24, 27, 32])
def test_positions_of_every_grid_are_transformers(side: int) -> None:
    import torch
    from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionConfig, Idefics3VisionEmbeddings

    config = Idefics3VisionConfig(hidden_size=2, num_attention_heads=1, image_size=side, patch_size=1)
    embed = Idefics3VisionEmbeddings(config)
    seen = []
    embed.position_embedding.forward = lambda ids: seen.append(ids) or torch.zeros(*ids.shape, 2)
    for count in range(1, side + 1):
        mask = torch.zeros(1, side, side, dtype=torch.bool)
        mask[:, :count, : side + 1 - count] = True
        with torch.no_grad():
            embed(torch.zeros(1, 3, side, side), mask)
        assert np.array_equal(seen[-1][mask.view(1, -1)].numpy(), positions(count, side + 1 - count, side))


def test_patches_are_a_convolutions(both: Opened) -> None:
    import torch

    pixels = normalised(picture("one tile"), both.sight._settings)
    embed = both.theirs.model.vision_model.embeddings.patch_embedding
    with torch.no_grad():
        theirs = embed(torch.from_numpy(pixels).permute(2, 0, 1)[None]).flatten(2)[0].T.numpy()
    eye = both.sight._open().eye
    assert np.abs(eye._embed(patches_of(pixels, eye.shape), 1) - theirs).max() < CLOSE


@pytest.mark.parametrize("shape", SHAPES)
def test_ids_are_the_processors_and_logits_the_models(both: Opened, shape: str) -> None:
    import torch

    pixels = picture(shape)
    text = "<|im_start|>User:<image>What is in this picture?<end_of_utterance>\nAssistant:"
    inputs = both.inputs(text, pixels)
    seen = Seer(both.sight).see(png(pixels), "picture")
    size = both.backend.config.vocab_size
    prompt = seen_prompt(both.tokenizer, both.tokenizer.split_control(text), [seen], both.sight, size)
    image = both.tokenizer.control["<image>"]
    assert [image if id_ >= size else id_ for id_ in prompt.ids] == inputs["input_ids"][0].tolist()
    with torch.no_grad():
        expected = both.theirs(**inputs).logits[0].numpy()
    assert np.abs(all_logits(both.backend, prompt) - expected).max() < CLOSE
