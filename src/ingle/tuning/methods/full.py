"""Full fine-tuning: every parameter of the chosen layers; of all layers, the embedding and the final norm too."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ingle.model.module import CausalLM
from ingle.tuning.tuning_method import Attached, attached

KIND = "full"
RATE = 5e-5


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of full fine-tuning."""

    # Whether all layers mean the embedding, the head and the final norm too. Without them, steps are faster and take less memory.
    embeddings: bool = True


def attach(module: CausalLM, layers: tuple[int, ...], settings: Settings, seed: int) -> Attached:
    """See `tuning.tuning_method.Method`; nothing is random.

    The values before training stay in memory, in their type, because the delta is the difference to them.
    """
    whole = settings.embeddings and len(layers) == len(module.model.layers)
    beginnings = tuple(f"model.layers.{layer}." for layer in layers)
    # a tied head is the embedding, and named only once
    parameters = {name: p for name, p in module.named_parameters() if whole or name.startswith(beginnings)}
    before = {name: p.data for name, p in parameters.items()}
    for parameter in parameters.values():
        parameter.data = parameter.data.clone()

    def collect() -> dict[str, Tensor]:
        return {name: (p.detach().float() - before[name].float()).to(torch.float16) for name, p in parameters.items()}

    return attached(module, tuple(parameters), parameters, collect)
