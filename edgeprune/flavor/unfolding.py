"""Composite layers and subclassed models of Keras 3 replaced by the calls that they make inside.

A layer's call is made once on symbolic tensors, and the calls inside are then made again one by one in a Functional
model. `marked_batch` sees to calls that ask for the size of the batch, `own_weights` to weights that the layer uses
itself.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from edgeprune.flavor.copies import clone_input, clone_wrapper, functional_model
from edgeprune.flavor.error_lines import first_line, line_of_layer
from edgeprune.flavor.functions import call_function
from edgeprune.flavor.graphs import (
    GraphNode,
    call_specs,
    function_name,
    graph_node,
    graph_nodes,
    input_layer,
    is_nested,
    is_time_distributed,
    node_parts,
)
from edgeprune.flavor.inner_calls import called_in_place, made_symbolic, symbolic_leaves
from edgeprune.flavor.inner_calls_tf_keras import called_in_tf_keras, takes_training
from edgeprune.flavor.kinds import (
    KERAS_3,
    is_keras_3,
    is_model,
    keras_module,
    keras_of,
    layers_of,
    nest,
    weights_of,
)
from edgeprune.flavor.marked_batch import (
    BATCH,
    NotUnfoldedError,
    adds_a_loss,
    call_for_any_batch,
    einsum_sizes_kept,
    holds_mark,
    is_marked,
    is_symbolic,
    uses_weight_of_others,
    with_marked_batch,
)
from edgeprune.flavor.own_weights import is_own_weight
from edgeprune.flavor.training import losses_restored
from edgeprune.types import AnyTensor, Layer, Model


def functional_stand_in(model: Model) -> Any:
    """A Functional model with the layers of a subclassed model: its call, made once on symbolic inputs.

    The layers do not remember that call.

    Raises:
        ValueError: it is not built, or its call cannot be made symbolically or uses weights outside of the layers that
            hold them.
    """
    keras, tree = keras_of(model), nest(is_keras_3(model))
    inputs = tree.map_structure(
        lambda spec: keras.Input(tuple(spec.shape)[1:], dtype=spec.dtype.name), call_specs(model)
    )
    with _forgetting_calls([model, *layers_of(model)]), einsum_sizes_kept():
        try:
            given = _Unfolding(lambda layer: False, is_keras_3(model)).calls_inside(model, (inputs,), {})
            return keras.Model(inputs, given, name=model.name)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"The call of model {model.name!r} cannot be made on symbolic inputs: {reason}") from error


def unfold_layers(
    model: Model, unfolds: Callable[[Any], bool], *, keeps_losses: bool = False
) -> tuple[Any, dict[int, str], dict[int, str], dict[int, str]]:
    """A Functional model in which some composite layers are replaced by the calls they make inside.

    Args:
        model: a Functional or Sequential model; it is not changed, and its layers do not remember the new calls.
        unfolds: whether to look inside a layer.
        keeps_losses: whether layers that add a loss in training stay as they are.

    Returns:
        A Functional model of the same layers, or `model` itself where there is nothing to unfold; in models nested in
        it layers are replaced too. By `id` new names for the layers inside, which need not have different names:
        those on the way to them, joined. By `id` the reasons why layers are not changed. And by `id` the names of the
        unfolded layers that add a loss in training, which the new model does not.
    """
    unfolding = _Unfolding(unfolds, is_keras_3(model), keeps_losses)
    with _forgetting_calls([model, *layers_of(model)]), einsum_sizes_kept():
        return unfolding.model(model), unfolding.names, unfolding.reasons, unfolding.losses


def functions_inside(function: Callable[[Any], Any]) -> list[str] | None:
    """The names of the functions that a function of one tensor is made of; None where that cannot be seen.

    Args:
        function: it is called on a symbolic tensor of Keras 3 `(batch, 8)`, and should return one like it.
    """
    x = keras_module(KERAS_3).KerasTensor((BATCH, 8))
    try:
        given = function(x)
        nodes = list(_calls_between({id(x): x}, [given]))
        for node in nodes:
            _check_constants(node)
            if any(
                getattr(leaf, "shape", ())
                for leaf in nest(keras_3=True).flatten((node.args, node.kwargs))
                if not is_symbolic(leaf)
            ):
                return None
    except Exception:  # it may fail on symbolic tensors in any way
        return None
    names = [function_name(node.layer) for node in nodes]
    known = [name for name in names if name is not None]
    return known if given.shape == x.shape and len(known) == len(names) else None


class _Unfolding:
    """One unfolding of a model, with those nested in it."""

    def __init__(self, unfolds: Callable[[Any], bool], keras_3: bool, keeps_losses: bool = False) -> None:
        self._keras_3 = keras_3
        self._tree = nest(keras_3)
        self.names: dict[int, str] = {}
        self._unfolds = unfolds
        self._keeps_losses = keeps_losses
        self.reasons: dict[int, str] = {}
        self.losses: dict[int, str] = {}
        self._samples: dict[int, tuple[Any, int]] = {}  # by `id`: a tensor with several samples for each of the model's
        self._models: dict[int, Any] = {}
        self._wrappers: dict[int, Any] = {}
        self._calls: Counter[int] = Counter()
        self._shared: set[int] = set()

    def model(self, model: Model, shapes: list[tuple[int | None, ...] | None] | None = None) -> Any:
        """The model, or one of the same layers without the composite ones; the same for all calls of it.

        `shapes` are those of the inputs, where they are less open than the model's own.
        """
        if id(model) not in self._models:
            self._models[id(model)] = self._unfolded(model, shapes) if self._has_composites(model) else model
        return self._models[id(model)]

    def _has_composites(self, model: Model) -> bool:
        return any(self._is_entered(node.layer) for node in graph_nodes(model)[1])

    def _is_entered(self, layer: Layer) -> bool:
        while is_time_distributed(layer):
            layer = layer.layer
        return self._has_composites(layer) if is_nested(layer) else self._unfolds(layer)

    def _unfolded(self, model: Model, shapes: list[tuple[int | None, ...] | None] | None) -> Any:
        tree = self._tree
        inputs, nodes, outputs = graph_nodes(model)
        self._calls.update(id(node.layer) for node in nodes)
        layers = [node.layer for node in nodes if function_name(node.layer) is None]
        outside = {id(part) for one in layers if not is_nested(one) for part in one._flatten_layers()}
        self._shared |= {
            id(one) for one in layers if is_nested(one) and any(id(part) in outside for part in layers_of(one))
        }
        shapes = [None] * len(inputs) if shapes is None else shapes
        new_inputs = [
            clone_input(input_layer(tensor), shape).output for tensor, shape in zip(inputs, shapes, strict=True)
        ]
        tensors = dict(zip(map(id, inputs), new_inputs, strict=True))
        taken = {node.layer.name for node in nodes if not self._unfolds(node.layer)}
        taken |= {input_layer(tensor).name for tensor in inputs}
        # Not `run_calls`: it enters every nested model, which is one call here where nothing in it is unfolded, and
        # passes on values, where a call is made again from its own arguments, of which the tensors are a part.
        for node in nodes:
            self._make(node, tensors)
        new_outputs = tree.map_structure(lambda tensor: tensors[id(tensor)], outputs)
        with self._renamed(new_outputs, taken):
            return functional_model(model, new_inputs, new_outputs)

    def _make(self, node: GraphNode, tensors: dict[int, Any]) -> None:
        """Make a call of a graph again, on `tensors[id(old)]` in place of the old tensors, and add what it returns."""
        args, kwargs = node.filled(tensors)
        layer, given = node.layer, None
        if id(layer) not in self.reasons and self._unfolds(layer):
            try:
                reference = symbolic_leaves((args, kwargs))[0]
                given = self._tree.flatten(self.calls_inside(layer, args, kwargs))
                given = [made_symbolic(leaf, reference) if self._keras_3 else leaf for leaf in given]
                if len(given) != len(node.outputs):
                    raise NotUnfoldedError("it returns other tensors than before")
                if not self._keras_3 and list(map(_has_mask, given)) != list(map(_has_mask, node.outputs)):
                    raise NotUnfoldedError("its inner calls return other masks")
            except Exception as error:  # a call may fail on symbolic inputs in any way
                self.reasons[id(layer)] = _what_stopped(error)
                given = None
        if given is None:
            given = self._tree.flatten(self._called(node, args, kwargs, tensors))
        tensors.update(zip(map(id, node.outputs), given, strict=True))
        if self._keras_3:
            self._count_samples(node, [tensors[id(tensor)] for tensor in node.inputs], given)

    def _samples_of(self, tensor: AnyTensor) -> int:
        return self._samples.get(id(tensor), (None, 1))[1]

    def _count_samples(self, node: GraphNode, taken: list[Any], given: list[Any]) -> None:
        """Note what a call returns several samples of for each of the model's: places may be folded into the batch."""
        times = max(map(self._samples_of, taken), default=1)
        for old, new in zip(node.outputs, given, strict=True):
            own = old.shape[0] // BATCH if old.shape and is_marked(old.shape[0]) else times
            if own > 1:
                self._samples.setdefault(id(new), (new, own))

    def _called(self, node: GraphNode, args: tuple, kwargs: dict[str, Any], tensors: dict[int, Any]) -> Any:
        layer = node.layer
        if is_time_distributed(layer) and self._is_entered(layer):
            return self._on_each_step(layer, args, kwargs)(*args, **kwargs)
        if is_nested(layer):
            taken = symbolic_leaves((args, kwargs))
            if id(layer) in self._shared:
                return self._entered(layer, taken)
            called_once = self._calls[id(layer)] == 1 and len(taken) == len(graph_nodes(layer)[0])
            shapes: list[tuple[int | None, ...] | None] | None = (
                [(None, *tensor.shape[1:]) for tensor in taken] if called_once else None
            )
            return self.model(layer, shapes)(*args, **kwargs)
        if function_name(layer) is None or is_own_weight(layer):
            return layer(*args, **kwargs)
        if not self._keras_3:  # whose functions accept the size of the batch as a symbolic tensor
            return call_function(layer, args, kwargs, {})
        return call_for_any_batch(node, args, kwargs, tensors.get(_REFERENCE))

    def _on_each_step(self, wrapper: Layer, args: tuple, kwargs: dict[str, Any]) -> Any:
        """`TimeDistributed` around a model of the calls that are made on each step; the same for all its calls."""
        if id(wrapper) not in self._wrappers:
            (x,) = symbolic_leaves((args, kwargs))[:1]
            inner = wrapper.layer
            try:
                if getattr(x, "_keras_mask", None) is not None and not is_nested(inner):
                    raise NotUnfoldedError("the steps it is called on have a mask")
                self._wrappers[id(wrapper)] = clone_wrapper(wrapper, self._for_a_step(inner, x))
            except Exception as error:  # a call may fail on symbolic inputs in any way
                self.reasons[id(wrapper)] = _what_stopped(error)
                self._wrappers[id(wrapper)] = wrapper
        return self._wrappers[id(wrapper)]

    def _for_a_step(self, inner: Model, x: AnyTensor) -> Any:
        """What is called on a step of a symbolic tensor, as a model where calls are made inside."""
        if is_nested(inner):
            return self.model(inner)
        keras = keras_of(inner)
        step = keras.Input(x.shape[2:], dtype=x.dtype)
        if is_time_distributed(inner):
            return clone_wrapper(inner, self._for_a_step(inner.layer, step))
        outputs = self.calls_inside(inner, (step,), {})
        with self._renamed(outputs, set()):
            return keras.Model(step, outputs, name=inner.name)

    def _entered(self, model: Model, taken: list[Any]) -> Any:
        """The calls of a nested model on some tensors: a layer shared with the outside is two in a file."""
        inputs, nodes, outputs = graph_nodes(model)
        tensors = dict(zip(map(id, inputs), taken, strict=True))
        for node in nodes:
            if function_name(node.layer) is None:
                self.names.setdefault(id(node.layer), f"{model.name}_{node.layer.name}")
            self._make(node, tensors)
        return self._tree.map_structure(lambda tensor: tensors[id(tensor)], outputs)

    def calls_inside(self, layer: Layer, args: tuple, kwargs: dict[str, Any]) -> Any:
        """What a layer returns for symbolic tensors, by the calls that it makes inside.

        Raises:
            Exception: whatever it raises when it is called on symbolic tensors.
        """
        tree = self._tree
        symbolic = symbolic_leaves((args, kwargs))
        marked = {
            id(tensor): with_marked_batch(tensor, self._samples_of(tensor)) if self._keras_3 else tensor
            for tensor in symbolic
        }
        masks = {}
        for tensor in symbolic:
            mask = getattr(tensor, "_keras_mask", None)
            if mask is not None:
                masks[id(mask)] = (mask, marked[id(tensor)]._keras_mask)
        inner_args, inner_kwargs = tree.map_structure(lambda leaf: marked.get(id(leaf), leaf), (args, kwargs))
        reference = marked[id(symbolic[0])]
        outputs, adds_losses = self._called_in_place(layer, reference, inner_args, inner_kwargs)
        if adds_losses:
            raise adds_a_loss()
        if not is_model(layer) and takes_training(layer):
            in_training, adds_losses = self._called_in_place(layer, reference, inner_args, inner_kwargs, training=True)
            if _signatures(outputs) != _signatures(in_training):
                raise NotUnfoldedError("it makes other calls in training")
            if adds_losses and self._keeps_losses:
                raise adds_a_loss()
            if adds_losses:
                self.losses[id(layer)] = self.names.get(id(layer), layer.name)
        tensors = {id(marked[id(tensor)]): tensor for tensor in symbolic}
        tensors.update({id(stand_in): mask for mask, stand_in in masks.values()})
        tensors[_REFERENCE] = symbolic[0]
        if not is_model(layer):
            self._name_parts(layer)
        flat = tree.flatten(outputs)
        if any(holds_mark(leaf) for leaf in flat if not is_symbolic(leaf)):
            raise NotUnfoldedError("it returns a constant for each sample")
        given_masks = [tensor._keras_mask for tensor in flat if getattr(tensor, "_keras_mask", None) is not None]
        nodes = list(_calls_between(tensors, [*symbolic_leaves(outputs), *given_masks]))
        if not nodes and weights_of(layer):
            raise NotUnfoldedError("it makes no calls")
        for node in nodes:
            _check_constants(node)
            self._make(node, tensors)
        for tensor in symbolic_leaves(outputs):
            new = tensors[id(tensor)]
            if self._keras_3 and _has_mask(tensor) and not _has_mask(new):
                new._keras_mask = tensors[id(tensor._keras_mask)]
        return tree.map_structure(lambda leaf: tensors.get(id(leaf), leaf), outputs)  # some may be constants

    def _called_in_place(
        self, layer: Layer, reference: AnyTensor, args: tuple, kwargs: dict[str, Any], training: bool = False
    ) -> tuple[Any, bool]:
        """What a layer returns for symbolic tensors, and whether it adds losses; composite layers inside are entered.

        Those need not return tensors alone when they are called inside another, nor do all declare their outputs. Where
        that fails they are called as layers, and entered one by one.
        """
        if not self._keras_3:
            return called_in_tf_keras(layer, reference, args, kwargs, training), False
        composites = [part for part in layer._flatten_layers(include_self=False) if self._unfolds(part)]
        try:
            return called_in_place([layer, *composites], reference, args, kwargs, training)
        except Exception:  # whatever a layer raises that is called on symbolic tensors
            if not composites:
                raise
            return called_in_place([layer], reference, args, kwargs, training)

    def _name_parts(self, layer: Layer) -> None:
        name = self.names.get(id(layer), layer.name)
        for part in layer._flatten_layers(recursive=False, include_self=False):
            self.names.setdefault(id(part), f"{name}_{part.name}")
            if self._unfolds(part):
                self._name_parts(part)

    @contextlib.contextmanager
    def _renamed(self, outputs: object, taken: set[str]) -> Iterator[None]:
        """While the body runs, the layers that lead to these tensors have their new names, each another."""
        before, key = {}, "name" if self._keras_3 else "_name"
        for node in _calls_between({}, self._tree.flatten(outputs)):
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
            layer.__dict__[key] = name
        try:
            yield
        finally:
            for layer, name in before.values():
                layer.__dict__[key] = name


_REFERENCE = -1  # no `id` of an object: the key of a tensor that has the batch of the call that is looked into


def _what_stopped(error: Exception) -> str:
    """Why a call could not be followed, and the line of the layer's own code that stopped it."""
    line = line_of_layer(error)
    return f"{first_line(error)}; {line}" if line else first_line(error)


def _signatures(outputs: object) -> list[Any]:
    """What is called to compute some symbolic tensors: layers, and functions by their names."""
    nodes = _calls_between({}, symbolic_leaves(outputs))
    return [function_name(node.layer) or id(node.layer) for node in nodes]


def _has_mask(tensor: AnyTensor) -> bool:
    return getattr(tensor, "_keras_mask", None) is not None


def _has_history(tensor: AnyTensor) -> bool:
    return getattr(tensor, "_keras_history", None) is not None


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
                found[id(node)] = graph_node(node)
        elif id(node) not in done:
            done.add(id(node))
            if not node.is_input:
                waiting.append((tensor, True))
                waiting += [(taken, False) for taken in reversed(node_parts(node)[1])]
    return list(found.values())


def _check_constants(node: GraphNode) -> None:
    """Check that no weight is a constant among a call's arguments.

    Raises:
        NotUnfoldedError: there is one. In a smaller model it would be shared with the user's model.
    """
    import tensorflow as tf

    for leaf in nest(keras_3=True).flatten((node.args, node.kwargs)):
        if isinstance(leaf, keras_module(KERAS_3).Variable | tf.Variable):
            raise uses_weight_of_others(leaf)


@contextlib.contextmanager
def _forgetting_calls(layers: Iterable[Layer]) -> Iterator[None]:
    """Let Keras 3 layers forget the calls on symbolic tensors that the body makes."""
    layers = list(layers)
    before = [(layer, len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in layers]
    try:
        with losses_restored(layers):
            yield
    finally:
        for layer, inbound, outbound in before:
            del layer._inbound_nodes[inbound:], layer._outbound_nodes[outbound:]
