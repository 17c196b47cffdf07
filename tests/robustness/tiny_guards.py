"""Tiny random models of the guards' architectures, with templates of the shape that the families' cards show, in words of our own."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from ingle.engine.language_model import LanguageModel
from ingle.model.checkpoint import open_checkpoint
from ingle.model.tokenizer import open_tokenizer
from tests.engine.tiny import backend_of
from tests.model.tiny_models import hf_model

QWEN = (
    "{{ '<|im_start|>user\\nIs this **Safety: Safe**, **Safety: Unsafe** or **Safety: Controversial**?\\n\\n' }}"
    "{% for m in messages %}{{ ('USER: ' if m.role == 'user' else 'ASSISTANT: ') + m.content + '\\n\\n' }}{% endfor %}"
    "{{ 'Judge the last ' + messages[-1].role + ' alone.<|im_end|>\\n<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}"
)
LLAMA = (
    "{{ '<|begin|><|header|>user<|/header|>\\n\\nUNSAFE CONTENT CATEGORIES\\nS1: Crimes.\\nS13: Elections.\\n\\n' }}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns') }}{% endif %}"
    "{% for part in m['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ ('User' if m['role'] == 'user' else 'Agent') + ': ' + part['text'] | trim + '\\n\\n' }}{% endfor %}{% endfor %}"
    "{{ 'Judge the last one.<|eot|><|header|>assistant<|/header|>' }}"
)
GRANITE = (
    "{{ '<|im_start|>Look for ' + guardian_config['risk_name'] + '.\\n' }}"
    "{% for m in messages %}{{ m['role'] + ' says: ' + m['content'] + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_end|><|im_start|>assistant<|im_end|>' }}{% endif %}"
)
GUARDS: dict[str, tuple[str, str, str, dict[str, float], dict[str, Any]]] = {
    "Qwen3Guard": ("qwen3", QWEN, "Safety:", {" Safe": 0.0, " Controversial": 0.5, " Unsafe": 1.0}, {}),
    "Llama Guard": ("llama", LLAMA, "\n\n", {"safe": 0.0, "unsafe": 1.0}, {}),
    "Granite Guardian": ("granite", GRANITE, "", {"No": 0.0, "Yes": 1.0}, {"guardian_config": {"risk_name": "harm"}}),
}
"""By family: architecture, template, lead, labels with weights, switches of the template."""
NAMES = ["<|im_start|>", "<|im_end|>", "<|begin|>", "<|header|>", "<|/header|>", "<|eot|>"]
WORDS = ["Safety: Safe", "Safety: Unsafe", "Safety: Controversial", "safe unsafe", "Yes No", "how do I bake a cake, a fine one"] * 3


def write_words(folder: Path, template: str) -> int:
    """A tokenizer with merges, so that labels are tokens of several letters; the size of its vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    fast.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = [AddedToken(name, special=True, normalized=False) for name in NAMES]
    fast.train_from_iterator(
        WORDS, trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    )
    fast.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template, "eos_token": "<|im_end|>"})
    )
    return int(fast.get_vocab_size())


def tiny_guard(folder: Path, name: str, template: str = "", context: int = 600) -> tuple[LanguageModel, Any]:
    """The same weights in this house and in transformers."""
    architecture, usual, *_ = GUARDS[name]
    size = write_words(folder / "hf", template or usual)
    model = hf_model(architecture, vocab_size=size, max_position_embeddings=context)
    model.save_pretrained(folder / "hf")
    backend = backend_of(folder, open_checkpoint(folder / "hf"))
    return LanguageModel("guard", backend, open_tokenizer(folder / "hf")), model


def theirs(folder: Path, name: str, model: Any, messages: list[dict[str, Any]]) -> dict[str, float]:
    """The labels' probabilities by transformers alone: its template, its tokenizer, its logits."""
    import transformers

    _, _, lead, labels, variables = GUARDS[name]
    words = transformers.PreTrainedTokenizerFast.from_pretrained(folder / "hf")
    if name == "Llama Guard":
        messages = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]
    text = words.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **variables) + lead
    ids = words.encode(text, add_special_tokens=False)
    firsts = [words.encode(text + label, add_special_tokens=False)[len(ids)] for label in labels]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1][firsts]
    return dict(zip(labels, torch.softmax(logits.double(), 0).tolist(), strict=True))
