"""Least squares with a ridge whose size the data choose, from sums that are added up batch by batch.

The change of a layer's weights is what is solved for, so that a large ridge means the weights as they are and no
ridge can leave a larger error on the rows than they do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

RATIOS = 10.0 ** np.arange(-9, 2)  # of the mean square of an input


@dataclass
class Equations:
    """Sums over rows, for each group of inputs and the outputs that read it alone.

    Attributes:
        count: the number of rows.
        input_sums: (groups, inputs), of the inputs.
        residual_sums: (groups, outputs), of the residuals: what the outputs lack.
        gram: (groups, inputs, inputs), of the inputs' products.
        cross: (groups, inputs, outputs), of the products of inputs and residuals.
        residual_squares: (groups, outputs), of the residuals' squares.
        target_squares: the squares of the wanted outputs, all together.
    """

    count: int
    input_sums: np.ndarray
    residual_sums: np.ndarray
    gram: np.ndarray
    cross: np.ndarray
    residual_squares: np.ndarray
    target_squares: float = 0.0

    @classmethod
    def zeros(cls, groups: int, inputs: int, outputs: int) -> Equations:
        """The sums over no rows."""
        shapes = (inputs,), (outputs,), (inputs, inputs), (inputs, outputs), (outputs,)
        x, r, gram, cross, residual_squares = (np.zeros((groups, *shape)) for shape in shapes)
        return cls(0, x, r, gram, cross, residual_squares)

    def add(self, x: np.ndarray, r: np.ndarray, y: np.ndarray) -> None:
        """Add rows.

        Args:
            x: float64 array (groups, rows, inputs).
            r: float64 array (groups, rows, outputs), the residuals.
            y: float64 array (groups, rows, outputs), the wanted outputs.
        """
        self.count += x.shape[1]
        self.input_sums += x.sum(axis=1)
        self.residual_sums += r.sum(axis=1)
        transposed = x.transpose(0, 2, 1)
        self.gram += transposed @ x
        self.cross += transposed @ r
        self.residual_squares += np.square(r).sum(axis=1)
        self.target_squares += float(np.square(y).sum())

    def __add__(self, other: Equations) -> Equations:
        names = ("count", "input_sums", "residual_sums", "gram", "cross", "residual_squares", "target_squares")
        return Equations(*(getattr(self, name) + getattr(other, name) for name in names))

    def moments(self, intercept: bool) -> tuple[np.ndarray, np.ndarray]:
        """`gram` and `cross` for one row, about the means where there is an intercept."""
        count = max(self.count, 1)
        if not intercept:
            return self.gram / count, self.cross / count
        x, r = self.input_sums / count, self.residual_sums / count
        return self.gram / count - x[:, :, None] * x[:, None, :], self.cross / count - x[:, :, None] * r[:, None, :]

    @property
    def mean_residual(self) -> np.ndarray:
        """(groups, outputs)."""
        return self.residual_sums / max(self.count, 1)

    @property
    def is_finite(self) -> bool:
        """Whether all sums are."""
        return bool(np.isfinite(self.gram).all() and np.isfinite(self.residual_squares).all())

    def error(self, change: np.ndarray, shift: np.ndarray) -> float:
        """The squares of the residuals that are left after a change of the weights and a shift of the outputs."""
        left = self.residual_squares.sum() - 2 * np.sum(change * self.cross) + np.sum(change * (self.gram @ change))
        means = self.residual_sums - np.einsum("gi,gio->go", self.input_sums, change)
        return float(max(left - 2 * np.sum(shift * means) + self.count * np.sum(np.square(shift)), 0.0))


@dataclass(frozen=True, eq=False)
class Solution:
    """What is added to a layer's weights.

    Attributes:
        change: (groups, inputs, outputs).
        shift: (groups, outputs), of the bias; zeros where there is no intercept.
        ridge: the ridge relative to the mean square of an input; infinite where the weights are left as they are.
    """

    change: np.ndarray
    shift: np.ndarray
    ridge: float

    @classmethod
    def of(cls, change: np.ndarray, total: Equations, intercept: bool, ridge: float) -> Solution:
        """A change of the weights with the best shift for it, where the outputs can be shifted."""
        shift = np.zeros_like(total.residual_sums)
        if intercept:
            shift = (total.residual_sums - np.einsum("gi,gio->go", total.input_sums, change)) / max(total.count, 1)
        return cls(change, shift, ridge)


class Solver(Protocol):
    """Finds how a layer's weights change."""

    def __call__(
        self, matrix: np.ndarray, wanted: np.ndarray, fit: Equations, held_out: Equations, intercept: bool
    ) -> Solution:
        """The change of the weights.

        Args:
            matrix: (groups, inputs, outputs), what the removal left of the weights.
            wanted: (groups, inputs of the original, outputs), the original's weights.
            fit: rows to solve on.
            held_out: rows to judge by.
            intercept: whether the outputs can be shifted.
        """


def least_squares(
    matrix: np.ndarray, wanted: np.ndarray, fit: Equations, held_out: Equations, intercept: bool
) -> Solution:
    """The solver of all weights."""
    return solve_ridge(fit, held_out, intercept)


def solve_ridge(fit: Equations, held_out: Equations, intercept: bool) -> Solution:
    """The change that leaves the smallest residuals: the ridge is the one that does best on rows held out.

    Args:
        fit: the rows that the ridges are tried on.
        held_out: the rows that they are judged by.
        intercept: whether the outputs can be shifted.

    Returns:
        The solution for all rows.
    """
    total = fit + held_out
    ratio = _best_ratio(fit, held_out, intercept)
    gram, cross = total.moments(intercept)
    scale = mean_square(gram)
    if np.isinf(ratio) or not scale:
        change = np.zeros_like(cross)
    else:
        change = np.linalg.solve(gram + ratio * scale * np.eye(gram.shape[-1]), cross)
    return Solution.of(change, total, intercept, ratio)


def mean_square(gram: np.ndarray) -> float:
    """The mean square of an input."""
    return float(np.einsum("gii->g", gram).mean() / gram.shape[-1])


def _best_ratio(fit: Equations, held_out: Equations, intercept: bool) -> float:
    gram, cross = fit.moments(intercept)
    tested_gram, tested_cross = held_out.moments(intercept)
    scale = mean_square(gram)
    if not scale:
        return np.inf

    def error(ratio: float) -> float:
        change = np.linalg.solve(gram + ratio * scale * np.eye(gram.shape[-1]), cross)
        return float(np.sum(change * (tested_gram @ change)) - 2 * np.sum(change * tested_cross))

    return best_of_ratios(error, unchanged=0.0)


def best_of_ratios(error: Callable[[float], float], unchanged: float) -> float:
    """The ridge with the smallest error; infinite where unchanged weights do as well.

    A ridge that is too small fits noise, and one that is too large nothing, so that the errors have one valley: it is
    walked down from the middle, as each step costs the solution of a system.

    Args:
        error: of a ridge, on rows held out.
        unchanged: the error of unchanged weights.
    """
    errors: dict[int, float] = {}

    def of(number: int) -> float:
        if number not in errors:
            errors[number] = error(RATIOS[number]) if 0 <= number < len(RATIOS) else np.inf
        return errors[number]

    best = len(RATIOS) // 2
    step = 1 if of(best + 1) < of(best) else -1
    while of(best + step) < of(best):
        best += step
    return float(RATIOS[best]) if of(best) < unchanged else np.inf
