"""Composite layers and subclassed models of Keras 3 replaced by the calls that they make inside.

A layer's call is made once on symbolic tensors, and the calls inside are then made again one by one in a Functional
model. Two things need care:

- The size of the batch. A call may ask for it (`ops.shape(x)[0]`), and symbolic tensors answer None, which few
  functions take. So the batch is given a size of `_BATCH` while the layer is looked into, and where that number has
  come to stand in an argument, the call is made again in another way that fits every batch.
- Weights that the layer uses itself (a class token, a table of positions). While its call is made, a symbolic tensor
  stands in for each, which `OwnWeight` gives.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from edgeprune.flavor.copies import clone_input, functional_model
from edgeprune.flavor.functions import call_function, function_arguments
from edgeprune.flavor.graphs import GraphNode, call_specs, function_name, graph_nodes, input_layer
from edgeprune.flavor.kinds import (
    KERAS_3,
    is_graph_model,
    is_keras_3,
    is_model,
    keras_module,
    keras_of,
    layers_of,
    nest,
)

_BATCH = 1009  # a prime, so that its multiples stand out, and small enough for tensors that are made with it


class _NotUnfolded(Exception):
    """Raised where a layer's call cannot be made call by call."""


@functools.cache
def own_weight_class() -> type:
    """The operation that gives a weight which a composite layer uses itself.

    Its instances have the attributes `variable`, `owner` (the composite layer) and `dtype` (that it computes in).
    """
    keras = keras_module(KERAS_3)

    class OwnWeight(keras.Operation):
        def __init__(self, variable: Any, owner: Any) -> None:
            super().__init__()
            self.variable = variable
            self.owner = owner
            self.dtype = owner.compute_dtype if owner.autocast else variable.dtype

        def call(self, x: Any) -> Any:
            return keras.ops.cast(self.variable.value, self.dtype)

        def compute_output_spec(self, x: Any) -> Any:
            return keras.KerasTensor(tuple(self.variable.shape), dtype=self.dtype)

    return OwnWeight


def is_own_weight(operation: Any) -> bool:
    """Whether what stands in a graph gives a weight that a composite layer uses itself."""
    return isinstance(operation, own_weight_class())


def own_weights(layer: Any) -> list[Any]:
    """The variables of a Keras 3 layer that no layer inside it holds."""
    inside = {id(v) for part in layer._flatten_layers(recursive=False, include_self=False) for v in part.variables}
    return [variable for variable in layer.variables if id(variable) not in inside]


def own_weight_holder(operation: Any, shape: tuple[int, ...], name: str) -> Any:
    """A dense layer for a weight that a composite layer uses itself: called on a one it returns its kernel.

    Args:
        operation: the `OwnWeight` that it stands for.
        shape: of the weight.
        name: of the new layer.
    """
    keras, variable = keras_module(KERAS_3), operation.variable
    axes = "bcdefghij"[: len(shape)]
    return keras.layers.EinsumDense(
        f"az,z{axes}->a{axes}",
        output_shape=shape,
        name=name,
        dtype=operation.owner.dtype_policy,
        kernel_regularizer=variable.regularizer,
        kernel_constraint=variable.constraint,
    )


def give_own_weight(operation: Any, holder: Any, x: Any) -> Any:
    """The symbolic tensor with the weight of an `OwnWeight`, from the layer that holds it with a leading axis of one.

    Args:
        operation: the `OwnWeight`.
        holder: what `own_weight_holder` returned; the same for all calls that use the weight.
        x: a symbolic tensor with real numbers, of any shape.
    """
    ops = keras_module(KERAS_3).ops
    one = ops.ones_like(ops.reshape(ops.sum(x), (1, 1)), dtype=operation.dtype)
    given = ops.reshape(holder(one), holder.kernel.shape[1:])
    holder.trainable = operation.variable.trainable
    return given


def functional_stand_in(model: Any) -> Any:
    """A Functional model with the layers of a subclassed Keras 3 model: its call, made once on symbolic inputs.

    The layers do not remember that call.

    Raises:
        ValueError: it belongs to `tf_keras`, it is not built, or its call cannot be made symbolically or uses weights
            outside of the layers that hold them.
    """
    if not is_keras_3(model):
        raise ValueError(f"Model {model.name!r} is subclassed: in tf_keras only Functional and Sequential models work.")
    keras, tree = keras_of(model), nest(keras_3=True)
    inputs = tree.map_structure(
        lambda spec: keras.Input(tuple(spec.shape)[1:], dtype=spec.dtype.name), call_specs(model)
    )
    with _forgetting_calls([model, *layers_of(model)]):
        try:
            given = _Unfolding(lambda layer: False).calls_inside(model, (inputs,), {})
            return keras.Model(inputs, given, name=model.name)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"The call of model {model.name!r} cannot be made on symbolic inputs: {reason}") from error


def unfold_layers(model: Any, unfolds: Callable[[Any], bool]) -> tuple[Any, dict[int, str], dict[int, str]]:
    """A Functional Keras 3 model in which some composite layers are replaced by the calls they make inside.

    Args:
        model: a Functional or Sequential model; it is not changed, and its layers do not remember the new calls.
        unfolds: whether to look inside a layer.

    Returns:
        A Functional model of the same layers, or `model` itself where there is nothing to unfold; in models nested in
        it layers are replaced too. By `id` new names for the layers inside, which need not have different names:
        those on the way to them, joined. And by `id` the reasons why layers stay as they are.
    """
    if not is_keras_3(model):
        return model, {}, {}
    unfolding = _Unfolding(unfolds)
    with _forgetting_calls([model, *layers_of(model)]):
        return unfolding.model(model), unfolding.names, unfolding.reasons


def functions_inside(function: Callable[[Any], Any]) -> list[str] | None:
    """The names of the functions that a function of one tensor is made of; None where that cannot be seen.

    Args:
        function: it is called on a symbolic tensor of Keras 3 `(batch, 8)`, and should return one like it.
    """
    x = keras_module(KERAS_3).KerasTensor((_BATCH, 8))
    try:
        given = function(x)
        nodes = list(_calls_between({id(x): x}, [given]))
        for node in nodes:
            _check_constants(node)
            if any(
                getattr(leaf, "shape", ())
                for leaf in nest(keras_3=True).flatten((node.args, node.kwargs))
                if not _is_symbolic(leaf)
            ):
                return None
    except Exception:  # it may fail on symbolic tensors in any way
        return None
    names = [function_name(node.layer) for node in nodes]
    return names if given.shape == x.shape and None not in names else None


class _Unfolding:
    """One unfolding of a model, with those nested in it."""

    def __init__(self, unfolds: Callable[[Any], bool]) -> None:
        self.names: dict[int, str] = {}
        self._unfolds = unfolds
        self.reasons: dict[int, str] = {}
        self._models: dict[int, Any] = {}
        self._calls: Counter[int] = Counter()
        self._shared: set[int] = set()

    def model(self, model: Any, shapes: list[tuple[int | None, ...] | None] | None = None) -> Any:
        """The model, or one of the same layers without the composite ones; the same for all calls of it.

        `shapes` are those of the inputs, where they are less open than the model's own.
        """
        if id(model) not in self._models:
            self._models[id(model)] = self._unfolded(model, shapes) if self._has_composites(model) else model
        return self._models[id(model)]

    def _has_composites(self, model: Any) -> bool:
        return any(
            self._has_composites(node.layer) if _is_nested(node.layer) else self._unfolds(node.layer)
            for node in graph_nodes(model)[1]
        )

    def _unfolded(self, model: Any, shapes: list[tuple[int | None, ...] | None] | None) -> Any:
        tree = nest(keras_3=True)
        inputs, nodes, outputs = graph_nodes(model)
        self._calls.update(id(node.layer) for node in nodes)
        layers = [node.layer for node in nodes if function_name(node.layer) is None]
        outside = {id(part) for one in layers if not _is_nested(one) for part in one._flatten_layers()}
        self._shared |= {
            id(one) for one in layers if _is_nested(one) and any(id(part) in outside for part in layers_of(one))
        }
        shapes = [None] * len(inputs) if shapes is None else shapes
        new_inputs = [
            clone_input(input_layer(tensor), shape).output for tensor, shape in zip(inputs, shapes, strict=True)
        ]
        tensors = dict(zip(map(id, inputs), new_inputs, strict=True))
        taken = {node.layer.name for node in nodes if not self._unfolds(node.layer)}
        taken |= {input_layer(tensor).name for tensor in inputs}
        for node in nodes:
            self._make(node, tensors)
        new_outputs = tree.map_structure(lambda tensor: tensors[id(tensor)], outputs)
        with self._renamed(new_outputs, taken):
            return functional_model(model, new_inputs, new_outputs)

    def _make(self, node: GraphNode, tensors: dict[int, Any]) -> None:
        """Make a call of a graph again, on `tensors[id(old)]` in place of the old tensors, and add what it gives."""
        args, kwargs = node.filled(tensors)
        layer, given = node.layer, None
        if id(layer) not in self.reasons and self._unfolds(layer):
            try:
                given = nest(keras_3=True).flatten(self.calls_inside(layer, args, kwargs))
                if len(given) != len(node.outputs):
                    raise _NotUnfolded("it gives other tensors than before")
            except Exception as error:  # a call may fail on symbolic inputs in any way
                self.reasons[id(layer)] = _first_line(error)
                given = None
        if given is None:
            given = nest(keras_3=True).flatten(self._called(node, args, kwargs, tensors))
        tensors.update(zip(map(id, node.outputs), given, strict=True))

    def _called(self, node: GraphNode, args: tuple, kwargs: dict[str, Any], tensors: dict[int, Any]) -> Any:
        layer = node.layer
        if _is_nested(layer):
            taken = _symbolic_leaves((args, kwargs))
            if id(layer) in self._shared:
                return self._entered(layer, taken)
            called_once = self._calls[id(layer)] == 1 and len(taken) == len(graph_nodes(layer)[0])
            shapes = [(None, *tensor.shape[1:]) for tensor in taken] if called_once else None
            return self.model(layer, shapes)(*args, **kwargs)
        if function_name(layer) is None or is_own_weight(layer):
            return layer(*args, **kwargs)
        return _for_any_batch(node, args, kwargs, tensors.get(_REFERENCE))

    def _entered(self, model: Any, taken: list[Any]) -> Any:
        """The calls of a nested model on some tensors: a layer shared with the outside is two in a file."""
        inputs, nodes, outputs = graph_nodes(model)
        tensors = dict(zip(map(id, inputs), taken, strict=True))
        for node in nodes:
            if function_name(node.layer) is None:
                self.names.setdefault(id(node.layer), f"{model.name}_{node.layer.name}")
            self._make(node, tensors)
        return nest(keras_3=True).map_structure(lambda tensor: tensors[id(tensor)], outputs)

    def calls_inside(self, layer: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """What a layer gives for symbolic tensors, by the calls that it makes inside.

        Raises:
            Exception: whatever it raises when it is called on symbolic tensors.
        """
        tree = nest(keras_3=True)
        symbolic = _symbolic_leaves((args, kwargs))
        marked = {id(tensor): _with_marked_batch(tensor) for tensor in symbolic}
        masks = {}
        for tensor in symbolic:
            mask = getattr(tensor, "_keras_mask", None)
            if mask is not None:
                masks[id(mask)] = (mask, marked[id(tensor)]._keras_mask)
        inner_args, inner_kwargs = tree.map_structure(lambda leaf: marked.get(id(leaf), leaf), (args, kwargs))
        reference = marked[id(symbolic[0])]
        outputs = self._called_in_place(layer, reference, inner_args, inner_kwargs)
        if not is_model(layer) and layer._call_has_training_arg:
            in_training = self._called_in_place(layer, reference, inner_args, inner_kwargs, training=True)
            if _signatures(outputs) != _signatures(in_training):
                raise _NotUnfolded("it makes other calls in training")
        tensors = {id(marked[id(tensor)]): tensor for tensor in symbolic}
        tensors.update({id(stand_in): mask for mask, stand_in in masks.values()})
        tensors[_REFERENCE] = symbolic[0]
        if not is_model(layer):
            self._name_parts(layer)
        flat = tree.flatten(outputs)
        if any(_holds_mark(leaf) for leaf in flat if not _is_symbolic(leaf)):
            raise _NotUnfolded("it gives a constant for each sample")
        given_masks = [tensor._keras_mask for tensor in flat if getattr(tensor, "_keras_mask", None) is not None]
        nodes = list(_calls_between(tensors, [*_symbolic_leaves(outputs), *given_masks]))
        if not nodes:
            raise _NotUnfolded("it makes no calls")
        for node in nodes:
            _check_constants(node)
            self._make(node, tensors)
        for tensor in _symbolic_leaves(outputs):
            mask = getattr(tensor, "_keras_mask", None)
            new = tensors[id(tensor)]
            if mask is not None and getattr(new, "_keras_mask", None) is None:
                new._keras_mask = tensors[id(mask)]
        return tree.map_structure(lambda leaf: tensors.get(id(leaf), leaf), outputs)  # some may be constants

    def _called_in_place(
        self, layer: Any, reference: Any, args: tuple, kwargs: dict[str, Any], training: bool = False
    ) -> Any:
        """What a layer gives for symbolic tensors; the composite layers inside it are entered with it.

        Those need not give tensors alone when they are called inside another, nor do they all say what they give. Where
        that fails they are called as layers, and entered one by one.
        """
        composites = [part for part in layer._flatten_layers(include_self=False) if self._unfolds(part)]
        try:
            return _called_in_place([layer, *composites], reference, args, kwargs, training)
        except Exception:  # whatever a layer raises that is called on symbolic tensors
            if not composites:
                raise
            return _called_in_place([layer], reference, args, kwargs, training)

    def _name_parts(self, layer: Any) -> None:
        name = self.names.get(id(layer), layer.name)
        for part in layer._flatten_layers(recursive=False, include_self=False):
            self.names.setdefault(id(part), f"{name}_{part.name}")
            if self._unfolds(part):
                self._name_parts(part)

    @contextlib.contextmanager
    def _renamed(self, outputs: Any, taken: set[str]) -> Iterator[None]:
        """While the body runs, the layers on the way to these tensors have their new names, each another."""
        before = {}
        for node in _calls_between({}, nest(keras_3=True).flatten(outputs)):
            layer = node.layer
            if id(layer) not in self.names or id(layer) in before:
                continue
            name, number = self.names[id(layer)], 0
            while name in taken:
                number += 1
                name = f"{self.names[id(layer)]}_{number}"
            taken.add(name)
            self.names[id(layer)] = name
            before[id(layer)] = (layer, layer.name)
            layer.__dict__["name"] = name
        try:
            yield
        finally:
            for layer, name in before.values():
                layer.__dict__["name"] = name


_REFERENCE = -1  # no `id` of an object: the key of a tensor that has the batch of the call that is looked into


def _is_nested(layer: Any) -> bool:
    return function_name(layer) is None and is_model(layer) and is_graph_model(layer)


def _is_symbolic(leaf: Any) -> bool:
    return isinstance(leaf, keras_module(KERAS_3).KerasTensor)


def _with_marked_batch(tensor: Any) -> Any:
    """A symbolic tensor like another, with the marked size in place of an open batch; its mask too."""
    keras = keras_module(KERAS_3)

    def like(tensor: Any) -> Any:
        shape = tuple(tensor.shape)
        shape = (_BATCH, *shape[1:]) if shape and shape[0] is None else shape
        return keras.KerasTensor(shape, dtype=tensor.dtype)

    marked = like(tensor)
    if getattr(tensor, "_keras_mask", None) is not None:
        marked._keras_mask = like(tensor._keras_mask)
    return marked


def _called_in_place(
    layers: list[Any], reference: Any, args: tuple, kwargs: dict[str, Any], training: bool = False
) -> Any:
    """What the first of some layers gives for symbolic tensors, which stem from the calls inside it and the others."""
    if layers[0]._call_has_training_arg:
        kwargs = {**kwargs, "training": training}
    entered = set(map(id, layers))
    with contextlib.ExitStack() as stack:
        stack.enter_context(_without_nodes(entered))
        for layer in layers:
            stack.enter_context(_own_weights_symbolic(layer, reference))
            layer.__dict__["symbolic_call"] = layer.call
            stack.callback(layer.__dict__.pop, "symbolic_call")
        for part in layers[0]._flatten_layers(include_self=False):
            if part.variables and id(part) not in entered and not is_model(part):
                part.__dict__["call"] = functools.partial(_called_on_constants, part, part.call, reference)
                stack.callback(part.__dict__.pop, "call", None)
        scope = stack.enter_context(_weights_read()())
        outputs = layers[0](*args, **kwargs)
    if scope.read:
        raise _NotUnfolded("it uses weights outside of the layers that hold them")
    return outputs


@contextlib.contextmanager
def _without_nodes(layers: set[int]) -> Iterator[None]:
    """While the body runs, Keras does not put down the calls of these layers, by `id`, in its graph."""
    module = importlib.import_module("keras.src.layers.layer")
    kind = module.Node

    def node(operation: Any, *args: Any, **kwargs: Any) -> Any:
        return None if id(operation) in layers else kind(operation, *args, **kwargs)

    module.Node = node
    try:
        yield
    finally:
        module.Node = kind


def _called_on_constants(layer: Any, call: Callable[..., Any], reference: Any, *args: Any, **kwargs: Any) -> Any:
    """What a layer with weights gives for constants, as a symbolic tensor: a table read at every position."""
    if _symbolic_leaves((args, kwargs)) or not args or not _is_constant(args[0]):
        return call(*args, **kwargs)
    ops = keras_module(KERAS_3).ops
    first = np.asarray(args[0])
    one = ops.cast(ops.ones_like(ops.sum(reference)), str(first.dtype))
    del layer.__dict__["call"]
    return layer(ops.multiply(one, first), *args[1:], **kwargs)


def _is_constant(value: Any) -> bool:
    return isinstance(value, np.ndarray) or hasattr(value, "numpy")  # tensors that stand for others have no values


@functools.cache
def _weights_read() -> type:
    """A scope whose attribute `read` says whether a weight with real numbers has been read in it.

    What comes from a weight would be a constant in a smaller model, and not trained.
    """
    import tensorflow as tf

    class WeightsRead(keras_module(KERAS_3).StatelessScope):
        read = False

        def get_current_value(self, variable: Any) -> Any:
            self.read |= tf.as_dtype(variable.dtype).is_floating
            return super().get_current_value(variable)

    return WeightsRead


def _signatures(outputs: Any) -> list[Any]:
    """What is called on the way to some symbolic tensors: layers, and functions by their names."""
    nodes = _calls_between({}, _symbolic_leaves(outputs))
    return [function_name(node.layer) or id(node.layer) for node in nodes]


def _symbolic_leaves(structure: Any) -> list[Any]:
    return [leaf for leaf in nest(keras_3=True).flatten(structure) if _is_symbolic(leaf)]


def _has_history(tensor: Any) -> bool:
    return getattr(tensor, "_keras_history", None) is not None


@contextlib.contextmanager
def _own_weights_symbolic(layer: Any, reference: Any) -> Iterator[None]:
    """While the body runs, symbolic tensors stand in for the weights that a layer uses itself.

    Whole numbers do not train: their values stand in for them.
    """
    import tensorflow as tf

    variables = own_weights(layer)
    if not variables:
        yield
        return
    stand_ins = {}
    for variable in variables:
        if tf.as_dtype(variable.dtype).is_floating:
            stand_ins[id(variable)] = own_weight_class()(variable, layer)(reference)
        else:
            stand_ins[id(variable)] = variable.numpy() if hasattr(variable, "numpy") else np.asarray(variable)
    undo: list[Callable[[], None]] = []
    tracked = {id(list_) for list_ in (layer._trainable_variables, layer._non_trainable_variables)}
    for key, value in list(layer.__dict__.items()):
        if id(value) in tracked:
            continue
        if id(value) in stand_ins:
            undo.append(functools.partial(layer.__dict__.__setitem__, key, value))
            layer.__dict__[key] = stand_ins[id(value)]
        elif isinstance(value, list | dict):
            places = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
            setter = dict.__setitem__ if isinstance(value, dict) else list.__setitem__
            for place, element in places:
                if id(element) in stand_ins:
                    undo.append(functools.partial(setter, value, place, element))
                    setter(value, place, stand_ins[id(element)])
    try:
        yield
    finally:
        for restore in undo:
            restore()


def _calls_between(given: dict[int, Any], outputs: Iterable[Any]) -> list[GraphNode]:
    """The calls that lead from some symbolic tensors to others, producers first."""
    found: dict[int, GraphNode] = {}
    done: set[int] = set()
    waiting = [(tensor, False) for tensor in outputs][::-1]
    while waiting:
        tensor, is_ready = waiting.pop()
        if id(tensor) in given or not _has_history(tensor):
            continue
        operation, number, _ = tensor._keras_history
        if operation is None:
            continue
        node = operation._inbound_nodes[number]
        if is_ready:
            if id(node) not in found:
                found[id(node)] = _as_graph_node(node)
        elif id(node) not in done:
            done.add(id(node))
            if not node.is_input:
                waiting.append((tensor, True))
                waiting += [(taken, False) for taken in reversed(node.input_tensors)]
    return list(found.values())


def _as_graph_node(node: Any) -> GraphNode:
    arguments = node.arguments
    inputs, outputs = list(node.input_tensors), list(node.output_tensors)
    return GraphNode(node.operation, node, tuple(arguments.args), arguments.kwargs, inputs, outputs)


def _check_constants(node: GraphNode) -> None:
    """See that no weight is a constant among a call's arguments.

    Raises:
        _NotUnfolded: there is one. In a smaller model it would be shared with the user's model.
    """
    import tensorflow as tf

    for leaf in nest(keras_3=True).flatten((node.args, node.kwargs)):
        if isinstance(leaf, keras_module(KERAS_3).Variable | tf.Variable):
            raise _NotUnfolded("it uses weights outside of the layers that hold them")


def _first_line(error: Exception) -> str:
    """An error in one short line; Keras puts what happened behind a heading in colour."""
    lines = [line.strip() for line in re.sub("\x1b\\[[0-9;]*m", "", str(error)).splitlines()]
    lines = [line for line in lines if line and not line.startswith("Exception encountered")]
    return (lines[0] if lines else type(error).__name__)[:100].rstrip(".")


# Calls in which the size of the batch has come to stand


def _is_marked(size: Any) -> bool:
    return isinstance(size, int | np.integer) and size > 0 and size % _BATCH == 0


def _holds_mark(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_holds_mark, value))
    if isinstance(value, slice):
        return any(map(_is_marked, (value.start, value.stop, value.step)))
    return _is_marked(value) or any(map(_is_marked, getattr(value, "shape", None) or ()))


_TAKE_SIZES = ("reshape", "broadcastto", "tile", "repeat", "slice", "full", "arange")


def _holds_none(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(part is None for part in value)


def _for_any_batch(node: GraphNode, args: tuple, kwargs: dict[str, Any], reference: Any) -> Any:
    """Call a function in the graph whose arguments may hold the marked size; what it gives fits every batch.

    Raises:
        _NotUnfolded: it is not known how.
    """
    function = node.layer
    arguments = function_arguments(function, args, kwargs)
    if function_name(function) in _TAKE_SIZES and any(map(_holds_none, arguments.values())):
        raise _NotUnfolded(f"{function_name(function)} is called on a size that is not fixed")
    marked = [name for name, value in arguments.items() if not _is_symbolic(value) and _holds_mark(value)]
    if not marked:
        return call_function(function, args, kwargs, {})
    ops, name = keras_module(KERAS_3).ops, function_name(function)
    x = next((value for value in arguments.values() if _is_symbolic(value)), None)
    if name == "reshape":
        sizes = tuple(-1 if size is None or _is_marked(size) else size for size in node.outputs[0].shape)
        if sizes.count(-1) == 1:
            return ops.reshape(x, sizes)
        if sizes.count(-1) == 2 and sizes[0] == -1 and node.outputs[0].shape[0] == node.inputs[0].shape[0]:
            return keras_module(KERAS_3).layers.Reshape(sizes[1:])(x)
    elif name in _ELEMENTWISE:
        changes = {key: _one_sample(arguments[key]) for key in marked}
        if all(value is not None for value in changes.values()):
            return call_function(function, args, kwargs, changes)
    elif name == "broadcastto" and not any(map(_is_marked, arguments["shape"][1:])):
        shape = tuple(arguments["shape"])
        if len(x.shape) < len(shape) or x.shape[0] == 1:
            return _for_each_sample(ops.broadcast_to(x, (1, *shape[1:])), reference)
        if tuple(x.shape[1:]) == shape[1:]:
            return x
    elif name == "tile" and x.shape[0] == 1 and _is_marked(arguments["repeats"][0]):
        repeats = tuple(arguments["repeats"])
        if not any(map(_is_marked, repeats[1:])):
            tiled = x if set(repeats[1:]) <= {1} else ops.tile(x, (1, *repeats[1:]))
            return _for_each_sample(tiled, reference)
    elif name == "repeat" and arguments["axis"] == 0 and x.shape[0] == 1:
        return _for_each_sample(x, reference)
    raise _NotUnfolded(f"{name} is called on the size of the batch")


# Functions that broadcast: what is the same for all samples may be given once.
_ELEMENTWISE = "add subtract multiply divide truedivide minimum maximum logicaland logicalor greater less where".split()


def _one_sample(value: Any) -> Any:
    """A constant that is the same for all samples, for one; None where it is not."""
    values = np.asarray(value) if getattr(value, "shape", ()) else None
    if values is None or values.shape[0] != _BATCH or not (values == values[:1]).all():
        return None
    return value[:1]


def _for_each_sample(x: Any, reference: Any) -> Any:
    """A symbolic tensor `(1, ...)` once for each sample of another tensor: it is multiplied by a one for each.

    Zeros would not do: Keras takes a vector that is added for a bias where there are as many samples as channels.
    """
    ops = keras_module(KERAS_3).ops
    one = ops.ones_like(ops.sum(reference, axis=tuple(range(1, len(reference.shape)))), dtype=x.dtype)
    return ops.multiply(x, ops.reshape(one, (-1, *(1,) * (len(x.shape) - 1))))


@contextlib.contextmanager
def _forgetting_calls(layers: Iterable[Any]) -> Iterator[None]:
    """Let Keras 3 layers forget the calls on symbolic tensors that the body makes."""
    before = [(layer, len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in layers]
    try:
        yield
    finally:
        for layer, inbound, outbound in before:
            del layer._inbound_nodes[inbound:], layer._outbound_nodes[outbound:]
