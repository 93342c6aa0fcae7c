"""The score of each sample, of figures that are a mean of these: what the bootstrap draws from, scored once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edgeprune.data.losses import plain_names
from edgeprune.measure.accuracy import right_ones
from edgeprune.measure.score import parts_by_output
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
        name: of the figure, such as `"accuracy"`, after the output's name where there are several: `"price_mae"`.
        value: the figure of these outputs, which the mean must be.
        outputs: output name to values `(n, ...)`.
        labels: `(n, ...)`, by output where there are several, as `edgeprune.score` accepts them.
        sample_weight: `(n,)`, in the same forms, or None.

    Returns:
        Arrays `(n,)`, the second None without weights; or None where the figure is no such mean, or not known to be.

    Example:
        >>> scores, _ = sample_scores("mae", 1.0, {"out": np.array([[1.0], [3.0]])}, np.array([1.0, 1.0]))
        >>> scores.tolist()
        [0.0, 2.0]
    """
    if labels is None:
        return None
    weights = {} if sample_weight is None else parts_by_output(outputs, sample_weight, "sample weights", None)
    for output, y_true in parts_by_output(outputs, labels, "labels", None).items():
        prefix = f"{output}_" if len(outputs) > 1 else ""
        score = _SCORES.get(plain_names(name.removeprefix(prefix))[0]) if name.startswith(prefix) else None
        found = None if score is None else _means(score, value, outputs[output], y_true, weights.get(output))
        if found is not None:
            return found
    return None


def _means(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray],
    value: float,
    y_pred: np.ndarray,
    y_true: np.ndarray,
    sample_weight: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """The scores and the weights, if their mean is the value."""
    weights = None if sample_weight is None else sample_weight.astype(np.float64)
    try:
        values = np.asarray(score(y_pred, y_true), np.float64)
        values = values.reshape(len(values), -1).mean(axis=1)
        mean = np.average(values, weights=weights)
    except (ValueError, TypeError, ZeroDivisionError):  # labels in another form, weights of positions
        return None
    return (values, weights) if abs(mean - value) <= _TOLERANCE * max(1.0, abs(value)) else None
