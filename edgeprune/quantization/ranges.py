"""How the range of an activation is chosen from the values that it had: all of them, most of them, or the best grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

_HELD = 1 << 16  # values of one activation
_OUTSIDE = 1e-3  # of the values, half at each end, for percentiles
_SHRUNK = np.linspace(0.2, 1.0, 41)
_STEPS = 255


class RangeChooser(Protocol):
    """What is shown an activation's values, and says its range."""

    def update(self, values: np.ndarray) -> None:
        """Add the values of a batch."""

    def range(self) -> tuple[float, float]:
        """The smallest and the largest value that shall be stored."""


class MinMax:
    """The smallest and the largest value: nothing is cut off."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf

    def update(self, values: np.ndarray) -> None:
        """Add the values of a batch."""
        if values.size:
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def range(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        return self.low, self.high


class _Sample(MinMax):
    """Values drawn at random from all that were shown, the same at every run."""

    def __init__(self) -> None:
        super().__init__()
        self._random = np.random.default_rng(0)
        self._held = np.zeros(0, np.float32)
        self._seen = 0

    def update(self, values: np.ndarray) -> None:
        """Add the values of a batch; each has the same chance to be held."""
        super().update(values)
        flat = values.reshape(-1).astype(np.float32)
        self._seen += flat.size
        share = min(1.0, _HELD / max(self._seen, 1))
        fresh = flat
        if share < 1:  # with replacement: a permutation of large activations would take longer than the model
            fresh = flat[self._random.integers(flat.size, size=max(1, round(share * flat.size)))]
        left = self._random.permutation(self._held)[: max(0, min(_HELD, self._seen) - fresh.size)]
        self._held = np.concatenate([left, fresh])


class Percentile(_Sample):
    """The range that one value in a thousand is outside of: a few large ones do not widen everybody's steps."""

    def range(self) -> tuple[float, float]:
        """The percentiles; where no value is negative, or none is positive, only the other end is cut."""
        if not np.isfinite([self.low, self.high]).all():
            return self.low, self.high
        one_sided = self.low >= 0 or self.high <= 0
        share = _OUTSIDE if one_sided else _OUTSIDE / 2
        low, high = np.quantile(self._held, [share, 1 - share])
        return (self.low if self.low >= 0 else float(low)), (self.high if self.high <= 0 else float(high))


class SmallestError(_Sample):
    """The range whose 256 steps hold the values with the smallest mean squared error, cut and rounded values alike."""

    def range(self) -> tuple[float, float]:
        """The better of all ranges that are shrunk alike at both ends."""
        if not np.isfinite([self.low, self.high]).all():
            return self.low, self.high
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        errors = [_grid_error(self._held, low * share, high * share) for share in _SHRUNK]
        share = float(_SHRUNK[int(np.argmin(errors))])
        return low * share, high * share


def _grid_error(values: np.ndarray, low: float, high: float) -> float:
    """The mean squared error of values on 256 steps between two numbers, of which one is zero or they lie about it."""
    step = (high - low) / _STEPS
    if step <= 0:
        return float(np.square(values).mean()) if values.size else 0.0
    zero = np.rint(-low / step)
    rounded = (np.clip(np.rint(values / step) + zero, 0, _STEPS) - zero) * step
    return float(np.square(rounded - values).mean())


# By the names that `calibration=` accepts.
RANGE_METHODS: dict[str, Callable[[], RangeChooser]] = {
    "min-max": MinMax,
    "percentile": Percentile,
    "mse": SmallestError,
}


def range_method(name: str) -> Callable[[], RangeChooser]:
    """The way of choosing ranges that has this name.

    Raises:
        ValueError: there is none.

    Example:
        >>> chooser = range_method("percentile")()
        >>> chooser.update(np.append(np.linspace(0, 1, 10_000), 100.0))
        >>> [round(end, 2) for end in chooser.range()]
        [0.0, 1.0]
    """
    if name not in RANGE_METHODS:
        raise ValueError(f"Ranges are chosen by {', '.join(map(repr, RANGE_METHODS))}; got {name!r}.")
    return RANGE_METHODS[name]
