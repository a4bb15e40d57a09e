"""The statistics: they agree with textbooks, and they keep their promises on made-up data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from nasfuse.effects import Additive, Array, holm, paired, to_show

FUSIONS, PLACES = 4, 3


def made_up(count: int, generator: np.random.Generator) -> tuple[Array, Array]:
    """Networks with one of four fusions at each of three places, and a cost in doublings."""
    some = np.tile(np.arange(FUSIONS), count)[:count]  # each of them occurs
    chosen = np.column_stack([generator.permutation(some) for _ in range(PLACES)])
    shares = np.eye(FUSIONS)[chosen].reshape(count, PLACES * FUSIONS)
    cost = generator.uniform(-3, 3, count)
    return np.column_stack([shares, np.ones(count), cost, cost**2]), cost


def against_mean(place: int, fusion: int) -> Array:
    """A fusion against the mean of its place."""
    weights = np.zeros(PLACES * FUSIONS + 3)
    weights[place * FUSIONS : (place + 1) * FUSIONS] = -1 / FUSIONS
    weights[place * FUSIONS + fusion] += 1
    return weights


@pytest.mark.parametrize("count", [25, 80])
@pytest.mark.parametrize("uneven", [False, True])
def test_intervals_hold_what_they_promise(count: int, uneven: bool) -> None:
    """About 95 % of them hold the truth, and where nothing is true a family errs in 5 %."""
    generator = np.random.default_rng(count)
    true = np.array([0.0, 0.0, 0.01, -0.02] + [0.0] * 8 + [0.8, 0.02, -0.002])
    held = declared = families = tests = 0
    runs = 300
    for _ in range(runs):
        columns, cost = made_up(count, generator)
        noise = generator.normal(0, 0.01, count) * (np.exp(-cost / 4) if uneven else 1)
        model = Additive.fit(columns, columns @ true + noise)
        null = []
        for place in range(PLACES):
            for fusion in range(FUSIONS):
                weights = against_mean(place, fusion)
                effect = model.contrast(weights)
                assert effect is not None
                tests += 1
                held += effect.low <= float(weights @ true) <= effect.high
                null += [effect.p] if place else []
        declared += sum(p < 0.05 for p in null)
        families += min(holm(null)) < 0.05
    assert 0.93 <= held / tests <= 0.975
    assert declared <= 0.06 * runs * FUSIONS * (PLACES - 1)
    assert families <= 0.075 * runs  # 5 % and two standard errors


def test_two_groups_are_compared_as_by_welch() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.normal(1, 1, 12), generator.normal(0, 3, 20)
    groups = np.repeat(np.eye(2), [12, 20], axis=0)
    effect = Additive.fit(groups, np.concatenate([one, other])).contrast(np.array([1.0, -1.0]))
    welch = stats.ttest_ind(one, other, equal_var=False)
    assert effect is not None
    assert effect.estimate == pytest.approx(one.mean() - other.mean())
    error = np.sqrt(one.var(ddof=1) / 12 + other.var(ddof=1) / 20)
    assert effect.estimate / error == pytest.approx(welch.statistic)
    assert effect.p == pytest.approx(welch.pvalue, rel=0.2)


def test_what_the_data_do_not_determine_is_not_estimated() -> None:
    columns = np.column_stack([np.ones(12), np.tile([0.0, 1.0], 6), np.tile([0.0, 1.0], 6)])
    model = Additive.fit(columns, np.arange(12.0))
    assert model.contrast(np.array([0.0, 1.0, 0.0])) is None
    assert model.contrast(np.array([0.0, 1.0, 1.0])) is not None
    assert model.added(columns[:, 1] * 2) is None


def test_one_more_column_is_as_if_it_had_been_there() -> None:
    generator = np.random.default_rng(3)
    columns, _ = made_up(60, generator)
    product, values = columns[:, 0] * columns[:, 5], generator.normal(0, 1, 60)
    added = Additive.fit(columns, values).added(product)
    whole = Additive.fit(np.column_stack([columns, product]), values)
    assert added == pytest.approx(whole.contrast(np.eye(columns.shape[1] + 1)[-1]))


def test_pairs_are_compared_as_by_the_t_test() -> None:
    one, other = np.array([0.91, 0.90, 0.93, 0.92]), np.array([0.90, 0.90, 0.91, 0.92])
    effect = paired(list(one - other))
    test = stats.ttest_rel(one, other)
    assert effect is not None
    assert effect.p == pytest.approx(test.pvalue)
    interval = test.confidence_interval(0.95)
    assert (effect.low, effect.high) == pytest.approx((interval.low, interval.high))
    assert paired([0.1]) is None


def test_equal_differences_of_rounded_values_are_no_certainty() -> None:
    effect = paired([0.0005, 0.0005, 0.0005], quantum=0.0005)
    assert effect is not None
    assert effect.low < 0.0005 < effect.high
    assert effect.p > 0.01


def test_what_would_show_is_where_holm_begins_to_declare() -> None:
    """Of nine tests a difference just above it stands, and one just below does not."""
    scatter = np.array([-0.003, 0.001, 0.002, 0.004, -0.004])
    effect = paired(list(scatter))
    assert effect is not None
    needed = to_show(effect, freedom=4, tests=9)
    for factor, declared in ((1.01, True), (0.99, False)):
        shifted = paired(list(scatter - scatter.mean() + factor * needed))
        assert shifted is not None
        assert (holm([shifted.p] + [1.0] * 8)[0] < 0.05) == declared


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
