"""The oracle: the old model with the dropped channels set to zero must compute what the rebuilt one computes.

The old model is run call by call. Wherever a layer consumes channels, those that are dropped are set to zero just
before, which is the same as setting to zero the slices of its weights that read them. What consumes channels inside a
layer (a recurrent state, a head) is set to zero in the weights of a copy of that layer. A layer that computes
statistics over channels (LayerNormalization, softmax) is run on the kept channels. The user's model is not changed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Step, Tensor
from edgeprune.channels.graph.execution import run
from edgeprune.channels.rebuild.slicing import changed_arguments, checked_mask, counterparts
from edgeprune.types import AnyTensor, Array, Layer, Model, TfTensor

TOLERANCE = 1e-4
HALF_TOLERANCE = 2e-2  # of a model that computes in half precision
SAMPLES = 4096  # values of a layer's output that are compared
# Of images, in pixels. The first is enough for what is downsampled 32 times; Inception's unpadded convolutions need 75.
SMALL_SIDES = (64, 80)
# For sizes that are not fixed: the first that no layer refuses.
OPEN_LENGTHS = (64, 256, 1024, 16)


@dataclass(frozen=True)
class Proof:
    """How far a rebuilt model is from the original with the dropped channels set to zero.

    Attributes:
        absolute: the largest difference of any output value; infinite where any value is no finite number.
        relative: the largest difference relative to the largest value of its tensor, in the outputs of the model and of
            its layers (up to `SAMPLES` values of each).
        tolerance: the largest `relative` that passes.
        calls: how many calls of layers were compared, besides the model's outputs.
        sizes: how many sizes of the inputs were tried: several where the model leaves them open.
    """

    absolute: float
    relative: float
    tolerance: float = TOLERANCE
    calls: int = 0
    sizes: int = 1

    @property
    def passed(self) -> bool:
        """Whether they agree."""
        return self.relative <= self.tolerance

    def __str__(self) -> str:
        """One sentence."""
        verdict = "equal" if self.passed else "NOT equal"
        return (
            f"{verdict} to the original with the dropped channels set to zero: relative difference {self.relative:.1e} "
            f"over the outputs and {self.calls} calls of layers"
            f"{f' at {self.sizes} sizes of the input' if self.sizes > 1 else ''}"
        )


def prove(graph: ChannelGraph, kept_mask: np.ndarray, rebuilt: Model, seed: int = 0) -> Proof:
    """Compare a rebuilt model with the original whose dropped channels are set to zero, on random inputs.

    Args:
        graph: the channels of the original model.
        kept_mask: bool array (graph.class_count,), True for the classes that are kept.
        rebuilt: what `rebuild(graph, kept_mask)` returned.
        seed: of the random inputs.

    Returns:
        The largest difference. It is exact (a rounding error) for every layer; where layers compute statistics
        over channels (`graph.notes`), the original computes them over the kept channels. Of a quantization-aware model
        it is that of both models in floats.

    Raises:
        ValueError: the mask does not fit the graph, or the model cannot be run or compared on random inputs.

    Example:
        >>> import keras
        >>> from edgeprune.channels.graph.trace import trace
        >>> from edgeprune.channels.rebuild.slicing import rebuild
        >>> graph = trace(keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)]))
        >>> kept = graph.full_mask()
        >>> kept[graph.groups[0].classes[:3]] = False
        >>> prove(graph, kept, rebuild(graph, kept)).passed
        True
    """
    kept_mask = checked_mask(graph, kept_mask)
    comparison = _Comparison(graph, kept_mask, rebuilt)
    # Rounding to the steps of a quantized file would make large differences of tiny ones.
    with flavor.without_rounding(graph.model, graph.walked, rebuilt):
        # Layers are called one by one, so most models run on smaller images than they were made for.
        inputs = on_random_inputs(graph.walked, comparison.compare, seed, small=True)
        for shapes in _other_sizes(graph.walked, inputs):
            comparison.compare_if_accepted(_random_arrays(graph.walked, np.random.default_rng(seed), shapes))
        found = Proof(
            comparison.absolute, comparison.relative, tolerance_of(graph.walked), comparison.calls, comparison.sizes
        )
        if not found.passed:
            comparison.check_comparable(inputs)
    return found


class _Comparison:
    """The original with its dropped channels set to zero and the rebuilt model, and the largest differences so far."""

    def __init__(self, graph: ChannelGraph, kept_mask: np.ndarray, rebuilt: Model) -> None:
        self.graph = graph
        self.rebuilt = rebuilt
        self.masked = _MaskedOriginal(graph, kept_mask, rebuilt)
        # A state that is carried from batch to batch is zero for the first one.
        self.batches = 3 if any(getattr(layer, "stateful", False) for layer in flavor.layers_of(graph.model)) else 1
        self.absolute = self.relative = 0.0
        self.calls = self.sizes = 0

    def compare(self, inputs: list[Any]) -> list[Any]:
        """Run both on the same batch (on several, one after the other, where states are carried); returns the batch."""
        batches = [inputs, *([_rolled(array, by) for array in inputs] for by in range(1, self.batches))]
        with flavor.state_restored(self.graph.model), flavor.state_restored(self.rebuilt):
            # First, as the smaller one sooner meets what is too small for it.
            outputs = [_run_recorded(self.rebuilt, batch) for batch in batches]
            expected = self._run_masked(batches)
        self._compare_unfolded(inputs)
        for (old, old_seen), (new, new_seen) in zip(expected, outputs, strict=True):
            self._add(old, new, old_seen, new_seen)
        self.sizes += 1
        return inputs

    def _compare_unfolded(self, inputs: list[Any]) -> None:
        """The model that was walked, with its composite layers unfolded, must compute what the user's does."""
        model, walked = self.graph.model, self.graph.walked
        if walked is model:
            return
        with flavor.state_restored(model):
            unfolded = flavor.call_model(walked, inputs)
        for old, new in zip(self._user_outputs(inputs), unfolded, strict=True):
            difference, scale = _difference(old, new)
            self.absolute = max(self.absolute, difference)
            self.relative = max(self.relative, difference / (scale or 1.0))

    def _user_outputs(self, inputs: list[Any]) -> list[Any]:
        """What the user's own model computes, its composite layers whole."""
        model = self.graph.model
        with flavor.state_restored(model):
            if flavor.is_graph_model(model):
                return flavor.call_model(model, inputs)
            return flavor.flatten(model(flavor.packed_as_called(model, inputs), training=False), model)

    def compare_if_accepted(self, inputs: list[Any]) -> None:
        """Run both on a batch of another size, unless the old model refuses it."""
        import tensorflow as tf

        try:
            with flavor.state_restored(self.graph.model):
                self._run_masked([inputs])
            self._user_outputs(inputs)  # a check in the call of a composite layer is not in the unfolded model
        except (ValueError, tf.errors.OpError):
            return
        self.compare(inputs)

    def _run_masked(self, batches: list[list[Any]]) -> list[tuple[list[Any], _RecordedOutputs]]:
        self.masked.forget()
        return [self.masked.run(batch) for batch in batches]

    def _add(self, old: list[Any], new: list[Any], old_seen: _RecordedOutputs, new_seen: _RecordedOutputs) -> None:
        compared = old_seen.keys() & new_seen.keys()
        for a, b in zip(old, new, strict=True):
            difference, scale = _difference(a, b)
            self.absolute = max(self.absolute, difference)
            self.relative = max(self.relative, difference / (scale or 1.0))
        for call in compared:
            difference, scale = _difference(old_seen[call], new_seen[call])
            self.relative = max(self.relative, difference / (scale or 1.0))
        self.calls = max(self.calls, len(compared))

    def check_comparable(self, inputs: list[Any]) -> None:
        """Check that a difference is the rebuild's fault and not the user's model's.

        Raises:
            ValueError: the model holds numbers that are not finite, or returns other values at each call.
        """
        model = self.graph.model
        for layer in flavor.layers_of(model):
            for weight in flavor.variables_to_copy(layer):
                values = flavor.array_of(weight)
                if values.dtype.kind == "f" and not np.isfinite(values).all():
                    raise ValueError(
                        f"Weight {weight.name!r} of layer {layer.name!r} in model {model.name!r} holds NaN or "
                        "infinity, so nothing can be proven: retrain it, or pass verify=False."
                    )
        with flavor.state_restored(model):
            ((once, _),) = self._run_masked([inputs])
            with flavor.state_restored(model):  # carried states are zero again, and random layers have moved on
                ((again, _),) = self._run_masked([inputs])
        if any(_difference(old, new)[0] > 0 for old, new in zip(once, again, strict=True)):
            raise ValueError(
                f"Model {model.name!r} returns other values at each call (a random layer with training=True?), so "
                "the smaller one cannot be compared with it: pass verify=False."
            )


def _rolled(array: AnyTensor, by: int) -> Any:
    """The same values at other places: another batch of the same kind."""
    import tensorflow as tf

    return tf.roll(array, by, axis=len(array.shape) - 1) if len(array.shape) > 1 else array


def _other_sizes(model: Model, inputs: list[Any]) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Other shapes for inputs of open length or size: odd ones, which strides and poolings do not divide."""
    symbolic = flavor.graph_nodes(model)[0]
    opened = [[axis for axis, size in enumerate(tensor.shape) if axis and size is None] for tensor in symbolic]
    for more in ((1, 35), (35, 1)) if any(opened) else ():
        shapes = [list(array.shape) for array in inputs]
        for shape, axes in zip(shapes, opened, strict=True):
            for place, axis in enumerate(axes):
                shape[axis] += more[place % 2]
        yield tuple(map(tuple, shapes))


def _difference(old: Array, new: Array) -> tuple[float, float]:
    """The largest difference of two arrays, and the largest magnitude of the first; infinite where one is."""
    old, new = (np.asarray(array, np.float64) for array in (old, new))
    if old.shape != new.shape or not (np.isfinite(old).all() and np.isfinite(new).all()):
        return math.inf, 1.0
    return float(np.max(np.abs(old - new), initial=0.0)), float(np.max(np.abs(old), initial=0.0))


class _RecordedOutputs(dict):
    """Samples of the layers' outputs: (path name, number of its call) to an array.

    Outputs alone prove little where a softmax is saturated, or where a net without training has let its signal fade.
    """

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self._names = names
        self._calls: Counter[str] = Counter()

    def add(self, layer: Layer, tensor: TfTensor) -> None:
        """Record up to `SAMPLES` values of the first output of a call."""
        if flavor.function_name(layer) is not None or not tensor.dtype.is_floating:
            return
        name = self._names.get(id(layer), layer.name)
        values = np.asarray(tensor).reshape(-1)
        self[name, self._calls[name]] = values[:: -(-values.size // SAMPLES) or 1]
        self._calls[name] += 1


def _run_recorded(model: Model, inputs: list[Any]) -> tuple[list[Any], _RecordedOutputs]:
    """A model's outputs, and samples of its layers' outputs."""
    seen = _RecordedOutputs(flavor.layer_names(model))

    def call(node: flavor.GraphNode, inputs: list[Any]) -> list[Any]:
        outputs = flavor.call_layer(node, inputs)
        seen.add(node.layer, outputs[0])
        return outputs

    return flavor.run_model(model, inputs, call), seen


def tolerance_of(model: Model) -> float:
    """The relative difference that rounding explains in the precision a model computes in."""
    half = any(layer.compute_dtype in ("float16", "bfloat16") for layer in flavor.layers_of(model))
    return HALF_TOLERANCE if half else TOLERANCE


def on_random_inputs(model: Model, compute: Callable[[list[Any]], Any], seed: int = 0, small: bool = False) -> Any:
    """What a function returns for the first random inputs that a model can be called on.

    Args:
        model: a Functional or Sequential model, some of whose inputs may have sizes that are not fixed.
        compute: called with a tensor for each of the model's inputs, in their order.
        seed: of the random inputs.
        small: whether smaller images than the model is made for are tried first.

    Raises:
        ValueError: the model's layers refuse all of the sizes that are tried.
    """
    import tensorflow as tf

    sides = (*SMALL_SIDES, None) if small else (None,)
    tried = dict.fromkeys(_shapes(model, side, length) for length in OPEN_LENGTHS for side in sides)
    for shapes in tried:
        try:
            return compute(_random_arrays(model, np.random.default_rng(seed), shapes))
        except (ValueError, tf.errors.OpError) as error:
            refused = error
    reason = " ".join(str(refused).split())[:200]
    raise ValueError(
        f"Model {model.name!r} cannot be called on random inputs of shape {' and '.join(map(str, shapes))}, so nothing "
        f"can be proven: pass verify=False. {reason}"
    ) from refused


def _random_arrays(model: Model, random: np.random.Generator, shapes: Sequence[tuple[int, ...]]) -> list[Any]:
    """Random tensors of these shapes for a Functional or Sequential model, in the order of its inputs."""
    import tensorflow as tf

    arrays = []
    for tensor, shape in zip(flavor.graph_nodes(model)[0], shapes, strict=True):
        dtype = tf.as_dtype(tensor.dtype)
        if dtype.is_floating:
            array: np.ndarray = random.normal(size=shape)
        elif dtype.is_integer:
            array = random.integers(0, 2, shape)
        elif dtype.is_bool:
            array = random.integers(0, 2, shape).astype(bool)
        else:
            array = np.full(shape, "a")
        arrays.append(tf.cast(array, dtype) if dtype != tf.string else tf.constant(array))
    return arrays


def _shapes(model: Model, largest_side: int | None, length: int) -> tuple[tuple[int, ...], ...]:
    """The shapes of tensors that a model can be called on; images no larger than asked, open sizes as long as asked."""
    shapes = []
    for tensor in flavor.graph_nodes(model)[0]:
        shape = (tensor.shape[0] or 2, *(length if size is None else size for size in tensor.shape[1:]))
        if largest_side is not None and len(shape) == 4:
            shape = (shape[0], *(min(size, largest_side) for size in shape[1:3]), *shape[3:])
        shapes.append(shape)
    return tuple(shapes)


class _MaskedOriginal:
    """Runs the original with its dropped channels set to zero."""

    def __init__(self, graph: ChannelGraph, kept_mask: np.ndarray, rebuilt: Model) -> None:
        self.graph = graph
        self.kept_mask = kept_mask
        self.rebuilt = rebuilt
        self.changes = changed_arguments(graph, kept_mask)
        self.copies: dict[int, Any] = {}

    def run(self, inputs: list[Any]) -> tuple[list[Any], _RecordedOutputs]:
        """The outputs for these inputs, and samples of the layers' outputs."""
        seen = _RecordedOutputs(self.graph.rebuilt_names)

        def call(step: Step, node: flavor.GraphNode, inputs: list[Any]) -> list[Any]:
            outputs = self._step(step, node, inputs)
            seen.add(step.layer, self._kept(step.outputs[0], outputs[0]))
            return outputs

        return run(self.graph, inputs, call), seen

    def forget(self) -> None:
        """Forget the states that copies of layers carry from batch to batch."""
        self.copies.clear()

    def _kept(self, place: int, tensor: AnyTensor) -> Any:
        """The kept channels of a tensor."""
        import tensorflow as tf

        for axis, classes in self.graph.tensors[place].axes.items():
            if not self.kept_mask[classes].all():
                tensor = tf.gather(tensor, np.flatnonzero(self.kept_mask[classes]), axis=axis)
        return tensor

    def _step(self, step: Step, node: flavor.GraphNode, inputs: list[Any]) -> list[Any]:
        places = (*step.inputs, *step.outputs)
        if step.mixes and any(self._drops(self.graph.tensors[place]) for place in places):
            return self._on_kept_channels(step, node, inputs)
        for position, axis, classes in step.reads:
            if not self.kept_mask[classes].all():
                shape = [-1 if a == axis else 1 for a in range(len(inputs[position].shape))]
                mask = self.kept_mask[classes].reshape(shape).astype(inputs[position].dtype.as_numpy_dtype)
                inputs[position] = _masked_like(inputs[position] * mask, inputs[position])
        return flavor.call_layer(node, inputs, self._with_masked_weights(step.layer) if step.inside else step.layer)

    def _drops(self, tensor: Tensor) -> bool:
        return any(not self.kept_mask[classes].all() for classes in tensor.axes.values())

    def _on_kept_channels(self, step: Step, node: flavor.GraphNode, inputs: list[Any]) -> list[Any]:
        """Run a call on the kept channels alone, and put its outputs back in place, with zeros between."""
        import tensorflow as tf

        for position, place in enumerate(step.inputs):
            for axis, classes in self.graph.tensors[place].axes.items():
                kept = tf.gather(inputs[position], np.flatnonzero(self.kept_mask[classes]), axis=axis)
                inputs[position] = _masked_like(kept, inputs[position])
        is_function = flavor.function_name(step.layer) is not None
        layer = step.layer if is_function else self._counterparts[id(step.layer)]
        outputs = flavor.call_layer(node, inputs, layer, self.changes.get(id(step.node)) if is_function else None)
        for position, place in enumerate(step.outputs):
            for axis, classes in self.graph.tensors[place].axes.items():
                # Kept channels have their numbers; the others point to a plane of zeros behind the last.
                sources = np.where(self.kept_mask[classes], np.cumsum(self.kept_mask[classes]) - 1, -1)
                tensor = outputs[position]
                padding = [(0, int(a == axis)) for a in range(len(tensor.shape))]
                spread = tf.gather(tf.pad(tensor, padding), sources % (tensor.shape[axis] + 1), axis=axis)
                outputs[position] = _masked_like(spread, tensor)
        return outputs

    @cached_property
    def _counterparts(self) -> dict[int, Any]:
        return counterparts(self.graph, self.rebuilt)

    def _with_masked_weights(self, layer: Layer) -> Any:
        """A copy of a layer whose weights read nothing from dropped channels."""
        if id(layer) in self.copies:
            return self.copies[id(layer)]
        copy = self.copies[id(layer)] = flavor.clone_built_layer(layer)
        values = []
        for weight in flavor.weights_of(layer):
            array = np.array(weight)
            for slot in self.graph.weight_slots.get(id(weight), {}).values():
                if slot.reads:
                    array *= self.kept_mask[slot.classes].reshape(slot.spread)
            values.append(array)
        flavor.copy_layer_state(layer, copy, values)
        return copy


def _masked_like(tensor: AnyTensor, old: AnyTensor) -> Any:
    """The tensor with the mask of steps (the padding of a sentence) that Keras carries along with another."""
    if getattr(old, "_keras_mask", None) is not None:
        tensor._keras_mask = old._keras_mask
    return tensor
