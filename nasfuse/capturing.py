"""A training step as one CUDA graph: launched at once instead of kernel by kernel.

Small networks leave a GPU waiting for the processor that launches their kernels. A graph is
captured once for each network, which takes a moment; compiling would take longer than most runs.
https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

WARMUP = 3  # steps before the capture, in which libraries choose their kernels

log = logging.getLogger(__name__)

Step = Callable[[Tensor, Tensor], Tensor]


@cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """The one of this process for steps beside the current stream.

    Memory that was allocated on a stream is used again on that stream only.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class CapturedStep:
    """Runs a step of training, on a GPU as a graph once the shape of its batches is known.

    `step` takes images and labels and returns a loss. It reads nothing from the device, and what
    changes between steps is in tensors that stay. Batches of other shapes, such as the last of an
    epoch, and all on other devices run as they are. `refused` says why a step that could not be
    captured runs so as well.

    Raises:
        torch.OutOfMemoryError: the GPU does not hold the graph.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._seen = 0
        self.refused: str | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._images = self._labels = self._loss = torch.empty(0)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        if not self._capturable(images):
            return self._step(images, labels)
        if self._graph is not None and images.shape == self._images.shape:
            return self._replay(images, labels)
        if self._graph is None and self._ready(images) and self._captured(images, labels):
            return self._replay(images, labels)
        return self._aside(images, labels)

    def _capturable(self, images: Tensor) -> bool:
        return images.device.type == "cuda"

    def _ready(self, images: Tensor) -> bool:
        """Whether enough batches of this shape were seen to capture the step."""
        if self.refused is not None:
            return False
        self._seen = self._seen + 1 if images.shape == self._images.shape else 1
        self._images = images
        return self._seen > WARMUP

    def _captured(self, images: Tensor, labels: Tensor) -> bool:
        """Capture the step; what cannot be captured is slower, and no reason to fail."""
        try:
            self._capture(images, labels)
        except RuntimeError as error:
            self._graph = None
            for cause in (error, error.__context__):  # ending a broken capture may fail as well
                if isinstance(cause, torch.OutOfMemoryError):
                    raise cause from None
            self.refused = f"{type(error).__name__}: {error}".splitlines()[0]
            log.warning("a training step runs without a CUDA graph: %s", error)
        return self.refused is None

    def _aside(self, images: Tensor, labels: Tensor) -> Tensor:
        """On the stream of the capture, as capturing wants the steps before it."""
        stream = side_stream(images.device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            loss = self._step(images, labels)
        torch.cuda.current_stream().wait_stream(stream)
        return loss

    def _capture(self, images: Tensor, labels: Tensor) -> None:
        """Record the step; nothing is computed."""
        self._images, self._labels = images.clone(), labels.clone()
        self._graph = torch.cuda.CUDAGraph()
        stream = side_stream(images.device)
        # the outer one leaves the stream also where ending the capture fails
        with torch.cuda.stream(stream), torch.cuda.graph(self._graph, stream=stream):
            self._loss = self._step(self._images, self._labels)

    def _replay(self, images: Tensor, labels: Tensor) -> Tensor:
        assert self._graph is not None
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._graph.replay()
        return self._loss.clone()
