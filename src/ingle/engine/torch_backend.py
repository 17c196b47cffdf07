"""The PyTorch backend: the reference for the CPU backend, on any device, in any float type. It serves nothing. Needs the extra `learn`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ingle.core.errors import CheckpointError, DeltaError
from ingle.core.files import write_atomic
from ingle.core.spec import ModelConfig
from ingle.engine.backend import Additions, Backend, Segment, check_additions, check_segment
from ingle.model.module import CausalLM
from ingle.model.module_parts import Cache, Held, Remembered

TorchAdapter = dict[str, tuple[Tensor, Tensor, Tensor | None]]
_PARTS = ("keys", "values", "positions")
_MEMORY, _REMEMBERED, _MIXED = "memory", ("state", "keys", "values"), "mixed"


class TorchBackend:
    """A PyTorch module as a backend; see `engine.backend.Backend` for the contract. Sequences of a batch are run one after the other."""

    def __init__(self, module: CausalLM, digest: str) -> None:
        self.config: ModelConfig = module.config
        self.digest = digest
        self._module = module.eval()
        self._device = module.lm_head.weight.device

    def new_state(self) -> Cache:
        """Return a state that has read nothing."""
        return Cache()

    @property
    def exact_cuts(self) -> bool:
        """False: PyTorch sums in another order for other shapes."""
        return False

    @property
    def runner(self) -> Backend:
        """This backend."""
        return self

    def lower(self, segment: Segment) -> Segment:
        """Return the segment unchanged."""
        return segment

    def filled_state(self, keys: npt.NDArray[Any], values: npt.NDArray[Any]) -> Cache:
        """Return a cache of tokens with these keys and values; see `Runner.filled_state`.

        Raises DeltaError for a model with memories.
        """
        if self.config.is_recurrent:
            raise DeltaError("prefix", "can't stand before a model with recurrent memories", f"{keys.shape[2]} virtual tokens")
        cache, weight, groups = Cache(), self._module.lm_head.weight, self.config.num_kv_heads
        positions = torch.arange(keys.shape[2])
        for i, spec in enumerate(self.config.layers):
            for streaming, chosen in ((False, list(spec.retrieval)), (True, list(spec.streaming(groups)))):
                if chosen:
                    k, v = (torch.as_tensor(part[i][chosen][None]).to(weight.device, weight.dtype) for part in (keys, values))
                    cache.held[i, streaming] = Held(k, v, positions)
        cache.length = keys.shape[2]
        return cache

    def state_bytes(self, tokens: int) -> int:
        """Return the bytes of a cache of so many tokens, as if every group were a retrieval group."""
        config = self.config
        return 2 * len(config.layers) * config.num_kv_heads * config.head_dim * tokens * self._module.lm_head.weight.element_size()

    def adapter(self, additions: Additions, digest: str) -> TorchAdapter:
        """Prepare additions to linears; see `Backend.adapter`."""
        check_additions(self.config, additions)
        weight = self._module.lm_head.weight

        def here(matrix: npt.NDArray[Any]) -> Tensor:
            return torch.as_tensor(matrix).to(weight.device, weight.dtype)

        return {name: (here(added.a), here(added.b), None if added.bias is None else here(added.bias)) for name, added in additions.items()}

    def save_state(self, state: Cache, path: Path, digest: str = "") -> None:
        """Write a cache to a file; see `Backend.save_state`."""
        pieces = [(f"{layer}.{int(streaming)}", held, _PARTS) for (layer, streaming), held in state.held.items()]
        pieces += [(f"{layer}.{_MEMORY}", memory, _REMEMBERED) for layer, memory in state.memories.items()]  # type: ignore[misc]
        tensors = {f"{name}.{part}": getattr(piece, part).contiguous() for name, piece, parts in pieces for part in parts}
        tensors |= {f"{layer}.{_MIXED}.{i}": part.contiguous() for layer, parts in state.mixed.items() for i, part in enumerate(parts)}
        about = {"model": digest or self.digest, "length": str(state.length), "earliest_rewind": str(state.earliest_rewind)}
        write_atomic(path, save(tensors, about), mode=0o600)

    def load_state(self, path: Path, digest: str = "") -> Cache:
        """Read a cache from a file; see `Backend.load_state`."""
        try:
            with safe_open(path, "pt", device=str(self._device)) as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
        except (OSError, SafetensorError) as error:
            raise CheckpointError(str(path), "must be a whole state file", error, "Delete it; the prompt will be read again.") from error
        model = digest or self.digest
        if about.get("model") != model:
            raise CheckpointError(f"{path}: model", f"must be {model}", about.get("model"), "The state belongs to another model.")
        places = {tuple(name.split(".")[:2]) for name in tensors}
        held = {(int(i), s == "1"): Held(*(tensors[f"{i}.{s}.{part}"] for part in _PARTS)) for i, s in places if s not in (_MEMORY, _MIXED)}
        remembered = {int(i): Remembered(*(tensors[f"{i}.{s}.{part}"] for part in _REMEMBERED)) for i, s in places if s == _MEMORY}
        mixed = {int(i): tuple(tensors[name] for name in sorted(tensors) if name.startswith(f"{i}.{s}.")) for i, s in places if s == _MIXED}
        return Cache(int(about["length"]), held, remembered, int(about["earliest_rewind"]), mixed)

    @torch.inference_mode()
    def forward(self, segments: Sequence[Segment]) -> list[npt.NDArray[np.float32]]:
        """Read the tokens of every segment; see `Backend.forward`."""
        for segment in segments:
            check_segment(self.config, segment)
        return [self._read_with(segment) if segment.adapter else self._read(segment) for segment in segments]

    def _read_with(self, segment: Segment) -> npt.NDArray[np.float32]:
        """Read a segment with its adapter beside the linears that it adapts."""
        hooks = []
        for name, matrices in segment.adapter.items():
            hooks.append(self._module.get_submodule(name).register_forward_hook(partial(_add, matrices)))
        try:
            return self._read(segment)
        finally:
            for hook in hooks:
                hook.remove()

    def _read(self, segment: Segment) -> npt.NDArray[np.float32]:
        ids = torch.tensor([list(segment.ids)], device=self._device)
        hidden = self._module.hidden(ids, segment.state, segment.vectors)[0]
        needed = hidden[{"none": len(hidden), "last": len(hidden) - 1, "all": 0}[segment.logits] :]
        logits: npt.NDArray[np.float32] = self._module.logits(needed).float().cpu().numpy()
        return logits


def _add(matrices: tuple[Tensor, Tensor, Tensor | None], _linear: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    a, b, bias = matrices
    inner = nn.functional.linear(inputs[0], a, bias)
    return output + nn.functional.linear(inner if bias is None else inner.relu(), b)
