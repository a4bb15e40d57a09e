"""Memory: how much there is, what a training step keeps of it, and what running out looks like."""

from __future__ import annotations

import ctypes
import gc
import math
import os
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from nasfuse.architecture import Architecture
from nasfuse.network import build, cost
from nasfuse.ops.recomputing import has_recomputable, recompute
from nasfuse.plan import plan
from nasfuse.training import autocast

# of the parameters in a step: weights, gradients as they come and as one vector, momentum, what
# Muon looks ahead to, average
COPIES = 6
# times what is kept: operators work in memory of their own, and the C library, told to keep what
# it has (training.reserve_memory), is left with holes: measured, 2.3 to 2.9. On a GPU a guess,
# twice: a captured step keeps its memory, and the last batch of an epoch takes as much beside it
MARGINS = {"cpu": 2.8, "cuda": 2 * 1.3}
AMPLE = 200  # times the maps that blocks put out; needed are 4 to 76 times that, 39 in bfloat16
_CGROUP = Path("/sys/fs/cgroup")
# of what only a RuntimeError tells; oneDNN says the primitives where it gets no memory, and
# cuDNN the engine, where each of its ways to convolve wants more than there is
_WORDS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "alloc_failed",
    "could not create a primitive",
    "could not execute a primitive",
    "unable to find an engine",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device or the machine had no more memory to give."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in _WORDS)


def release_memory(device: torch.device) -> None:
    """Give back what an ended training has left; to be called when nothing refers to it."""
    gc.collect()  # a network and its captured step refer to each other
    if device.type == "cuda":
        torch.cuda.empty_cache()
    give_back()


def give_back() -> None:
    """Let the C library return to the system what it keeps of freed memory; only glibc can."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None:
        trim(0)


def room(device: torch.device, share: float) -> int:
    """Bytes that one of several trainings may take: a share of the device, as far as it is free."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(min(free, share * total))
    return int(share * free_memory())


def free_memory() -> int:
    """Bytes of main memory that are free: to the system, its container and this process."""
    found = [psutil.virtual_memory().available]
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        found += [] if limit == "max" else [max(0, int(limit) - used)]
    except (OSError, ValueError):  # another system, or no limits there
        pass
    try:
        import resource  # not on Windows
    except ImportError:
        return min(found)
    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
    if addresses != resource.RLIM_INFINITY:
        found.append(max(0, addresses - psutil.Process().memory_info().vms))
    return min(found)


def needed_memory(architecture: Architecture, batch: int, *, device: torch.device) -> int:
    """About the bytes that a training step takes at its peak, without the images.

    The network runs forward on tensors without content, in the types of the device, and what it
    keeps for the gradient is added up; about a tenth of a second.
    """
    side = architecture.resolution
    kept: dict[int, Tensor] = {}  # by storage: several layers keep the same map

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage()._cdata] = x
        return x

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x)
    with FakeTensorMode(), torch.random.fork_rng(devices=[]):
        network = build(architecture).train()
        with hooks, autocast(device, on="cpu"):
            network(torch.empty(batch, architecture.channels, side, side))
    own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    maps = sum(x.untyped_storage().nbytes() for at, x in kept.items() if at not in own)
    weights = sum(4 * parameter.numel() for parameter in network.parameters())
    return int(MARGINS[device.type] * maps) + COPIES * weights


def ample_memory(architecture: Architecture, batch: int) -> int:
    """Bytes that are more than a training step ever needs, from the sizes of the maps alone.

    Most networks are so small that this settles it; and torch, which looks closer, keeps something
    of each network that it has looked at.
    """
    return step_memory(architecture, batch, times=AMPLE)


def step_memory(architecture: Architecture, batch: int, *, times: int) -> int:
    """Bytes of a training step that keeps so many times the maps that blocks put out."""
    maps = sum(math.prod(layer.shape) for layer in plan(architecture))
    return 4 * (COPIES * cost(architecture).params + times * batch * maps)


def recompute_if_needed(
    network: nn.Module, architecture: Architecture, batch: int, *, device: torch.device, free: int
) -> bool:
    """Let dense layers compute again what does not fit in the free bytes; whether they do."""
    if not has_recomputable(network) or ample_memory(architecture, batch) <= free:
        return False
    if needed_memory(architecture, batch, device=device) <= free:
        return False
    recompute(network)
    return True
