"""Weights that can only become certain values, found column by column: those of the columns to come make up for each.

For every output the error is a quadratic function of its weights, whose matrix (the Hessian) is that of the inputs'
products. When a weight is moved to a value that it may have, the best weights of the later columns follow from one
Cholesky factor of the inverse, the same for all outputs.

Source: Hassibi and Stork, Optimal Brain Surgeon, 1993; Frantar and Alistarh, Optimal Brain Compression, 2022; Frantar
et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers, 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgeprune.channels.reconstruct.ridge import Equations, mean_square

TOGETHER = 128  # columns whose errors are passed on at once

# What the weights of a column, counted within its block, become: (groups, outputs) to (groups, outputs).
Settle = Callable[[int, np.ndarray], np.ndarray]


def settle_columns(
    hessian: np.ndarray,
    goal: np.ndarray,
    blocks: Sequence[slice],
    begin: Callable[[slice, np.ndarray, np.ndarray], Settle],
) -> np.ndarray:
    """Move all weights to values that they may have, one column after the other.

    Args:
        hessian: float64 array (groups, inputs, inputs), positive definite.
        goal: (groups, inputs, outputs), the Hessian times the best weights.
        blocks: runs of inputs, in their order.
        begin: is called at each block with its slice, its weights and their scales, both (groups, block, outputs); a
            change of a weight costs the square of the change over its scale. Returns what the weights become.

    Returns:
        The weights, (groups, inputs, outputs).
    """
    inverse = np.linalg.inv(hessian)
    weights = inverse @ goal
    factor = np.linalg.cholesky(inverse).transpose(0, 2, 1)
    scales = np.einsum("gii->gi", factor)[..., None]
    for block in blocks:
        settle = begin(block, weights[:, block], scales[:, block])
        errors = np.zeros_like(weights[:, block])
        for number, column in enumerate(range(block.start, block.stop)):
            values = settle(number, weights[:, column])
            goes = (weights[:, column] - values) / scales[:, column]
            errors[:, number] = goes
            weights[:, column : block.stop] -= factor[:, column, column : block.stop, None] * goes[:, None]
            weights[:, column] = values
        weights[:, block.stop :] -= factor[:, block, block.stop :].transpose(0, 2, 1) @ errors
    return weights


def evenly(inputs: int) -> list[slice]:
    """Blocks of `TOGETHER` columns."""
    return [slice(start, min(start + TOGETHER, inputs)) for start in range(0, inputs, TOGETHER)]


def quadratic(
    matrix: np.ndarray, wanted: np.ndarray, equations: Equations, intercept: bool, damping: float
) -> tuple[np.ndarray, np.ndarray]:
    """The Hessian, with which weights that go far from the original's cost more, and what it times them should be.

    Args:
        matrix: (groups, inputs, outputs), the weights that the residuals of the equations are those of.
        wanted: the same of the original.
        equations: the sums over rows.
        intercept: whether the outputs can be shifted.
        damping: relative to the mean square of an input.
    """
    gram, cross = equations.moments(intercept)
    scale = mean_square(gram) or 1.0
    hessian = gram + damping * scale * np.eye(gram.shape[-1])
    return hessian, hessian @ wanted + cross + gram @ (matrix - wanted)
