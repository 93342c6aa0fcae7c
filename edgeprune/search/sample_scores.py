"""The score of each sample, of figures that are a mean of these: what the bootstrap draws from, scored once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edgeprune.data.losses import plain_names
from edgeprune.measure.accuracy import right_ones
from edgeprune.types import Arrays

_TOLERANCE = 1e-5  # Keras sums in float32


def _errors(y_pred: np.ndarray, y_true: np.ndarray) -> np.ndarray:
    return np.abs(y_true.reshape(y_pred.shape).astype(np.float64) - y_pred)


def _squared_errors(y_pred: np.ndarray, y_true: np.ndarray) -> np.ndarray:
    return _errors(y_pred, y_true) ** 2


_SCORES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    **dict.fromkeys(
        ("accuracy", "acc", "sparsecategoricalaccuracy", "categoricalaccuracy", "binaryaccuracy"), right_ones
    ),
    **dict.fromkeys(("mae", "meanabsoluteerror", "reconstructionerror"), _errors),
    **dict.fromkeys(("mse", "meansquarederror"), _squared_errors),
}


def sample_scores(
    name: str,
    value: float,
    outputs: Mapping[str, np.ndarray],
    labels: Arrays | None,
    sample_weight: Arrays | None = None,
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """The score of each sample, and the samples' weights.

    Args:
        name: of the figure, such as `"accuracy"` or `"mae"`.
        value: the figure of these outputs, which the mean must be.
        outputs: of one output `(n, ...)`.
        labels: `(n, ...)`.
        sample_weight: `(n,)` or None.

    Returns:
        Arrays `(n,)`, the second None without weights; or None where the figure is no such mean, or not known to be.

    Example:
        >>> scores, _ = sample_scores("mae", 1.0, {"out": np.array([[1.0], [3.0]])}, np.array([1.0, 1.0]))
        >>> scores.tolist()
        [0.0, 2.0]
    """
    score = _SCORES.get(plain_names(name)[0])
    if score is None or len(outputs) != 1 or labels is None or isinstance(labels, Mapping | list | tuple):
        return None
    weights = None if sample_weight is None else np.asarray(sample_weight, np.float64)
    (y_pred,) = outputs.values()
    try:
        values = np.asarray(score(y_pred, np.asarray(labels)), np.float64)
        values = values.reshape(len(values), -1).mean(axis=1)
        mean = np.average(values, weights=weights)
    except (ValueError, TypeError, ZeroDivisionError):  # labels in another form, weights of positions
        return None
    return (values, weights) if abs(mean - value) <= _TOLERANCE * max(1.0, abs(value)) else None
