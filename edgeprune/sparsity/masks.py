"""Which weights to keep: boolean masks from importances, in plain NumPy.

The rules are TF-MOT 0.8's own, so that on equal weights and equal sparsity the masks are equal bit for bit,
ties and roundings included. Where TF-MOT sorts a whole weight to find one threshold, these partition it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# How far from a guess a threshold is looked for, as a factor.
_WINDOW = 1.1
# Brings every float32 magnitude below the smallest float32 score, by the same factor in all tensors.
_BELOW_EVERY_SCORE = float(np.finfo(np.float32).smallest_subnormal) / (2 * float(np.finfo(np.float32).max))


def kept_count(size: int, sparsity: float) -> int:
    """How many of `size` weights are kept at a sparsity, at least one; rounded in float32 as TF-MOT does."""
    kept = np.round(np.float32(size) * (np.float32(1) - np.float32(sparsity)))
    return max(int(kept), 1)


def threshold_at(importance: np.ndarray, sparsity: float, near: float = 0.0) -> float:
    """The smallest importance that is kept at a sparsity.

    Args:
        importance: floats of any shape, none of them negative or NaN.
        sparsity: fraction of zeros wanted, 0 to 1.
        near: a guess, such as the threshold of the step before. The result is the same without it; with a good
            one it comes four times faster, as only the values around it are ranked.

    Returns:
        The k-th largest importance, where k is `kept_count(importance.size, sparsity)`.
    """
    kept = kept_count(importance.size, sparsity)
    if near > 0:
        high = importance >= near * _WINDOW
        window = importance[(importance >= near / _WINDOW) & ~high]
        rank = kept - np.count_nonzero(high)  # among the values in the window, from the largest
        if 1 <= rank <= window.size:
            return np.partition(window, window.size - rank)[window.size - rank]
    # The zeros of earlier masks need no ranking, and many equal values would slow the partition down tenfold.
    positive = importance[importance > 0]
    if kept > positive.size:
        return importance.dtype.type(0)
    if kept == positive.size:
        return positive.min()
    return np.partition(positive, positive.size - kept)[positive.size - kept]


def unstructured_mask(importance: np.ndarray, sparsity: float) -> np.ndarray:
    """Keep the most important single weights.

    Args:
        importance: floats of any shape; for magnitude pruning the absolute weights.
        sparsity: fraction of zeros wanted, 0 to 1.

    Returns:
        A boolean array of the same shape, true where the weight is kept. Weights that tie with the
        threshold are all kept, so ties can leave fewer zeros than asked.

    Example:
        >>> unstructured_mask(np.array([0.1, 0.4, 0.2, 0.3]), 0.5)
        array([False,  True, False,  True])
    """
    return importance >= threshold_at(importance, sparsity)


def global_masks(importances: Sequence[np.ndarray], sparsity: float) -> list[np.ndarray]:
    """Keep the most important single weights of several tensors ranked together.

    Args:
        importances: float arrays of any shapes.
        sparsity: fraction of zeros wanted over all of them, 0 to 1.

    Returns:
        One boolean mask per array. A tensor whose every weight falls below the common threshold keeps its
        most important one, so that no layer is cut off.
    """
    threshold = threshold_at(np.concatenate([array.ravel() for array in importances]), sparsity)
    return [array >= min(threshold, array.max()) for array in importances]


def taylor_importance(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Scores whose ties at zero are broken by magnitude, below every score that is not zero.

    Weights behind an activation that is off get no gradient; without this, many of them would tie at zero.
    The same factor holds for all tensors, so that they can be ranked together.

    Args:
        scores: sums of |weight x gradient|, float32 of any shape.
        weights: the weights, floats of the same shape.

    Returns:
        Importances in float64, same shape; zero only where the weight itself is zero.
    """
    scores, magnitude = scores.astype(np.float64), np.abs(weights.astype(np.float64))
    return np.where(scores == 0, magnitude * _BELOW_EVERY_SCORE, scores)


def block_mask(importance: np.ndarray, sparsity: float, block_size: tuple[int, int], pooling: str) -> np.ndarray:
    """Keep the most important blocks of a matrix.

    Args:
        importance: floats, shape (rows, columns).
        sparsity: fraction of blocks to drop, 0 to 1.
        block_size: (rows, columns) of a block.
        pooling: `"AVG"` or `"MAX"`: how a block's importance comes from its weights'.

    Returns:
        A boolean mask of the same shape. Where the matrix is no multiple of the block, blocks are pooled
        as TensorFlow's SAME padding lays them, and the mask is cut at the far edge: TF-MOT's rule.

    Example:
        >>> block_mask(np.array([[1.0, 9, 2, 3], [4, 4, 8, 1]]), 0.5, (1, 2), "AVG")  # means [[5, 2.5], [4, 4.5]]
        array([[ True,  True, False, False],
               [False, False,  True,  True]])
    """
    pooled = importance
    for axis, length in enumerate(block_size):
        pooled = _pool(pooled, axis, length, pooling)
    kept = unstructured_mask(pooled, sparsity)
    expanded = kept.repeat(block_size[0], axis=0).repeat(block_size[1], axis=1)
    return expanded[: importance.shape[0], : importance.shape[1]]


def _pool(values: np.ndarray, axis: int, length: int, pooling: str) -> np.ndarray:
    """Pool windows of `length` along one axis of a matrix, padded as TensorFlow's SAME does."""
    size = values.shape[axis]
    blocks = -(-size // length)
    missing = blocks * length - size
    padding = [(0, 0), (0, 0)]
    padding[axis] = (missing // 2, missing - missing // 2)
    windows = np.moveaxis(np.pad(values, padding), axis, 0).reshape(blocks, length, -1)
    if pooling == "MAX":  # the padded zeros never win: importances are not negative
        pooled = windows.max(axis=1)
    else:
        present = np.pad(np.ones(size, values.dtype), padding[axis]).reshape(blocks, length).sum(axis=1)
        pooled = windows.sum(axis=1) / present[:, None]
    return np.moveaxis(pooled, 0, axis)


def m_by_n_mask(importance: np.ndarray, m_by_n: tuple[int, int]) -> np.ndarray:
    """Drop the m least important of every n consecutive weights along the input channels.

    The groups run along the axis that comes last in a TFLite file: the inputs of a Dense kernel, the input
    channels of a convolution.

    Args:
        importance: floats, a Dense kernel (inputs, outputs) or a Conv2D kernel (height, width, inputs,
            outputs).
        m_by_n: (m, n): m zeros in every n; an incomplete last group is filled up with zeros.

    Returns:
        A boolean mask of the same shape.

    Example:
        >>> m_by_n_mask(np.array([[1.0, 7], [9, 2], [2, 8], [3, 6]]), (2, 4)).T  # a column a unit
        array([[False,  True, False,  True],
               [ True, False,  True, False]])
    """
    zeros, group = m_by_n
    outputs_first = np.moveaxis(importance, -1, 0)
    rows = outputs_first.reshape(-1, outputs_first.shape[-1])
    inputs = rows.shape[1]
    padded = np.pad(rows, [(0, 0), (0, -inputs % group)]).reshape(-1, group)
    # A stable sort keeps the earlier of two equal weights, and real weights before the padding.
    order = np.argsort(-padded, axis=1, kind="stable")
    kept = np.zeros(padded.shape, bool)
    np.put_along_axis(kept, order[:, : group - zeros], True, axis=1)
    kept = kept.reshape(rows.shape[0], -1)[:, :inputs]
    return np.moveaxis(kept.reshape(outputs_first.shape), 0, -1)


def m_by_n_groups(shape: Sequence[int], n: int) -> np.ndarray:
    """Which weights of a kernel are ranked together by `m_by_n_mask`.

    Args:
        shape: of a Dense or Conv2D kernel.
        n: how many are a group.

    Returns:
        An array of that shape: the number of each weight's group, from 0.

    Example:
        >>> m_by_n_groups((4, 2), 2).T
        array([[0, 0, 1, 1],
               [2, 2, 3, 3]])
    """
    outputs_first = (shape[-1], *shape[:-1])
    inputs = outputs_first[-1]
    rows = np.arange(math.prod(outputs_first[:-1]))[:, None] * -(-inputs // n)
    return np.moveaxis((rows + np.arange(inputs) // n).reshape(outputs_first), 0, -1)
