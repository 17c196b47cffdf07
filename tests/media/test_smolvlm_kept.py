"""A model that brings its own sight, pulled, asked about a picture, and refused where its files are damaged or don't go together."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from ingle.app.bringing import bring
from ingle.cli.progress import Lines
from ingle.core.errors import CheckpointError, IngleError
from ingle.core.media import kind_of
from ingle.core.message import Message, Request, Sampling, TextPart
from ingle.engine.answer import answer
from ingle.engine.composite_sight import check_composite, composite_sight
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import Opener
from ingle.engine.threads import Cores
from ingle.home.place import Home
from ingle.media.sight import TiledSight
from ingle.model.checkpoint import check_finite, open_checkpoint
from ingle.model.tokenizer import open_tokenizer
from tests.media.smolvlm import all_logits, picture, png, processor, save

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    place = tmp_path_factory.mktemp("files")
    return place, save(place, "SmolVLM", older=True)


@pytest.fixture(scope="module")
def kept(folder: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    home = Home(tmp_path_factory.mktemp("home"))
    brought = bring(home, str(folder[0]), Lines(), "tiny", "fp32")
    return Opener("fp32", Cores(2, gives_way=False))(home, brought.kept)


def turns(*pictures: np.ndarray) -> tuple[tuple[Message, ...], list[dict[str, Any]]]:
    """A conversation in two turns, as ours and as theirs: the first has all pictures but the last one."""
    *first, last = pictures
    messages = (
        Message("user", (*(png(pixels) for pixels in first), TextPart("What is in this picture?"))),
        Message.of("assistant", "a red apple"),
        Message("user", (TextPart("And in "), png(last), TextPart(" <image>?"))),
    )
    theirs = [
        {"role": "user", "content": [*({"type": "image"} for _ in first), {"type": "text", "text": "What is in this picture?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "a red apple"}]},
        {"role": "user", "content": [{"type": "text", "text": "And in "}, {"type": "image"}, {"type": "text", "text": " ?"}]},
    ]
    return messages, theirs


def test_a_conversation_gives_transformers_ids_and_logits(kept: LanguageModel, folder: tuple[Path, Any]) -> None:
    import torch

    pictures = [picture("wide"), picture("tiny"), picture("tall")]
    messages, theirs = turns(*pictures)
    messages = (*messages[:2], Message("user", (*messages[2].parts[:2], TextPart(" ?"))))
    text = processor().apply_chat_template(theirs, add_generation_prompt=True)
    inputs = processor()(text=text, images=[Image.fromarray(pixels) for pixels in pictures], return_tensors="pt", add_special_tokens=False)
    prompt, size = kept.prompt(Request(messages)), kept.backend.config.vocab_size
    image = kept.tokenizer.control["<image>"]
    assert [image if kind_of(id_, size) else id_ for id_ in prompt.ids] == inputs["input_ids"][0].tolist()
    with torch.no_grad():
        expected = folder[1](**inputs).logits[0, -1].numpy()
    assert np.abs(all_logits(kept.backend, prompt)[-1] - expected).max() < 1e-4


def test_typed_markers_are_no_pictures(kept: LanguageModel) -> None:
    messages, _ = turns(picture("tiny"), picture("square"))
    prompt, size = kept.prompt(Request(messages)), kept.backend.config.vocab_size
    assert sum(kind_of(id_, size) == "image" for id_ in prompt.ids) == len(prompt.vectors)
    assert "<image>?" in kept.tokenizer.decode([id_ for id_ in prompt.ids if id_ < size])


def test_its_answer_follows_the_picture(kept: LanguageModel) -> None:
    def said(shape: str) -> list[int]:
        messages = (Message("user", (png(picture(shape)), TextPart("What?"))),)
        request = Request(messages, max_tokens=8, sampling=Sampling(temperature=0))
        return [token for chunk in answer(kept, request) for token in chunk.tokens]

    assert said("tall") == said("tall")
    assert said("tall") != said("wide")


def test_words_alone_open_no_eye(folder: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    opened = list[Path]()

    def watched(path: Path) -> Any:
        opened.append(path)
        return open_checkpoint(path)

    monkeypatch.setattr("ingle.engine.composite_sight.open_checkpoint", watched)
    sight = composite_sight(folder[0], "digest", "auto", open_tokenizer(folder[0]), lambda: 2)
    assert isinstance(sight, TiledSight)
    assert sight.digest
    assert not opened
    from ingle.core.media import Picture

    sight.see(Picture(picture("tiny")))
    sight.see(Picture(picture("square")))
    assert opened == [folder[0]]


def test_eight_bits_see_nearly_the_same(folder: tuple[Path, Any]) -> None:
    from ingle.core.media import Picture

    tokenizer, shown = open_tokenizer(folder[0]), Picture(picture("square"))

    def vectors(format_: str) -> np.ndarray:
        sight = composite_sight(folder[0], "digest", format_, tokenizer, lambda: 2)
        assert sight is not None
        return np.concatenate([piece for piece in sight.see(shown) if isinstance(piece, np.ndarray)])

    exact, byte, half = vectors("fp32"), vectors("auto"), vectors("bf16")
    for rounded in (byte, half):
        assert 0 < np.sqrt(((rounded - exact) ** 2).mean()) < 0.05 * exact.std()


def edited(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        table = json.loads((folder / name).read_text("utf-8"))
        change(table)
        (folder / name).write_text(json.dumps(table), "utf-8")

    return edit


def reweighed(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return edit


def cut_off(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


EYE, NORM, CONNECTION = "model.vision_model.", "post_layernorm.weight", "model.connector.modality_projection.proj.weight"
HARM: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut off": (cut_off, "whole safetensors file"),
    "no settings": (lambda folder: (folder / "preprocessor_config.json").unlink(), "preprocessor_config.json is needed, but missing"),
    "settings are no JSON": (lambda folder: (folder / "preprocessor_config.json").write_text("{", "utf-8"), "valid JSON"),
    "a norm is missing": (reweighed(lambda w: w.pop(EYE + NORM)), "post_layernorm.weight is missing"),
    "one layer more": (edited("config.json", lambda t: t["vision_config"].update(num_hidden_layers=4)), "layers.3.*is missing"),
    "one layer less": (edited("config.json", lambda t: t["vision_config"].update(num_hidden_layers=2)), "layers.2.*not a tensor of an eye"),
    "a connection of another model": (reweighed(lambda w: w.update({CONNECTION: w[CONNECTION][:, :80].copy()})), "must have shape"),
    "another activation": (edited("config.json", lambda t: t["vision_config"].update(hidden_act="relu")), "gelu_pytorch_tanh"),
    "heads that don't divide": (edited("config.json", lambda t: t["vision_config"].update(num_attention_heads=3)), "multiple of its 3"),
    "a billion layers": (edited("config.json", lambda t: t["vision_config"].update(num_hidden_layers=10**9)), "between 1 and 65,536"),
    "sizes are words": (edited("config.json", lambda t: t["vision_config"].update(hidden_size="wide")), "whole number"),
    "no text part": (edited("config.json", lambda t: t.pop("text_config")), "text_config.*is required"),
    "tiles of another model": (edited("preprocessor_config.json", lambda t: t["max_image_size"].update(longest_edge=64)), "the eye's 32"),
    "a factor that doesn't divide": (edited("config.json", lambda t: t.update(scale_factor=3)), "must divide the 8 patches"),
    "a sequence of another model": (edited("processor_config.json", lambda t: t.update(image_seq_len=64)), "image_seq_len must be 16"),
    "a million tiles": (edited("preprocessor_config.json", lambda t: t["size"].update(longest_edge=10**6)), "size.longest_edge"),
    "no spread": (edited("preprocessor_config.json", lambda t: t.update(image_std=[0, 1, 1])), "image_std must be above 0"),
    "a mean of two": (edited("preprocessor_config.json", lambda t: t.update(image_mean=[0, 1])), "three numbers"),
    "NaN": (reweighed(lambda w: w[EYE + NORM].__setitem__(3, np.nan)), "finite numbers only"),
}


@pytest.mark.parametrize("harm", HARM)
def test_files_that_are_damaged_or_differ_are_refused(harm: str, folder: tuple[Path, Any], tmp_path: Path) -> None:
    place = tmp_path / "copy"
    shutil.copytree(folder[0], place)
    HARM[harm][0](place)
    with pytest.raises(CheckpointError, match=f"(?s){HARM[harm][1]}"):
        checked(place)


def checked(place: Path) -> None:
    """As a pull does."""
    checkpoint = open_checkpoint(place)
    check_composite(place, checkpoint)
    check_finite(checkpoint)


def test_a_damaged_eye_is_not_kept(folder: tuple[Path, Any], tmp_path: Path) -> None:
    place, home = tmp_path / "copy", Home(tmp_path / "home")
    shutil.copytree(folder[0], place)
    reweighed(lambda w: w.pop(EYE + NORM))(place)
    with pytest.raises(IngleError, match="post_layernorm"):
        bring(home, str(place), Lines(), "tiny", "fp32")
    assert not list(home.models.iterdir())


def test_a_vocabulary_without_pictures_is_refused(folder: tuple[Path, Any], tmp_path: Path) -> None:
    shutil.copytree(folder[0], tmp_path / "copy")
    path = tmp_path / "copy" / "tokenizer.json"
    path.write_text(path.read_text("utf-8").replace("<fake_token_around_image>", "<something_else>"), "utf-8")
    with pytest.raises(CheckpointError, match="control tokens of pictures"):
        composite_sight(tmp_path / "copy", "digest", "fp32", open_tokenizer(tmp_path / "copy"), lambda: 1)
