"""Ordinary text that the model writes itself. It limits and measures how far a style moves the model.

Before anything is learned, the model continues a few plain beginnings, sampled at temperature 1. On such text, the mean Kullback-Leibler
divergence from the earlier model is the extra cost of text of that kind. So drift is given in percent of the entropy, as the gate gives
bits per byte. Every other text is held out: it is never learned from and only measures.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ingle.learn.trainable_model import Read, TrainableModel
from ingle.train.example_files import Document
from ingle.train.objectives import CHUNK, distillation
from ingle.train.writing import Drawn, write_all

# Beginnings of many kinds of text.
BEGINNINGS = (
    "The history of the town", "In the early morning,", '"Where have you been?" she asked.', "According to the report,",
    "To change a tyre,", "Dear Sir or Madam,", "The committee met on Tuesday", "He had never liked the sea,", "A cell is",
    "import os\n\ndef", "After the war,", "\"I don't know,\" said the old man,", "First, wash the vegetables", "The river rises",
    "My grandmother used to say", "In this paper, we", "The price of wheat", "Q: What is the capital of Norway?\nA:",
    "Across the street", "for i in range(10):\n    ", "There are three reasons", "The train was late again.", "Light travels",
    "Minutes of the meeting\n\n",
)  # fmt: skip


class Prose:
    """Texts of the model before it learned: half of them limit the drift, half measure it."""

    def __init__(self, model: TrainableModel, tokens: int, seed: int) -> None:
        """`tokens`: most tokens of each text."""
        self._model = model
        prompts = [model.tokenizer.encode_prompt(text) for text in BEGINNINGS]
        texts = write_all(model.module, prompts, tokens, model.tokenizer.eos_ids, Drawn(len(prompts), tokens, 1.0, [seed, 2]))
        documents = [Document(np.array(p + t, np.int32), np.arange(len(p + t)) >= len(p)) for p, t in zip(prompts, texts, strict=True)]
        self._held, self._back = documents[::2], documents[1::2]
        self._read = model.read(self._held)
        self._read_back = model.read(self._back)
        self._before = [self._states(self._read, [number]) for number in range(len(self._held))]
        self._before_back = torch.cat([self._states(self._read_back, [number]) for number in range(len(self._back))])
        self._entropy = _entropy(self._before_back, model.head)

    def divergence(self, chosen: Sequence[int]) -> Tensor:
        """Return the mean drift on some of the limiting texts, in nats a token. Numbers wrap around."""
        numbers = sorted({number % len(self._held) for number in chosen})
        row, x = self._read.row(numbers)
        states, before = self._model.states(row, x), torch.cat([self._before[number] for number in numbers])
        return distillation(states, self._model.head, lambda at: before[at] @ self._model.head.T) / len(before)

    @torch.no_grad()
    def drift(self) -> float:
        """Return by how many percent the held-out texts cost more nats than before."""
        after = torch.cat([self._states(self._read_back, [number]) for number in range(len(self._back))])
        moved = distillation(after, self._model.head, lambda at: self._before_back[at] @ self._model.head.T)
        return 100 * float(moved) / self._entropy

    @torch.no_grad()
    def _states(self, read: Read, numbers: Sequence[int]) -> Tensor:
        row, x = read.row(numbers)
        return self._model.states(row, x)


@torch.no_grad()
def _entropy(states: Tensor, head: Tensor) -> float:
    """Return the entropy summed over rows, in nats."""
    total = 0.0
    for part in torch.split(states, CHUNK):
        logs = (part @ head.T).float().log_softmax(-1)
        total -= float((logs.exp() * logs).sum())
    return total
