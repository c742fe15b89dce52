"""Several processes, one per GPU, as `torchrun` starts them; a single process needs none of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from fisher_models.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Rank:
    """Which process this is."""

    index: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """The one that writes files and talks."""
        return self.index == 0


@contextmanager
def joined(device: str) -> Iterator[Rank]:
    """This process's place among those of `torchrun`; leaves the group at the end. `device` is auto, cpu or cuda.

    Raises TrainingError where CUDA is asked for and absent.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("run.device is 'cuda', and torch sees no CUDA device; use 'auto' or 'cpu'")
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if "WORLD_SIZE" not in os.environ:
        yield Rank(0, 1, torch.device("cuda" if on_gpu else "cpu"))
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    place = torch.device("cuda", local % max(1, torch.cuda.device_count())) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Rank(dist.get_rank(), dist.get_world_size(), place)
    finally:
        dist.destroy_process_group()


def computes_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than f32 there: a GPU, or a CPU with AMX or AVX-512 BF16. Others emulate it, slowly."""
    if device.type != "cpu":
        return True
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean over all processes, the same in each."""
    if not dist.is_initialized():
        return values
    dist.all_reduce(values)
    return values / dist.get_world_size()


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether any process says so; every process gets the same answer."""
    if not dist.is_initialized():
        return flag
    said = torch.tensor(float(flag), device=device)
    dist.all_reduce(said, op=dist.ReduceOp.MAX)
    return bool(said.item())


def wait_for_all() -> None:
    """Return once every process is here."""
    if dist.is_initialized():
        dist.barrier()
