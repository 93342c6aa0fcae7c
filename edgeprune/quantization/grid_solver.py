"""The rounded weights of a layer that leave the smallest error of its output, rather than of the weights themselves.

Weights are integers times a scale for each channel, symmetric around zero. A channel's scale is the one of several
whose error is least; its largest weight is at the last step, so that the grid can be read off the weights. Columns
are rounded one after the other, as GPTQ does, the later ones making up for each; then single weights are moved to
other steps as long as the error falls.

Source: Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers, 2022; Behdin
et al., QuantEase: Optimization-based Quantization for Language Models, 2023, for the moves of single weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeprune.channels.reconstruct.columns import Settle, evenly, quadratic, settle_columns
from edgeprune.channels.reconstruct.linear import Linear
from edgeprune.channels.reconstruct.ridge import Equations, Solution

_SHARES = (1.0, 0.94, 0.88, 0.82, 0.76, 0.7)  # of the scale at which no weight is cut off
_DAMPINGS = (1.0, 0.1, 0.01)  # of the mean square of an input
_SWEEPS = 4  # over all columns, moving single weights
_MOST_WORK = 5e8  # products of a pass over all columns; of a larger layer one scale and one damping are tried
_USUAL_SHARE, _USUAL_DAMPING = 0.88, 0.1


def scales_of(matrix: np.ndarray, num_bits: int, one_scale: bool) -> np.ndarray:
    """The scales at which the largest weight of a channel is the last step: (groups, 1, outputs).

    Args:
        matrix: (groups, inputs, outputs).
        num_bits: of the integers.
        one_scale: whether all channels share one.
    """
    largest = np.abs(matrix).max(axis=1, keepdims=True)
    largest = np.full_like(largest, largest.max()) if one_scale else largest
    return np.where(largest > 0, largest, 1.0) / last_step(num_bits)


def last_step(num_bits: int) -> int:
    """The largest integer of a symmetric grid.

    Example:
        >>> last_step(4)
        7
    """
    return (1 << (num_bits - 1)) - 1


class GridSolver:
    """Solves for the rounded weights of a layer: an `edgeprune.channels.reconstruct.ridge.Solver`.

    Args:
        linear: the layer.
        num_bits: of its integers.
        one_scale: whether all its channels share a scale.
        mask: bool array of the kernel's shape, False where a weight is zero.
    """

    def __init__(self, linear: Linear, num_bits: int, one_scale: bool, mask: np.ndarray) -> None:
        self._last, self._num_bits, self._one_scale = last_step(num_bits), num_bits, one_scale
        self._mask = linear.matrix(mask) > 0

    def __call__(
        self, matrix: np.ndarray, wanted: np.ndarray, fit: Equations, held_out: Equations, intercept: bool
    ) -> Solution:
        """The change of plainly rounded weights that leaves the smallest residuals; none where they are the best."""
        total = fit + held_out
        plain = Solution.of(np.zeros_like(matrix), total, intercept, np.inf)
        if not total.gram.any():
            return plain
        damping = self._best_damping(matrix, wanted, fit, held_out, intercept)
        weights = self._solved(wanted, *quadratic(matrix, wanted, total, intercept, damping))
        change = weights - matrix
        if not self._one_scale:  # a channel that damping made worse keeps its plainly rounded weights
            change = np.where(_errors(change, total, intercept) > 0, 0.0, change)
        solved = Solution.of(change, total, intercept, damping)
        return min((plain, solved), key=lambda one: total.error(one.change, one.shift))

    def _best_damping(
        self, matrix: np.ndarray, wanted: np.ndarray, fit: Equations, held_out: Equations, intercept: bool
    ) -> float:
        """The damping that does best on rows held out."""
        if _is_large(matrix):
            return _USUAL_DAMPING

        def error(damping: float) -> float:
            weights = self._solved(wanted, *quadratic(matrix, wanted, fit, intercept, damping), (self._usual_share,))
            return float(_errors(weights - matrix, held_out, intercept).sum())

        return min(_DAMPINGS, key=error)

    def _solved(
        self, wanted: np.ndarray, hessian: np.ndarray, goal: np.ndarray, shares: Sequence[float] = _SHARES
    ) -> np.ndarray:
        """The rounded weights for which `weights' hessian weights / 2 - goal' weights` is least, of those tried."""
        if self._num_bits > 4 or _is_large(wanted):
            shares = (self._usual_share,)
        found = [self._at_share(wanted, hessian, goal, share) for share in shares]
        errors = np.array([np.sum(one * (hessian @ one / 2 - goal), axis=1) for one in found])  # (shares, g, outputs)
        if self._one_scale:
            return found[int(errors.sum(axis=(1, 2)).argmin())]
        best = errors.argmin(axis=0)[None, :, None]
        return np.take_along_axis(np.array(found), best, axis=0)[0]

    @property
    def _usual_share(self) -> float:
        return _USUAL_SHARE if self._num_bits <= 4 else 1.0

    def _at_share(self, wanted: np.ndarray, hessian: np.ndarray, goal: np.ndarray, share: float) -> np.ndarray:
        scales = share * scales_of(wanted, self._num_bits, self._one_scale)
        pinned = self._pinned(wanted)
        last = self._last * scales

        def on_grid(column: int, values: np.ndarray) -> np.ndarray:
            own = scales[:, 0]
            rounded = np.clip(np.rint(values / own), -self._last, self._last) * own
            rounded = np.where(self._mask[:, column], rounded, 0.0)
            return np.where(pinned[:, column], np.sign(wanted[:, column]) * last[:, 0], rounded)

        def begin(block: slice, *_: np.ndarray) -> Settle:
            return lambda number, values: on_grid(block.start + number, values)

        weights = settle_columns(hessian, goal, evenly(wanted.shape[1]), begin)
        gradient = hessian @ weights - goal
        for _ in range(1 if _is_large(wanted) else _SWEEPS):
            moved = False
            for column in range(wanted.shape[1]):
                curvature = hessian[:, column, column, None]
                change = on_grid(column, weights[:, column] - gradient[:, column] / curvature) - weights[:, column]
                change[np.abs(change) < scales[:, 0] / 2] = 0.0  # what rounding left of none
                if change.any():
                    moved = True
                    weights[:, column] += change
                    gradient += hessian[:, :, column, None] * change[:, None]
            if not moved:
                break
        return weights

    def _pinned(self, wanted: np.ndarray) -> np.ndarray:
        """Which weight of each channel, or of all, is its largest: one, and it is not zero."""
        sizes = np.abs(wanted)
        pinned = np.zeros(wanted.shape, bool)
        if self._one_scale:
            pinned.flat[sizes.argmax()] = True
        else:
            np.put_along_axis(pinned, sizes.argmax(axis=1, keepdims=True), True, axis=1)
        return pinned & (sizes > 0)


def _is_large(matrix: np.ndarray) -> bool:
    groups, inputs, outputs = matrix.shape
    return bool(groups * inputs * inputs * outputs > _MOST_WORK)


def _errors(change: np.ndarray, rows: Equations, intercept: bool) -> np.ndarray:
    """How much a change adds to the squared error of each channel: (groups, 1, outputs)."""
    gram, cross = rows.moments(intercept)
    return np.sum(change * (gram @ change - 2 * cross), axis=1, keepdims=True)
