"""Ranks: several processes that learn as one, started by torchrun. Each takes its share of the batches; gradients are added up.

    torchrun --standalone --nproc-per-node 2 SCRIPT

Every process holds the whole model. Tested: processes on one machine's CPU, over gloo.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from ingle.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among its peers. In a single process every method does nothing."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.world > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def sums(self, values: Sequence[float]) -> list[float]:
        """Return each number's sum over all processes."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        return [float(value) for value in tensor]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return self.sums([float(flag)])[0] > 0

    def check_equal(self, what: str, digest: str) -> None:
        """Raises ConfigError unless all processes have the same digest."""
        if self.world == 1:
            return
        own = torch.frombuffer(bytearray.fromhex(digest), dtype=torch.uint8)
        digests = [torch.empty_like(own) for _ in range(self.world)]
        dist.all_gather(digests, own)
        count = len({bytes(other.tolist()) for other in digests})
        if count > 1:
            cure = "Use the same files, settings and seed."
            raise ConfigError(what, "must be the same in every process", f"{count} different ones", cure)

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that torchrun started, or yield this one alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield Ranks()
        return
    mine = not dist.is_initialized()
    if mine:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        if mine:
            dist.destroy_process_group()
