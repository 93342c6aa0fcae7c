"""Layers on channels-first data, for many of which TensorFlow has no kernels on a CPU where oneDNN is off.

oneDNN is off on CPUs without AVX-512, and with `TF_ENABLE_ONEDNN_OPTS=0`. XLA compiles such layers on every CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from edgeprune.flavor.graphs import graph_nodes, is_nested
from edgeprune.flavor.kinds import is_layer, layers_of
from edgeprune.types import AnyTensor, Layer, Model

_CHANNELS_FIRST = ("channels_first", "NCW", "NCHW", "NCDHW")


def with_kernels(
    function: Callable[..., Any], part: Layer, arguments: Mapping[str, Any] = MappingProxyType({})
) -> Callable[..., Any]:
    """A function that calls a part of a model, compiled by XLA where TensorFlow lacks kernels for that part.

    Args:
        function: accepts and returns tensors in any structure.
        part: the model, the layer or the function in a graph that it calls.
        arguments: the keyword arguments that it calls it with.

    Returns:
        The function itself on most machines and for most layers.
    """
    import tensorflow as tf

    return tf.function(function, jit_compile=True, autograph=False) if lacks_kernels(part, arguments) else function


def lacks_kernels(part: Layer, arguments: Mapping[str, Any] = MappingProxyType({})) -> bool:
    """Whether TensorFlow cannot compute a part of a model on this machine, unless it is compiled with `jit_compile`."""
    return not _has_channels_first_kernels() and _works_channels_first(part, arguments)


def batch_predictor(model: Model) -> Callable[[Any], Any]:
    """The model's `predict_on_batch`, or what returns the same where TensorFlow lacks kernels for the model."""

    def call(inputs: AnyTensor) -> Any:
        return model(inputs, training=False)

    compiled = with_kernels(call, model)
    return model.predict_on_batch if compiled is call else compiled


@functools.cache
def _has_channels_first_kernels() -> bool:
    """Whether TensorFlow can convolve channels-first data on this machine."""
    import tensorflow as tf

    with tf.init_scope():  # in a graph nothing would be computed
        try:
            tf.nn.conv2d(tf.ones([1, 1, 1, 1]), tf.ones([1, 1, 1, 1]), 1, "VALID", "NCHW")
        except tf.errors.UnimplementedError:
            return False
    return True


def _works_channels_first(part: Layer, arguments: Mapping[str, Any]) -> bool:
    if is_nested(part):
        return any(_works_channels_first(node.layer, node.kwargs) for node in graph_nodes(part)[1])
    layers = layers_of(part) if is_layer(part) else [part]
    formats = [arguments.get("data_format"), *(getattr(layer, "data_format", None) for layer in layers)]
    return any(name in _CHANNELS_FIRST for name in formats)
