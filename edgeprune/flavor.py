"""The one room that knows there are two Kerases: `keras` 3 and the legacy `tf_keras`.

Everything else asks here: which Keras does this model belong to, what are its layers, who feeds whom.
Importing this module imports neither of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import inspect
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

KERAS_3 = "keras"
TF_KERAS = "tf_keras"


def flavor_of(keras_object: Any) -> str:
    """Tell which Keras a model, layer, optimizer or callback belongs to.

    Args:
        keras_object: any object whose class derives from a class of `keras` 3 or of `tf_keras`.

    Returns:
        `"keras"` or `"tf_keras"`: the name of the package.

    Raises:
        TypeError: the object belongs to neither.

    Example:
        >>> import keras, edgeprune.flavor
        >>> edgeprune.flavor.flavor_of(keras.layers.Dense(1))
        'keras'
    """
    packages = {cls.__module__.partition(".")[0] for cls in type(keras_object).__mro__}
    if TF_KERAS in packages:
        return TF_KERAS
    if KERAS_3 in packages:
        return KERAS_3
    raise TypeError(
        f"Expected a model or a layer of `keras` 3 or `tf_keras`, got {type(keras_object).__name__}: "
        f"{str(keras_object)[:80]}"
    )


def is_keras_3(keras_object: Any) -> bool:
    """Whether the object belongs to Keras 3 (otherwise to `tf_keras`)."""
    return flavor_of(keras_object) == KERAS_3


def keras_module(flavor: str) -> ModuleType:
    """Import and return the `keras` or the `tf_keras` package."""
    if flavor == KERAS_3:
        keras = importlib.import_module(KERAS_3)
        if keras.backend.backend() != "tensorflow":
            raise RuntimeError(
                f"edgeprune needs Keras on the TensorFlow backend, and it runs on {keras.backend.backend()!r}: "
                "set KERAS_BACKEND=tensorflow before keras is imported."
            )
        return keras
    return importlib.import_module(TF_KERAS)


def keras_of(keras_object: Any) -> ModuleType:
    """The Keras package the object belongs to, so that `keras_of(model).layers.Dense` fits the model."""
    return keras_module(flavor_of(keras_object))


def is_model(keras_object: Any) -> bool:
    """Whether the object is a Keras model (of either Keras) rather than a layer or something else."""
    try:
        return isinstance(keras_object, keras_of(keras_object).Model)
    except TypeError:
        return False


def is_layer(keras_object: Any) -> bool:
    """Whether the object is a Keras layer (of either Keras); a model is a layer too."""
    try:
        return isinstance(keras_object, keras_of(keras_object).layers.Layer)
    except TypeError:
        return False


def is_graph_model(model: Any) -> bool:
    """Whether the model is Functional or Sequential, so that its graph of layers is known."""
    if is_keras_3(model):
        from keras.src.models.functional import Functional

        return isinstance(model, Functional | keras_of(model).Sequential)
    return bool(model._is_graph_network) or isinstance(model, keras_of(model).Sequential)


def layers_of(model: Any) -> Iterator[Any]:
    """Every layer inside a model, at any depth, once, models and composite layers before their parts.

    A layer that is not a model yields itself first. Layers inside layers (the dense projections of attention,
    the cells of recurrent layers, nested models) are included.
    """
    seen = {id(model)} if is_model(model) else set()
    for layer in model._flatten_layers():
        if id(layer) not in seen:
            seen.add(id(layer))
            yield layer


def layer_graph(model: Any) -> list[tuple[Any, tuple[Any, ...]]]:
    """The graph of a Functional or Sequential model: each call of a layer with the layers that feed it.

    Args:
        model: a built Functional or Sequential model of either Keras. Nested models are one layer here.

    Returns:
        Pairs `(layer, producers)` in an order in which producers come first. A shared layer appears once
        per call. In Keras 3 a function in the graph (`x + y`) is an operation and appears as a layer does.

    Raises:
        ValueError: the model is subclassed or not built.
    """
    graph, keras_3 = _graph_of(model), is_keras_3(model)

    def layer_of(node):
        return node.operation if keras_3 else node.layer

    pairs = []
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            pairs.append((layer_of(node), tuple(layer_of(parent) for parent in node.parent_nodes)))
    return pairs


def load_model(path: str | Path) -> Any:
    """Load a model of either Keras: `.keras`, `.h5`, or a SavedModel folder that `tf_keras` wrote.

    A `tf_keras` model that was saved under pruning comes back with its wrappers.

    Keras 3 is tried first, then `tf_keras`. Keras's `safe_mode` stays on: a file that carries Python
    code (a Lambda layer) is refused.

    Args:
        path: the file or the folder.

    Returns:
        A `keras.Model` or a `tf_keras.Model`.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: neither Keras can read it; the message holds both reasons.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"No model at {path}")
    reasons = []
    flavors = (TF_KERAS,) if path.is_dir() else (KERAS_3, TF_KERAS)
    for flavor in flavors:
        try:
            with _wrappers_known(path) if flavor == TF_KERAS else contextlib.nullcontext():
                return keras_module(flavor).models.load_model(path)
        except Exception as error:  # each Keras raises many kinds; both reasons are told below
            reasons.append(f"{flavor}: {' '.join(str(error).split())[:300]}")
    raise ValueError(f"{path} could not be read as a Keras model. " + " | ".join(reasons))


def _wrappers_known(path: Path) -> contextlib.AbstractContextManager:
    """What `tf_keras` needs to load a file: TF-MOT's scope where the model was saved under pruning."""
    if path.is_dir():
        written = path / "keras_metadata.pb"
        content = written.read_bytes() if written.exists() else b""
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            content = archive.read("config.json") if "config.json" in archive.namelist() else b""
    else:
        content = path.read_bytes()
    return import_tfmot().sparsity.keras.prune_scope() if b"PruneLowMagnitude" in content else contextlib.nullcontext()


@functools.cache
def import_tfmot() -> ModuleType:
    """Import TensorFlow Model Optimization without changing what `tf.keras` means in this process.

    TF-MOT sets `TF_USE_LEGACY_KERAS=1` when it is imported, and `tf.keras` decides which Keras it is at
    its first use. So `tf.keras` is made to decide first, and the variable is put back afterwards.
    """
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    import tensorflow as tf

    _ = tf.keras.layers  # the first use
    try:
        return importlib.import_module("tensorflow_model_optimization")
    finally:
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = before


@dataclasses.dataclass(frozen=True)
class LayerCall:
    """One call of a layer in a model's graph, with nested models unfolded.

    Attributes:
        layer: the layer (in Keras 3 also the operation behind `x + y`).
        producers: positions, in the list of calls, of the calls that feed this one.
        input_shapes: the shape of each tensor it is called on, `None` for a size that is not fixed.
    """

    layer: Any
    producers: tuple[int, ...]
    input_shapes: tuple[tuple[int | None, ...], ...]


def layer_calls(model: Any) -> tuple[list[LayerCall], tuple[int, ...]]:
    """The graph of a Functional or Sequential model as a flat list of calls: nested models are unfolded.

    Args:
        model: a built Functional or Sequential model of either Keras.

    Returns:
        The calls, producers first, beginning with the model's input layers; and the positions of the calls
        that give the model's outputs.

    Raises:
        ValueError: the model, or one nested in it, is subclassed or not built.
    """
    graph = _graph_of(model)
    calls = [LayerCall(tensor._keras_history[0], (), (tuple(tensor.shape),)) for tensor in graph.inputs]

    def unfold(graph: Any, feeds: Sequence[int]) -> list[int]:
        producer = dict(zip(map(id, graph.inputs), feeds, strict=True))
        for node in _ordered_nodes(graph):
            layer, inputs, outputs = _node_parts(node)
            feeds = [producer[id(tensor)] for tensor in inputs]
            if is_model(layer):
                gives = unfold(_graph_of(layer), feeds)
            else:
                calls.append(LayerCall(layer, tuple(feeds), tuple(tuple(t.shape) for t in inputs)))
                gives = [len(calls) - 1] * len(outputs)
            producer.update(zip(map(id, outputs), gives, strict=True))
        return [producer[id(tensor)] for tensor in graph.outputs]

    return calls, tuple(unfold(graph, range(len(calls))))


def rebuild(model: Any, call: Callable[[Any, tuple, dict], Any]) -> Any:
    """Walk a Functional or Sequential model and build a new one: each layer's call is made by `call`.

    Args:
        model: a built Functional or Sequential model of either Keras; it is not touched.
        call: `call(layer, args, kwargs)` is given the old layer (in Keras 3 also the operation behind
            `x + y`) with the arguments of its call, the new graph's tensors in place of the old ones, and
            returns the new graph's outputs. Nested models are one layer.

    Returns:
        A Functional model with the same name and the same structure of inputs and outputs.

    Raises:
        ValueError: the model is subclassed or not built.
    """
    graph, keras_3 = _graph_of(model), is_keras_3(model)
    tensors = {id(old): clone_layer(old._keras_history[0]).output for old in graph.inputs}
    for node in _ordered_nodes(graph):
        layer, inputs, outputs = _node_parts(node)
        if keras_3:
            args, kwargs = node.arguments.fill_in(tensors)
        else:  # `map_arguments` takes one tensor from the list for each use
            uses: dict[str, list] = {}
            for old in inputs:
                uses.setdefault(str(id(old)), []).append(tensors[id(old)])
            args, kwargs = node.map_arguments(uses)
        made = _nest(keras_3).flatten(call(layer, args, kwargs))
        tensors.update(zip(map(id, outputs), made, strict=True))
    inputs, outputs = (
        (graph._inputs_struct, graph._outputs_struct) if keras_3 else (graph._nested_inputs, graph._nested_outputs)
    )
    keras = keras_of(model)
    map_structure = _nest(keras_3).map_structure
    return keras.Model(
        map_structure(lambda old: tensors[id(old)], inputs),
        map_structure(lambda old: tensors[id(old)], outputs),
        name=model.name,
    )


def clone_layer(layer: Any, inside: Mapping[int, dict[str, Any]] | None = None, **changes: Any) -> Any:
    """A new layer with the same configuration but for `changes`, without its weights.

    A function in the graph of a Keras 3 model (the operation behind `x + y`) has no state and is returned
    as it is.

    Args:
        layer: the layer.
        inside: `id` of a layer inside this one to changes of its configuration.
        changes: entries of the configuration with their new values.
    """
    if not is_layer(layer):
        return layer
    keras, kind = keras_of(layer), layer.__class__
    if isinstance(layer, keras.layers.Lambda):
        # Its configuration holds the function's code without what the code refers to.
        kept = {name: value for name, value in layer.get_config().items() if name in ("name", "trainable", "dtype")}
        return kind(layer.function, layer._output_shape, layer.mask, layer.arguments, **kept)
    config = _changed_config(layer, changes, inside or {})
    # Layers inside are made by their class's name.
    custom = {type(part).__name__: type(part) for part in layer._flatten_layers(include_self=False)}
    if not custom:
        return kind.from_config(config)
    with keras.utils.custom_object_scope(custom):
        return kind.from_config(config)


def _changed_config(layer: Any, changes: dict[str, Any], inside: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    config = {**layer.get_config(), **changes}
    for key, value in config.items():
        part = _part_of(layer, key)
        if isinstance(value, dict) and "config" in value and is_layer(part):
            config[key] = _changed_part(part, value, inside)
        elif isinstance(value, list) and isinstance(part, list | tuple) and part and all(map(is_layer, part)):
            config[key] = [_changed_part(*pair, inside) for pair in zip(part, value, strict=True)]
    return config


def _changed_part(part: Any, serialized: dict[str, Any], inside: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """A layer inside another's configuration; the shapes that it was built for are left out."""
    kept = {key: value for key, value in serialized.items() if key != "build_config"}
    config = _changed_config(part, inside.get(id(part), {}), inside)
    if "name" in config:  # Bidirectional renames its parts
        config["name"] = serialized["config"]["name"]
    return {**kept, "config": config}


def _part_of(layer: Any, key: str) -> Any:
    """The layer that an entry of a layer's configuration describes."""
    if key == "layer" and hasattr(layer, "forward_layer"):  # Bidirectional works on copies of what it is given
        return layer.forward_layer
    return getattr(layer, key, None)


def producer_of(tensor: Any) -> tuple[Any, list[Any]]:
    """The layer that made a symbolic tensor, and the symbolic tensors it was called on."""
    layer, node_index, _ = tensor._keras_history
    _, inputs, _ = _node_parts(layer._inbound_nodes[node_index])
    return layer, inputs


def function_name(layer: Any) -> str | None:
    """The name of the function that a call in the graph stands for, without its module; None for a layer.

    `x + y` is "add" on both Kerases, `keras.ops.relu6` and `tf.nn.relu6` are "relu6".
    """
    symbol = getattr(layer, "symbol", None) if is_layer(layer) else layer.__class__.__name__
    return symbol.rpartition(".")[2].lower().replace("_", "") if isinstance(symbol, str) else None


def _graph_of(model: Any) -> Any:
    """The object that holds the nodes of a model; ValueError where there is none."""
    if not is_graph_model(model):
        raise ValueError(
            f"Model {model.name!r} is subclassed, so its graph of layers is not known; "
            "a Functional or Sequential model is needed here."
        )
    if not model.built:
        raise ValueError(f"Model {model.name!r} is not built: call it on an input or give it an Input first.")
    return model._functional if is_keras_3(model) and hasattr(model, "_functional") else model


def _ordered_nodes(graph: Any) -> Iterator[Any]:
    """The calls of layers in a graph, producers first, without its inputs."""
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        yield from (node for node in graph._nodes_by_depth[depth] if not node.is_input)


def _node_parts(node: Any) -> tuple[Any, list[Any], list[Any]]:
    """The layer that a node calls, the tensors it takes and the tensors it gives, both flat."""
    if hasattr(node, "operation"):
        return node.operation, list(node.input_tensors), list(node.output_tensors)
    return node.layer, list(node.keras_inputs), _nest(keras_3=False).flatten(node.outputs)


def _nest(keras_3: bool) -> ModuleType:
    """The module with `flatten` and `map_structure` for this Keras's nested structures."""
    return keras_module(KERAS_3).tree if keras_3 else importlib.import_module("tensorflow").nest


def layer_names(model: Any) -> dict[int, str]:
    """A name for every layer at any depth: the names on the way to it, as in `"block/conv"`.

    Args:
        model: a model or a layer of either Keras.

    Returns:
        `id(layer)` to name, for all of `layers_of(model)`; where several ways lead to a layer, the first.
    """
    names: dict[int, str] = {}

    def visit(parent: Any, prefix: str) -> None:
        for layer in parent._flatten_layers(recursive=False, include_self=False):
            if id(layer) not in names:
                names[id(layer)] = prefix + layer.name
                visit(layer, f"{prefix}{layer.name}/")

    if not is_model(model):
        names[id(model)] = model.name
    visit(model, "")
    return names


def call_specs(model: Any) -> Any:
    """What a model is called on: its inputs' shapes and dtypes with a batch of one, structured as in its call.

    Args:
        model: a built model of either Keras; a subclassed one must have been called or built once.

    Returns:
        A `tf.TensorSpec`, or a list, tuple or dict of them. Of a subclassed Keras 3 model the dtype is not
        known and taken for float32.

    Raises:
        ValueError: the model is not built.
    """
    import tensorflow as tf

    keras_3 = is_keras_3(model)

    def spec(tensor: Any) -> tf.TensorSpec:
        return tf.TensorSpec((1, *tuple(tensor.shape)[1:]), tensor.dtype, name=tensor.name)

    if is_graph_model(model):
        graph = _graph_of(model)
        return _nest(keras_3).map_structure(spec, graph._inputs_struct if keras_3 else graph._nested_inputs)
    if not keras_3 and model.save_spec() is not None:
        (inputs, *_), _ = model.save_spec()
        return _nest(keras_3).map_structure(spec, inputs)
    shapes = list((getattr(model, "_build_shapes_dict", None) or {}).values()) if keras_3 else []
    if len(shapes) != 1:
        raise ValueError(
            f"Model {model.name!r} is subclassed and its inputs are not known: call it once on an example."
        )
    shape = shapes[0]
    if isinstance(shape, dict):
        return {name: tf.TensorSpec((1, *part[1:])) for name, part in shape.items()}
    if isinstance(shape[0], tuple | list):
        return [tf.TensorSpec((1, *part[1:])) for part in shape]
    return tf.TensorSpec((1, *shape[1:]))


CALLBACK_HOOKS = tuple(
    f"on_{moment}"
    for what in ("train", "test", "predict")
    for moment in (f"{what}_begin", f"{what}_end", f"{what}_batch_begin", f"{what}_batch_end")
) + ("on_epoch_begin", "on_epoch_end")


@functools.cache
def callback_class() -> type:
    """A base class for callbacks that work in the `fit` of either Keras.

    It is Keras 3's `Callback` with the three questions that only `tf_keras` asks of a callback.
    """
    keras = keras_module(KERAS_3)

    class Callback(keras.callbacks.Callback):
        """A callback for both Kerases."""

        def _implements_train_batch_hooks(self) -> bool:
            return True

        def _implements_test_batch_hooks(self) -> bool:
            return True

        def _implements_predict_batch_hooks(self) -> bool:
            return True

    return Callback


def input_names(model: Any) -> list[str] | None:
    """The names of a model's inputs as a converted file has them, in the model's order; None if subclassed."""
    if not is_graph_model(model):
        return None
    graph = _graph_of(model)
    return [tensor.name for tensor in graph.inputs] if is_keras_3(model) else list(graph.input_names)


def pack_inputs(model: Any, arrays: Sequence[Any]) -> Any:
    """Arrays in the order of `input_names`, put into the structure (list, dict, ...) that the model takes."""
    graph, keras_3 = _graph_of(model), is_keras_3(model)
    structure = graph._inputs_struct if keras_3 else graph._nested_inputs
    return _nest(keras_3).pack_sequence_as(structure, list(arrays))


def named_outputs(model: Any, outputs: Any) -> dict[str, Any]:
    """What a model returned, by the names that a file converted from it gives its outputs.

    Args:
        model: a model of either Keras.
        outputs: what its call or `predict` returned: an array, a list, a tuple or a dict.

    Returns:
        Name to array: the keys of a dict; the names of the layers that made the outputs, numbered where they
        repeat; `output_0`, `output_1`, ... for a subclassed model.
    """
    if isinstance(outputs, dict):
        return dict(outputs)
    flat = _nest(is_keras_3(model)).flatten(outputs)
    if not is_graph_model(model):
        return {f"output_{number}": array for number, array in enumerate(flat)}
    named: dict[str, Any] = {}
    for name, array in zip(_graph_of(model).output_names, flat, strict=True):
        named[name if name not in named else f"{name}_{len(named)}"] = array
    return named


def tf_variables(model: Any) -> list[Any]:
    """The model's variables, state that is not trained included, as `tf.Variable`s."""
    return [variable.value if is_keras_3(model) else variable for variable in model.variables]


@contextlib.contextmanager
def computing_in_float32(model: Any) -> Iterator[None]:
    """While the body runs, the layers of a model in mixed precision compute in float32."""
    keras_3, changed = is_keras_3(model), []

    def set_policy(layer: Any, policy: Any) -> None:
        if keras_3:
            layer.dtype_policy = policy
        else:
            layer._set_dtype_policy(policy)

    try:
        for layer in (model, *layers_of(model)):
            if layer.compute_dtype in ("float16", "bfloat16", "float64"):
                changed.append((layer, layer.dtype_policy if keras_3 else layer._dtype_policy))
                set_policy(layer, "float32")
        yield
    finally:
        for layer, policy in changed:
            set_policy(layer, policy)


def output_shapes(layer: Any) -> list[tuple[int | None, ...]]:
    """The different shapes a layer gives in the graphs it stands in; empty where it stands in none."""
    tensors = [tensor for node in getattr(layer, "_inbound_nodes", ()) for tensor in _node_parts(node)[2]]
    return list(dict.fromkeys(tuple(tensor.shape) for tensor in tensors))


def output_layers(model: Any) -> dict[str, Any]:
    """The layer behind each output of a model, by the name of the output; empty for a subclassed model."""
    if not is_graph_model(model):
        return {}
    graph, keras_3 = _graph_of(model), is_keras_3(model)
    outputs = graph._outputs_struct if keras_3 else graph._nested_outputs
    return named_outputs(model, _nest(keras_3).map_structure(lambda tensor: tensor._keras_history[0], outputs))


@dataclasses.dataclass(frozen=True, eq=False)
class GraphNode:
    """One call of a layer in a model's graph, with its arguments; a nested model is one layer.

    Attributes:
        layer: the layer (in Keras 3 also the operation behind `x + y`).
        node: the Keras object that stands for the call; one and the same at every look.
        args: the positional arguments, symbolic tensors where tensors are.
        kwargs: the keyword arguments.
        inputs: the symbolic tensors among the arguments, flat.
        outputs: the symbolic tensors it gives, flat.
    """

    layer: Any
    node: Any
    args: tuple
    kwargs: dict[str, Any]
    inputs: list[Any]
    outputs: list[Any]

    def filled(self, tensors: dict[int, Any]) -> tuple[tuple, dict[str, Any]]:
        """The arguments with `tensors[id(old)]` in place of each symbolic tensor."""
        if not self.kwargs and len(self.args) == 1 and id(self.args[0]) in tensors:
            return (tensors[id(self.args[0])],), {}
        new = {id(tensor): tensors[id(tensor)] for tensor in self.inputs}
        # The arguments hold Python values of every kind, so only identity can tell the tensors.
        return _nest(hasattr(self.node, "operation")).map_structure(
            lambda value: new.get(id(value), value), (tuple(self.args), dict(self.kwargs))
        )


def graph_nodes(model: Any) -> tuple[list[Any], list[GraphNode], Any]:
    """A model's graph as it is written down: its inputs, its calls (producers first), its outputs.

    Args:
        model: a built Functional or Sequential model of either Keras.

    Returns:
        The symbolic input tensors, flat; the calls; the symbolic outputs in the structure that the model gives.

    Raises:
        ValueError: the model is subclassed or not built.
    """
    graph, keras_3 = _graph_of(model), is_keras_3(model)
    nodes = []
    for node in _ordered_nodes(graph):
        layer, inputs, outputs = _node_parts(node)
        args, kwargs = (node.arguments.args, node.arguments.kwargs) if keras_3 else (node.call_args, node.call_kwargs)
        nodes.append(GraphNode(layer, node, tuple(args), kwargs, inputs, outputs))
    return list(graph.inputs), nodes, graph._outputs_struct if keras_3 else graph._nested_outputs


def flatten(structure: Any, keras_object: Any) -> list[Any]:
    """The leaves of a nested structure in the order in which the object's Keras takes them."""
    return _nest(is_keras_3(keras_object)).flatten(structure)


def map_structure(function: Callable[..., Any], structure: Any, keras_object: Any) -> Any:
    """The nested structure with `function` applied to each leaf, in the manner of the object's Keras."""
    return _nest(is_keras_3(keras_object)).map_structure(function, structure)


def function_arguments(function: Any, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a function in the graph by their names, wherever they are kept.

    A Keras 3 operation keeps some in its configuration and is called on the others; `tf_keras` passes all.
    """
    if is_layer(function):
        signature, settings = _signature(function.function), {}
    else:
        signature, settings = _signature(function.call), function.get_config()
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return {**settings, **bound.arguments}


def call_function(function: Any, args: tuple, kwargs: dict[str, Any], changes: dict[str, Any]) -> Any:
    """Call a function in the graph anew, with other values for some of its arguments.

    Args:
        function: the Keras 3 operation, or the function layer of `tf_keras`.
        args: the positional arguments of its call, the new tensors in place of the old.
        kwargs: the keyword arguments of its call.
        changes: argument name to new value, named as in `function_arguments`; `...` inside a tuple stands for
            what the call has there.

    Returns:
        What the call gives.
    """
    if not is_layer(function):
        settings = function.get_config()
        changed = {**settings, **{name: value for name, value in changes.items() if name in settings}}
        changes = {name: value for name, value in changes.items() if name not in settings}
        function = function.__class__.from_config(changed)
        signature = _signature(function.call)
    else:
        signature = _signature(function.function)
        function = clone_layer(function)
        changes = {name: _slices_as_dicts(value) for name, value in changes.items()}
    if changes:
        bound = signature.bind(*args, **kwargs)
        for name, value in changes.items():
            if isinstance(value, tuple) and ... in value:
                value = tuple(old if new is ... else new for old, new in zip(bound.arguments[name], value, strict=True))
            bound.arguments[name] = value
        args, kwargs = bound.args, bound.kwargs
    return function(*args, **kwargs)


@functools.cache
def _signature_of(function: Any) -> Any:
    return inspect.signature(function)


def _signature(function: Any) -> Any:
    """The signature; of a bound method, read once for its class."""
    if inspect.ismethod(function):
        signature = _signature_of(function.__func__)
        return signature.replace(parameters=list(signature.parameters.values())[1:])
    return _signature_of(function)


def input_layer(tensor: Any) -> Any:
    """The layer behind a model's symbolic input."""
    return tensor._keras_history[0]


def functional_model(like: Any, inputs: list[Any], outputs: Any) -> Any:
    """A Functional model on these tensors, of the same class and name, its inputs structured as those of `like`."""
    keras_3 = is_keras_3(like)
    if keras_3:
        from keras.src.models.functional import Functional, functional_like_constructor

        structure = like._inputs_struct
    else:
        from tf_keras.src.engine.functional import Functional

        structure = like._nested_inputs
        functional_like_constructor = functools.partial(_takes_inputs_and_outputs, Functional)
    kind = like.__class__ if functional_like_constructor(like.__class__) else Functional
    return kind(_nest(keras_3).pack_sequence_as(structure, inputs), outputs, name=like.name)


def _takes_inputs_and_outputs(functional: type, kind: type) -> bool:
    """Whether a class of model is made as Functional models are."""
    return inspect.getfullargspec(kind.__init__).args[1:3] == inspect.getfullargspec(functional.__init__).args[1:3]


def is_sequential(model: Any) -> bool:
    """Whether the model is a Sequential of either Keras."""
    return isinstance(model, keras_of(model).Sequential)


def tf_variable(variable: Any) -> Any:
    """The `tf.Variable` behind a variable of either Keras."""
    import tensorflow as tf

    return variable if isinstance(variable, tf.Variable) else variable.value


def clone_input(layer: Any, batch_shape: tuple[int | None, ...] | None = None) -> Any:
    """A new input layer like this one, for tensors of another shape where one is given."""
    config = layer.get_config()
    if batch_shape is not None:
        config["batch_shape" if is_keras_3(layer) else "batch_input_shape"] = tuple(batch_shape)
    return layer.__class__.from_config(config)


def names_of_own_weights(layer: Any) -> list[str]:
    """What a layer calls its variables, in the order of `layer.weights`, without the layer's name."""
    return [weight.name.rpartition("/")[2].partition(":")[0] for weight in layer.weights]


@contextlib.contextmanager
def variables_born_with(values: dict[str, Any], keras_3: bool) -> Iterator[None]:
    """While the body runs, variables of these names are made with these values instead of drawn at random first.

    Args:
        values: name of a variable (`"kernel"`) to its value; what has been used is taken out.
        keras_3: whether the variables are made by Keras 3, which has names of its own: TensorFlow's are then left
            without the layer's, since TensorFlow prepares a kernel for each name it meets, which takes longer
            than all else about a variable.
    """
    import tensorflow as tf

    def creator(next_creator: Callable[..., Any], **settings: Any) -> Any:
        name = settings.get("name")
        if name not in values:
            return next_creator(**settings)
        settings["initial_value"] = values.pop(name)
        with tf.name_scope("") if keras_3 else contextlib.nullcontext():
            return next_creator(**settings)

    with tf.variable_creator_scope(creator):
        yield


def copy_layer_state(old: Any, new: Any, weights: Sequence[Any]) -> None:
    """Give a layer its weights, and what an adapted or looked-up layer knows besides them."""
    if hasattr(old, "get_vocabulary"):
        if len(new.get_vocabulary()) != len(old.get_vocabulary()):
            new.set_vocabulary(old.get_vocabulary())
        return
    if not weights:
        return
    if is_keras_3(old):
        for variable, value in zip(new.weights, weights, strict=True):
            variable.assign(value)
    else:
        new.set_weights(weights)
    if hasattr(old, "finalize_state"):
        new.finalize_state()


def copy_trainable(old: Any, new: Any) -> None:
    """Set the trainable flags of a layer and of those inside it as they are in another."""
    for old_part, new_part in zip(old._flatten_layers(), new._flatten_layers(), strict=True):
        if new_part.trainable != old_part.trainable:
            new_part.trainable = old_part.trainable


def copy_compile_state(old: Any, new: Any) -> None:
    """Compile a model as another is: optimizer, losses and metrics with the same settings and a fresh state."""
    settings = getattr(old, "_compile_config", None)
    if settings is None or not (old.compiled if is_keras_3(old) else old._is_compiled):
        return
    settings = dict(settings.config)

    def fresh(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(fresh, value))
        if isinstance(value, dict):
            return {key: fresh(part) for key, part in value.items()}
        stateful = (keras_of(old).optimizers.Optimizer, keras_of(old).metrics.Metric)
        return value.__class__.from_config(value.get_config()) if isinstance(value, stateful) else value

    new.compile(**{name: fresh(value) for name, value in settings.items()})


def clone_built_layer(layer: Any) -> Any:
    """A new layer with the same configuration and with weights of the same shapes, outside any model."""
    copy, keras_3 = clone_layer(layer), is_keras_3(layer)
    if keras_3:
        copy.build_from_config(layer.get_build_config())
    else:
        copy.build(layer._build_input_shape)
        for old, new in zip(layer._flatten_layers(), copy._flatten_layers(), strict=True):
            if not new.built:  # attention builds its parts when it is called
                new.build(old._build_input_shape)
    return copy


def run_function(function: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Compute a function in the graph on arrays."""
    return function.call(*args, **kwargs)


def _slices_as_dicts(value: Any) -> Any:
    """An argument as `tf_keras` keeps it in its graph."""
    if isinstance(value, tuple):
        return tuple(map(_slices_as_dicts, value))
    return {name: getattr(value, name) for name in ("start", "stop", "step")} if isinstance(value, slice) else value


def slice_entries(key: Any) -> list[Any]:
    """The entries of an index into a tensor of the graph, slices as slices; `tf_keras` keeps them as dicts."""
    entries = list(key) if isinstance(key, list | tuple) else [key]
    return [slice(*(e[name] for name in ("start", "stop", "step"))) if isinstance(e, dict) else e for e in entries]


def functional_stand_in(model: Any) -> Any:
    """A Functional model with the layers of a subclassed Keras 3 model: its call, made once on symbolic inputs.

    The layers do not remember that call.

    Raises:
        ValueError: it belongs to `tf_keras`, it is not built, or its call cannot be made symbolically or uses weights
            outside of the layers that hold them.
    """
    if not is_keras_3(model):
        raise ValueError(f"Model {model.name!r} is subclassed: in tf_keras only Functional and Sequential models work.")
    keras, tree = keras_of(model), _nest(keras_3=True)
    inputs = tree.map_structure(
        lambda spec: keras.Input(tuple(spec.shape)[1:], dtype=spec.dtype.name), call_specs(model)
    )
    with _forgetting_calls(layers_of(model)):
        try:
            stand_in = keras.Model(inputs, model.call(inputs), name=model.name)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"The call of model {model.name!r} cannot be made on symbolic inputs: {reason}") from error
        by_weights = _uses_weights(stand_in.outputs, stand_in.inputs)
    if by_weights:
        raise ValueError(
            f"The call of model {model.name!r} computes with weights itself, which no layer would hold in a smaller "
            "model: put them into a layer."
        )
    return stand_in


def _uses_weights(outputs: Sequence[Any], inputs: Sequence[Any]) -> bool:
    """Whether a weight, or a tensor that may come from one, is a constant on the way between Keras 3 tensors."""
    import tensorflow as tf

    def is_weight(leaf: Any) -> bool:
        if isinstance(leaf, keras_module(KERAS_3).Variable | tf.Variable):
            return True
        return isinstance(leaf, tf.Tensor) and leaf.dtype.is_floating and leaf.shape.rank > 0

    seen, waiting = {id(tensor) for tensor in inputs}, list(outputs)
    while waiting:
        tensor = waiting.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        operation, number, _ = tensor._keras_history
        node = operation._inbound_nodes[number]
        if any(map(is_weight, _nest(keras_3=True).flatten((node.arguments.args, node.arguments.kwargs)))):
            return True
        waiting += node.input_tensors
    return False


def unfold_layers(model: Any, unfolds: Callable[[Any], bool]) -> Any:
    """A Functional Keras 3 model in which some composite layers are replaced by the calls they make inside.

    Args:
        model: a Functional or Sequential model; it is not changed, and its layers do not remember the new calls.
        unfolds: whether to look inside a layer.

    Returns:
        A Functional model of the same layers, or `model` itself where there is nothing to unfold. A layer whose
        call cannot be made on symbolic inputs, or uses weights outside of the layers that hold them, stays as it is.
    """
    inputs, nodes, outputs = graph_nodes(model)
    if not is_keras_3(model) or not any(unfolds(node.layer) for node in nodes):
        return model
    keras, tree = keras_of(model), _nest(keras_3=True)
    new_inputs = [clone_input(input_layer(tensor)).output for tensor in inputs]
    tensors = dict(zip(map(id, inputs), new_inputs, strict=True))
    failed: set[int] = set()
    with _forgetting_calls([*layers_of(model), *(node.layer for node in nodes)]):
        for node in nodes:
            args, kwargs = node.filled(tensors)
            given = None
            if unfolds(node.layer):
                with contextlib.suppress(Exception):  # a call may fail on symbolic inputs in any way
                    given = tree.flatten(node.layer.call(*args, **kwargs))
                    if _uses_weights(given, tree.flatten((args, kwargs))):
                        given = None
            if given is None or len(given) != len(node.outputs):
                failed.add(id(node.layer))
                given = tree.flatten(node.layer(*args, **kwargs))
            tensors.update(zip(map(id, node.outputs), given, strict=True))
        new_outputs = tree.map_structure(lambda tensor: tensors[id(tensor)], outputs)
        try:
            unfolded = keras.Model(
                tree.pack_sequence_as(_graph_of(model)._inputs_struct, new_inputs), new_outputs, name=model.name
            )
        except ValueError:  # two layers inside have the same name
            return model
    return unfold_layers(unfolded, lambda layer: id(layer) not in failed and unfolds(layer))


@contextlib.contextmanager
def _forgetting_calls(layers: Iterable[Any]) -> Iterator[None]:
    """Let Keras 3 layers forget the calls on symbolic tensors that the body makes."""
    before = [(layer, len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in layers]
    try:
        yield
    finally:
        for layer, inbound, outbound in before:
            del layer._inbound_nodes[inbound:], layer._outbound_nodes[outbound:]


def constrain(variable: Any, constraint: Callable[[Any], Any] | None) -> None:
    """Set what the optimizer does to a variable after each of its updates: `constraint(value)` is the new value."""
    if is_keras_3_variable(variable):
        variable.constraint = constraint
    else:
        # Under mixed precision the variable is one inside another.
        getattr(variable, "_variable", variable)._constraint = constraint


def is_keras_3_variable(variable: Any) -> bool:
    """Whether a variable belongs to Keras 3; those of `tf_keras` are TensorFlow's own."""
    return not isinstance(variable, importlib.import_module("tensorflow").Variable)


def forget_compiled_step(model: Any) -> None:
    """Have the training step of a model that has trained before compiled anew, as its constraints have changed."""
    if getattr(model, "train_function", None) is not None:
        model.make_train_function(force=True)


def moving_averages(optimizer: Any, variables: Sequence[Any]) -> list[Any]:
    """The optimizer's moving average of each variable, as `tf.Variable`s; empty without `use_ema`."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    averages = getattr(optimizer, "_model_variables_moving_average", None)
    if not getattr(optimizer, "use_ema", False) or not averages:
        return []
    if is_keras_3(optimizer):
        return [averages[optimizer._get_variable_index(variable)].value for variable in variables]
    return [averages[optimizer._index_dict[optimizer._var_key(variable)]] for variable in variables]


def pack_outputs(model: Any, tensors: Sequence[Any]) -> Any:
    """Flat outputs put into the structure (list, dict, ...) that the model gives."""
    graph, keras_3 = _graph_of(model), is_keras_3(model)
    structure = graph._outputs_struct if keras_3 else graph._nested_outputs
    return _nest(keras_3).pack_sequence_as(structure, list(tensors))
