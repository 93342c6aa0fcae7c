"""Importance measured on data: first- and second-order changes of the loss, and activations.

The model is only called, with `training=False`: neither its weights nor its compiled state change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Step
from edgeprune.channels.graph.execution import run
from edgeprune.channels.plan.reduction import of_slot, reduced
from edgeprune.data.batches import Batch, batches_of, count_of
from edgeprune.data.labels import by_output, check_labels, check_sample_weights
from edgeprune.data.ports import input_shapes
from edgeprune.data.tensors import as_tensors, input_tensors
from edgeprune.progress import track
from edgeprune.types import AnyTensor, DataLike, Loss, Model, Shape, TfTensor, Variable

# State that follows the data; a channel's part of it is not learnt.
STATISTICS = ("moving_mean", "moving_variance")


def score_on_data(
    graph: ChannelGraph,
    importance: str,
    data: DataLike,
    loss: Loss | None,
    batch_size: int,
    steps: int | None,
    reduction: str = "sum",
) -> np.ndarray:
    """The scores of `importance.class_scores` for one of `ON_DATA`, with a progress bar.

    Raises:
        ValueError: the data has no batches or cannot be read, or produces no finite scores.
    """
    inputs = input_shapes(graph.walked)
    batches = track(
        batches_of(data, batch_size, steps, inputs=inputs),
        f"Importance ({importance})",
        count_of(data, batch_size, steps, inputs=inputs),
    )
    total, count = np.zeros(graph.class_count), 0
    for scores in ON_DATA[importance](graph, batches, loss, reduction):
        total += scores
        count += 1
    if not count:
        raise ValueError("The data has no batches.")
    return total / count


def is_float(weight: Variable) -> bool:
    """Whether a variable of either Keras holds floats."""
    return "float" in getattr(weight.dtype, "name", weight.dtype)  # a string in Keras 3


def _taylor(graph: ChannelGraph, batches: Iterable[Batch], loss: Loss | None, reduction: str) -> Iterator[np.ndarray]:
    # Signed within a slot, as the slices of a class leave together there; the sizes are reduced over the slots.
    return _gradient_scores(graph, batches, loss, reduction, lambda weight, gradient: weight * gradient)


def _fisher(graph: ChannelGraph, batches: Iterable[Batch], loss: Loss | None, reduction: str) -> Iterator[np.ndarray]:
    import tensorflow as tf

    return _gradient_scores(graph, batches, loss, reduction, lambda weight, gradient: tf.square(weight * gradient) / 2)


def _gradient_scores(
    graph: ChannelGraph, batches: Iterable[Batch], loss: Loss | None, reduction: str, of_weight: Callable
) -> Iterator[np.ndarray]:
    """For each batch, reduced over the slots, the size of the sum of `of_weight(weight, gradient)` over a class."""
    import tensorflow as tf

    losses = Losses(graph.model, loss)
    loss_of = tf.autograph.experimental.do_not_convert(losses)
    model = flavor.with_kernels(lambda inputs: graph.model(inputs, training=False), graph.walked)
    slots = [slot for slot in graph.slots if slot.name not in STATISTICS and is_float(slot.weight)]
    variables = {id(slot.weight): flavor.tf_variable(slot.weight) for slot in slots}

    @tf.function(reduce_retracing=True)
    def scores_on(inputs: AnyTensor, y: AnyTensor, sample_weight: AnyTensor | None) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(list(variables.values()))
            value = loss_of(y, model(inputs), sample_weight)
        gradients = tape.gradient(value, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        terms = {key: of_weight(variables[key], tf.convert_to_tensor(gradients[key])) for key in variables}
        return [tf.reduce_sum(tf.cast(terms[id(slot.weight)], tf.float32), slot.other_axes) for slot in slots]

    for batch in batches:
        x, y, sample_weight = batch
        if y is None:
            raise ValueError("Labels are missing: the data must be (x, y), or batches of it.")
        check_labels(graph.walked, y, losses.given)
        check_sample_weights(sample_weight)
        inputs = flavor.pack_inputs(graph.walked, input_tensors(graph.walked, x))
        sums = scores_on(inputs, as_tensors(y), as_tensors(sample_weight))
        of_slots = (of_slot(slot, along.numpy()) for slot, along in zip(slots, sums, strict=True))
        parts = ((classes, np.abs(scores)) for classes, scores in of_slots)
        yield _finite(reduced(graph.class_count, parts, reduction), graph, "gradients")


def check_loss(loss: Loss | None) -> None:
    """Check that a loss is a Keras loss or its name, or a list or dict of them by output; or None.

    Raises:
        TypeError: it is something else.
    """
    if not (loss is None or callable(loss) or isinstance(loss, str | Mapping | list | tuple)):
        raise TypeError(f"loss must be a Keras loss or its name, or a list or dict of them; got {loss!r}.")


class Losses:
    """The loss of a model's outputs, from the loss it was compiled with or one that is passed, without touching it.

    Attributes:
        given: the loss: a Keras loss or its name, or a list or dict of them by output.
    """

    def __init__(self, model: Model, loss: Loss | None) -> None:
        check_loss(loss)
        self.given = loss if loss is not None else getattr(model, "loss", None)
        if not self.given:
            raise ValueError(f"Model {model.name!r} is not compiled with a loss: pass loss=.")
        if isinstance(self.given, str):
            flavor.keras_of(model).losses.get(self.given)  # refuses an unknown name
        self._model = model
        config = model.get_compile_config() if loss is None else None
        self._weights = (config or {}).get("loss_weights")

    def __call__(self, y: AnyTensor, outputs: AnyTensor, sample_weight: AnyTensor | None) -> Any:
        """The mean loss over a batch, the losses of all outputs added: a scalar tensor."""
        import tensorflow as tf

        named = flavor.named_outputs(self._model, outputs)
        losses, weights = by_output(named, self.given, "losses"), by_output(named, self._weights, "loss weights")
        labels, sample_weights = by_output(named, y, "labels"), by_output(named, sample_weight, "sample weights")
        total = tf.zeros([])
        for name, output in named.items():
            if losses[name] is not None:
                if labels[name] is None:
                    raise ValueError(f"Output {name!r} of model {self._model.name!r} has a loss, and no labels.")
                weight = 1.0 if weights[name] is None else weights[name]
                total += weight * self._one(losses[name], labels[name], output, sample_weights[name])
        return total

    def _one(self, loss: Loss | None, y: TfTensor, output: TfTensor, sample_weight: TfTensor | None) -> Any:
        import tensorflow as tf

        losses = flavor.keras_of(self._model).losses
        function = losses.get(loss)
        if len(y.shape) == len(output.shape) - 1 and output.shape[-1] == 1:
            y = y[..., None]  # as Keras does for labels of shape (n,) and an output of shape (n, 1)
        if sample_weight is not None:
            sample_weight = tf.cast(sample_weight, tf.float32)
        if isinstance(function, losses.Loss):
            weights = None if sample_weight is None else _like(sample_weight, output.shape[:-1])
            return tf.reduce_mean(tf.cast(function(y, output, weights), tf.float32))
        values = tf.cast(function(y, output), tf.float32)
        if sample_weight is not None:
            values *= _like(sample_weight, values.shape)
        return tf.reduce_mean(values)


def _like(weights: TfTensor, shape: Shape) -> Any:
    """Weights of samples, or of steps, with as many axes as the losses that they multiply.

    Raises:
        ValueError: they do not fit losses of this shape.
    """
    import tensorflow as tf

    given = tuple(weights.shape)
    while len(weights.shape) > len(shape) and weights.shape[-1] == 1:
        weights = tf.squeeze(weights, -1)
    while len(weights.shape) < len(shape):
        weights = weights[..., None]
    try:
        tf.broadcast_static_shape(weights.shape, shape)
    except ValueError as error:
        raise ValueError(f"Sample weights of shape {given} do not fit losses of shape {tuple(shape)}.") from error
    return weights


def _activation(
    graph: ChannelGraph, batches: Iterable[Batch], loss: Loss | None, reduction: str
) -> Iterator[np.ndarray]:
    """For each batch, reduced over all places that read a class, the mean absolute value of its channels there."""
    import tensorflow as tf

    read = [classes for step in graph.steps for _, _, classes in step.reads]
    unread = np.full(graph.class_count, np.nan)  # of what is only read inside a layer, nothing is known
    for classes in read:
        unread[classes] = 0.0

    def sizes_of(inputs: list[Any]) -> list[Any]:
        sizes = []

        def watched(step: Step, node: flavor.GraphNode, taken: list[Any]) -> list[Any]:
            for position, axis, _ in step.reads:
                size = tf.abs(tf.cast(taken[position], tf.float32))
                sizes.append(tf.reduce_mean(size, [other for other in range(len(size.shape)) if other != axis]))
            return flavor.call_layer(node, taken)

        run(graph, inputs, watched)
        return sizes

    sizes_on = flavor.with_kernels(sizes_of, graph.walked)
    for batch in batches:
        sizes = sizes_on(input_tensors(graph.walked, batch.x))
        parts = (_means(classes, along.numpy()) for classes, along in zip(read, sizes, strict=True))
        yield _finite(reduced(graph.class_count, parts, reduction), graph, "activations") + unread


def _means(classes: np.ndarray, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes, each once, and the mean of what they have at each position."""
    numbers, place = np.unique(classes, return_inverse=True)
    return numbers, np.bincount(place, weights=along) / np.bincount(place)


def _finite(scores: np.ndarray, graph: ChannelGraph, of_what: str) -> np.ndarray:
    if not np.isfinite(scores).all():
        raise ValueError(
            f"The {of_what} of model {graph.model.name!r} are NaN or infinite on this data: check the data "
            "and the weights."
        )
    return scores


ON_DATA = {"taylor": _taylor, "activation": _activation, "fisher": _fisher}
