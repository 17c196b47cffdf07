"""A smaller model learns to follow the whole one: low-rank additions to its linears (LoRA, arXiv 2106.09685), KL divergence from the whole
one's predictions, on the training parts of the suites of texts. Where weights were cut out, the addition has the same holes.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ingle.compress.calibration import CalibrationSettings, make_rows
from ingle.compress.cutting import LINEARS
from ingle.compress.prune_settings import RecoverySettings
from ingle.core.config import from_table
from ingle.core.errors import ConfigError
from ingle.core.files import write_atomic
from ingle.measure.items import Text
from ingle.model.module import CausalLM
from ingle.model.tokenizer import Tokenizer
from ingle.train.corpus import Corpus, corpus_of
from ingle.train.encode import Document
from ingle.train.forward import final_states
from ingle.train.losses import Teacher
from ingle.train.objectives import Distillation
from ingle.train.optimisers import OptimiserSettings
from ingle.train.packing import Batch, Data, make_batch
from ingle.train.precision import DTYPES, choose
from ingle.train.schedules import Schedule
from ingle.train.settings import TrainSettings

Array = npt.NDArray[Any]
LENGTH = "length.json"
_TRIES = 3
"""Steps by whose time the number of all is reckoned, after one to warm up."""


class Repaired(nn.Module):
    """y = ((W + B A) ⊙ mask) x + b. Shapes: x [..., K], W and mask [N, K], A [r, K], B [N, r]."""

    def __init__(self, linear: nn.Linear, mask: Tensor | None, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias, self.mask = linear.weight, linear.bias, mask
        self.lora_A = nn.Linear(linear.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, linear.out_features, bias=False)
        with torch.no_grad():
            drawn = torch.rand(self.lora_A.weight.shape, generator=generator) * 2 - 1
            self.lora_A.weight.copy_(drawn * linear.in_features**-0.5)
            self.lora_B.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] → [..., N]."""
        if self.mask is None:
            added = nn.functional.linear(nn.functional.linear(x, self.lora_A.weight), self.lora_B.weight)
            return nn.functional.linear(x, self.weight, self.bias) + added
        whole = (self.weight + self.lora_B.weight @ self.lora_A.weight) * self.mask.to(x.dtype)
        return nn.functional.linear(x, whole, self.bias)


@dataclass(frozen=True, slots=True)
class Whole:
    """What the whole model predicts, as `train.objectives.Distillation` wants it."""

    module: CausalLM

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Teacher:
        """Of a batch, slice by slice."""
        states, head = final_states(self.module, batch), self.module.lm_head.weight
        return lambda at: states[at] @ head.T


@dataclass(frozen=True, slots=True)
class Length:
    """What is settled at the beginning, for a run must not change its course."""

    steps: int
    precision: Literal["bf16", "fp32"]


def attach(module: CausalLM, masks: Mapping[str, Array], settings: RecoverySettings) -> dict[str, nn.Parameter]:
    """Puts a `Repaired` in the place of every linear; `masks`: bool [N, K] by linear. Returns what is to be trained, by name."""
    generator, found = torch.Generator().manual_seed(settings.seed), dict[str, nn.Parameter]()
    layers: Any = module.model.layers
    for i, layer in enumerate(layers):
        for part in LINEARS:
            name, linear = f"model.layers.{i}.{part}", layer.get_submodule(part)
            most = min(linear.in_features, linear.out_features)
            if settings.rank > most:
                raise ConfigError("recovery.rank", f"must be at most {most}, the smaller side of {name}", settings.rank)
            mask = masks.get(name)
            new = Repaired(linear, None if mask is None else torch.from_numpy(mask), settings.rank, generator)
            owner, _, last = part.rpartition(".")
            setattr(layer.get_submodule(owner), last, new)
            found |= {f"{name}.{side}.weight": getattr(new, side).weight for side in ("lora_A", "lora_B")}
    return found


def make_data(tokenizer: Tokenizer, texts: Sequence[Text], settings: RecoverySettings, steps: int, context: int) -> Data:
    """Documents for so many steps, or as many as the texts give, and those that are held out. Every token counts but the first.

    Raises ConfigError for too little text.
    """
    each = _each(settings)
    wanted = settings.held_out + steps * each
    try:
        rows = make_rows(tokenizer, texts, CalibrationSettings(wanted, settings.tokens, seed=settings.seed + 1), context)
    except ConfigError:  # fewer, read more than once
        have = sum(len(tokenizer.encode(f"{text.text}\n\n")) for text in texts) // min(settings.tokens, context)
        if have <= settings.held_out + each:
            raise
        rows = make_rows(tokenizer, texts, CalibrationSettings(have, settings.tokens, seed=settings.seed + 1), context)
    told = np.arange(rows.shape[1]) > 0
    corpus: Corpus = corpus_of("answers", [(str(i), -1, (Document(row.numpy().astype(np.int32), told),)) for i, row in enumerate(rows)])
    return Data(corpus, range(settings.held_out, len(corpus)), range(settings.held_out))


def train_settings(settings: RecoverySettings, length: Length, data: Data) -> TrainSettings:
    """A run of so many steps."""
    each, steps = _each(settings), length.steps
    epochs = -(-steps // max(1, len(data.train) // each)) + 1
    optimiser = OptimiserSettings(learning_rate=settings.learning_rate)
    return TrainSettings(
        epochs=epochs, max_steps=steps, batch_tokens=settings.batch_tokens, optimiser=optimiser, seed=settings.seed,
        precision=length.precision, schedule=Schedule("cosine", warm_up=0.05), evaluate_every=max(25, steps // 8), checkpoint_minutes=5.0,
    )  # fmt: skip


def settle(
    settings: RecoverySettings, module: CausalLM, whole: CausalLM, parameters: Mapping[str, nn.Parameter], data: Data, path: Path
) -> Length:
    """How many steps the minutes are worth, and in which numbers: measured once and kept in `path`.

    Casts both modules as training will; what is trained stays as it is.
    """
    known = from_table(Length, json.loads(path.read_bytes())) if path.exists() else None
    precision = choose("auto", module.lm_head.weight.device) if known is None else known.precision
    for one, trained in ((module, parameters), (whole, {})):
        for name, parameter in one.named_parameters():
            parameter.requires_grad_(name in trained)
            if name not in trained:
                parameter.data = parameter.data.to(DTYPES[precision])
    if known is None:
        steps = settings.steps or max(1, round(60 * settings.minutes / _seconds_of_a_step(settings, module, whole, parameters, data)))
        known = Length(steps, precision)
        write_atomic(path, json.dumps(asdict(known)).encode(), mode=0o600)
    return known


def _seconds_of_a_step(
    settings: RecoverySettings, module: CausalLM, whole: CausalLM, parameters: Mapping[str, nn.Parameter], data: Data
) -> float:
    before, seconds = {name: parameter.data for name, parameter in parameters.items()}, list[float]()
    objective, batch = Distillation(Whole(whole), ""), make_batch(data.corpus, list(data.train[: _each(settings)]))
    for parameter in parameters.values():
        parameter.data = parameter.data.to(module.lm_head.weight.dtype)
    for _ in range(1 + _TRIES):
        began = time.perf_counter()
        objective(module, lambda: final_states(module, batch), batch).total.backward()  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - began)
    for name, parameter in parameters.items():
        parameter.grad, parameter.data = None, before[name]
    return sum(seconds[1:]) / _TRIES


def _each(settings: RecoverySettings) -> int:
    """Documents of a step."""
    return max(1, settings.batch_tokens // settings.tokens)


def additions(parameters: Mapping[str, nn.Parameter]) -> dict[str, Array]:
    """The delta's tensors, float32."""
    return {name: parameter.detach().float().cpu().numpy().copy() for name, parameter in parameters.items()}
