"""Train with a progress bar, and prune while training: what the demo and the command line share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from edgeprune import flavor
from edgeprune.labels import check_labels
from edgeprune.progress import steps

if TYPE_CHECKING:
    import numpy as np

SCHEDULES = ("polynomial", "constant")
# The share of the training in which sparsity grows; in the rest the weights that are left recover.
GROWING_SHARE = 2 / 3


def fit(
    model: Any,
    x: np.ndarray,
    y: np.ndarray,
    *,
    epochs: int,
    batch_size: int,
    callbacks: Iterable[Any] = (),
    description: str = "Training",
) -> Any:
    """`model.fit` with one progress bar over all epochs, on stderr, and nothing on stdout.

    Args:
        model: a compiled model of either Keras.
        x: inputs, shape `(n, ...)`.
        y: labels or targets, shape `(n, ...)`.
        epochs: number of passes over the data.
        batch_size: samples per step.
        callbacks: Keras callbacks of the model's own Keras.
        description: a few words shown before the bar.

    Returns:
        The Keras `History`.

    Raises:
        ValueError: a number is out of range, or the loss became NaN or infinite.

    Example:
        >>> fit(model, x, y, epochs=2, batch_size=32).epoch  # doctest: +SKIP
        [0, 1]
    """
    import numpy as np

    _check_count("epochs", epochs)
    with steps(description, epochs * _steps(x, batch_size)) as done:

        def after_step(step: int, logs: Mapping[str, float] | None = None) -> None:
            done(_figures(logs or {}))
            if not math.isfinite(loss := (logs or {}).get("loss", 0.0)):
                raise ValueError(
                    f"The loss of model {model.name!r} became {loss} at step {step + 1}, and its weights are lost. "
                    "Check the data and the labels, or lower the learning rate."
                )

        watch = flavor.keras_of(model).callbacks.LambdaCallback(on_train_batch_end=after_step)
        history = model.fit(x, y, epochs=epochs, batch_size=batch_size, callbacks=[*callbacks, watch], verbose=0)
    # The last step may have lost the weights after its loss was computed.
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise ValueError(f"Weights of model {model.name!r} became NaN or infinite: lower the learning rate.")
    return history


def prune_and_fit(
    model: Any,
    x: np.ndarray,
    y: np.ndarray,
    *,
    sparsity: float = 0.8,
    epochs: int = 2,
    batch_size: int = 32,
    learning_rate: Any = None,
    schedule: str = "polynomial",
    frequency: int = 100,
    layers: Any = None,
    loss: Any = None,
    description: str = "Pruning",
) -> Any:
    """Prune a trained model while it trains on, and strip it.

    With the polynomial schedule sparsity grows over the first two thirds of the steps. A compiled model keeps
    its loss, its metrics and its kind of optimizer; another one needs `loss`, or labels from which it follows.

    Args:
        model: a trained model of either Keras.
        x: inputs, shape `(n, ...)`.
        y: labels or targets, shape `(n, ...)`.
        sparsity: fraction of zeros to end with, 0 to below 1.
        epochs: number of passes over the data.
        batch_size: samples per step.
        learning_rate: a number or a Keras schedule; left out, that of the compiled model, or 1e-3.
        schedule: `"polynomial"` (from dense to `sparsity`) or `"constant"` (at once).
        frequency: steps between updates of the masks; fewer where under ten would fit.
        layers: which layers to prune, as `edgeprune.prune_low_magnitude` takes it; all where left out.
        loss: a Keras loss or its name; left out, that of the compiled model, or
            `"sparse_categorical_crossentropy"` for a softmax over integer labels.
        description: a few words shown before the progress bar.

    Returns:
        A plain model: no wrappers, exact zeros.

    Raises:
        ValueError: a number is out of range, the schedule is unknown, no loss is known, no layer can be pruned, or the
            model is under pruning already.

    Source: Zhu and Gupta, To prune, or not to prune, 2017, https://arxiv.org/abs/1710.01878

    Example:
        >>> pruned = prune_and_fit(model, x, y, sparsity=0.8, epochs=4)  # doctest: +SKIP
    """
    from edgeprune import sparsity as pruning
    from edgeprune.sparsity.mechanism import mechanism_of

    _check_data(model, x, y, loss)
    if mechanism_of(model).is_pruned(model):
        raise ValueError(f"Model {model.name!r} is under pruning already, with a schedule of its own: strip it first.")
    steps = epochs * _steps(x, batch_size)
    if schedule == "polynomial":
        pruning_schedule = pruning.PolynomialDecay(0.0, sparsity, frequency=frequency)
        pruning_schedule.set_end_step(max(1, round(steps * GROWING_SHARE)))
    elif schedule == "constant":
        pruning_schedule = pruning.ConstantSparsity(sparsity, begin_step=1, frequency=frequency)
    else:
        raise ValueError(f"schedule={schedule!r} is unknown; choose one of {', '.join(map(repr, SCHEDULES))}.")
    compilation = _compilation(model, y, loss, learning_rate)
    # Chosen by a pattern, layers of which none can be pruned are an error.
    pruned = pruning.prune_low_magnitude(model, pruning_schedule, layers="*" if layers is None else layers)
    pruned.compile(**compilation)
    fit(
        pruned,
        x,
        y,
        epochs=epochs,
        batch_size=batch_size,
        callbacks=[pruning.UpdatePruningStep()],
        description=description,
    )
    return pruning.strip_pruning(pruned)


def fine_tune(
    model: Any,
    x: np.ndarray,
    y: np.ndarray,
    *,
    epochs: int = 2,
    batch_size: int = 32,
    learning_rate: Any = None,
    loss: Any = None,
    description: str = "Fine-tuning",
) -> Any:
    """Train a model on, after something was removed from it.

    A compiled model keeps its loss and its kind of optimizer; another one needs `loss`, or labels from which it
    follows.

    Args:
        model: a model of either Keras; it is trained in place.
        x: inputs, shape `(n, ...)`.
        y: labels or targets, shape `(n, ...)`.
        epochs: number of passes over the data.
        batch_size: samples per step.
        learning_rate: a number or a Keras schedule; left out, that of the compiled model, or 1e-3.
        loss: a Keras loss or its name, as in `prune_and_fit`.
        description: a few words shown before the progress bar.

    Returns:
        The Keras `History`.

    Raises:
        ValueError: a number is out of range, the data do not fit, or no loss is known.

    Example:
        >>> fine_tune(smaller, x, y, epochs=2, learning_rate=1e-3)  # doctest: +SKIP
    """
    _check_data(model, x, y, loss)
    model.compile(**_compilation(model, y, loss, learning_rate))
    return fit(model, x, y, epochs=epochs, batch_size=batch_size, description=description)


def accuracy_if_classifier(model: Any, x: np.ndarray, y: np.ndarray | None) -> float | None:
    """Top-1 accuracy where the labels are class numbers; None where they are not, or there are none.

    Args:
        model: a model of either Keras.
        x: inputs, shape `(n, ...)`.
        y: labels, shape `(n, ...)`, or None.

    Returns:
        The accuracy, 0 to 1, or None.

    Raises:
        ValueError: the inputs do not fit the model.
    """
    from edgeprune.measure.accuracy import accuracy

    _check_inputs(model, x)
    return None if y is None or y.dtype.kind not in "iub" else accuracy(model, x, y)


def _check_data(model: Any, x: np.ndarray, y: np.ndarray, loss: Any) -> None:
    """Refuse inputs that do not fit the model, and labels that do not fit its loss."""
    _check_inputs(model, x)
    loss = loss or getattr(model, "loss", None) or _loss_for(model, y)
    check_labels(model, y, loss)
    _check_targets(model, y, loss)


def _check_targets(model: Any, y: np.ndarray, loss: Any) -> None:
    """Refuse targets of another shape than the output, which Keras's losses would stretch to it or stop at."""
    if not isinstance(loss, str) or "sparse" in loss.lower() or not flavor.is_graph_model(model):
        return
    expected = model.output_shape
    if not isinstance(expected, tuple):
        return
    fits = y.ndim == len(expected) and all(a in (None, b) for a, b in zip(expected[1:], y.shape[1:], strict=True))
    if not fits and (*y.shape, 1)[1:] != expected[1:]:
        raise ValueError(
            f"The loss {loss!r} compares targets with outputs of shape {expected}, and the targets have {y.shape}."
        )


def _check_inputs(model: Any, x: np.ndarray) -> None:
    """Refuse data that do not fit, in fewer words than Keras."""
    if not flavor.is_graph_model(model):
        return
    expected = model.input_shape
    if not isinstance(expected, tuple):
        raise ValueError(f"Model {model.name!r} takes several inputs {expected}; only one is supported here.")
    fits = len(expected) == x.ndim and all(a in (None, b) for a, b in zip(expected[1:], x.shape[1:], strict=True))
    if not fits:
        raise ValueError(f"Model {model.name!r} takes inputs of shape {expected}, and the data have {x.shape}.")


def _figures(logs: Mapping[str, float]) -> str:
    """The loss and the first metric, for the progress bar: what fits beside it."""
    metric = next((name for name in logs if name not in ("loss", "compile_metrics")), None)
    return " ".join(f"{name} {logs[name]:.3g}" for name in ("loss", metric) if name in logs)


def _check_count(name: str, count: int) -> None:
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}.")


def _steps(x: np.ndarray, batch_size: int) -> int:
    _check_count("batch_size", batch_size)
    return -(-len(x) // batch_size)


def _compilation(model: Any, y: np.ndarray, loss: Any, learning_rate: Any) -> dict[str, Any]:
    """Loss and optimizer for `compile`: a new optimizer with the settings of the one the model has."""
    keras = flavor.keras_of(model)
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        optimizer = keras.optimizers.Adam()
    config = optimizer.get_config()
    if learning_rate is not None:
        config["learning_rate"] = learning_rate
    loss = loss or getattr(model, "loss", None) or _loss_for(model, y)
    compiled_by_xla = {"jit_compile": True} if flavor.lacks_kernels(model) else {}
    return {"optimizer": type(optimizer).from_config(config), "loss": loss, **compiled_by_xla}


def _loss_for(model: Any, y: np.ndarray) -> str:
    """The loss that integer labels and a softmax at the end ask for."""
    output_shape = model.output_shape
    activation = getattr(getattr(model.layers[-1], "activation", None), "__name__", None)
    if y.ndim == 1 and y.dtype.kind in "iu" and len(output_shape) == 2 and activation == "softmax":
        return "sparse_categorical_crossentropy"
    raise ValueError(
        f"The model {model.name!r} was saved without a loss, and labels of shape {y.shape} and type {y.dtype} "
        f"with an output of shape {output_shape} do not tell which one it needs: name a loss."
    )
