"""The solver of sparse weights against a brute force that inverts every Hessian again, and against lstsq."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.channels.reconstruct import columns
from edgeprune.channels.reconstruct.linear import linear_parts
from edgeprune.channels.reconstruct.ridge import Equations
from edgeprune.one_shot import sparse_solver
from edgeprune.one_shot.sparse_solver import SparseSolver, refitted, sparse_columns
from edgeprune.sparsity.masks import m_by_n_groups, m_by_n_mask, unstructured_mask


def problem(seed, groups=1, inputs=6, outputs=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(groups, 40, inputs)) @ rng.normal(size=(groups, inputs, inputs))
    hessian = x.transpose(0, 2, 1) @ x / 40 + 0.1 * np.eye(inputs)
    best = rng.normal(size=(groups, inputs, outputs))
    return hessian, best, hessian @ best


def surgeon(hessian, best, blocks, zeros):
    """Optimal Brain Surgeon column by column: a weight's loss and its update from the inverse of what is to come."""
    weights, mask = best.copy(), np.ones(best.shape, bool)
    inputs = len(best)
    for start, stop in blocks:
        losses = np.array(
            [weights[c] ** 2 / np.linalg.inv(hessian[c:, c:])[0, 0] for c in range(start, stop)]
        )  # (columns, outputs)
        for output in range(best.shape[1]):
            for place in sorted(range(stop - start), key=lambda place: losses[place, output])[: zeros[output]]:
                mask[start + place, output] = False
        for column in range(start, stop):
            inverse = np.linalg.inv(hessian[column:, column:])
            for output in np.flatnonzero(~mask[column]):
                weights[column:, output] -= weights[column, output] / inverse[0, 0] * inverse[:, 0]
                weights[column, output] = 0.0
    assert inputs == stop
    return mask, np.where(mask, weights, 0.0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(1, 6, 3), (2, 4, 2), (1, 8, 1)]), st.sampled_from([2, 4]))
def test_columns_are_those_of_a_brute_force_surgeon(seed, sizes, length):
    hessian, best, goal = problem(seed, *sizes)
    groups, inputs, outputs = sizes
    blocks = [slice(start, min(start + length, inputs)) for start in range(0, inputs, length)]
    mask = np.ones(best.shape, bool)
    for block in blocks:
        mask[:, block.start : block.start + 1] = False  # one zero in each
    chosen, weights = sparse_columns(hessian, goal, blocks, mask)
    for group in range(groups):
        pairs = [(block.start, block.stop) for block in blocks]
        expected, made_up = surgeon(hessian[group], best[group], pairs, [1] * outputs)
        np.testing.assert_array_equal(chosen[group], expected)
        np.testing.assert_allclose(weights[group], made_up, atol=1e-8)


def test_zeros_anywhere_are_those_with_the_smallest_losses():
    hessian, best, goal = problem(3, inputs=5, outputs=4)
    mask = np.ones(best.shape, bool)
    mask[0, :2, :] = False
    chosen, _ = sparse_columns(hessian, goal, None, mask)
    losses = np.array([best[0, c] ** 2 / np.linalg.inv(hessian[0][c:, c:])[0, 0] for c in range(5)])
    np.testing.assert_array_equal(~chosen[0], losses <= np.sort(losses.ravel())[7])


def test_zeros_are_spread_over_blocks_of_columns(monkeypatch):
    monkeypatch.setattr(columns, "TOGETHER", 4)
    hessian, best, goal = problem(4, inputs=10, outputs=6)
    mask = np.ones(best.shape, bool)
    mask.reshape(-1)[:31] = False
    chosen, _ = sparse_columns(hessian, goal, None, mask)
    assert np.count_nonzero(~chosen) == 31
    assert [int((~chosen[:, start : start + 4]).sum()) for start in (0, 4, 8)] == [12, 13, 6]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 0.9))
def test_what_stays_is_solved_as_lstsq_does(seed, sparsity):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(30, 7)), rng.normal(size=(30, 4))
    mask = rng.random((7, 4)) >= sparsity
    found = refitted((x.T @ x)[None], (x.T @ y)[None], mask[None])[0]
    for output in range(4):
        stays = mask[:, output]
        expected = np.linalg.lstsq(x[:, stays], y[:, output], rcond=None)[0]
        np.testing.assert_allclose(found[stays, output], expected, atol=1e-8)
        assert not found[~stays, output].any()


LAYERS = {
    "dense": (lambda L: L.Dense(5), (7,)),
    "conv": (lambda L: L.Conv2D(4, 3), (6, 6, 5)),
    "conv_grouped": (lambda L: L.Conv2D(4, 2, groups=2, use_bias=False), (5, 5, 8)),
    "conv_transposed": (lambda L: L.Conv2DTranspose(4, 2), (5, 5, 6)),
    "einsum_outputs_first": (lambda L: L.EinsumDense("ab,cb->ac", 5), (7,)),
}


@pytest.mark.parametrize("m_by_n", [None, (2, 4), (1, 4)])
@pytest.mark.parametrize("name", LAYERS)
def test_the_solution_has_the_zeros_and_no_larger_error_than_the_mask(name, m_by_n):
    make, shape = LAYERS[name]
    layer = make(keras.layers)
    layer.build((None, *shape))
    (part,) = linear_parts(layer)
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=tuple(layer.kernel.shape))
    mask = unstructured_mask(np.abs(kernel), 0.5) if m_by_n is None else m_by_n_mask(np.abs(kernel), m_by_n)
    ranked = np.zeros(kernel.shape, int) if m_by_n is None else m_by_n_groups(kernel.shape, m_by_n[1])
    wanted = part.linear.matrix(kernel)
    matrix = part.linear.matrix(np.where(mask, kernel, 0))
    groups, inputs, outputs = wanted.shape
    sums = [Equations.zeros(groups, inputs, outputs) for _ in range(2)]
    for equations, count in zip(sums, (300, 80), strict=True):
        x = rng.normal(size=(groups, count, inputs)) @ rng.normal(size=(groups, inputs, inputs))
        equations.add(x, x @ (wanted - matrix), x @ wanted)
    found = SparseSolver(part.linear, mask, ranked)(matrix, wanted, *sums, True)
    made = part.linear.kernel_of(matrix + found.change, kernel.shape)
    zeros = made == 0
    assert zeros.sum() == (~mask).sum()
    if m_by_n is not None:
        assert all(zeros[ranked == one].sum() == (~mask)[ranked == one].sum() for one in range(ranked.max() + 1))
    total = sums[0] + sums[1]
    assert total.error(found.change, found.shift) < 0.9 * total.residual_squares.sum()


def test_where_refitting_takes_too_long_one_pass_is_enough(monkeypatch):
    monkeypatch.setattr(sparse_solver, "MOST_REFIT", 0)
    layer = keras.layers.Dense(5)
    layer.build((None, 12))
    linear = linear_parts(layer)[0].linear
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(12, 5))
    x = rng.normal(size=(1, 200, 12)) @ rng.normal(size=(12, 12))
    mask = unstructured_mask(np.abs(kernel), 0.5)
    matrix = np.where(mask, kernel, 0)[None]
    sums = [Equations.zeros(1, 12, 5) for _ in range(2)]
    for equations, rows in zip(sums, (slice(0, 150), slice(150, 200)), strict=True):
        equations.add(x[:, rows], x[:, rows] @ (kernel - matrix), x[:, rows] @ kernel)
    total = sums[0] + sums[1]
    for ranked in (np.zeros(kernel.shape, int), None):
        found = SparseSolver(linear, mask, ranked)(matrix, kernel[None], *sums, False)
        assert ((matrix + found.change) == 0).sum() == (~mask).sum()
        assert total.error(found.change, found.shift) < 0.9 * total.residual_squares.sum()


def test_inputs_that_are_always_zero_change_nothing():
    layer = keras.layers.Dense(2)
    layer.build((None, 4))
    linear = linear_parts(layer)[0].linear
    sums = [Equations.zeros(1, 4, 2) for _ in range(2)]
    for equations in sums:
        equations.add(np.zeros((1, 9, 4)), np.zeros((1, 9, 2)), np.ones((1, 9, 2)))
    kernel = np.ones((1, 4, 2))
    found = SparseSolver(linear, np.ones((4, 2), bool), np.zeros((4, 2), int))(kernel, kernel, *sums, True)
    assert not found.change.any() and not found.shift.any()
