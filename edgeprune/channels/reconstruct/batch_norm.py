"""The sums that the statistics of a batch normalization are measured by, and those that fit an output best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Step
from edgeprune.types import Array, Layer

NUMBERS_AT_ONCE = 1 << 20  # turned into float64


@dataclass
class Moments:
    """Sums over all places of the inputs of a batch normalization, for each channel, and of the wanted outputs.

    Attributes:
        count: the number of places.
        input_sums, square_sums: of the inputs and their squares.
        target_sums, target_squares, cross_sums: of the wanted outputs, their squares, and products with the inputs.
        old: of the inputs in the original model.
    """

    count: int = 0
    input_sums: Any = 0.0
    square_sums: Any = 0.0
    target_sums: Any = 0.0
    target_squares: Any = 0.0
    cross_sums: Any = 0.0
    old: Any = 0.0

    def add(self, x: np.ndarray) -> None:
        """Add the inputs of a batch: (places, channels)."""
        self.count += len(x)
        self.input_sums += x.sum(axis=0)
        self.square_sums += np.square(x).sum(axis=0)

    def add_wanted(self, x: np.ndarray, wanted: np.ndarray, old: np.ndarray) -> None:
        """Add wanted outputs and the original's inputs at the same places."""
        self.target_sums += wanted.sum(axis=0)
        self.target_squares += np.square(wanted).sum(axis=0)
        self.cross_sums += (x * wanted).sum(axis=0)
        self.old += old.sum(axis=0)

    @property
    def mean(self) -> np.ndarray:
        """Of the inputs, for each channel."""
        return self.input_sums / self.count

    @property
    def variance(self) -> np.ndarray:
        """Of the inputs about their mean, for each channel."""
        return np.maximum(self.square_sums / self.count - np.square(self.mean), 0.0)

    def check(self, name: str) -> None:
        """See that they are finite.

        Raises:
            ValueError: they are not, or there are none.
        """
        if not self.count or not np.isfinite(self.input_sums).all():
            raise ValueError(f"What {name!r} is called on is NaN or infinite on this data: look for such values in it.")

    def error(self, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """For each channel the squares of `scale * x + offset - wanted`, added up."""
        products = scale * self.cross_sums + offset * self.target_sums
        own = scale * scale * self.square_sums + 2 * scale * offset * self.input_sums + offset * offset * self.count
        return own - 2 * products + self.target_squares


def by_channel(axis: int, *tensors: Array) -> Iterator[tuple[np.ndarray, ...]]:
    """Tensors of one shape as float64 arrays (places, channels), some samples at a time."""
    arrays = [np.asarray(x) for x in tensors]
    samples = max(NUMBERS_AT_ONCE // max(arrays[0][:1].size, 1), 1)
    for start in range(0, len(arrays[0]), samples):
        blocks = (np.moveaxis(x[start : start + samples], axis, -1) for x in arrays)
        yield tuple(block.reshape(-1, block.shape[-1]).astype(np.float64) for block in blocks)


def statistics_axis(layer: Layer) -> int | None:
    """The axis that a batch normalization has statistics for; None for several."""
    axes = list(layer.axis) if isinstance(layer.axis, list | tuple) else [layer.axis]
    return axes[0] if len(axes) == 1 else None


def is_batch_norm(layer: Layer) -> bool:
    """Whether a layer is a batch normalization of either Keras."""
    return flavor.is_layer(layer) and isinstance(layer, flavor.keras_of(layer).layers.BatchNormalization)


def is_normalized(graph: ChannelGraph, steps: Sequence[Step]) -> bool:
    """Whether nothing but a batch normalization, which makes up for a shift, reads the outputs of some calls."""
    given = {place for step in steps for place in step.outputs}
    readers = [step for step in graph.steps if given & set(step.inputs)]
    read_elsewhere = given & (set(graph.outputs) | {fold.taken for fold in graph.folds})
    return not read_elsewhere and all(is_batch_norm(step.layer) for step in readers)


def assign(layer: Layer, mean: np.ndarray, variance: np.ndarray) -> None:
    """Set a layer's moving statistics."""
    for variable, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        variable.assign(value.astype(np.float32))


def best_statistics(layer: Layer, moments: Moments) -> tuple[np.ndarray, np.ndarray] | None:
    """Each channel's mean and variance with the smallest error of the output.

    They are the layer's own, the same with a mean that is moved as that of the input is, or those of the data.

    Returns:
        Mean and variance; None where none changes.
    """
    mean, variance = (flavor.array_of(one).astype(np.float64) for one in (layer.moving_mean, layer.moving_variance))
    moved = mean + moments.mean - moments.old / moments.count
    choices = [(mean, variance), (moved, variance), (moments.mean, moments.variance)]
    errors = [moments.error(*_line(layer, *choice)) for choice in choices]
    errors[0] -= 1e-9 * moments.target_squares  # what a rounding error would decide is left as it is
    best = np.argmin(errors, axis=0)
    if not best.any():
        return None
    means, variances = zip(*choices, strict=True)
    return np.choose(best, means), np.choose(best, variances)


def _line(layer: Layer, mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scale and the offset by which it multiplies and moves its input."""
    gamma = 1.0 if layer.gamma is None else flavor.array_of(layer.gamma).astype(np.float64)
    beta = 0.0 if layer.beta is None else flavor.array_of(layer.beta).astype(np.float64)
    scale = gamma / np.sqrt(variance + layer.epsilon)
    return scale, beta - scale * mean
