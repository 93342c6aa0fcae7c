"""Layers that return their input, and a model without them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgeprune import flavor
from edgeprune.dead_channels.constant_channels import scale_and_offset
from edgeprune.depth.bypass import graphs, rebuilt_without, same_kind, walkable
from edgeprune.types import Model


def drop_identity_layers(model: Model) -> Model:
    """Rebuild a model without the layers that do nothing.

    These are: dropout with a rate of 0, noise with a deviation of 0, linear activations, padding or cropping by 0,
    upsampling or pooling by 1, flattening or reshaping to the same shape, rescaling by 1, and batch normalization
    that multiplies by exactly 1 and adds exactly 0 at inference. A layer that computes a model's output is kept, as
    that output has its name.

    Args:
        model: a built Functional or Sequential model of either Keras. It is not changed.

    Returns:
        A plain model of the same kind with the same names and weights, compiled as the original is.

    Raises:
        TypeError: it is no Keras model.
        ValueError: it is not built, or it is subclassed and its call cannot be followed.

    Example:
        >>> import keras
        >>> layers = keras.layers
        >>> model = keras.Sequential([keras.Input((4,)), layers.Dropout(0), layers.Dense(2, name="head")])
        >>> [layer.name for layer in drop_identity_layers(model).layers]
        ['head']
    """
    graph_model = walkable(model)
    return rebuilt_without(graph_model, model, identities(graph_model))


def identities(model: Model) -> dict[int, int]:
    """The calls in a model, at any depth, whose layer returns its input."""
    found = {}
    for _, part in graphs(model):
        _, nodes, outputs = flavor.graph_nodes(part)
        given = {id(tensor) for tensor in flavor.flatten(outputs, part)}
        for node in nodes:
            if not given.intersection(map(id, node.outputs)) and _is_identity(node):
                found[id(node.node)] = 0
    return found


def _is_identity(node: flavor.GraphNode) -> bool:
    test = _IDENTITIES.get(flavor.built_in_kind(node.layer)) if flavor.function_name(node.layer) is None else None
    one_each = len(node.inputs) == len(node.outputs) == 1
    return test is not None and one_each and same_kind(node.inputs[0], node.outputs[0]) and test(node)


def _is_exact_one(node: flavor.GraphNode) -> bool:
    scale, offset = scale_and_offset(node.layer)
    return bool((np.float32(scale) == 1).all() and (np.float32(offset) == 0).all())


def _all_equal(attribute: str, value: float) -> Callable[[flavor.GraphNode], bool]:
    return lambda node: bool(np.all(np.asarray(getattr(node.layer, attribute)) == value))


def _sizes_are_known(node: flavor.GraphNode) -> bool:
    return None not in tuple(node.inputs[0].shape)[1:]


_RANKS = (1, 2, 3)


_IDENTITIES: dict[str, Callable[[flavor.GraphNode], bool]] = {
    "Identity": lambda node: True,
    "Activation": lambda node: flavor.has_linear_activation(node.layer),
    **dict.fromkeys(("Dropout", "AlphaDropout", "GaussianDropout"), _all_equal("rate", 0)),
    **{f"SpatialDropout{rank}D": _all_equal("rate", 0) for rank in _RANKS},
    "GaussianNoise": _all_equal("stddev", 0),
    "Rescaling": lambda node: _all_equal("scale", 1)(node) and _all_equal("offset", 0)(node),
    **{f"ZeroPadding{rank}D": _all_equal("padding", 0) for rank in _RANKS},
    **{f"Cropping{rank}D": _all_equal("cropping", 0) for rank in _RANKS},
    **{f"UpSampling{rank}D": _all_equal("size", 1) for rank in _RANKS},
    **{
        f"{kind}Pooling{rank}D": lambda node: _all_equal("pool_size", 1)(node) and _all_equal("strides", 1)(node)
        for kind in ("Max", "Average")
        for rank in _RANKS
    },
    "Flatten": _sizes_are_known,
    "Reshape": _sizes_are_known,
    "Permute": lambda node: list(node.layer.dims) == sorted(node.layer.dims),
    "BatchNormalization": _is_exact_one,
}
