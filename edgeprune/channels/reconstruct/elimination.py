"""Which channels the others can make up for: greedy backward elimination on the moments of what layers read.

Removing some inputs of a matrix and solving for the others' weights again adds an error that is known in closed form:
with the solved weights V and the inverse P of the inputs' moments it is tr(V_c' P_cc^-1 V_c) for the inputs c of a
channel. After each removal V and P are those of what is left (a step of a Cholesky factorization of P, pivoted by that
error), so that each error counts what has gone before. Of many channels only those with the smallest errors are looked
at for some removals, which then change all others at once.

Source: Hassibi and Stork, Second order derivatives for network pruning: Optimal Brain Surgeon, 1993, here for whole
channels and layer by layer; Frantar and Alistarh, Optimal Brain Compression, 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

AT_ONCE = 8  # classes that are removed between two looks at all others
LOOKED_AT = 64  # classes that those are chosen from, the ones with the smallest errors
RIDGE = 1e-4  # relative to the mean square of an input: what samples alone cannot tell apart


@dataclass(frozen=True, eq=False)
class Reader:
    """A matrix that reads channels, and the moments of its inputs.

    Attributes:
        moments: (inputs, inputs), the mean products of its inputs.
        matrix: (inputs, outputs), each output scaled by what its error is worth.
        classes: int array (axes, inputs), the classes of each input.
    """

    moments: np.ndarray
    matrix: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True, eq=False)
class Parts:
    """A matrix with too many inputs for their moments, each class on its own: nothing makes up for what is removed.

    Attributes:
        classes: int array (parts,), each once.
        errors: (parts,), the mean square of what each adds to the outputs.
    """

    classes: np.ndarray
    errors: np.ndarray


def eliminate(readers: Sequence[Reader | Parts], classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Remove classes one after the other, each time the one whose removal adds the smallest error.

    Args:
        readers: the matrices that read them; those inputs of theirs that belong to other classes are kept.
        classes: int array (classes,), those to remove.

    Returns:
        The positions in `classes` in the order in which they go, and the squared error that each adds to the outputs
        when the weights of all that is left are solved again: arrays (classes,).

    Example:
        >>> moments = np.array([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])  # the third input is always the first
        >>> reader = Reader(moments, np.array([[1.0], [2.0], [3.0]]), np.arange(3)[None])
        >>> order, errors = eliminate([reader], np.arange(3))
        >>> order.tolist(), errors.round(2).tolist()  # one of the twins, then the smaller of 2² and (1 + 3)²
        ([0, 1, 2], [0.0, 4.0, 16.0])
    """
    eliminations = [_Elimination.of(one, classes) for one in readers if isinstance(one, Reader)]
    apart = np.zeros(len(classes))
    for parts in (one for one in readers if isinstance(one, Parts)):
        apart += np.where(classes[:, None] == parts.classes, parts.errors, 0.0).sum(axis=1)
    left, order, errors = np.arange(len(classes)), list[int](), list[float]()
    while len(left):
        lowest = left[np.argsort(_added(eliminations, apart)[left], kind="stable")[:LOOKED_AT]]
        count = len(lowest) if len(lowest) == len(left) else AT_ONCE
        removed, their_errors = _greedy([one.of_some(lowest) for one in eliminations], apart[lowest], count)
        order += lowest[removed].tolist()
        errors += their_errors
        for one in eliminations:
            one.remove(lowest[removed])
        left = np.setdiff1d(left, lowest[removed])
    return np.array(order, int), np.array(errors)


def _greedy(eliminations: Sequence[_Elimination], apart: np.ndarray, count: int) -> tuple[list[int], list[float]]:
    """Remove so many classes, each time the one whose removal adds the smallest error, and those errors."""
    left = np.ones(len(apart), bool)
    order, errors = list[int](), list[float]()
    for _ in range(count):
        added = _added(eliminations, apart)
        lowest = int(np.argmin(np.where(left, added, np.inf)))
        left[lowest] = False
        order.append(lowest)
        errors.append(max(float(added[lowest]), 0.0))
        for one in eliminations:
            one.remove(np.array([lowest]))
    return order, errors


def _added(eliminations: Sequence[_Elimination], apart: np.ndarray) -> np.ndarray:
    return sum((one.errors() for one in eliminations), apart)


class _Elimination:
    """One matrix while classes are removed: those that are left, with as many inputs each.

    Attributes:
        inverse: (classes * width, classes * width), of the moments with all inputs.
        factor: of the inputs that have been removed, so that `inverse - factor @ factor.T` is that of what is left.
        blocks: (classes, width, width), the diagonal of that.
        solved: (classes, width, outputs), the weights of what is left.
    """

    def __init__(self, inverse: np.ndarray, solved: np.ndarray, classes: int) -> None:
        self.inverse, self.solved = inverse, solved
        self.width = len(inverse) // classes
        self.factor = np.empty_like(inverse)
        self.used = 0
        grid = inverse.reshape(classes, self.width, classes, self.width)
        self.blocks = grid[np.arange(classes), :, np.arange(classes)].copy()

    @classmethod
    def of(cls, reader: Reader, classes: np.ndarray) -> _Elimination:
        size = len(reader.moments)
        ridge = RIDGE * max(float(np.trace(reader.moments)) / size, 1e-30)
        inverse = np.linalg.inv(reader.moments + ridge * np.eye(size))
        own = [np.flatnonzero((reader.classes == one).any(axis=0)) for one in classes.tolist()]
        width = max(map(len, own))
        # A class with fewer inputs than others gets some that nothing depends on.
        padding = np.concatenate([np.arange(width) >= len(inputs) for inputs in own])
        places = np.concatenate([np.resize(inputs, width) if len(inputs) else np.zeros(width, int) for inputs in own])
        inverse = inverse[np.ix_(places, places)]
        inverse[padding], inverse[:, padding] = 0.0, 0.0
        inverse[padding, padding] = 1.0
        solved = np.where(padding[:, None], 0.0, reader.matrix[places])
        return cls(inverse, solved.reshape(len(classes), width, -1), len(classes))

    def errors(self) -> np.ndarray:
        """What the removal of each class would add."""
        products = self.solved @ self.solved.transpose(0, 2, 1)
        return np.einsum("cvw,cvw->c", np.linalg.inv(self.blocks), products)

    def of_some(self, numbers: np.ndarray) -> _Elimination:
        """What is left of it, for some classes alone: none of the others will be removed."""
        rows = self._rows(numbers)
        used = self.factor[rows, : self.used]
        inverse = self.inverse[np.ix_(rows, rows)] - used @ used.T
        return _Elimination(inverse, self.solved[numbers], len(numbers))

    def remove(self, numbers: np.ndarray) -> None:
        """Remove some classes and solve for what is left."""
        rows = self._rows(numbers)
        used = self.factor[:, : self.used]
        columns = self.inverse[:, rows] - used @ used[rows].T
        root = np.linalg.inv(np.linalg.cholesky(_positive(columns[rows])))
        new = columns @ root.T
        self.factor[:, self.used : self.used + len(rows)] = new
        self.used += len(rows)
        outputs = self.solved.shape[2]
        self.solved -= (new @ (root @ self.solved[numbers].reshape(-1, outputs))).reshape(self.solved.shape)
        of_each = new.reshape(len(self.blocks), self.width, -1)
        self.blocks -= of_each @ of_each.transpose(0, 2, 1)
        self.blocks[numbers] = np.eye(self.width)
        self.solved[numbers] = 0.0

    def _rows(self, numbers: np.ndarray) -> np.ndarray:
        return (numbers[:, None] * self.width + np.arange(self.width)).ravel()


def _positive(block: np.ndarray) -> np.ndarray:
    """A block of an inverse without what rounding took from its diagonal."""
    block = (block + block.T) / 2
    return block + 1e-12 * np.trace(block) * np.eye(len(block))
