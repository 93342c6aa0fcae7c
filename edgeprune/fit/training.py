"""Train with one progress bar over all epochs, and stop where the loss is lost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np

from edgeprune import flavor
from edgeprune.data.batches import count_of, first_array
from edgeprune.data.structures import mapped
from edgeprune.number_checks import check_whole
from edgeprune.progress import steps
from edgeprune.types import Arrays, DataLike, Model


def fit(
    model: Model,
    x: DataLike,
    y: Arrays | None = None,
    *,
    sample_weight: Arrays | None = None,
    epochs: int,
    batch_size: int,
    callbacks: Iterable[Any] = (),
    description: str = "Training",
) -> Any:
    """`model.fit` with one progress bar over all epochs, on stderr, and nothing on stdout.

    Args:
        model: a compiled model of either Keras.
        x: inputs, shape `(n, ...)`; a dict by input name or a list for several. Or a dataset of batches.
        y: labels or targets, shape `(n, ...)`; a dict by output name or a list for several. Left out for a dataset.
        sample_weight: weights of the samples, shape `(n,)`; a dict or a list for several outputs.
        epochs: number of passes over the data.
        batch_size: samples per step.
        callbacks: Keras callbacks of the model's own Keras.
        description: a few words shown before the bar.

    Returns:
        The Keras `History`.

    Raises:
        ValueError: a number is out of range, the loss became NaN or infinite, or the model's Keras cannot train it
            under its `tf.distribute` strategy.

    Example:
        >>> fit(model, x, y, epochs=2, batch_size=32).epoch
        [0, 1]
    """
    check_whole("epochs", epochs, 1)
    flavor.check_strategy(model)
    is_dataset = is_keras_data(model, x)
    total = count_of(x) if is_dataset else count_steps(cast(Arrays, x), batch_size)
    with steps(description, total and epochs * total) as done:

        def after_step(step: int, logs: Mapping[str, float] | None = None) -> None:
            done(_figures(logs or {}))
            if not math.isfinite(loss := (logs or {}).get("loss", 0.0)):
                raise ValueError(
                    f"The loss of model {model.name!r} became {loss} at step {step + 1}, and its weights are lost. "
                    "Check the data and the labels, or lower the learning rate."
                )

        watch = flavor.keras_of(model).callbacks.LambdaCallback(on_train_batch_end=after_step)
        history = model.fit(
            x if is_dataset else mapped(_texts_as_tensor, x),
            y,
            sample_weight=sample_weight,
            epochs=epochs,
            batch_size=None if is_dataset else batch_size,
            callbacks=[*callbacks, watch],
            verbose=0,
            **({"shuffle": False} if is_dataset and callable(getattr(x, "cardinality", None)) else {}),
        )
    # The last step may have lost the weights after its loss was computed.
    if not all(np.isfinite(flavor.array_of(weight)).all() for weight in flavor.weights_of(model)):
        raise ValueError(f"Weights of model {model.name!r} became NaN or infinite: lower the learning rate.")
    return history


def _texts_as_tensor(array: Any) -> Any:
    """An array of texts as a tensor, as Keras 3 accepts few such arrays; others as they are."""
    import tensorflow as tf

    if not isinstance(array, np.ndarray) or not array.size:
        return array
    is_texts = array.dtype.kind in "US" or (array.dtype == object and isinstance(array.flat[0], str | bytes))
    return tf.constant(array) if is_texts else array


def count_steps(x: Arrays, batch_size: int) -> int:
    """How many steps a pass over arrays has."""
    check_whole("batch_size", batch_size, 1)
    return -(-len(first_array(x)) // batch_size)


def is_keras_data(model: Model, x: object) -> bool:
    """Whether these are batches as the `fit` of a model's Keras accepts them, not arrays: a dataset of either kind."""
    import tensorflow as tf

    utils = flavor.keras_of(model).utils
    return isinstance(x, tf.data.Dataset | getattr(utils, "PyDataset", utils.Sequence))


def _figures(logs: Mapping[str, float]) -> str:
    """The loss and the first metric, for the progress bar: what fits beside it."""
    metrics = [name for name in logs if name not in ("loss", "compile_metrics")]
    metric = min(metrics, key=lambda name: name.endswith("_loss"), default=None)  # after those, the outputs' losses
    return " ".join(f"{name} {logs[name]:.3g}" for name in ("loss", metric) if name is not None and name in logs)
