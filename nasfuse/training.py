"""Training: one readable loop.

Muon orthogonalises the update of each convolution's filters, SGD moves the rest, both over one
cycle of the learning rate. The arithmetic is bfloat16 where the machine has it in hardware, the
layout channels last.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from nasfuse.capturing import CapturedStep
from nasfuse.cpu_convolutions import go_around
from nasfuse.data.batches import Images
from nasfuse.gpus import whole_float32
from nasfuse.joining import joined, parts
from nasfuse.layouts import keep_channels_last
from nasfuse.muon import BatchedMuon
from nasfuse.optimizers import EagerSGD
from nasfuse.recipe import Recipe

_TEMPERATURES = [2.0 ** (step / 4) for step in range(-12, 13)]  # 1/8 to 8
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


class NonFiniteError(ArithmeticError):
    """A loss or an output that is infinite or not a number: this network cannot be scored."""


class Score(NamedTuple):
    """Of a network on some images: share of right answers, and mean cross-entropy.

    `calibrated_loss` is that at the temperature between 1/8 and 8 where it is lowest (Guo et al.
    2017, arXiv:1706.04599): free of how sure a network is altogether, which label smoothing and the
    length of the training decide. `right` has a bit an image, in their order: whether the answer
    was right.
    """

    accuracy: float
    loss: float
    calibrated_loss: float
    right: bytes


@cache
def has_bf16(device: str) -> bool:
    """Whether the device multiplies bfloat16 in hardware; emulated it would be slower."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = Path("/proc/cpuinfo")
    if platform.system() != "Linux" or not flags.exists():
        return False
    text = flags.read_text()
    return "amx_bf16" in text or "avx512_bf16" in text


def autocast(device: torch.device, *, on: str | None = None) -> torch.autocast:
    """The types of a device's arithmetic; `on` has them for tensors of another kind of device."""
    # a graph must not keep weights that were cast for another step
    cached, enabled = device.type != "cuda", has_bf16(device.type)
    kind = on or device.type
    return torch.autocast(kind, torch.bfloat16, enabled=enabled, cache_enabled=cached)


class Training:
    """One network on its way through a run, step by step; resumable between any two.

    `done` of `steps` are behind it; `loss` is the mean training loss of those. With `average`, the
    mean of the weights over the last steps is kept beside them.
    """

    def __init__(
        self, network: nn.Module, images: Images, recipe: Recipe, *, epochs: int, seed: int
    ) -> None:
        self.device = images.pixels.device
        self.network = network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.device.type == "cpu":
            go_around(self.network, bf16=has_bf16("cpu"))
            keep_channels_last(self.network)
        self.images, self.recipe, self.epochs, self.seed = images, recipe, epochs, seed
        self.done, self.loss = 0, 0.0
        self.per_epoch = images.batch_count(recipe.batch)
        self.steps = self.per_epoch * epochs
        self.parameters = list(self.network.parameters())
        self.average: Tensor | None = None  # laid out as the weights
        filters, rest = _filters_and_rest(self.network)
        order = sorted(range(len(filters)), key=lambda index: _sides(filters[index]))
        filters = [filters[index] for index in order]  # equal ones side by side
        self.orders = range(len(rest)), order  # of parameters in what each optimiser moves
        self.learned = [*filters, *rest]
        self.weights = joined(self.learned)
        gradients, count = torch.zeros_like(self.weights), sum(p.numel() for p in filters)
        self.gradients = parts(gradients, self.learned)
        matrices, others = map(nn.Parameter, self.weights.tensor_split([count]))
        matrices.grad, others.grad = gradients.tensor_split([count])
        decay = recipe.weight_decay
        # rates as tensors, which a captured step can follow
        rate, filter_rate = torch.zeros(2, device=self.device).unbind()
        self.optimizers: list[Optimizer] = [
            EagerSGD([others], rate, recipe.momentum, weight_decay=decay, nesterov=True, fused=True)
        ]
        self.rates = [(recipe.rate, rate), (recipe.filter_rate, filter_rate)]
        if filters:
            # Muon scales its decay by the rate as SGD does, so the same product wants this ratio
            muon_decay = decay * recipe.rate / recipe.filter_rate
            shapes = [_sides(parameter) for parameter in filters]
            bf16, momentum = has_bf16(self.device.type), recipe.momentum
            self.optimizers.append(
                BatchedMuon(matrices, shapes, filter_rate, muon_decay, momentum, bf16=bf16)
            )
        self.cycle = _OneCycle(self.steps, recipe.warmup)
        # steps between two looks at the loss, for which a GPU has to be waited for
        self._patience = 1 if self.device.type == "cpu" else 50
        self.compute = CapturedStep(self._compute)
        self.on_step: Callable[[], object] = lambda: None  # a sign of life

    def keep_average(self) -> None:
        """Average the weights from here on, where that has not begun."""
        if self.average is None:
            self.average = self.weights.clone()

    def advance(self, until: int) -> float:
        """Train up to a step, at most to the end of the epoch; returns the mean loss of that.

        Raises:
            NonFiniteError: the loss, an output or a statistic of batch norm is not finite.
        """
        self.network.train()
        epoch, start = divmod(self.done, self.per_epoch)
        stop = min(self.per_epoch, start + until - self.done)
        size = self.recipe.batch
        order = self._order(epoch)[start * size : stop * size]
        long = self.epochs >= self.recipe.augment_from_epochs
        vary = self.recipe.augmentation if long else None
        losses: list[Tensor] = []
        for x, y in self.images.batches(size, order=order, vary=vary):
            losses.append(self._step(x, y))
            if len(losses) % self._patience == 0 and not math.isfinite(losses[-1].item()):
                break  # what follows would be no better
        mean = float(torch.stack(losses).mean())
        if not math.isfinite(mean):
            raise NonFiniteError(f"training loss is {mean} in epoch {epoch + 1} of {self.epochs}")
        _require_finite(self.network)
        self.loss += (mean - self.loss) * len(losses) / self.done
        return mean

    def epoch(self) -> float:
        """Train to the end of the epoch; returns the mean training loss.

        Raises:
            NonFiniteError: the loss left the finite numbers.
        """
        return self.advance(self.steps)

    def _order(self, epoch: int) -> Tensor:
        """The shuffled images of an epoch, the same for whoever resumes in its middle."""
        generator = torch.Generator().manual_seed(self.seed + epoch)
        return torch.randperm(len(self.images), generator=generator)

    def _step(self, x: Tensor, y: Tensor) -> Tensor:
        share = self.cycle(self.done)
        for rate, now in self.rates:
            now.fill_(share * rate)
        loss = self.compute(x, y)
        self.done += 1
        self.on_step()
        if self.average is not None:
            self._accumulate(self.average)
        return loss

    def _compute(self, x: Tensor, y: Tensor) -> Tensor:
        """All of a step that happens on the device; nothing here waits for it."""
        with autocast(self.device):
            outputs = self.network(x)
        wanted = soft_labels(y, outputs.shape[1], self.recipe.label_smoothing)
        # of all outputs, so it is as finite as they are
        return self._learn(functional.cross_entropy(outputs.float(), wanted))

    def _learn(self, loss: Tensor) -> Tensor:
        """Move the weights against the gradient of the loss, which is returned."""
        # not backward(): adding to what parameters hold costs small networks a tenth of a step
        found = torch.autograd.grad(loss, self.learned, allow_unused=True, materialize_grads=True)
        torch._foreach_copy_(self.gradients, found)
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.detach()

    def _accumulate(self, average: Tensor) -> None:
        """Polynomial-decay averaging (Shamir & Zhang 2013, arXiv:1212.1824).

        What counts is a share of the steps done, so it needs no setting for the run's length.
        """
        weight = (self.recipe.averaging + 1) / (self.recipe.averaging + self.done)
        average.lerp_(self.weights, min(1.0, weight))

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The network with averaged weights, to be judged; afterwards it is as it was."""
        assert self.average is not None, "keep_average was not called"
        before = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.weights.copy_(self.average)
        try:
            yield self.network
        finally:
            self.network.load_state_dict(before)

    def state(self) -> dict[str, Any]:
        """All that another process needs to go on from here, as tensors and plain values."""
        average = None if self.average is None else parts(self.average, self.parameters)
        return {
            "done": self.done,
            "loss": self.loss,
            "network": self.network.state_dict(),
            "average": average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "random": torch.get_rng_state(),
            "device": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
        }

    def _share_rates(self) -> None:
        """Let the optimisers, which have copied them, read the rates that the schedule writes."""
        for optimizer, (_, rate) in zip(self.optimizers, self.rates, strict=False):
            for group in optimizer.param_groups:
                group["lr"] = rate

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned, bit for bit on the same machine's CPUs."""
        self.done, self.loss = state["done"], state["loss"]
        self.network.load_state_dict(state["network"])
        if state["average"] is not None:
            self.keep_average()
            assert self.average is not None
            saved = [value.to(self.device) for value in state["average"]]
            torch._foreach_copy_(parts(self.average, self.parameters), saved)
        for optimizer, held, order in zip(
            self.optimizers, state["optimizers"], self.orders, strict=False
        ):
            optimizer.load_state_dict(_in_one(held, order))
        self._share_rates()
        self.compute = CapturedStep(self._compute)  # a graph would go on with the old tensors
        torch.set_rng_state(state["random"])
        if state["device"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["device"])


def soft_labels(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Probabilities (batch, classes) that are asked for (Szegedy et al. 2016, arXiv:1512.00567).

    torch's own smoothing of labels takes 1% of a small network's step more.
    """
    even = smoothing / classes
    wanted = torch.full((len(labels), classes), even, device=labels.device)
    return wanted.scatter_(1, labels[:, None], 1 - smoothing + even)


def _require_finite(network: nn.Module) -> None:
    for name, buffer in network.named_buffers():
        if buffer.is_floating_point() and not buffer.isfinite().all():
            raise NonFiniteError(f"{name} is not finite")


def _filters_and_rest(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Filters that mix channels, which are matrices to Muon; and everything else."""
    filters: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for parameter in network.parameters():
        mixes = parameter.ndim == 4 and parameter.shape[1] > 1
        (filters if mixes else rest).append(parameter)
    return filters, rest


def _in_one(saved: dict[str, Any], order: Sequence[int]) -> dict[str, Any]:
    """An optimiser's state for a vector, also from checkpoints of single tensors, put in order."""
    momenta = [state["momentum_buffer"].flatten() for _, state in sorted(saved["state"].items())]
    if len(momenta) > 1:
        momenta = [momenta[index] for index in order]
    groups = [{**group, "params": [0]} for group in saved["param_groups"]]
    state = {0: {"momentum_buffer": torch.cat(momenta)}} if momenta else {}
    return {"state": state, "param_groups": groups}


def _sides(filters: Tensor) -> tuple[int, int]:
    """Of the matrix (outputs, k * k * inputs) that (outputs, inputs, k, k) are in memory."""
    return len(filters), filters[0].numel()


class _OneCycle:
    """A linear rise from 0 over the first share of the steps, then a linear fall to 0."""

    def __init__(self, steps: int, warmup: float) -> None:
        self.steps, self.rise = steps, max(1, round(steps * warmup))

    def __call__(self, step: int) -> float:
        if step < self.rise:
            return (step + 1) / self.rise
        return max(0.0, (self.steps - step) / (self.steps - self.rise + 1))


def evaluate(network: nn.Module, images: Images, *, batch: int = 128) -> Score:
    """Accuracy and losses of a network in evaluation mode.

    Raises:
        NonFiniteError: an output or a loss is infinite or not a number (argmax would still give a
            class).
    """
    hits, losses = [], torch.zeros(len(_TEMPERATURES), dtype=torch.float64)
    for outputs, y in answers(network, images, batch=batch):
        hits.append((outputs.argmax(1) == y).cpu())
        sums = [functional.cross_entropy(outputs / t, y, reduction="sum") for t in _TEMPERATURES]
        losses += torch.stack(sums).cpu()
    if not losses.isfinite().all():  # outputs that are finite can be too far apart
        raise NonFiniteError("losses on validation images are not finite")
    means: list[float] = (losses / len(images)).tolist()
    right = torch.cat(hits).numpy()
    loss, lowest = means[_TEMPERATURES.index(1.0)], _lowest(means)
    return Score(int(right.sum()) / len(images), loss, lowest, np.packbits(right).tobytes())


def _lowest(values: Sequence[float]) -> float:
    """Of a smooth function at even distances: the vertex of the parabola at the lowest one."""
    at = min(range(len(values)), key=values.__getitem__)
    if not 0 < at < len(values) - 1:
        return values[at]
    before, lowest, after = values[at - 1 : at + 2]
    bend = before - 2 * lowest + after
    return lowest - (after - before) ** 2 / (8 * bend) if bend > 0 else lowest


@torch.inference_mode()
def answers(
    network: nn.Module, images: Images, *, batch: int = 128, precise: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """A network's outputs (n, classes) in evaluation mode, and the labels (n,), batch by batch.

    `precise` is float32 throughout, as whoever takes the network elsewhere will have it.

    Raises:
        NonFiniteError: an output is infinite or not a number.
    """
    network.eval()
    for x, y in images.batches(batch):
        with whole_float32() if precise else autocast(x.device):
            outputs = network(x).float()
        if not outputs.isfinite().all():
            raise NonFiniteError("outputs on validation images are not finite")
        yield outputs, y


@torch.no_grad()
def recalibrate(network: nn.Module, images: Images, *, batch: int = 128, count: int = 4) -> None:
    """Measure the statistics of batch norm anew, as their mean over `count` training batches.

    The moving averages that training leaves lag behind the weights; after a short run they are
    mostly their initial values.

    Raises:
        NonFiniteError: one of them is infinite or not a number.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a cumulative mean
    network.train()
    # evenly spaced, for the images may be sorted by class
    order = torch.linspace(0, len(images) - 1, min(len(images), batch * count)).long()
    order = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(0))]
    for x, _ in images.batches(batch, order=order):
        with autocast(x.device):
            network(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    _require_finite(network)


def reserve_memory() -> None:
    """Keep the C library from returning large blocks to the system after every operator.

    It would fetch them back page by page for the next one: measured, 15 to 60% of the time of
    networks with large maps. Only glibc has these settings; elsewhere nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    # older glibc refuses more than 32 MB; the second setting without the first does harm
    if mallopt and (mallopt(_M_MMAP_THRESHOLD, 2**30) or mallopt(_M_MMAP_THRESHOLD, 2**25)):
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
