"""Train with a progress bar, and prune while training: what the demo and the command line share."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.data.batches import first_array
from edgeprune.data.labels import by_output, check_labels, check_output_labels, labels_of, shape_fits
from edgeprune.data.named_inputs import named_inputs
from edgeprune.data.ports import input_shapes
from edgeprune.measure.metrics import chosen_metrics
from edgeprune.number_checks import check_whole
from edgeprune.progress import steps
from edgeprune.types import Model

SCHEDULES = ("polynomial", "constant")
# The share of the training in which sparsity grows; in the rest the weights that are left recover.
GROWING_SHARE = 2 / 3


def fit(
    model: Model,
    x: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    epochs: int,
    batch_size: int,
    callbacks: Iterable[Any] = (),
    description: str = "Training",
) -> Any:
    """`model.fit` with one progress bar over all epochs, on stderr, and nothing on stdout.

    Args:
        model: a compiled model of either Keras.
        x: inputs, shape `(n, ...)`; a dict by input name or a list for several.
        y: labels or targets, shape `(n, ...)`; a dict by output name or a list for several.
        sample_weight: weights of the samples, shape `(n,)`; a dict or a list for several outputs.
        epochs: number of passes over the data.
        batch_size: samples per step.
        callbacks: Keras callbacks of the model's own Keras.
        description: a few words shown before the bar.

    Returns:
        The Keras `History`.

    Raises:
        ValueError: a number is out of range, or the loss became NaN or infinite.

    Example:
        >>> fit(model, x, y, epochs=2, batch_size=32).epoch
        [0, 1]
    """
    check_whole("epochs", epochs, 1)
    with steps(description, epochs * _steps(x, batch_size)) as done:

        def after_step(step: int, logs: Mapping[str, float] | None = None) -> None:
            done(_figures(logs or {}))
            if not math.isfinite(loss := (logs or {}).get("loss", 0.0)):
                raise ValueError(
                    f"The loss of model {model.name!r} became {loss} at step {step + 1}, and its weights are lost. "
                    "Check the data and the labels, or lower the learning rate."
                )

        watch = flavor.keras_of(model).callbacks.LambdaCallback(on_train_batch_end=after_step)
        history = model.fit(
            x,
            y,
            sample_weight=sample_weight,
            epochs=epochs,
            batch_size=batch_size,
            callbacks=[*callbacks, watch],
            verbose=0,
        )
    # The last step may have lost the weights after its loss was computed.
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise ValueError(f"Weights of model {model.name!r} became NaN or infinite: lower the learning rate.")
    return history


def prune_and_fit(
    model: Model,
    x: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    sparsity: float = 0.8,
    epochs: int = 2,
    batch_size: int = 32,
    learning_rate: Any = None,
    schedule: str = "polynomial",
    frequency: int = 100,
    layers: Any = None,
    loss: Any = None,
    metric: Any = None,
    description: str = "Pruning",
) -> Any:
    """Prune a trained model while it trains on, and strip it.

    With the polynomial schedule sparsity grows over the first two thirds of the steps. A compiled model keeps
    its loss, its metrics and its kind of optimizer; another one needs `loss`, or labels from which it follows.

    Args:
        model: a trained model of either Keras.
        x: inputs, shape `(n, ...)`; a dict by input name or a list for several.
        y: labels or targets, shape `(n, ...)`; a dict by output name or a list for several.
        sample_weight: weights of the samples, shape `(n,)`; a dict or a list for several outputs.
        sparsity: fraction of zeros to end with, 0 to below 1.
        epochs: number of passes over the data.
        batch_size: samples per step.
        learning_rate: a number or a Keras schedule; left out, that of the compiled model, or 1e-3.
        schedule: `"polynomial"` (from dense to `sparsity`) or `"constant"` (at once).
        frequency: steps between updates of the masks; fewer where under ten would fit.
        layers: which layers to prune, as `edgeprune.prune_low_magnitude` accepts it; all where left out.
        loss: a Keras loss or its name; left out, that of the compiled model, or
            `"sparse_categorical_crossentropy"` for a softmax over integer labels.
        metric: what is computed while it trains in place of the compiled metrics, which the model keeps: as
            `edgeprune.score` takes it. Of a function it is the mean over the batches.
        description: a few words shown before the progress bar.

    Returns:
        A plain model: no wrappers, exact zeros.

    Raises:
        ValueError: a number is out of range, the schedule is unknown, no loss is known, no layer can be pruned, or the
            model is under pruning already.

    Source: Zhu and Gupta, To prune, or not to prune, 2017, https://arxiv.org/abs/1710.01878

    Example:
        >>> pruned = prune_and_fit(model, x, y, sparsity=0.5, epochs=1)
        >>> round(ep.sparsity_report(pruned).sparsity, 2)
        0.5
    """
    from edgeprune import sparsity as pruning
    from edgeprune.sparsity.mechanism import mechanism_of
    from edgeprune.sparsity.prune import remove_weight_masks

    check_and_compile(model, x, y, loss)
    if mechanism_of(model).has_masks(model):
        raise ValueError(f"Model {model.name!r} is under pruning already, with a schedule of its own: strip it first.")
    steps = epochs * _steps(x, batch_size)
    if schedule == "polynomial":
        growing = pruning.PolynomialDecay(0.0, sparsity, frequency=frequency)
        growing.set_end_step(max(1, round(steps * GROWING_SHARE)))
        pruning_schedule: pruning.PruningSchedule = growing
    elif schedule == "constant":
        pruning_schedule = pruning.ConstantSparsity(sparsity, begin_step=1, frequency=frequency)
    else:
        raise ValueError(f"schedule={schedule!r} is unknown; choose one of {', '.join(map(repr, SCHEDULES))}.")
    compilation = _by_order(model, _compilation(model, y, loss, learning_rate))
    watched = _by_order(model, _run_recorded(model, metric))
    x, y, sample_weight = _structured(model, x, y, sample_weight)
    # Chosen by a pattern, layers of which none can be pruned are an error.
    pruned = pruning.prune_low_magnitude(model, pruning_schedule, layers="*" if layers is None else layers)
    with _compiled(pruned, compilation, watched):
        fit(
            pruned,
            x,
            y,
            sample_weight=sample_weight,
            epochs=epochs,
            batch_size=batch_size,
            callbacks=[pruning.UpdatePruningStep()],
            description=description,
        )
    return remove_weight_masks(pruned)


def fine_tune(
    model: Model,
    x: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    epochs: int = 2,
    batch_size: int = 32,
    learning_rate: Any = None,
    loss: Any = None,
    metric: Any = None,
    description: str = "Fine-tuning",
) -> Any:
    """Train a model on, after something was removed from it.

    A compiled model keeps its loss and its kind of optimizer; another one needs `loss`, or labels from which it
    follows.

    Args:
        model: a model of either Keras; it is trained in place.
        x: inputs, shape `(n, ...)`; a dict by input name or a list for several.
        y: labels or targets, shape `(n, ...)`; a dict by output name or a list for several.
        sample_weight: weights of the samples, shape `(n,)`; a dict or a list for several outputs.
        epochs: number of passes over the data.
        batch_size: samples per step.
        learning_rate: a number or a Keras schedule; left out, that of the compiled model, or 1e-3.
        loss: a Keras loss or its name, as in `prune_and_fit`.
        metric: as in `prune_and_fit`; the `History` has it.
        description: a few words shown before the progress bar.

    Returns:
        The Keras `History`.

    Raises:
        ValueError: a number is out of range, the data do not fit, or no loss is known.

    Example:
        >>> smaller = ep.prune_channels(model, pruning_ratio=0.5)
        >>> _ = fine_tune(smaller, x, y, epochs=1, learning_rate=1e-3)
    """
    check_and_compile(model, x, y, loss)
    options: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "description": description}
    with _compiled(model, _compilation(model, y, loss, learning_rate), _run_recorded(model, metric)):
        x, y, sample_weight = _structured(model, x, y, sample_weight)
        return fit(model, x, y, sample_weight=sample_weight, **options)


def check_and_compile(model: Model, x: Any, y: Any, loss: Any = None) -> None:
    """Refuse data that do not fit a model and its loss, and compile it where it is not.

    Args:
        model: a model of either Keras.
        x: inputs `(n, ...)`; a dict by input name or a list for several.
        y: labels or targets `(n, ...)`; a dict by output name or a list for several.
        loss: a Keras loss or its name; left out, that of the compiled model, or `"sparse_categorical_crossentropy"` for
            a softmax over integer labels.

    Raises:
        ValueError: the data do not fit, or no loss is known.
    """
    _check_inputs(model, x)
    compiled = flavor.compilation_of(model)
    chosen = loss or (compiled and compiled.loss)
    if chosen is None and (compiled is None or compiled.own_step is None):
        chosen = _loss_for(model, y)
    check_labels(model, y, chosen)
    if flavor.is_graph_model(model) and chosen is not None:
        shapes = {name: tuple(tensor.shape) for name, tensor in flavor.output_tensors(model).items()}
        losses = by_output(shapes, chosen, "losses")
        for name, labels in by_output(shapes, y, "labels").items():
            if labels is not None and losses[name] is not None:
                check_output_labels(labels_of(name, shapes), np.asarray(labels), shapes[name], losses[name])
    if compiled is None:
        model.compile(loss=chosen)


def _check_inputs(model: Model, x: Any) -> None:
    """Refuse data that do not fit, in fewer words than Keras."""
    if not flavor.is_graph_model(model):
        return
    shapes = input_shapes(model)
    for name, array in named_inputs(model, x).items():
        expected = (None, *shapes[name])
        if not shape_fits(np.shape(array), expected):
            of_input = f" for {name!r}" if len(shapes) > 1 else ""
            raise ValueError(
                f"Model {model.name!r} has inputs of shape {expected}{of_input}, and the data have {np.shape(array)}."
            )


def _structured(model: Model, x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    """Data by name in the structure of the model's inputs and outputs, which Keras accepts whatever its names."""
    if not flavor.is_graph_model(model):
        return x, y, sample_weight
    x = flavor.packed_as_called(model, list(named_inputs(model, x).values()))
    if not isinstance(y, Mapping):
        return x, y, sample_weight
    count = len(next(iter(y.values())))
    if sample_weight is not None:
        weights = by_output(y, sample_weight, "sample weights")
        sample_weight = {name: np.ones(count, np.float32) if one is None else one for name, one in weights.items()}
    outputs = list(flavor.output_tensors(model))
    if _returns_dict(model):
        return x, y, sample_weight
    compiled = flavor.compilation_of(model)
    assert compiled is not None, "check_and_compile comes first"
    losses = by_output(outputs, compiled.loss, "losses")
    if missing := [name for name in outputs if name not in y and losses[name] is not None]:
        raise ValueError(f"Model {model.name!r} is trained on its outputs {missing}, and there are no labels for them.")
    unused = np.zeros(count, np.float32)  # labels of outputs without a loss
    return x, *(
        part and flavor.pack_outputs(model, [part.get(name, unused) for name in outputs]) for part in (y, sample_weight)
    )


def _by_order(model: Model, compilation: dict[str, Any]) -> dict[str, Any]:
    """Settings by output name as lists in the outputs' order: TF-MOT's wrappers rename the outputs."""
    if not flavor.is_graph_model(model) or _returns_dict(model):
        return compilation
    outputs, nothing = list(flavor.output_tensors(model)), {"loss": None, "loss_weights": 1.0}
    return {
        key: [value.get(name, nothing.get(key, [])) for name in outputs] if isinstance(value, Mapping) else value
        for key, value in compilation.items()
    }


def _returns_dict(model: Model) -> bool:
    return isinstance(flavor.graph_nodes(model)[2], Mapping)


def _figures(logs: Mapping[str, float]) -> str:
    """The loss and the first metric, for the progress bar: what fits beside it."""
    metrics = [name for name in logs if name not in ("loss", "compile_metrics")]
    metric = min(metrics, key=lambda name: name.endswith("_loss"), default=None)  # after those, the outputs' losses
    return " ".join(f"{name} {logs[name]:.3g}" for name in ("loss", metric) if name is not None and name in logs)


def _steps(x: Any, batch_size: int) -> int:
    check_whole("batch_size", batch_size, 1)
    return -(-len(first_array(x)) // batch_size)


def _compilation(model: Model, y: Any, loss: Any, learning_rate: Any) -> dict[str, Any]:
    """What to compile with: as the model is, and a new optimizer with the settings of the one it has."""
    keras = flavor.keras_of(model)
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        optimizer = keras.optimizers.Adam()
    config = optimizer.get_config()
    if learning_rate is not None:
        config["learning_rate"] = learning_rate
    compiled_by_xla = {"jit_compile": True} if flavor.lacks_kernels(model) else {}
    compiled = flavor.fresh_compilation(model)
    return {
        "optimizer": type(optimizer).from_config(config),
        "loss": loss or compiled.get("loss") or _loss_for(model, y),
        **{name: compiled.get(name) for name in ("loss_weights", "metrics", "weighted_metrics")},
        **compiled_by_xla,
    }


def _run_recorded(model: Model, metric: Any) -> dict[str, Any]:
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
def _compiled(model: Model, compilation: Mapping[str, Any], watched: Mapping[str, Any]) -> Iterator[None]:
    """Compile a model; while the body trains it, with the metrics that are watched in place of its own."""
    model.compile(**{**compilation, **watched})
    try:
        yield
    finally:
        if watched:
            model.compile(**{**compilation, "optimizer": model.optimizer})


def _loss_for(model: Model, y: Any) -> str:
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
