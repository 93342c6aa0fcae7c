"""The weights of a layer with zeros: which ones, and what the kept ones become to make up for them.

For every output the error is a quadratic function of its weights, whose matrix is that of the inputs' products. The
zeros are chosen column by column as SparseGPT does; then the kept weights are the least of that function.

Source: Frantar and Alistarh, SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot, 2023; and, for
the updates, Hassibi and Stork, Optimal Brain Surgeon, 1993, and Frantar and Alistarh, Optimal Brain Compression, 2022.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeprune.channels.reconstruct.columns import Settle, evenly, quadratic, settle_columns
from edgeprune.channels.reconstruct.linear import Linear
from edgeprune.channels.reconstruct.ridge import Equations, Solution

DAMPINGS = 10.0 ** np.arange(0, -7, -1)  # of the mean square of an input; where data do not decide, the first
TRIED_OUTPUTS = 32  # that the damping is chosen by, at most
MOST_TRIED = 1e10  # of the cube of the inputs times those outputs
MOST_REFIT = 3e12  # of the cubes of the kept weights, added up: some minutes


class SparseSolver:
    """Solves for a kernel of which as many weights are kept as in a mask.

    Args:
        linear: the layer.
        mask: bool array of the kernel's shape, True for the largest magnitudes.
        ranked: int array of that shape: the weights of one number compete for the zeros that the mask has among them.
            None where the mask is not changed.
    """

    def __init__(self, linear: Linear, mask: np.ndarray, ranked: np.ndarray | None) -> None:
        self._mask = linear.matrix(mask) > 0
        numbers = None if ranked is None else linear.matrix(ranked).astype(int)
        self._all_compete = numbers is not None and bool((numbers == numbers.flat[0]).all())
        self._blocks = None if numbers is None or self._all_compete else _blocks(numbers)

    def __call__(
        self, matrix: np.ndarray, wanted: np.ndarray, fit: Equations, held_out: Equations, intercept: bool
    ) -> Solution:
        """The change of the weights that leaves the smallest residuals."""
        total = fit + held_out
        if not total.gram.any():
            return Solution(np.zeros_like(matrix), np.zeros_like(total.residual_sums), np.inf)
        damping = self._best_damping(matrix, wanted, fit, held_out, intercept)
        hessian, goal = quadratic(matrix, wanted, total, intercept, damping)
        candidates = [_solved(hessian, goal, self._mask)]
        if self._all_compete or self._blocks is not None:
            chosen, weights = sparse_columns(hessian, goal, self._blocks, self._mask)
            candidates.append(_solved(hessian, goal, chosen, weights))
        return min(
            (Solution.of(weights - matrix, total, intercept, damping) for weights in candidates),
            key=lambda one: total.error(one.change, one.shift),
        )

    def _best_damping(
        self, matrix: np.ndarray, wanted: np.ndarray, fit: Equations, held_out: Equations, intercept: bool
    ) -> float:
        """The damping that does best on rows held out, for some outputs with the zeros of the mask."""
        inputs, outputs = matrix.shape[1:]
        count = int(np.clip(MOST_TRIED // inputs**3, 1, min(outputs, TRIED_OUTPUTS)))
        some = np.linspace(0, outputs - 1, count).astype(int)
        tested_gram, tested_cross = held_out.moments(intercept)

        def error(damping: float) -> float:
            hessian, goal = quadratic(matrix, wanted, fit, intercept, damping)
            change = refitted(hessian, goal[..., some], self._mask[..., some]) - matrix[..., some]
            return float(np.sum(change * (tested_gram @ change)) - 2 * np.sum(change * tested_cross[..., some]))

        return float(min(DAMPINGS, key=error))


def refitted(hessian: np.ndarray, goal: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The weights with these zeros for which `weights' hessian weights / 2 - goal' weights` is least.

    Args:
        hessian: float64 array (groups, inputs, inputs), positive definite.
        goal: (groups, inputs, outputs).
        mask: bool array (groups, inputs, outputs), True where a weight is kept.

    Returns:
        An array (groups, inputs, outputs), exactly zero where the mask is False.
    """
    weights = np.zeros_like(goal)
    for group, output in np.ndindex(goal.shape[0], goal.shape[2]):
        kept = np.flatnonzero(mask[group, :, output])
        own = hessian[group][np.ix_(kept, kept)]
        weights[group, kept, output] = np.linalg.solve(own, goal[group, kept, output])
    return weights


def sparse_columns(
    hessian: np.ndarray, goal: np.ndarray, blocks: Sequence[slice] | None, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Choose zeros column by column; each removed weight is made up for by those of the columns to come.

    A weight's loss is what the error grows by where the weights of later columns make up for it: its square over its
    place in the diagonal of the inverse of the later columns' Hessian, which is read off one Cholesky factor for all.

    Args:
        hessian: float64 array (groups, inputs, inputs), positive definite.
        goal: (groups, inputs, outputs), the Hessian times the best weights without zeros.
        blocks: runs of inputs in their order, in which the weights of each output compete. None where all weights of
            the layer do; the zeros are then spread evenly over the columns.
        mask: bool array (groups, inputs, outputs): how many zeros each block has for each output, or the layer in all.

    Returns:
        The new mask and the weights.
    """
    chosen = np.ones_like(mask)

    def begin(block: slice, weights: np.ndarray, scales: np.ndarray) -> Settle:
        losses = np.square(weights / scales)
        if blocks is None:
            done = [round(np.count_nonzero(~mask) * place / mask.shape[1]) for place in (block.start, block.stop)]
            chosen[:, block] = ~_smallest(losses.reshape(1, -1), done[1] - done[0]).reshape(losses.shape)
        else:
            zeros = np.count_nonzero(~mask[:, block], axis=1)
            chosen[:, block] = ~_smallest(np.moveaxis(losses, 1, -1), zeros[..., None]).swapaxes(1, -1)
        return lambda number, values: np.where(chosen[:, block.start + number], values, 0.0)

    weights = settle_columns(hessian, goal, evenly(mask.shape[1]) if blocks is None else blocks, begin)
    return chosen, weights


def _blocks(numbers: np.ndarray) -> list[slice] | None:
    """The runs of inputs that share a number for each output; None where a number is that of several outputs."""
    inputs = numbers.shape[1]
    starts = np.flatnonzero((np.diff(numbers, axis=1, prepend=-1) != 0).any(axis=(0, 2))).tolist()
    runs = [slice(*pair) for pair in zip(starts, [*starts[1:], inputs], strict=True)]
    of_one_output = len(np.unique(numbers)) == len(runs) * numbers.shape[0] * numbers.shape[2]
    return runs if of_one_output else None


def _smallest(values: np.ndarray, counts: np.ndarray | int) -> np.ndarray:
    """Along the last axis, which are the smallest `counts`."""
    order = np.argsort(values, axis=-1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(values.shape[-1]), order.shape), axis=-1)
    return ranks < counts


def _solved(hessian: np.ndarray, goal: np.ndarray, mask: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The best weights with these zeros; where that takes too long, those passed or the ones of one pass."""
    if np.sum(np.count_nonzero(mask, axis=1).astype(float) ** 3) <= MOST_REFIT:
        return refitted(hessian, goal, mask)
    if weights is not None:
        return weights
    each = [slice(place, place + 1) for place in range(mask.shape[1])]  # alone in its block a weight has no choice
    return sparse_columns(hessian, goal, each, mask)[1]
