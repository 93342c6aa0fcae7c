"""Least squares for outputs that have more weights than there are rows: the change is a mixture of the rows.

The equations are of the rows' products with one another, and not of the inputs', so that a dense layer behind a
flattened picture needs as much memory as its rows take.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from edgeprune.channels.reconstruct.ridge import Solution, best_of_ratios

MOST_ROWS = 4096
MOST_NUMBERS = 1 << 27  # of all rows together, in float32
COLUMNS_AT_ONCE = 4096  # turned into float64


@dataclass
class Rows:
    """Rows of one group of inputs, and what the outputs lack there.

    Attributes:
        blocks: arrays (rows, inputs) of float32.
        residuals: arrays (rows, outputs).
        target_squares: the squares of the wanted outputs, all together.
    """

    blocks: list[np.ndarray] = field(default_factory=list)
    residuals: list[np.ndarray] = field(default_factory=list)
    target_squares: float = 0.0

    def add(self, x: np.ndarray, r: np.ndarray, y: np.ndarray) -> None:
        """Add rows: arrays (1, rows, inputs) and (1, rows, outputs) as `Equations.add` accepts them."""
        self.blocks.append(x[0].astype(np.float32))
        self.residuals.append(r[0])
        self.target_squares += float(np.square(y).sum())

    def __add__(self, other: Rows) -> Rows:
        return Rows(
            [*self.blocks, *other.blocks],
            [*self.residuals, *other.residuals],
            self.target_squares + other.target_squares,
        )

    @property
    def count(self) -> int:
        """The number of rows."""
        return sum(map(len, self.blocks))

    @property
    def mean_residual(self) -> np.ndarray:
        """(1, outputs)."""
        return np.concatenate(self.residuals).mean(axis=0, keepdims=True)

    @property
    def is_finite(self) -> bool:
        """Whether all numbers are."""
        return all(np.isfinite(one.sum()) for one in (*self.blocks, *self.residuals))

    def error(self, change: np.ndarray, shift: np.ndarray) -> float:
        """The squares of the residuals that are left after a change of the weights and a shift of the outputs."""
        error = 0.0
        moves = bool(change.any())
        for x, r in zip(self.blocks, self.residuals, strict=True):
            error += float(np.square(r - shift - (x @ change[0] if moves else 0.0)).sum())
        return error


def solve_in_span(fit: Rows, held_out: Rows, intercept: bool) -> Solution:
    """The change that leaves the smallest residuals, with the ridge that does best on rows held out.

    Args:
        fit: the rows that the ridges are tried on.
        held_out: the rows that they are judged by.
        intercept: whether the outputs can be shifted.

    Returns:
        The solution for all rows.
    """
    rows = fit + held_out
    x, r = np.concatenate(rows.blocks), np.concatenate(rows.residuals)
    products = _products(x)
    ratio = _best_ratio(products, r, fit.count, intercept)
    if np.isinf(ratio):
        shift = r.mean(axis=0, keepdims=True) if intercept else np.zeros((1, r.shape[1]))
        return Solution(np.zeros((1, x.shape[1], r.shape[1])), shift, ratio)
    centre = _centring(len(x), len(x), intercept)
    own = centre @ products @ centre.T
    ridge = ratio * np.trace(own) / len(x)
    mixture = centre.T @ np.linalg.solve(own + ridge * np.eye(len(x)), centre @ r)
    change = np.concatenate([block.T @ mixture for block in _columns(x)])
    shift = r.mean(axis=0) - x.mean(axis=0, dtype=np.float64) @ change if intercept else np.zeros(r.shape[1])
    return Solution(change[None], shift[None], ratio * x.shape[1] / len(x))


def _best_ratio(products: np.ndarray, r: np.ndarray, fitted: int, intercept: bool) -> float:
    """The ridge relative to the mean of the products' eigenvalues; infinite where no change does best."""
    centre = _centring(len(r), fitted, intercept)
    products, r = centre @ products @ centre.T, centre @ r
    sizes, vectors = np.linalg.eigh(products[:fitted, :fitted])
    scale = float(np.trace(products[:fitted, :fitted])) / max(fitted, 1)
    if scale <= 0 or fitted == len(r):
        return np.inf
    wanted, tested = vectors.T @ r[:fitted], products[fitted:, :fitted] @ vectors
    unchanged = float(np.square(r[fitted:]).sum())

    def error(ratio: float) -> float:
        of_each = wanted / (np.maximum(sizes, 0.0) + ratio * scale)[:, None]
        return float(np.square(r[fitted:] - tested @ of_each).sum())

    return best_of_ratios(error, unchanged)


def _centring(count: int, fitted: int, intercept: bool) -> np.ndarray:
    """What subtracts the mean of the first rows from all rows."""
    centre = np.eye(count)
    if intercept:
        centre[:, :fitted] -= 1 / max(fitted, 1)
    return centre


def _products(x: np.ndarray) -> np.ndarray:
    """The rows' products with one another."""
    products = np.zeros((len(x), len(x)))
    for block in _columns(x):
        products += block @ block.T
    return products


def _columns(x: np.ndarray) -> Iterator[np.ndarray]:
    """Some columns at a time, as float64."""
    for start in range(0, x.shape[1], COLUMNS_AT_ONCE):
        yield x[:, start : start + COLUMNS_AT_ONCE].astype(np.float64)
