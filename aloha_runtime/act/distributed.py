"""Several processes that train one policy, as torchrun or `accelerate launch` starts them; alone, there is one.

    torchrun --nproc-per-node 2 -m aloha_runtime.cli train --dataset PATH --output-dir OUT ...

Every process takes an equal share of each batch; the gradients are averaged by PyTorch's DistributedDataParallel. The
process of rank 0 alone validates, writes and speaks.
"""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from aloha_runtime.act.train_config import TrainConfig, TrainingError


class Processes:
    """This process among `count` of them: its `rank`, its device, and sums over all."""

    def __init__(self, config: TrainConfig) -> None:
        self.count, self.rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        self.device = torch.device(_device(config.device))
        if config.batch_size % self.count:
            fits = self.count * -(-config.batch_size // self.count)
            raise TrainingError(
                f"training configuration: batch_size = {config.batch_size} is that of all {self.count} processes "
                f"together, so it must be divisible by {self.count}; try {fits}"
            )
        if self.count > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def close(self) -> None:
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def rows(self, batch_size: int) -> slice:
        """This process's rows of a batch."""
        share = batch_size // self.count
        return slice(self.rank * share, (self.rank + 1) * share)

    def wrapped(self, network: nn.Module) -> nn.Module:
        """The network with its gradients averaged over all processes."""
        if self.count == 1:
            return network
        # The 1x1 convolutions of the small trunk, which is channels-last: a copy of a few kilobytes.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        return nn.parallel.DistributedDataParallel(network, gradient_as_bucket_view=True)

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """Rank 0 runs the block before the others do: what it leaves on disk is there for them."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def wait(self) -> None:
        if self.count > 1:
            dist.barrier()

    def summed(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes; the value itself stays."""
        total = value.detach().clone()
        if self.count > 1:
            dist.all_reduce(total)
        return total

    def mean(self, figures: Mapping[str, Tensor]) -> dict[str, float]:
        """Means of scalars over all processes, with one transfer from the device."""
        values = torch.stack([value.detach().float() for value in figures.values()])
        return dict(zip(figures, (self.summed(values) / self.count).tolist(), strict=True))

    def any(self, here: bool) -> bool:
        """Whether something is so in any process."""
        return here if self.count == 1 else bool(self.summed(torch.tensor(float(here), device=self.device)).item())


def _device(name: str) -> str:
    """`auto` resolved; of several processes on one machine each takes its own GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise TrainingError(f"training configuration: device = {name!r}: PyTorch finds no CUDA GPU here; use cpu")
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if name == "cuda" else name
