"""Importance measured on data: first- and second-order changes of the loss, and activations.

The model is only called, with `training=False`: neither its weights nor its compiled state change.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph import ChannelGraph, Step
from edgeprune.channels.run import call_layer, run
from edgeprune.progress import track

# State that follows the data; a channel's part of it is not learnt.
STATISTICS = ("moving_mean", "moving_variance")


def score_on_data(
    graph: ChannelGraph, importance: str, data: Any, loss: Any, batch_size: int, steps: int | None
) -> np.ndarray:
    """The scores of `importance.class_scores` for one of `ON_DATA`, with a progress bar.

    Raises:
        ValueError: the data has no batches or cannot be read, or gives no finite scores.
    """
    batches = track(
        batches_of(data, batch_size, steps), f"Importance ({importance})", count_of(data, batch_size, steps)
    )
    total, count = np.zeros(graph.class_count), 0
    for scores in ON_DATA[importance](graph, batches, loss):
        total += scores
        count += 1
    if not count:
        raise ValueError("The data has no batches.")
    return total / count


def is_float(weight: Any) -> bool:
    """Whether a variable of either Keras holds floats."""
    return "float" in getattr(weight.dtype, "name", weight.dtype)  # a string in Keras 3


def _taylor(graph: ChannelGraph, batches: Iterable[Any], loss: Any) -> Iterator[np.ndarray]:
    import tensorflow as tf

    # Signed within a slot, as the slices of a class leave together there; the sizes are added over the slots.
    return _gradient_scores(graph, batches, loss, lambda weight, gradient: weight * gradient, tf.abs)


def _fisher(graph: ChannelGraph, batches: Iterable[Any], loss: Any) -> Iterator[np.ndarray]:
    import tensorflow as tf

    return _gradient_scores(
        graph, batches, loss, lambda weight, gradient: tf.square(weight * gradient) / 2, tf.identity
    )


def _gradient_scores(
    graph: ChannelGraph, batches: Iterable[Any], loss: Any, of_weight: Callable, of_class: Callable
) -> Iterator[np.ndarray]:
    """For each batch, summed over the slots, `of_class` of the sum of `of_weight(weight, gradient)` over a class."""
    import tensorflow as tf

    losses = tf.autograph.experimental.do_not_convert(Losses(graph.model, loss))
    slots = [slot for slot in graph.slots if slot.name not in STATISTICS and is_float(slot.weight)]
    variables = {id(slot.weight): flavor.tf_variable(slot.weight) for slot in slots}

    @tf.function(reduce_retracing=True)
    def scores_on(x: Any, y: Any, sample_weight: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(list(variables.values()))
            value = losses(y, graph.model(x, training=False), sample_weight)
        gradients = tape.gradient(value, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        terms = {key: of_weight(variables[key], tf.convert_to_tensor(gradients[key])) for key in variables}
        total = tf.zeros([graph.class_count])
        for slot in slots:
            term = tf.cast(terms[id(slot.weight)], tf.float32)
            along = tf.reduce_sum(term, [axis for axis in range(len(term.shape)) if axis != slot.axis])
            total += of_class(tf.math.unsorted_segment_sum(along, slot.classes, graph.class_count))
        return total

    for batch in batches:
        x, y, sample_weight = parts_of(batch)
        if y is None:
            raise ValueError("Labels are missing: the data must be (x, y), or batches of it.")
        scores = scores_on(*(None if part is None else as_tensors(part) for part in (x, y, sample_weight))).numpy()
        yield _finite(scores, graph, "gradients")


class Losses:
    """The loss of a model's outputs, from the loss it was compiled with or one that is given, without touching it."""

    def __init__(self, model: Any, loss: Any) -> None:
        given = loss if loss is not None else getattr(model, "loss", None)
        if not given:
            raise ValueError(f"Model {model.name!r} is not compiled with a loss: pass loss=.")
        if isinstance(given, str):
            flavor.keras_of(model).losses.get(given)  # tells an unknown name
        self._model = model
        self._given = given
        config = model.get_compile_config() if loss is None else None
        self._weights = (config or {}).get("loss_weights")

    def __call__(self, y: Any, outputs: Any, sample_weight: Any) -> Any:
        """The mean loss over a batch, the losses of all outputs added: a scalar tensor."""
        import tensorflow as tf

        named = flavor.named_outputs(self._model, outputs)
        labels, losses, weights = (self._by_output(part, named) for part in (y, self._given, self._weights))
        total = tf.zeros([])
        for name, output in named.items():
            if losses[name] is not None:
                weight = 1.0 if weights[name] is None else weights[name]
                total += weight * self._one(losses[name], labels[name], output, sample_weight)
        return total

    def _by_output(self, part: Any, named: Mapping[str, Any]) -> dict[str, Any]:
        if isinstance(part, Mapping):
            return {name: part.get(name) for name in named}
        if isinstance(part, list | tuple):
            if len(part) != len(named):
                raise ValueError(
                    f"Model {self._model.name!r} has {len(named)} outputs, got {len(part)} labels or losses."
                )
            return dict(zip(named, part, strict=True))
        return dict.fromkeys(named, part)

    def _one(self, loss: Any, y: Any, output: Any, sample_weight: Any) -> Any:
        import tensorflow as tf

        function = flavor.keras_of(self._model).losses.get(loss)
        if len(y.shape) == len(output.shape) - 1 and output.shape[-1] == 1:
            y = y[..., None]  # as Keras does for labels of shape (n,) and an output of shape (n, 1)
        values = tf.cast(function(y, output), tf.float32)
        if sample_weight is not None and len(values.shape):
            values *= tf.reshape(tf.cast(sample_weight, tf.float32), [-1, *[1] * (len(values.shape) - 1)])
        return tf.reduce_mean(values)


def _activation(graph: ChannelGraph, batches: Iterable[Any], loss: Any) -> Iterator[np.ndarray]:
    """For each batch, summed over all places that read a class, the mean absolute value of its channels there."""
    import tensorflow as tf

    unread = np.full(graph.class_count, np.nan)  # of what is only read inside a layer, nothing is known
    for step in graph.steps:
        for _, _, classes in step.reads:
            unread[classes] = 0.0

    def watched(step: Step, node: flavor.GraphNode, taken: list[Any]) -> list[Any]:
        for position, axis, classes in step.reads:
            size = tf.abs(tf.cast(taken[position], tf.float32))
            along = tf.reduce_mean(size, [other for other in range(len(size.shape)) if other != axis]).numpy()
            positions = np.bincount(classes, minlength=graph.class_count)
            total[:] += np.bincount(classes, along / positions[classes], graph.class_count)
        return call_layer(node, taken)

    for batch in batches:
        total = np.zeros(graph.class_count)
        run(graph, input_tensors(graph.walked, parts_of(batch)[0]), watched)
        yield _finite(total, graph, "activations") + unread


def _finite(scores: np.ndarray, graph: ChannelGraph, of_what: str) -> np.ndarray:
    if not np.isfinite(scores).all():
        raise ValueError(
            f"The {of_what} of model {graph.model.name!r} are NaN or infinite on this data: look for such values in "
            "the data and in the weights."
        )
    return scores


ON_DATA = {"taylor": _taylor, "activation": _activation, "fisher": _fisher}


def input_tensors(model: Any, x: Any) -> list[Any]:
    """A tensor for each of the model's inputs, in their order and dtype."""
    import tensorflow as tf

    names = flavor.input_names(model)
    arrays = [x[name] for name in names] if isinstance(x, Mapping) else flavor.flatten(x, model)
    symbolic = flavor.graph_nodes(model)[0]
    if len(arrays) != len(symbolic):
        raise ValueError(f"Model {model.name!r} has {len(symbolic)} inputs {names}, got {len(arrays)}.")
    return [tf.cast(array, tensor.dtype) for array, tensor in zip(arrays, symbolic, strict=True)]


def as_tensors(structure: Any) -> Any:
    """Arrays in any structure as tensors."""
    import tensorflow as tf

    return tf.nest.map_structure(tf.convert_to_tensor, structure)


def parts_of(batch: Any) -> tuple[Any, Any, Any]:
    """Inputs, labels and sample weights of a batch; None for what it lacks."""
    if not isinstance(batch, tuple):
        return batch, None, None
    return (*batch, None, None)[:3]


def _is_arrays(data: Any) -> bool:
    return isinstance(data, tuple | Mapping) or hasattr(data, "__array__")


def _first(x: Any) -> Any:
    """The first array of inputs that may be a list or a dict."""
    if isinstance(x, Mapping):
        return next(iter(x.values()))
    return x[0] if isinstance(x, list | tuple) else x


def count_of(data: Any, batch_size: int, steps: int | None) -> int | None:
    """The number of batches, where it is known."""
    if _is_arrays(data):
        known = -(-len(_first(parts_of(data)[0])) // batch_size)
    elif hasattr(data, "cardinality"):
        known = int(data.cardinality())
    else:
        known = len(data) if hasattr(data, "__len__") else -2
    endless = known == -1 or known == math.inf
    if endless and steps is None:
        raise ValueError("The dataset repeats without end: say how many batches to take as steps=.")
    return steps if known < 0 or endless else min(known, steps or known)


def batches_of(data: Any, batch_size: int, steps: int | None) -> Iterator[Any]:
    """The batches of a dataset, a PyDataset or arrays, `steps` of them at most."""
    if not batch_size >= 1:
        raise ValueError(f"batch_size must be 1 or more; got {batch_size}.")
    if _is_arrays(data):
        return itertools.islice(_slices(data, batch_size), steps)
    if isinstance(data, str) or not (hasattr(data, "__iter__") or hasattr(data, "__getitem__")):
        raise ValueError(f"data must be (x, y) arrays or batches of them, as a dataset; got {type(data).__name__}.")
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):  # a PyDataset has no end when iterated over
        return itertools.islice((data[number] for number in range(len(data))), steps)
    return itertools.islice(data, steps)


def _slices(data: Any, batch_size: int) -> Iterator[Any]:
    import tensorflow as tf

    parts = parts_of(data)
    counts = {len(array) for array in tf.nest.flatten([part for part in parts if part is not None])}
    if len(counts) != 1:
        raise ValueError(f"The arrays of data have different numbers of samples: {sorted(counts)}.")
    for start in range(0, counts.pop(), batch_size):
        stop = start + batch_size
        yield tuple(
            None if part is None else tf.nest.map_structure(lambda array: array[start:stop], part)  # noqa: B023
            for part in parts
        )
