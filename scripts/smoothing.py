"""Scores of networks, smoothed by the surrogate of the search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from made_up import Array
from optuna.distributions import CategoricalDistribution
from scipy.stats import zscore

from nasfuse.holes import Value
from nasfuse.searching.surrogate import Encoder, Features, GaussianProcess, Member, Weights, fit


def rows(documents: Mapping[str, Any]) -> Features:
    """Networks for the surrogate: whatever their documents say."""
    members = [Member(genes(document), 1.0) for document in documents.values()]
    names = sorted({name for member in members for name in member.params})
    levels = {name: {m.params[name] for m in members if name in m.params} for name in names}
    ranges = {
        name: CategoricalDistribution(sorted(found, key=lambda level: (str(type(level)), level)))
        for name, found in levels.items()
    }
    encoder = Encoder(ranges)
    encoder.encode(members)  # so that the columns of all levels are known
    return encoder.encode(members)


def genes(node: Any, path: str = "") -> dict[str, Value]:
    """What a document says, by path."""
    if not isinstance(node, dict | list):
        return {path: node}
    items = node.items() if isinstance(node, dict) else enumerate(node)
    return {k: v for name, part in items for k, v in genes(part, f"{path}.{name}").items()}


def smoothed(scores: Array, features: Features) -> Array:
    """The sum of a network's score and of what the surrogate expects of it, knowing the others."""
    values = zscore(scores)
    weights = fit(features, values, Weights({}), steps=40)
    expected = []
    for number in range(len(values)):
        others = np.arange(len(values)) != number
        known = Features(features.rows[others], features.owners)
        process = GaussianProcess(known, values[others], weights)
        expected.append(process.predict(features.rows[[number]])[0][0])
    return np.asarray(values + zscore(expected))
