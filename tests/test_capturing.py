"""What of a captured step can be checked without a GPU: that it can be captured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nasfuse import capturing
from nasfuse.capturing import WARMUP, CapturedStep
from nasfuse.data.batches import Images, Normalisation
from nasfuse.network import build
from nasfuse.recipe import Recipe
from nasfuse.space import load_space
from nasfuse.training import Training


class NothingIsRead(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fails where a value is taken from a device, for which a GPU would have to be waited for."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        assert func.overloadpacket not in READING, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


READING = {
    torch.ops.aten._local_scalar_dense,
    torch.ops.aten.nonzero,
    torch.ops.aten.masked_select,
    torch.ops.aten.equal,
}


@pytest.mark.parametrize("space", ["default", "densenet", "fusions", "mobile", "multiscale"])
@pytest.mark.parametrize("seed", range(3))
def test_a_step_reads_nothing_from_the_device(space: str, seed: int) -> None:
    sample = load_space(space).sample(seed)
    architecture = sample.architecture
    channels, side = architecture.channels, architecture.resolution
    pixels, labels = torch.zeros(4, channels, side, side), torch.zeros(4, dtype=torch.long)
    flat = Normalisation((0.5,) * channels, (0.2,) * channels)
    images = Images(pixels.to(torch.uint8), labels, flat, side)
    training = Training(build(architecture), images, Recipe(), epochs=1, seed=0)
    training.network.train()
    x = pixels.contiguous(memory_format=torch.channels_last)
    with NothingIsRead():  # type: ignore[no-untyped-call]
        for _ in range(2):
            loss = training.compute(x, labels)
        with pytest.raises(AssertionError, match="waits"):
            loss.item()


class Graphs:
    """Stands in for torch.cuda: a graph that repeats the step it was given."""

    def __init__(self, step: CapturedStep) -> None:
        self.step = step
        self.captured: list[torch.Size] = []

    def capture(self, images: Tensor, labels: Tensor) -> None:
        self.captured.append(images.shape)
        self.step._images, self.step._labels = images.clone(), labels.clone()
        self.step._graph = object()  # type: ignore[assignment]

    def replay(self, images: Tensor, labels: Tensor) -> Tensor:
        assert images.shape == self.captured[-1]
        return self.step._step(images, labels) + 100


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[CapturedStep], Graphs]:
    def pretend(step: CapturedStep) -> Graphs:
        graphs = Graphs(step)
        monkeypatch.setattr(step, "_capture", graphs.capture)
        monkeypatch.setattr(step, "_replay", graphs.replay)
        monkeypatch.setattr(step, "_aside", step._step)
        monkeypatch.setattr(step, "_capturable", lambda images: True)
        return graphs

    return pretend


def test_only_whole_batches_are_replayed(on_gpu: Callable[[CapturedStep], Graphs]) -> None:
    step = CapturedStep(lambda images, labels: images.sum() + labels.sum())
    graphs = on_gpu(step)
    whole, part, labels = torch.ones(4), torch.ones(3), torch.zeros(())
    assert [float(step(whole, labels)) for _ in range(WARMUP)] == [4] * WARMUP
    assert float(step(part, labels)) == 3  # the end of an epoch: counting begins anew
    assert [float(step(whole, labels)) for _ in range(WARMUP)] == [4] * WARMUP
    assert [float(step(whole, labels)) for _ in range(2)] == [104, 104]
    assert float(step(part, labels)) == 3
    assert float(step(whole, labels)) == 104
    assert graphs.captured == [whole.shape]


def test_a_step_that_cannot_be_captured_runs_as_it_is(
    on_gpu: Callable[[CapturedStep], Graphs],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    step = CapturedStep(lambda images, labels: images.sum() + labels.sum())
    on_gpu(step)

    def refused(images: Tensor, labels: Tensor) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(step, "_capture", refused)
    whole, labels = torch.ones(4), torch.zeros(())
    assert [float(step(whole, labels)) for _ in range(WARMUP + 3)] == [4] * (WARMUP + 3)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "not permitted" in caplog.text
    assert step.refused == "RuntimeError: operation not permitted when stream is capturing"


@pytest.mark.parametrize("ends", [True, False])
def test_a_graph_that_the_memory_does_not_hold_is_no_reason_to_be_slower(
    on_gpu: Callable[[CapturedStep], Graphs], monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    step = CapturedStep(lambda images, labels: images.sum())
    on_gpu(step)

    def full(images: Tensor, labels: Tensor) -> None:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            if not ends:
                raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(step, "_capture", full)
    for _ in range(WARMUP):
        step(torch.ones(4), torch.zeros(()))
    with pytest.raises(torch.OutOfMemoryError):
        step(torch.ones(4), torch.zeros(()))


class Stream:
    """Stands in for a stream of a GPU."""

    def __init__(self, device: object = None) -> None:
        pass

    def wait_stream(self, other: Stream) -> None:
        assert other is not self


class Cuda:
    """Stands in for torch.cuda: it remembers the streams of eager steps and of captures."""

    def __init__(self) -> None:
        self.main = Stream()
        self.streams: list[Stream] = []

    def current_stream(self) -> Stream:
        return self.main

    def stream(self, stream: Stream) -> nullcontext[None]:
        self.streams.append(stream)
        return nullcontext()

    def graph(self, graph: object, stream: Stream | None = None) -> nullcontext[None]:
        return self.stream(stream or Stream())

    def CUDAGraph(self) -> object:
        return SimpleNamespace(replay=lambda: None)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cuda]:
    """Steps on the CPU behave as on a GPU."""
    cuda = Cuda()
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    for name in ("current_stream", "stream", "graph", "CUDAGraph"):
        monkeypatch.setattr(torch.cuda, name, getattr(cuda, name))
    monkeypatch.setattr(CapturedStep, "_capturable", lambda step, images: True)
    capturing.side_stream.cache_clear()
    yield cuda
    capturing.side_stream.cache_clear()


def test_eager_and_captured_steps_of_all_networks_share_a_stream(cuda: Cuda) -> None:
    for _ in range(2):
        step = CapturedStep(lambda images, labels: images.sum() + labels.sum())
        for count in [4] * (WARMUP + 2) + [3]:
            step(torch.ones(count), torch.zeros(()))
    [used] = set(cuda.streams)
    assert len(cuda.streams) == 2 * (WARMUP + 3), "a capture sets it twice"
    assert used is not cuda.main


def test_a_broken_capture_leaves_its_stream(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch does: what ends a capture leaves the stream only where it has not failed."""
    current = [cuda.main]

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        before, current[0] = current[0], stream
        try:
            yield
        finally:
            current[0] = before

    @contextmanager
    def graph(graph: object, stream: Stream) -> Iterator[None]:
        current[0] = stream
        yield
        raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    step = CapturedStep(lambda images, labels: images.sum())
    for _ in range(WARMUP + 1):
        assert float(step(torch.ones(4), torch.zeros(()))) == 4
    assert current == [cuda.main]
    assert step.refused


def test_other_devices_run_the_step_as_it_is() -> None:
    step = CapturedStep(lambda images, labels: images * labels)
    for _ in range(2 * WARMUP):
        assert step(torch.tensor(2.0), torch.tensor(3.0)) == 6
    assert step._graph is None
