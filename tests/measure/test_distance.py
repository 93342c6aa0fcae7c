"""The distance of outputs beside R² and NumPy."""

import numpy as np
import pytest

from edgeprune.measure.distance import distance


def batches(*arrays):
    return zip(*(np.array_split(array, 3) for array in arrays), strict=True)


def test_the_units_of_the_outputs_do_not_matter(rng):
    price, kind = rng.normal(300, 20, (60, 1)), rng.dirichlet(np.ones(3), 60)
    broken = rng.permutation(kind)
    moved = distance([batches(price, price), batches(kind, broken)])
    unexplained = np.square(broken - kind).sum() / np.square(kind - kind.mean(axis=0)).sum()
    assert moved == pytest.approx(np.sqrt(unexplained) / 2) and moved > 0.4
    in_cents = distance([batches(100 * price, 100 * price), batches(kind, broken)])
    assert in_cents == pytest.approx(moved)


def test_the_mean_is_at_1(rng):
    price = rng.normal((300, -5), (20, 1), (60, 2)).astype("f4")
    assert distance([[(price, np.tile(price.mean(axis=0), (60, 1)))]]) == pytest.approx(1, rel=1e-4)


def test_batches_of_several_lengths_and_outputs_without_a_spread(rng):
    steps = [rng.normal(size=(2, length, 4)) for length in (3, 5)]
    flat = np.concatenate([one.reshape(-1, 4) for one in steps])
    wanted = np.sqrt(flat.size * 0.01 / np.square(flat - flat.mean(axis=0)).sum())
    assert distance([[(one, one + 0.1) for one in steps]]) == pytest.approx(wanted)
    constant = np.full((4, 2), 8.0)
    assert distance([[(constant, constant + 2)]]) == pytest.approx(0.25)
    assert distance([[(0 * constant, 0 * constant)]]) == 0
