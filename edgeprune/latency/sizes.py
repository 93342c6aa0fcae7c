"""Sizes in a file that follow the widths of a model, found by comparing files of one model at several widths.

A *line* is an axis whose length changes when channels are removed; its *count* is that length. What no line explains
is fixed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


class UnlikeFilesError(ValueError):
    """The files of one model at several widths differ by more than the widths."""


@dataclass(frozen=True)
class Size:
    """A whole number that is a factor times the counts of some lines.

    Attributes:
        factor: the number itself where `lines` is empty.
        lines: the numbers of the lines.
    """

    factor: int
    lines: tuple[int, ...] = ()

    def at(self, counts: np.ndarray) -> int:
        """The size at these counts, int array `(lines,)`."""
        value = self.factor
        for line in self.lines:
            value *= int(counts[line])
        return value


class SizeFinder:
    """Finds the sizes that explain numbers read from several files of a model.

    Args:
        counts: int array (files, lines), the count of each line in each file.

    Example:
        >>> sizes = SizeFinder(np.array([[8, 16], [5, 12]]))
        >>> sizes.explaining([9 * 16, 9 * 12]), sizes.explaining([3, 3])
        (Size(factor=9, lines=(1,)), Size(factor=3, lines=()))
    """

    def __init__(self, counts: np.ndarray) -> None:
        self._counts = np.asarray(counts, np.int64)
        self._known: dict[tuple[int, ...], Size] = {}

    def explaining(self, values: Sequence[int]) -> Size:
        """The size that has these values, one for each file; the one with the fewest lines, then the least factor.

        Raises:
            UnlikeFilesError: there is none.
        """
        key = tuple(map(int, values))
        if key not in self._known:
            self._known[key] = Size(key[0]) if len(set(key)) == 1 else self._found(np.array(key, np.int64))
        return self._known[key]

    def _found(self, values: np.ndarray) -> Size:
        lines = range(self._counts.shape[1])
        singly = [(line,) for line in lines]
        for choices in (singly, itertools.combinations_with_replacement(lines, 2)):
            found = [
                Size(int(values[0] // product[0]), choice)
                for choice in choices
                for product in [self._counts[:, choice].prod(axis=1)]
                if values[0] % product[0] == 0 and (values == values[0] // product[0] * product).all()
            ]
            if found:
                return min(found, key=lambda size: (size.factor, size.lines))
        raise UnlikeFilesError(f"no axis of the model has the sizes {values.tolist()} at the widths it was tried at")
