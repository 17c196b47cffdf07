"""Initial values of the parameters."""

import math

import torch

from ingle.core.spec import ModelConfig
from ingle.model.module import Attention, CausalLM
from ingle.model.module_parts import READ

SPREAD = 0.02
_INTO_STREAM = ("o_proj", "down_proj")


def new_module(config: ModelConfig, seed: int) -> CausalLM:
    """Make a module with initial values, in float32.

    Matrices are normal with a spread of 0.02; those that add to the residual stream, 2 a layer, with 0.02 / √(2 · layers), so that the
    stream is as wide at its end however many layers there are (GPT-2). Norms begin at 1, biases at 0, memories as `Memory.begin` says.
    A memory without a window beside it is read from the start, for there is nothing else.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # what PyTorch draws here is written over
        module = CausalLM(config)
    draw = torch.Generator().manual_seed(seed)
    narrow = SPREAD / math.sqrt(2 * len(config.layers))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if ".memory." in name or name.endswith("norm.weight"):
                continue
            if parameter.ndim == 1:
                parameter.zero_()
            else:
                parameter.normal_(0.0, narrow if name.split(".")[-2] in _INTO_STREAM else SPREAD, generator=draw)
        for part in module.modules():
            if isinstance(part, Attention) and part.memory is not None:
                part.memory.begin()
                if not part.spec.window:
                    part.memory.gate.bias.fill_(-READ)
    return module
