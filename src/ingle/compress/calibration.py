"""Calibration: texts read layer by layer through a model, and the inputs of each linear on the way.

A layer is judged by its inputs X [T, K] over all texts; H = Xᵀ X / T holds all that is needed of them. The squared error of a changed
linear, per token, is tr(ΔW H ΔWᵀ). Tokens may weigh unequally: H = Xᵀ diag(w) X / T. Layers are read in turn, so one layer's inputs come
from the layers before it as they are now: later layers can make up for what these lost (arXiv 2210.17323). A second stream, of the
original, gives the drift = (X₀ − X)ᵀ X / T.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ingle.core.config import Count, check_bounds
from ingle.core.errors import ConfigError
from ingle.core.progress import FetchProgress, silent
from ingle.home.place import Home
from ingle.measure.data_sets import Text
from ingle.measure.suites import find_suite, training_rows
from ingle.model.module import CausalLM, DecoderLayer
from ingle.model.module_parts import rows_of
from ingle.model.tokenizer import Tokenizer

SUITES = ("xsum-bits", "wiki-bits")  # suites whose training parts are read; held-out items, which are measured on, are never among them
# A layer's linears in the order in which they act. Linears of one stage have the same input.
STAGES = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
_LEADER = {name: stage[0] for stage in STAGES for name in stage}  # for each linear, the first one that has the same input


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """Settings of the texts that a model reads."""

    # Rows of text. With more, the fit holds better for other texts, and takes longer.
    documents: Count = 64
    tokens: Count = 1024  # tokens of each row
    # Rows read at once. More need more memory; nothing else changes.
    batch: Count = 8
    seed: int = 0  # seed of the order of the texts

    def __post_init__(self) -> None:
        check_bounds(self, "calibration.")


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """Inputs of a linear of K columns, summed over all tokens."""

    tokens: int  # number of tokens
    # float64 [K, K]: H = Xᵀ diag(w) X / T. The root of its diagonal is the root mean square of each input.
    hessian: Tensor
    drift: Tensor | None = None  # float64 [K, K]: (X₀ − X)ᵀ X / T, X₀ the inputs in the original; None without a second stream


class Stream:
    """Hidden states of all rows on their way through the layers, float32 [rows, tokens, hidden]."""

    def __init__(self, module: CausalLM, rows: Tensor, batch: int = 8) -> None:
        """`rows`: token ids, int64 [rows, tokens]."""
        self._batch = batch
        with torch.no_grad():
            self.states = module.model.embed_tokens(rows)
            self._angles = module.angles(torch.arange(rows.shape[1], dtype=torch.float32).repeat(batch), self.states.dtype)

    def inputs(
        self, layer: DecoderLayer, linears: Sequence[str], beside: "tuple[Stream, DecoderLayer] | None" = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Inputs]:  # fmt: skip
        """Sum up the inputs of some of a layer's linears, by name (`mlp.down_proj`), from the states as they are.

        `beside`: the original's stream and the same layer of it, for the drift. `weights`: by linear, the weight of each token, float32
        [rows · tokens]; by default all weigh 1.
        """
        key_of = {name: _LEADER[name] if weights is None else name for name in linears}  # one input, and one sum where all weigh alike
        keys, first = (tuple(dict.fromkeys(names)) for names in (key_of.values(), (_LEADER[name] for name in linears)))
        sums, each = dict[str, list[Tensor]](), self.states.shape[1]
        for start in range(0, len(self.states), self._batch):
            got = self._caught(layer, first, start)
            theirs = beside[0]._caught(beside[1], first, start) if beside is not None else {}
            for key in keys:
                x = got[_LEADER[key]]
                y = x if weights is None else x * weights[key][start * each : start * each + len(x), None].sqrt()
                products = [y.T @ y, *([(theirs[key] - x).T @ x] if theirs else [])]
                before = sums.get(key)
                sums[key] = [new.double() if before is None else before[i] + new for i, new in enumerate(products)]
        tokens = self.states.shape[0] * each
        by_key = {key: Inputs(tokens, *(total / tokens for total in totals)) for key, totals in sums.items()}
        return {name: by_key[key] for name, key in key_of.items()}

    @torch.no_grad()
    def advance(self, layer: DecoderLayer) -> None:
        """Move all states through a layer."""
        for start in range(0, len(self.states), self._batch):
            chosen = slice(start, start + self._batch)
            self.states[chosen] = self._through(layer, self.states[chosen])

    def _through(self, layer: DecoderLayer, x: Tensor) -> Tensor:
        """Return what a layer makes of rows [rows, tokens, hidden]."""
        cos, sin = (turned[:, : x.shape[0] * x.shape[1]] for turned in self._angles)
        y: Tensor = layer(x.flatten(0, 1), cos, sin, rows_of(*x.shape[:2]))
        return y.view(x.shape)

    @torch.no_grad()
    def _caught(self, layer: DecoderLayer, linears: Sequence[str], start: int) -> dict[str, Tensor]:
        """Catch the inputs [tokens, K] of linears for the rows of one batch. Nothing behind the last of them is computed."""
        caught: dict[str, Tensor] = {}

        def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            def catch(_module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
                caught[name] = arguments[0]
                if len(caught) == len(linears):
                    raise _Enough

            return catch

        hooks = [layer.get_submodule(name).register_forward_pre_hook(hook(name)) for name in linears]
        try:
            self._through(layer, self.states[start : start + self._batch])
        except _Enough:
            pass
        finally:
            for one in hooks:
                one.remove()
        return caught


class _Enough(Exception):
    """Stops a layer when all its wanted inputs are caught."""


def read_texts(home: Home, progress: FetchProgress = silent) -> list[Text]:
    """Read the training parts of the suites of texts. Raises the errors of fetching them."""
    return [
        Text(f"{name} {row['id']}", row["id"], row["text"]) for name in SUITES for row in training_rows(find_suite(name), home, progress)
    ]


def make_rows(tokenizer: Tokenizer, texts: Sequence[Text], settings: CalibrationSettings, context_length: int) -> Tensor:
    """Token ids int64 [documents, tokens]: the texts on end, shuffled, cut into rows. Raises ConfigError for too little text."""
    tokens = min(settings.tokens, context_length)
    needed, ids = settings.documents * tokens, list[int]()
    for text in random.Random(settings.seed).sample(list(texts), len(texts)):
        if len(ids) >= needed:
            break
        ids += tokenizer.encode(f"{text.text}\n\n")
    if len(ids) < needed:
        cure = f"Ask for fewer: calibration.documents={len(ids) // tokens}." if len(ids) >= tokens else "Give longer texts."
        raise ConfigError("calibration", f"needs {needed:,} tokens of text", f"{len(ids):,}", cure)
    return torch.tensor(ids[:needed], dtype=torch.int64).view(settings.documents, tokens)
