"""From a model to its channels: every call is handed to its layer's rule, once, producers first."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.channel_values import Value
from edgeprune.channels.graph.coupling import ChannelGraph, Fold, Step
from edgeprune.channels.graph.record import Record
from edgeprune.channels.graph.rules import Call, CannotFollow, is_composite, rule_for
from edgeprune.channels.graph.settle import Settlement
from edgeprune.flavor.example_shapes import InputShape, example_and_call_shapes
from edgeprune.types import AnyTensor, Layer, Model


def trace(model: Layer, input_shape: InputShape = None) -> ChannelGraph:
    """Find which channels of a model live and die together.

    Args:
        model: a built model of `keras` 3 or `tf_keras`: Functional, Sequential, or one that is subclassed
            and whose call can be made on symbolic inputs. It is not changed.
        input_shape: of a model of open length or size, the shape that its MACs are counted for; by input name where
            there are several. Left out, one that the model accepts.

    Returns:
        The classes of channels with the slices of the weights they own.

    Raises:
        TypeError: it is no Keras model.
        ValueError: it is not built, it carries pruning wrappers, or it is subclassed and its call cannot be followed;
            or `input_shape` does not fit it.

    Example:
        >>> import keras
        >>> graph = trace(keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, name="a"), keras.layers.Dense(2)]))
        >>> [(group.name, group.size) for group in graph.groups if not group.frozen]
        [('a', 8)]
    """
    flavor.check_built_model(model)
    if any(type(layer).__name__ == "PruneLowMagnitude" for layer in flavor.layers_of(model)):
        raise ValueError(f"Model {model.name!r} carries TF-MOT's pruning wrappers: strip_pruning(model) first.")
    with garbage_collection_off():
        return _Walk(cast(Model, model), input_shape).graph()


@contextlib.contextmanager
def garbage_collection_off() -> Iterator[None]:
    """While the body runs, memory is not searched for garbage: a quarter of the time when many objects are made."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Walk:
    """One trace: follows every call of a model, nested and composite layers unfolded."""

    def __init__(self, model: Model, input_shape: InputShape = None) -> None:
        self.model = model
        walked = model if flavor.is_graph_model(model) else flavor.functional_stand_in(model)
        self.walked, self.renamed, self._not_unfolded, self._losses = flavor.unfold_layers(walked, is_composite)
        self._has_open_batch = any(map(_is_open, flavor.graph_nodes(self.walked)[0]))
        self.example, shapes = example_and_call_shapes(self.walked, input_shape)
        self._shapes = iter(shapes)
        self.record = Record(flavor.weights_of(model), flavor.layer_names(model))
        self.space = self.record.space
        self._values: list[Value] = []
        self._steps: list[tuple[Call, tuple[int, ...], tuple[int, ...]]] = []
        self._folds: list[Fold] = []
        self._nested_inputs: dict[int, Value] = {}
        self._not_followed: dict[str, str] = {}

    def graph(self) -> ChannelGraph:
        """Walk the model and settle what its rules wrote down."""
        inputs, _, outputs = flavor.graph_nodes(self.walked)
        outputs = flavor.flatten(outputs, self.walked)
        taken = [self._place(Value(self._input_shape(tensor, number))) for number, tensor in enumerate(inputs)]
        given = flavor.run_model(self.walked, taken, self._call, self._enter_call)
        for place, tensor in zip(given, outputs, strict=True):
            name = flavor.input_layer(tensor).name
            self.space.freeze(self._values[place], f"output of the model ({name})")
        return self._settled(taken, given)

    def _input_shape(self, tensor: AnyTensor, number: int) -> tuple[int, ...]:
        return fixed_shape(tensor) if self.example is None else list(self.example.shapes.values())[number]

    def _place(self, value: Value) -> int:
        self._values.append(value)
        return len(self._values) - 1

    def _enter_call(self, node: flavor.GraphNode, model: Model, axes: int, taken: list[int]) -> list[int]:
        return self._enter_each_step(node.layer, model, flavor.first_argument(node, taken), axes)

    def _enter_each_step(self, layer: Layer, model: Model, taken: Sequence[int], axes: int) -> list[int]:
        """A model inside, whose samples are the steps along so many axes of what it is called on."""
        if not axes:
            return self._enter(model, taken)
        reason = f"{self.record.names.get(id(layer), layer.name)} works along it"
        steps = self._values[taken[0]].shape[1]
        folded = [self._place(self.space.into_batch(self._values[place], reason)) for place in taken]
        given = self._enter_each_step(layer, model, folded, axes - 1)
        unfolded = [self._place(self.space.out_of_batch(self._values[place], steps)) for place in given]
        self._folds += map(Fold, taken, folded)
        self._folds += [Fold(*pair, like=taken[0]) for pair in zip(given, unfolded, strict=True)]
        return unfolded

    def _enter(self, model: Model, taken: Sequence[int]) -> list[int]:
        """A nested model: its inner inputs are what it is called on, the same for all its calls."""
        for tensor, place in zip(flavor.graph_nodes(model)[0], taken, strict=True):
            value = self._values[place]
            known = self._nested_inputs.get(id(tensor))
            if known is not None:
                self._same(known, value, f"{model.name} is called on different tensors")
            else:
                self._nested_inputs[id(tensor)] = value
                layer = flavor.input_layer(tensor)
                self.record.add_shape_resize(layer, "batch_shape", tuple(tensor.shape), value, 0)
        return flavor.run_model(model, taken, self._call, self._enter_call)

    def _same(self, a: Value, b: Value, reason: str) -> None:
        """Two values that must lose the same places."""
        if a.shape[1:] == b.shape[1:]:  # the steps of a sequence may be samples in one of the calls
            self.space.merge([Value((1, *value.shape[1:]), value.parts) for value in (a, b)], reason)
        else:
            self.space.freeze(a, reason)
            self.space.freeze(b, reason)

    def _call(self, node: flavor.GraphNode, taken: list[int]) -> list[int]:
        values = {id(tensor): self._values[place] for tensor, place in zip(node.inputs, taken, strict=True)}
        args, kwargs = node.filled(values)
        call = Call(
            layer=node.layer,
            name=self.record.names.get(id(node.layer), node.layer.name),
            inputs=[self._values[place] for place in taken],
            args=args,
            kwargs=kwargs,
            output_shapes=self._output_shapes(node, taken),
            node=node.node,
            record=self.record,
        )
        given = [self._place(value) for value in self._follow(call)]
        self._steps.append((call, tuple(taken), tuple(given)))
        return given

    def _output_shapes(self, node: flavor.GraphNode, taken: list[int]) -> list[tuple[int, ...]]:
        """The shapes of what a call returns; a tensor without samples (a weight) has its own.

        There are more samples than of the model's inputs where places were folded into the batch.
        """
        if self.example is not None:
            return [tuple(1 if size is None else size for size in shape) for shape in next(self._shapes)]
        if self._has_open_batch:
            samples = [place for tensor, place in zip(node.inputs, taken, strict=True) if _is_open(tensor)]
        else:
            samples = taken
        batch = max((self._values[place].shape[0] for place in samples if self._values[place].shape), default=1)
        return [
            fixed_shape(tensor, batch if _is_open(tensor) or not self._has_open_batch else tensor.shape[0])
            for tensor in node.outputs
        ]

    def _follow(self, call: Call) -> list[Value]:
        """What a call returns; where its rule gives up, all that it touches is frozen."""
        try:
            made: Any = rule_for(call.layer)(call)
            given = list(made) if isinstance(made, list | tuple) else [made]
            return [
                value
                if value.rank == len(shape) and value.shape[1:] == shape[1:]
                else Value(shape, self._fitting(value, shape, call))
                for value, shape in zip(given, call.output_shapes, strict=True)
            ]
        except CannotFollow as unknown:
            reason = f"{call.name}: {unknown}"
            if (why := self._not_unfolded.get(id(call.layer))) is not None:
                reason += f"; its own call cannot be followed: {why}"
            if flavor.function_name(call.layer) is None:
                self._not_followed[call.name] = reason
            for value in call.inputs:
                self.space.freeze(value, reason)
            for weight in flavor.weights_of(call.layer):
                for axis in range(len(weight.shape)):
                    line = self.record.line_of(weight, axis)
                    if line is not None:
                        self.space.ids.freeze(line, reason)
                    self.record.forbid(weight, axis, reason)
            call.masks.clear()
            return [Value(shape) for shape in call.output_shapes]

    def _fitting(self, value: Value, shape: tuple[int, ...], call: Call) -> tuple[np.ndarray, ...]:
        """The parts of a value whose shape a rule returned roughly (sizes that are not fixed, a broadcast batch)."""
        fits = len(shape) == value.rank and all(
            size in (1, part.shape[axis]) or part.shape[axis] == 1
            for part in value.parts
            for axis, size in enumerate(shape)
        )
        if not fits:
            raise CannotFollow(f"its rule returns a tensor of shape {value.shape} where Keras returns {shape}")
        return value.parts

    def _settled(self, inputs: list[int], outputs: list[int]) -> ChannelGraph:
        """What was written down, in terms of classes of channels."""
        settled = Settlement(self.record)
        return ChannelGraph(
            model=self.model,
            class_count=settled.class_count,
            frozen_reason=settled.reasons,
            groups=settled.groups,
            slots=settled.slots,
            costs=settled.costs(),
            resizes=settled.resizes(),
            notes=(
                *(f"{name} adds a loss in training, which a smaller model does not." for name in self._losses.values()),
                *settled.notes(),
            ),
            names=self.record.names,
            rescales=settled.rescales(),
            steps=tuple(
                Step(
                    call.layer,
                    call.node,
                    taken,
                    given,
                    tuple((position, axis, settled.numbered(line)) for position, axis, line in call.masks),
                    call.mixes_channels,
                    id(call.layer) in self.record.inside,
                )
                for call, taken, given in self._steps
            ),
            folds=tuple(self._folds),
            tensors=tuple(map(settled.tensor, self._values)),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            runs=settled.runs,
            walked=self.walked,
            example=self.example,
            renamed=self.renamed,
            not_followed=self._not_followed,
        )


def _is_open(tensor: AnyTensor) -> bool:
    """Whether the first size of a symbolic tensor is not fixed."""
    return not len(tensor.shape) or tensor.shape[0] is None


def fixed_shape(tensor: AnyTensor, batch: int = 1) -> tuple[int, ...]:
    """A symbolic tensor's shape with `batch` for the batch and 1 for each size that is not fixed."""
    shape = tuple(tensor.shape)
    return (batch, *(1 if size is None else int(size) for size in shape[1:])) if shape else ()
