from __future__ import annotations

import copy
import dataclasses
from itertools import pairwise
from typing import Any

import pytest
import torch
from scipy.optimize import minimize_scalar

from nasfuse.architecture import Architecture
from nasfuse.data.batches import Images, cut, flipped, measure, shifted, subset
from nasfuse.data.dataset import Dataset, Split
from nasfuse.network import build
from nasfuse.recipe import Augmentation, Recipe
from nasfuse.training import NonFiniteError, Training, answers, evaluate, recalibrate, soft_labels

CPU = torch.device("cpu")
RECIPE = Recipe(batch=16, augment_from_epochs=100)


def images(dataset: Dataset, split: Split) -> Images:
    return Images.of(split, measure(dataset.train), resolution=16, device=CPU)


def training(dataset: Dataset, architecture: Architecture, *, epochs: int = 4) -> Training:
    torch.manual_seed(0)
    network = build(architecture)
    return Training(network, images(dataset, dataset.train), RECIPE, epochs=epochs, seed=0)


def test_it_learns(dataset: Dataset, architecture: Architecture) -> None:
    run = training(dataset, architecture, epochs=6)
    losses = [run.epoch() for _ in range(6)]
    recalibrate(run.network, run.images)
    assert losses[-1] < losses[0]
    assert evaluate(run.network, images(dataset, dataset.validation)).accuracy >= 0.9


def test_every_parameter_is_trained(dataset: Dataset, architecture: Architecture) -> None:
    run = training(dataset, architecture)
    before = [parameter.detach().clone() for parameter in run.network.parameters()]
    run.epoch()
    for old, new in zip(before, run.network.parameters(), strict=True):
        assert not torch.equal(old, new)


def test_same_seed_same_weights(dataset: Dataset, architecture: Architecture) -> None:
    first, second = (training(dataset, architecture) for _ in range(2))
    assert [first.epoch(), first.epoch()] == [second.epoch(), second.epoch()]
    for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_restored_run_ends_as_an_unbroken_one(
    dataset: Dataset, architecture: Architecture
) -> None:
    unbroken = training(dataset, architecture)
    for _ in range(2):
        unbroken.epoch()
    weights = {k: v.clone() for k, v in unbroken.state()["network"].items()}
    expected = [unbroken.epoch(), unbroken.epoch()]

    broken = training(dataset, architecture)
    for _ in range(2):
        broken.epoch()
    state = broken.state()
    resumed = training(dataset, architecture)
    resumed.restore(state)
    assert all(torch.equal(weights[k], v) for k, v in resumed.network.state_dict().items())
    assert [resumed.epoch(), resumed.epoch()] == expected
    assert resumed.done == resumed.steps
    assert resumed.loss == unbroken.loss


@pytest.mark.parametrize("pause", [3, 6, 8])
def test_a_run_may_stop_in_the_middle_of_an_epoch(
    dataset: Dataset, architecture: Architecture, pause: int
) -> None:
    whole, paused = (training(dataset, architecture, epochs=2) for _ in range(2))
    for run in (whole, paused):
        run.keep_average()
    while whole.done < whole.steps:
        whole.epoch()
    while paused.done < pause:
        paused.advance(pause)
    resumed = training(dataset, architecture, epochs=2)
    with paused.averaged():
        recalibrate(paused.network, paused.images)  # judging it leaves no trace
    resumed.restore(paused.state())
    while resumed.done < resumed.steps:
        resumed.epoch()
    assert whole.steps == 12
    assert resumed.loss == pytest.approx(whole.loss)
    for a, b in zip(whole.parameters, resumed.parameters, strict=True):
        assert torch.equal(a, b)
    assert whole.average is not None
    assert resumed.average is not None
    assert torch.equal(whole.average, resumed.average)


def test_checkpoints_with_a_momentum_for_each_tensor_go_on(
    dataset: Dataset, architecture: Architecture
) -> None:
    unbroken, resumed = (training(dataset, architecture, epochs=2) for _ in range(2))
    unbroken.epoch()
    state = copy.deepcopy(unbroken.state())
    count = len(unbroken.orders[1])
    moved = unbroken.learned[count:], unbroken.learned[:count]
    for saved, order, tensors in zip(state["optimizers"], unbroken.orders, moved, strict=True):
        momentum = saved["state"][0]["momentum_buffer"]
        parts = torch.split(momentum, [parameter.numel() for parameter in tensors])
        saved["state"] = {
            index: {"momentum_buffer": part.view(parameter.shape)}
            for index, part, parameter in zip(order, parts, tensors, strict=True)
        }
        saved["param_groups"][0]["params"] = list(range(len(tensors)))
    assert len(moved[1]) > 1
    assert list(unbroken.orders[1]) != sorted(unbroken.orders[1])
    resumed.restore(state)
    assert resumed.epoch() == unbroken.epoch()
    for a, b in zip(unbroken.parameters, resumed.parameters, strict=True):
        assert torch.equal(a, b)


def test_averaged_weights_are_the_mean_of_the_last_steps(
    dataset: Dataset, architecture: Architecture
) -> None:
    run = training(dataset, architecture)
    run.keep_average()
    expected = torch.zeros_like(run.parameters[0])
    for step in range(1, 7):
        run.advance(step)
        weight = min(1.0, (RECIPE.averaging + 1) / (RECIPE.averaging + step))
        expected += weight * (run.parameters[0].detach() - expected)
    now = run.parameters[0].detach().clone()
    with run.averaged() as network:
        assert torch.allclose(next(network.parameters()), expected, atol=1e-6)
    assert torch.equal(run.parameters[0], now)


def test_rate_rises_and_falls_to_zero(dataset: Dataset, architecture: Architecture) -> None:
    run = training(dataset, architecture, epochs=2)
    rates = []
    for x, y in list(run.images.batches(16)) * 2:
        run._step(x, y)
        rates.append(float(run.optimizers[0].param_groups[0]["lr"]))
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(RECIPE.rate)
    assert all(a < b for a, b in pairwise(rates[: top + 1]))
    assert all(a > b for a, b in pairwise(rates[top:]))
    assert run.cycle(run.done) == 0


def test_not_a_number_ends_the_run(dataset: Dataset, architecture: Architecture) -> None:
    run = training(dataset, architecture)
    next(run.network.parameters()).data.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="loss is nan in epoch 1"):
        run.epoch()
    with pytest.raises(NonFiniteError, match="not finite"):
        evaluate(run.network, images(dataset, dataset.validation))


def test_not_a_number_ends_the_run_at_once(dataset: Dataset, architecture: Architecture) -> None:
    run = training(dataset, architecture)
    steps: list[int] = []

    def spoil() -> None:
        steps.append(run.done)
        if run.done == 2:
            next(run.network.parameters()).data.fill_(float("nan"))

    run.on_step = spoil
    with pytest.raises(NonFiniteError, match="loss is nan in epoch 1"):
        run.epoch()
    assert steps == [1, 2, 3]
    assert run.per_epoch > 3


def test_an_output_that_no_label_asks_for_has_to_be_finite(
    dataset: Dataset, architecture: Architecture
) -> None:
    two = Split(dataset.train.images, dataset.train.labels % 2)
    recipe = RECIPE.model_copy(update={"label_smoothing": 0.0})
    run = Training(build(architecture), images(dataset, two), recipe, epochs=1, seed=0)
    head = [m for m in run.network.modules() if isinstance(m, torch.nn.Linear)][-1]
    assert head.bias is not None
    head.bias.data[2] = float("-inf")
    with pytest.raises(NonFiniteError, match="loss is nan"):
        run.epoch()


def test_statistics_measured_anew_have_to_be_finite(
    dataset: Dataset, architecture: Architecture
) -> None:
    network = build(architecture)
    with torch.no_grad():
        next(network.parameters()).mul_(1e25)
    with pytest.raises(NonFiniteError, match="running_var is not finite"):
        recalibrate(network, images(dataset, dataset.train))


class Surer(torch.nn.Module):
    """The same answers, given twice as surely."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = 2 * self.network(x)
        return outputs


def test_the_calibrated_loss_is_the_lowest_at_any_temperature(
    dataset: Dataset, architecture: Architecture
) -> None:
    run = training(dataset, architecture)
    run.epoch()
    recalibrate(run.network, run.images)
    data = images(dataset, dataset.validation)
    # some of them wrong: else the best temperature of so easy images is 0
    wrong = torch.where(torch.arange(len(data)) % 4 == 0, (data.labels + 1) % 3, data.labels)
    data = dataclasses.replace(data, labels=wrong)
    score, surer = evaluate(run.network, data), evaluate(Surer(run.network), data)
    outputs, y = (torch.cat(parts) for parts in zip(*answers(run.network, data), strict=True))

    def loss(temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(outputs / temperature, y))

    lowest = minimize_scalar(loss, bounds=(0.125, 8), method="bounded").fun
    assert score.calibrated_loss == pytest.approx(lowest, rel=2e-3)
    assert score.loss == pytest.approx(loss(1), rel=1e-5)
    assert 0 < score.calibrated_loss < score.loss
    assert surer.accuracy == score.accuracy
    assert surer.loss != pytest.approx(score.loss, rel=0.05)
    assert surer.calibrated_loss == pytest.approx(score.calibrated_loss, rel=1e-6)


def test_recalibration_measures_the_statistics(
    dataset: Dataset, architecture: Architecture
) -> None:
    network: Any = build(architecture)
    norm = network.stem.conv.norm
    data = images(dataset, dataset.train)
    recalibrate(network, data, batch=96, count=1)
    x, _ = next(data.batches(96))
    before = network.stem.conv.conv(x)
    assert torch.allclose(norm.running_mean, before.mean((0, 2, 3)), atol=1e-2)
    assert norm.momentum == 0.1


def test_a_last_batch_of_one_is_left_out(dataset: Dataset) -> None:
    data = images(dataset, dataset.train)
    sizes = [len(y) for _, y in data.batches(5, order=torch.arange(96))]
    assert sizes == [5] * 19
    assert sum(len(y) for _, y in data.batches(5)) == 96  # but every image is scored


def test_batches_are_normalised(dataset: Dataset) -> None:
    data = Images.of(dataset.train, measure(dataset.train), resolution=9, device=CPU)
    x = torch.cat([x for x, _ in data.batches(7)])
    assert x.mean().abs() < 1e-3
    assert (x.std() - 1).abs() < 1e-2


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_labels_are_smoothed_as_torch_does_it(smoothing: float) -> None:
    outputs, labels = torch.randn(20, 7), torch.arange(20) % 7
    wanted = soft_labels(labels, 7, smoothing)
    assert torch.allclose(wanted.sum(1), torch.ones(20))
    given = torch.nn.functional.cross_entropy(outputs, labels, label_smoothing=smoothing)
    assert torch.allclose(torch.nn.functional.cross_entropy(outputs, wanted), given)


def test_shifts_move_whole_images() -> None:
    x = torch.zeros(64, 2, 16, 16)
    x[:, :, 8, 8] = 1
    moved = shifted(x, 2, torch.zeros(2))
    assert moved.sum() == x.sum()
    places = moved[:, 0].flatten(1).argmax(1)
    assert len(torch.unique(places)) > 5
    assert torch.equal(places, moved[:, 1].flatten(1).argmax(1))


def test_half_of_the_images_are_mirrored() -> None:
    x = torch.zeros(200, 1, 4, 4)
    x[:, :, 1, 0] = 1
    torch.manual_seed(0)
    mirrored = flipped(x)[:, 0, 1]
    assert torch.equal(mirrored.sum(1), torch.ones(200))
    assert 60 < mirrored[:, 3].sum() < 140


def test_a_square_is_cut_from_each_image() -> None:
    torch.manual_seed(0)
    gone = 64 - cut(torch.ones(50, 3, 8, 8), 4, torch.zeros(3)).sum((2, 3))
    assert torch.equal(gone[:, 0], gone[:, 2])
    assert gone.max() == 16  # the centre is never outside, so a quarter of it remains at least
    assert gone.min() >= 4


def test_long_runs_are_augmented_as_the_recipe_says(dataset: Dataset) -> None:
    data, order = images(dataset, dataset.train), torch.arange(8)
    plain = torch.cat([x for x, _ in data.batches(8, order=order)])
    still = Augmentation(flip=False, shift=0)
    assert torch.equal(plain, torch.cat([x for x, _ in data.batches(8, order=order, vary=still)]))
    varied = torch.cat([x for x, _ in data.batches(8, order=order, vary=Augmentation(cutout=0.5))])
    assert varied.shape == plain.shape
    assert not torch.equal(plain, varied)


def test_a_statistic_that_is_not_finite_ends_the_run(
    dataset: Dataset, architecture: Architecture
) -> None:
    broken = training(dataset, architecture)
    name, statistic = next(iter(broken.network.named_buffers()))
    statistic.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match=name):
        broken.epoch()


def test_a_share_keeps_the_classes_in_proportion(dataset: Dataset) -> None:
    part = subset(dataset.train, 0.25, seed=1)
    assert len(part) == 24
    assert [int((part.labels == c).sum()) for c in range(3)] == [8, 8, 8]
    again, other = subset(dataset.train, 0.25, 1), subset(dataset.train, 0.25, 2)
    assert (part.images == again.images).all()
    assert not (part.images == other.images).all()
