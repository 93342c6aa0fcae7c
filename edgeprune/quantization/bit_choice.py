"""The choice of bits for each layer with the smallest error within limits: a knapsack with a choice in each place."""

from __future__ import annotations

import numpy as np

_CELLS = 256  # along each limit: of choices that cost nearly the same, only the best is followed


class NothingFitsError(ValueError):
    """No choice holds the limits.

    Attributes:
        limit: the number of the one that cannot be held at all; None where each can, but not all of them together.
        least: the least of it that can be had.
    """

    def __init__(self, limit: int | None = None, least: float = 0.0) -> None:
        super().__init__("the limits cannot be held")
        self.limit, self.least = limit, least


def best_choice(errors: np.ndarray, costs: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Choose for each layer, so that the sum of errors is the smallest that was found within all limits.

    Layer by layer the best of all partial choices is kept for each cell of a grid over the costs. It is the best there
    is where no two of them share a cell, as for a dozen layers; else it may be a little worse.

    Args:
        errors: (layers, choices), what each choice adds to the error.
        costs: (limits, layers, choices), what it adds to each cost.
        most: (limits,), above 0, what the costs may sum up to.

    Returns:
        int array (layers,), the number of each layer's choice.

    Raises:
        NothingFitsError: no choice holds the limits.

    Example:
        >>> errors, sizes = np.array([[3.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), np.array([[[1, 2], [1, 2], [1, 2]]])
        >>> best_choice(errors, sizes, np.array([4])).tolist()
        [1, 0, 0]
    """
    most = np.asarray(most, float)
    costs = np.asarray(costs, float) / most[:, None, None]
    least = costs.min(axis=2)  # of each layer; what those to come need at least
    to_come = np.concatenate([np.cumsum(least[:, ::-1], axis=1)[:, ::-1], np.zeros((len(most), 1))], axis=1)
    if (to_come[:, 0] > 1 + 1e-9).any():
        worst = int(to_come[:, 0].argmax())
        raise NothingFitsError(worst, float(to_come[worst, 0] * most[worst]))
    spent, error, taken = np.zeros((1, len(most))), np.zeros(1), np.zeros((1, 0), np.int64)
    for layer, of_layer in enumerate(errors):
        choices = np.tile(np.arange(len(of_layer)), len(error))
        spent = (spent[:, None] + costs[:, layer].T[None]).reshape(-1, len(most))
        error = (error[:, None] + of_layer[None]).reshape(-1)
        taken = np.concatenate([np.repeat(taken, len(of_layer), axis=0), choices[:, None]], axis=1)
        fits = np.flatnonzero((spent + to_come[:, layer + 1] <= 1 + 1e-9).all(axis=1))
        kept = fits[_best_of_cells(spent[fits], error[fits])]
        if not len(kept):
            raise NothingFitsError
        spent, error, taken = spent[kept], error[kept], taken[kept]
    return taken[int(error.argmin())]


def _best_of_cells(spent: np.ndarray, error: np.ndarray) -> np.ndarray:
    """The numbers of the partial choices with the smallest error in their cells."""
    cells = np.ravel_multi_index(np.floor(spent * _CELLS).astype(int).clip(0, _CELLS).T, [_CELLS + 1] * spent.shape[1])
    order = np.lexsort((spent.sum(axis=1), error, cells))
    return order[np.unique(cells[order], return_index=True)[1]]
