"""Tiny random models of SmolVLM's kind in transformers' own files, with its processor and a small tokenizer."""

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ingle.core.message import ImagePart
from ingle.core.state import STEP_TOKENS
from ingle.engine.backend import Backend, Segment
from ingle.engine.language_model import ReadyPrompt

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]
CONTROL += [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}{% if message['content'][0]['type'] == 'image' %}{{':'}}"
    "{% else %}{{': '}}{% endif %}{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""SmolVLM's own."""
TILE, PATCH, JOINED = 32, 4, 2
SHAPES = {
    "tall": (40, 150), "wide": (170, 60), "tiny": (3, 2), "larger than the longest edge": (300, 200), "square": (64, 64),
    "one pixel wide": (1, 90), "one tile": (32, 32), "long": (500, 7), "odd": (101, 99),
}  # fmt: skip
"""Width and height."""


def fast_tokenizer(places: bool = True) -> Any:
    """A byte-level tokenizer as SmolVLM's; without `places`, tiles' places are no control tokens, as in the larger models."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    control = CONTROL if places else CONTROL[:6]
    trainer = trainers.BpeTrainer(
        vocab_size=460, special_tokens=control, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    text = [
        "What is in this picture?",
        "\n\n",
        "User: ",
        "Assistant: a red apple on a table.",
        "<row_1_col_2>",
        "\n\n\n",
        "row col global img",
    ]
    fast.train_from_iterator(text * 20, trainer)
    return fast


@cache
def processor(places: bool = True, splits: bool = True, longest: int = 4 * TILE) -> Any:
    """transformers' processor."""
    from transformers import Idefics3ImageProcessorPil, Idefics3Processor, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=fast_tokenizer(places), eos_token="<end_of_utterance>", bos_token="<|im_start|>", pad_token="<|im_end|>",
    )  # fmt: skip
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": longest}, max_image_size={"longest_edge": TILE}, do_image_splitting=splits, return_row_col_info=True
    )
    return Idefics3Processor(images, tokenizer, image_seq_len=(TILE // PATCH // JOINED) ** 2, chat_template=TEMPLATE)


def model(kind: str = "Idefics3", seed: int = 0, places: bool = True, **changes: Any) -> Any:
    """transformers' model with random weights, norms and biases included."""
    import torch
    import transformers

    tokenizer = processor(places).tokenizer
    text = {
        "model_type": "llama", "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 12, "vocab_size": len(tokenizer), "max_position_embeddings": 2000, "rope_theta": 100000.0,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    eye = {
        "hidden_size": 40,
        "intermediate_size": 72,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": TILE,
        "patch_size": PATCH,
    }
    config = getattr(transformers, f"{kind}Config")(
        text_config=text, vision_config=eye, scale_factor=JOINED, image_token_id=tokenizer.convert_tokens_to_ids("<image>"), **changes
    )
    config._attn_implementation = "eager"
    made = getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            middle, spread = (1.0, 0.2) if "norm" in name and name.endswith("weight") else (0.0, 0.15)
            weight.copy_(middle + spread * torch.randn(weight.shape, generator=draw))
    return made


def save(folder: Path, kind: str = "Idefics3", older: bool = False, places: bool = True, **changes: Any) -> Any:
    """Write a model with its processor, and return it; `older`: in the files that the hub's models have."""
    made = model(kind, places=places, **changes)
    made.save_pretrained(folder)
    used = processor(places)
    used.save_pretrained(folder)
    if older:
        table = json.loads((folder / "processor_config.json").read_text("utf-8"))
        (folder / "preprocessor_config.json").write_text(json.dumps(table.pop("image_processor")), "utf-8")
        (folder / "processor_config.json").write_text(json.dumps(table), "utf-8")
        (folder / "chat_template.jinja").unlink()
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}), "utf-8")
    return made


def picture(shape: str) -> np.ndarray:
    """uint8 [height, width, 3], neither flat nor all noise."""
    width, height = SHAPES[shape]
    draw = np.random.default_rng(len(shape))
    y, x = np.mgrid[:height, :width]
    waves = np.stack([127 + 90 * np.sin(x / (3 + i) + y / (5 - i)) for i in range(3)], axis=2)
    pixels: np.ndarray = (waves + draw.normal(0, 20, waves.shape)).clip(0, 255).astype(np.uint8)
    return pixels


def png(pixels: np.ndarray) -> ImagePart:
    """A picture as one sends it."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return ImagePart(file.getvalue(), "image/png")


def all_logits(backend: Backend, prompt: ReadyPrompt) -> np.ndarray:
    """Logits of every place of a prompt."""
    rows, state = list[np.ndarray](), backend.new_state()
    for start in range(0, len(prompt.ids), STEP_TOKENS):
        segment = Segment(state, prompt.ids[start : start + STEP_TOKENS], "all", vectors=prompt.vectors)
        rows.append(backend.forward([segment])[0].copy())
    return np.concatenate(rows)
