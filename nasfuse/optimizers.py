"""Optimisers without torch's compiler, and without what it does around each step.

torch (2.13) imports the compiler in their methods to keep them out of it: two seconds of a
processor and 70 MB in every worker. The methods themselves are the same. Around a step it makes
room for profilers and hooks, 40 us each time, and SGD takes 80 to come to its one call.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer


class Eager(Optimizer):
    """To derive optimisers from that are never compiled."""

    add_param_group = unwrap(Optimizer.add_param_group)
    zero_grad = unwrap(Optimizer.zero_grad)
    state_dict = unwrap(Optimizer.state_dict)
    load_state_dict = unwrap(Optimizer.load_state_dict)

    def __init_subclass__(cls) -> None:
        cls.step.hooked = True  # type: ignore[attr-defined]  # else torch wraps it

    def momentum(self, parameter: Tensor) -> Tensor:
        """That of a parameter, in the same shape; zeros at first."""
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


class EagerSGD(Eager, SGD):
    """torch's SGD by its fused kernel; all parameters need a gradient at every step."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        del closure  # of optimisers that look at the loss
        for group in self.param_groups:
            parameters = group["params"]
            torch._fused_sgd_(
                parameters,
                [parameter.grad for parameter in parameters],
                [self.momentum(parameter) for parameter in parameters],
                weight_decay=group["weight_decay"],
                momentum=group["momentum"],
                lr=group["lr"],
                dampening=group["dampening"],
                nesterov=group["nesterov"],
                maximize=group["maximize"],
                is_first_step=False,  # which differs only with dampening
            )
