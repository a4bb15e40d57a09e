"""Optimisers without torch's compiler.

torch (2.13) imports it in their methods to keep them out of it: two seconds of a processor and
70 MB in every worker. The methods themselves are the same.
"""

from __future__ import annotations

from inspect import unwrap

import torch
from torch.optim import SGD, Optimizer


class Eager(Optimizer):
    """To derive optimisers from that are never compiled."""

    add_param_group = unwrap(Optimizer.add_param_group)
    zero_grad = unwrap(Optimizer.zero_grad)
    state_dict = unwrap(Optimizer.state_dict)
    load_state_dict = unwrap(Optimizer.load_state_dict)


class EagerSGD(Eager, SGD):
    """torch's SGD, which is not differentiable itself."""

    step = torch.no_grad()(unwrap(SGD.step))
