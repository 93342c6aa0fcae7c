"""The windows of an input that convolutions of any rank read for some places of their output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Chosen:
    """Some places of a batch.

    Attributes:
        samples: int array (n,), the sample of each.
        places: int array (n,), the place in the sample: its position along the axes of places, flattened.
    """

    samples: np.ndarray
    places: np.ndarray


def window_tables(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    padding: str,
    transposed_to: Sequence[int] | None = None,
) -> list[np.ndarray]:
    """For each spatial axis, which position of the input each tap of the kernel reads for each position of the output.

    Args:
        sizes: of the input's spatial axes.
        kernel: of the kernel's.
        strides: one for each axis.
        dilations: one for each axis.
        padding: `"valid"`, `"same"` or `"causal"`.
        transposed_to: of a transposed convolution the sizes of its output.

    Returns:
        For each axis an int array (positions of the output, taps); the size of the input stands for a zero.

    Example:
        >>> window_tables([4], [3], [2], [1], "valid")[0].tolist()
        [[0, 1, 2]]
        >>> window_tables([4], [3], [1], [1], "causal")[0].tolist()
        [[4, 4, 0], [4, 0, 1], [0, 1, 2], [1, 2, 3]]
    """
    axes = zip(sizes, kernel, strides, dilations, strict=True)
    if transposed_to is not None:
        return [_transposed(*one, padding, to) for one, to in zip(axes, transposed_to, strict=True)]
    return [_forward(*one, padding) for one in axes]


def _forward(size: int, taps: int, stride: int, dilation: int, padding: str) -> np.ndarray:
    reach = (taps - 1) * dilation + 1
    if padding == "valid":
        positions, before = (size - reach) // stride + 1, 0
    else:
        positions = -(-size // stride)
        before = reach - 1 if padding == "causal" else max((positions - 1) * stride + reach - size, 0) // 2
    read = np.arange(positions)[:, None] * stride + np.arange(taps) * dilation - before
    return np.where((read >= 0) & (read < size), read, size)


def _transposed(size: int, taps: int, stride: int, dilation: int, padding: str, to: int) -> np.ndarray:
    """The convolution from `to` positions to `size`, the other way round."""
    reach = (taps - 1) * dilation + 1
    before = max((size - 1) * stride + reach - to, 0) // 2 if padding == "same" else 0
    ahead = np.arange(to)[:, None] + before - np.arange(taps) * dilation
    read = ahead // stride
    return np.where((ahead % stride == 0) & (read >= 0) & (read < size), read, size)


def windows(x: np.ndarray, tables: Sequence[np.ndarray], chosen: Chosen) -> np.ndarray:
    """What is read for some places: an array (places, taps, channels).

    Args:
        x: array (samples, *sizes, channels).
        tables: what `window_tables` returned.
        chosen: the places of the output.
    """
    padded = np.pad(x, [(0, 0), *((0, 1) for _ in tables), (0, 0)])
    positions = np.unravel_index(chosen.places, [len(table) for table in tables])
    rank = len(tables)
    indices = [chosen.samples.reshape(-1, *(1,) * rank)]
    for axis, (table, position) in enumerate(zip(tables, positions, strict=True)):
        shape = [1] * rank
        shape[axis] = table.shape[1]
        indices.append(table[position].reshape(-1, *shape))
    return padded[tuple(indices)].reshape(len(chosen.places), math.prod(t.shape[1] for t in tables), x.shape[-1])
