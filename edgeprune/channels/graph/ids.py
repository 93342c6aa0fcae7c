"""Channel ids: a union-find over integer arrays, and what keeps a channel from being dropped."""

from __future__ import annotations

import numpy as np


class Ids:
    """Integers that stand for channels, and which of them live and die together.

    All methods accept whole arrays. The representative of a set is its smallest member, so it is the same
    whatever the order of the unions.

    Example:
        >>> ids = Ids()
        >>> a, b = ids.fresh(3), ids.fresh(3)
        >>> ids.unite(a, b)
        >>> ids.find(b)
        array([0, 1, 2])
    """

    def __init__(self) -> None:
        self._parents = np.arange(1024)
        self._count = 0
        self._frozen: list[tuple[np.ndarray, str]] = []

    def __len__(self) -> int:
        return self._count

    def fresh(self, count: int) -> np.ndarray:
        """New ids (count,), each in a set of its own."""
        first, self._count = self._count, self._count + count
        if self._count > len(self._parents):
            grown = np.arange(2 * self._count)
            grown[: len(self._parents)] = self._parents
            self._parents = grown
        return np.arange(first, self._count)

    def find(self, ids: np.ndarray) -> np.ndarray:
        """The representative of each id, in an array of the same shape."""
        parents = self._parents
        roots = parents[ids]
        while True:
            higher = parents[roots]
            if np.array_equal(higher, roots):
                return roots
            parents[ids] = higher
            roots = parents[higher]

    def unite(self, a: np.ndarray, b: np.ndarray) -> None:
        """Join the sets of `a` and `b` element by element, under NumPy's broadcasting."""
        if a is b:
            return
        a, b = np.broadcast_arrays(self.find(a), self.find(b))
        while (apart := a != b).any():
            a, b = a[apart], b[apart]
            # Where one set gets several new parents the last one wins; the next round joins the others.
            self._parents[np.maximum(a, b)] = np.minimum(a, b)
            a, b = self.find(a), self.find(b)

    def tie(self, ids: np.ndarray, axis: int) -> None:
        """Join all the ids that lie in one line along `axis`."""
        if ids.shape[axis] > 1:
            self.unite(ids, np.take(ids, [0], axis=axis))

    def freeze(self, ids: np.ndarray, reason: str) -> None:
        """Keep the sets of these ids from being dropped; of several reasons for one set the first is reported."""
        self._frozen.append((np.unique(ids), reason))

    def frozen(self) -> dict[int, str]:
        """Representative to reason, for every set that must be kept."""
        reasons: dict[int, str] = {}
        for ids, reason in self._frozen:
            for root in np.unique(self.find(ids)).tolist():
                reasons.setdefault(root, reason)
        return reasons
