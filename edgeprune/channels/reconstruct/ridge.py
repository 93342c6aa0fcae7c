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
        x: (groups, inputs), of the inputs.
        r: (groups, outputs), of the residuals: what the outputs lack.
        xx: (groups, inputs, inputs), of the inputs' products.
        xr: (groups, inputs, outputs), of the products of inputs and residuals.
        rr: (groups, outputs), of the residuals' squares.
        yy: the squares of the wanted outputs, all together.
    """

    count: int
    x: np.ndarray
    r: np.ndarray
    xx: np.ndarray
    xr: np.ndarray
    rr: np.ndarray
    yy: float = 0.0

    @classmethod
    def zeros(cls, groups: int, inputs: int, outputs: int) -> Equations:
        """The sums over no rows."""
        shapes = (inputs,), (outputs,), (inputs, inputs), (inputs, outputs), (outputs,)
        x, r, xx, xr, rr = (np.zeros((groups, *shape)) for shape in shapes)
        return cls(0, x, r, xx, xr, rr)

    def add(self, x: np.ndarray, r: np.ndarray, y: np.ndarray) -> None:
        """Add rows.

        Args:
            x: float64 array (groups, rows, inputs).
            r: float64 array (groups, rows, outputs), the residuals.
            y: float64 array (groups, rows, outputs), the wanted outputs.
        """
        self.count += x.shape[1]
        self.x += x.sum(axis=1)
        self.r += r.sum(axis=1)
        transposed = x.transpose(0, 2, 1)
        self.xx += transposed @ x
        self.xr += transposed @ r
        self.rr += np.square(r).sum(axis=1)
        self.yy += float(np.square(y).sum())

    def __add__(self, other: Equations) -> Equations:
        names = ("count", "x", "r", "xx", "xr", "rr", "yy")
        return Equations(*(getattr(self, name) + getattr(other, name) for name in names))

    def moments(self, intercept: bool) -> tuple[np.ndarray, np.ndarray]:
        """`xx` and `xr` for one row, about the means where there is an intercept."""
        count = max(self.count, 1)
        if not intercept:
            return self.xx / count, self.xr / count
        x, r = self.x / count, self.r / count
        return self.xx / count - x[:, :, None] * x[:, None, :], self.xr / count - x[:, :, None] * r[:, None, :]

    @property
    def mean_residual(self) -> np.ndarray:
        """(groups, outputs)."""
        return self.r / max(self.count, 1)

    @property
    def is_finite(self) -> bool:
        """Whether all sums are."""
        return bool(np.isfinite(self.xx).all() and np.isfinite(self.rr).all())

    def error(self, change: np.ndarray, shift: np.ndarray) -> float:
        """The squares of the residuals that are left after a change of the weights and a shift of the outputs."""
        left = self.rr.sum() - 2 * np.sum(change * self.xr) + np.sum(change * (self.xx @ change))
        means = self.r - np.einsum("gi,gio->go", self.x, change)
        return float(max(left - 2 * np.sum(shift * means) + self.count * np.sum(np.square(shift)), 0.0))


@dataclass(frozen=True, eq=False)
class Solution:
    """What is added to a layer's weights.

    Attributes:
        change: (groups, inputs, outputs).
        shift: (groups, outputs), of the bias; zeros where there is no intercept.
        ridge: the ridge relative to the mean square of an input; infinite where the weights stay.
    """

    change: np.ndarray
    shift: np.ndarray
    ridge: float

    @classmethod
    def of(cls, change: np.ndarray, total: Equations, intercept: bool, ridge: float) -> Solution:
        """A change of the weights with the best shift for it, where the outputs can be shifted."""
        shift = np.zeros_like(total.r)
        if intercept:
            shift = (total.r - np.einsum("gi,gio->go", total.x, change)) / max(total.count, 1)
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
    xx, xr = total.moments(intercept)
    scale = mean_square(xx)
    if np.isinf(ratio) or not scale:
        change = np.zeros_like(xr)
    else:
        change = np.linalg.solve(xx + ratio * scale * np.eye(xx.shape[-1]), xr)
    return Solution.of(change, total, intercept, ratio)


def mean_square(xx: np.ndarray) -> float:
    """The mean square of an input."""
    return float(np.einsum("gii->g", xx).mean() / xx.shape[-1])


def _best_ratio(fit: Equations, held_out: Equations, intercept: bool) -> float:
    xx, xr = fit.moments(intercept)
    tested_xx, tested_xr = held_out.moments(intercept)
    if not mean_square(xx):
        return np.inf
    sizes, vectors = np.linalg.eigh(xx)
    turned = vectors.transpose(0, 2, 1)
    wanted, tested = turned @ xr, turned @ tested_xx @ vectors
    tested_wanted = turned @ tested_xr

    def error(ratio: float) -> float:
        change = wanted / (np.maximum(sizes, 0.0) + ratio * mean_square(xx))[:, :, None]
        return float(np.sum(change * (tested @ change)) - 2 * np.sum(change * tested_wanted))

    return best_of_ratios(error, unchanged=0.0)


def best_of_ratios(error: Callable[[float], float], unchanged: float) -> float:
    """The ridge with the smallest error; infinite where weights that stay as they are do as well.

    Args:
        error: of a ridge, on rows held out.
        unchanged: the error of weights that stay.
    """
    errors = [error(ratio) for ratio in RATIOS]
    best = int(np.argmin(errors))
    return float(RATIOS[best]) if errors[best] < unchanged else np.inf
