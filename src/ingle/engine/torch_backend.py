"""The PyTorch backend: any device, any float type. It serves on a GPU, and is the CPU backend's oracle. Needs the extra `learn`."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from ingle.core.spec import ModelConfig
from ingle.engine.backend import Segment, check_segment
from ingle.model.module import Cache, CausalLM


class TorchBackend:
    """A module that can be run; see `engine.backend.Backend` for the contract. Sequences of a batch are run one after the other."""

    def __init__(self, module: CausalLM, digest: str) -> None:
        self.config: ModelConfig = module.config
        self.digest = digest
        self._module = module.eval()
        self._device = module.lm_head.weight.device

    def new_state(self) -> Cache:
        """A state that has read nothing."""
        return Cache()

    def state_bytes(self, tokens: int) -> int:
        """Bytes of a cache of so many tokens, as if every group were a retrieval group."""
        config = self.config
        return 2 * len(config.layers) * config.num_kv_heads * config.head_dim * tokens * self._module.lm_head.weight.element_size()

    @torch.inference_mode()
    def forward(self, segments: Sequence[Segment]) -> list[npt.NDArray[np.float32]]:
        """Reads the tokens of every segment; see `Backend.forward`."""
        for segment in segments:
            check_segment(self.config, segment)
        return [self._read(segment) for segment in segments]

    def _read(self, segment: Segment) -> npt.NDArray[np.float32]:
        ids = torch.tensor([list(segment.ids)], device=self._device)
        hidden = self._module.hidden(ids, segment.state)[0]
        wanted = hidden[{"none": len(hidden), "last": len(hidden) - 1, "all": 0}[segment.logits] :]
        logits: npt.NDArray[np.float32] = self._module.logits(wanted).float().cpu().numpy()
        return logits
