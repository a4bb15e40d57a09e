from __future__ import annotations

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from nasfuse.holes import Value
from nasfuse.searching.surrogate import (
    Array,
    Encoder,
    Features,
    GaussianProcess,
    Member,
    Weights,
    fit,
)

RANGES: dict[str, BaseDistribution] = {
    "edge.0": CategoricalDistribution(("a", "b", "c")),
    "edge.1": CategoricalDistribution(("a", "b", "c")),
    "width": IntDistribution(8, 24, step=8),
    "scale": FloatDistribution(1.0, 4.0, log=True),
}


def distance(one: dict[str, Value], other: dict[str, Value], owner: str) -> float:
    encoder = Encoder(RANGES)
    features = encoder.encode([Member(one, 1.0), Member(other, 1.0)])
    columns = [i for i, name in enumerate(features.owners) if name.startswith(owner)]
    difference = features.rows[0, columns] - features.rows[1, columns]
    return float(difference @ difference)


def test_levels_differ_or_do_not_apply() -> None:
    assert np.isclose(distance({"edge.0": "a"}, {"edge.0": "b"}, "level edge.0"), 1.0)
    assert np.isclose(distance({"edge.0": "a"}, {"width": 8}, "level edge.0"), 0.5)
    assert distance({"edge.0": "a"}, {"edge.0": "a"}, "level edge.0") == 0


def test_numbers_have_an_order_and_floats_a_scale() -> None:
    assert np.isclose(distance({"width": 8}, {"width": 16}, "order width"), 0.25)
    assert np.isclose(distance({"scale": 1.0}, {"scale": 2.0}, "order scale"), 0.25)
    assert distance({"edge.0": "a"}, {"edge.0": "c"}, "order") == 0  # labels have none


def test_parameters_of_one_kind_are_counted() -> None:
    one: dict[str, Value] = {"edge.0": "a", "edge.1": "b"}
    assert distance(one, {"edge.0": "b", "edge.1": "a"}, "count") == 0
    assert np.isclose(distance(one, {"edge.0": "a", "edge.1": "c"}, "count"), 0.5)


def test_columns_are_only_added() -> None:
    encoder = Encoder(RANGES)
    few = encoder.encode([Member({"edge.0": "a", "edge.1": "b"}, 2.0)])
    more = encoder.encode([Member({"edge.0": "c", "width": 8}, 2.0)])
    assert more.owners[: len(few.owners)] == few.owners
    assert more.rows.shape[1] > few.rows.shape[1]


def additive(count: int) -> tuple[Features, Array]:
    generator = np.random.default_rng(0)
    rows = generator.integers(0, 2, (count, 6)).astype(float)
    values = rows @ np.array([1.0, -0.6, 0.4, 0.0, 0.0, 0.0])
    owners = [f"level {column}" for column in range(6)]
    return Features(rows, owners), (values - values.mean()) / values.std()


def test_it_finds_out_what_matters_and_predicts_it() -> None:
    features, values = additive(40)
    weights = fit(features, values, Weights({}), steps=40)
    assert weights.owners["level 0"] > weights.owners["level 5"]
    process = GaussianProcess(Features(features.rows[:30], features.owners), values[:30], weights)
    mean, deviation = process.predict(features.rows[30:])
    assert np.corrcoef(mean, values[30:])[0, 1] > 0.95
    assert (deviation > 0).all()


def test_pending_rows_keep_the_mean_and_lower_the_deviation() -> None:
    features, values = additive(12)
    known = Features(features.rows[:8], features.owners)
    weights = Weights({}, noise=-3.0)
    before = GaussianProcess(known, values[:8], weights).predict(features.rows[8:])
    after = GaussianProcess(features, values[:8], weights).predict(features.rows[8:])
    assert np.allclose(before[0], after[0])
    assert (after[1] <= before[1] + 1e-9).all()


def test_no_levels_and_one_value_are_no_problem() -> None:
    encoder = Encoder(RANGES)
    features = encoder.encode([Member({"edge.0": "a"}, 1.0)] * 3)
    weights = fit(features, np.zeros(3), Weights({}), steps=5)
    mean, _ = GaussianProcess(features, np.zeros(3), weights).predict(features.rows)
    assert np.allclose(mean, 0)
