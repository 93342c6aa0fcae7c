"""What a model is compiled with while it is trained on: as it is, with the loss and the metrics that were asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.data.labels import by_output, check_labels, check_output_labels, labels_of
from edgeprune.fit.structures import check_inputs, returns_dict
from edgeprune.measure.metrics import MetricLike, chosen_metrics
from edgeprune.types import Arrays, LearningRate, Loss, Model


def check_and_compile(model: Model, x: Arrays, y: Arrays | None, loss: Loss | None = None) -> None:
    """Refuse data that do not fit a model and its loss, and compile it where it is not.

    Args:
        model: a model of either Keras.
        x: as in `check_training_data`.
        y: as in `check_training_data`.
        loss: as in `check_training_data`.

    Raises:
        ValueError: the data do not fit, or no loss is known.
    """
    chosen = check_training_data(model, x, y, loss)
    if flavor.compilation_of(model) is None:
        model.compile(loss=chosen)


def check_training_data(model: Model, x: Arrays, y: Arrays | None, loss: Loss | None = None) -> Loss | None:
    """Refuse data that do not fit a model and its loss.

    Args:
        model: a model of either Keras; it is not changed.
        x: inputs `(n, ...)`; a dict by input name or a list for several.
        y: labels or targets `(n, ...)`; a dict by output name or a list for several.
        loss: a Keras loss or its name; left out, that of the compiled model, or `"sparse_categorical_crossentropy"` for
            a softmax over integer labels.

    Returns:
        The loss that it is trained with; None for a model with a step of its own.

    Raises:
        ValueError: the data do not fit, or no loss is known.
    """
    check_inputs(model, x)
    compiled = flavor.compilation_of(model)
    chosen = loss or (compiled.loss if compiled else None)
    if chosen is None and (compiled is None or compiled.own_step is None):
        chosen = loss_for_labels(model, y)
    check_labels(model, y, chosen)
    if flavor.is_graph_model(model) and chosen is not None:
        shapes = {name: tuple(tensor.shape) for name, tensor in flavor.output_tensors(model).items()}
        losses = by_output(shapes, chosen, "losses")
        for name, labels in by_output(shapes, y, "labels").items():
            if labels is not None and losses[name] is not None:
                check_output_labels(labels_of(name, shapes), np.asarray(labels), shapes[name], losses[name])
    return chosen


def compilation_for(
    model: Model, y: Arrays | None, loss: Loss | None, learning_rate: LearningRate | None
) -> dict[str, Any]:
    """What to compile with: as the model is, and a new optimizer with the settings of the one it has."""
    compiled = flavor.fresh_compilation(model)
    return {
        "optimizer": fresh_optimizer(model, learning_rate),
        "loss": loss or compiled.get("loss") or loss_for_labels(model, y),
        **{name: compiled.get(name) for name in ("loss_weights", "metrics", "weighted_metrics")},
        **xla_where_needed(model),
    }


def fresh_optimizer(model: Model, learning_rate: LearningRate | None = None) -> Any:
    """A new optimizer with the settings of a model's own; Adam for a model without."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        optimizer = flavor.keras_of(model).optimizers.Adam()
    config = optimizer.get_config()
    if learning_rate is not None:
        config["learning_rate"] = learning_rate
    return type(optimizer).from_config(config)


def xla_where_needed(*models: Model) -> dict[str, bool]:
    """What `compile` is passed where TensorFlow computes models with XLA alone."""
    return {"jit_compile": True} if any(map(flavor.lacks_kernels, models)) else {}


def watched_metrics(model: Model, metric: MetricLike | None) -> dict[str, Any]:
    """What to compile with so that a metric is computed while the model trains in place of its own; empty without."""
    if metric is None:
        return {}
    graph = flavor.is_graph_model(model)
    chosen = chosen_metrics(flavor.output_tensors(model) if graph else [""], metric)
    runs_python = not flavor.lacks_kernels(model)  # XLA compiles no functions of NumPy

    def of_kind(functions: bool) -> Any:
        of_outputs = {
            name: [one.to_keras() for one in several if one.is_function is functions]
            for name, several in chosen.items()
        }
        return of_outputs if len(chosen) > 1 else next(iter(of_outputs.values()))

    return {"metrics": of_kind(True) if runs_python else None, "weighted_metrics": of_kind(False)}


@contextlib.contextmanager
def compiled_for(model: Model, compilation: Mapping[str, Any], watched: Mapping[str, Any]) -> Iterator[None]:
    """Compile a model; while the body trains it, with the metrics that are watched in place of its own."""
    model.compile(**{**compilation, **watched})
    try:
        yield
    finally:
        if watched:
            model.compile(**{**compilation, "optimizer": model.optimizer})


def by_order(model: Model, compilation: dict[str, Any]) -> dict[str, Any]:
    """Settings by output name as lists in the outputs' order: TF-MOT's wrappers rename the outputs."""
    if not flavor.is_graph_model(model) or returns_dict(model):
        return compilation
    outputs, nothing = list(flavor.output_tensors(model)), {"loss": None, "loss_weights": 1.0}
    return {
        key: [value.get(name, nothing.get(key, [])) for name in outputs] if isinstance(value, Mapping) else value
        for key, value in compilation.items()
    }


def loss_for_labels(model: Model, y: Arrays | None) -> str:
    """The loss that integer labels and a softmax at the end ask for."""
    output_shape = model.output_shape
    activation = getattr(getattr(model.layers[-1], "activation", None), "__name__", None)
    labels = y if isinstance(y, np.ndarray) else np.empty((), object)
    if labels.ndim == 1 and labels.dtype.kind in "iu" and len(output_shape) == 2 and activation == "softmax":
        return "sparse_categorical_crossentropy"
    raise ValueError(
        f"The model {model.name!r} was saved without a loss, and labels of shape {labels.shape} and type "
        f"{labels.dtype} with an output of shape {output_shape} do not determine it: pass loss=, a Keras loss or its "
        "name."
    )
