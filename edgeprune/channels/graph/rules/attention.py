"""Attention: whole heads can go, channels inside the heads, and the width of the streams they read and write.

Of the channels inside a head, those of query and key go together: their product is summed over them. Those of the value
go with what reads them on the way out. Each head chooses its own. The layer divides the scores by the square root of
how many the query has, so what is left of the query's kernel makes up for the change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.channels.graph.channel_values import Value
from edgeprune.channels.graph.rules.kernels import factor, places
from edgeprune.channels.graph.rules.registry import Call, CannotFollow, function_rule, rule


@rule("MultiHeadAttention")
def multi_head_attention(call: Call) -> list[Value]:
    """Kernels (in, heads, channels) for query, key and value, and one (heads, channels, out) for what comes out."""
    layer = call.layer
    streams = _streams(call)
    output = layer._output_dense
    if len(output.kernel.shape) != 3:
        raise CannotFollow("it returns several axes of channels")
    heads = call.make(layer._query_dense.kernel, 1)
    keys = call.make_in_heads(layer._key_dense.kernel, 2, layer._key_dense)
    values = call.make_in_heads(layer._value_dense.kernel, 2, layer._value_dense)
    sizes = _Inside(heads, heads, keys, keys, values, values)
    _project(call, streams, sizes)
    made = call.make(output.kernel, 2, layer=output)
    call.index(output.bias, 0, made, layer=output)
    call.resize("num_heads", heads)
    call.resize("key_dim", keys)
    call.resize("value_dim", values)
    # Left out, it is as wide as the query, which may lose other channels.
    call.resize("output_shape", made, call.line(streams[0], -1), value=lambda made, query: made)
    for key, stream in zip(("query_shape", "value_shape", "key_shape"), streams, strict=True):
        if (shape := getattr(layer, f"_{key}", None)) is not None:  # tf_keras keeps them in the configuration
            call.resize_shape(key, tuple(shape), stream, of_function=False)
    _count(call, streams, sizes, made)
    return _given(call, heads, made)


@rule("GroupedQueryAttention")
def grouped_query_attention(call: Call) -> list[Value]:
    """Several neighbouring heads of the query share one of the key and the value, and go with it.

    One size is that of the channels inside all heads, so those of the value go with those of the key.
    """
    layer = call.layer
    streams = _streams(call)
    shared = call.make(layer._key_dense.kernel, 1)
    channels = call.make_in_heads(layer._key_dense.kernel, 2, layer._key_dense)
    repeated = np.repeat(shared, layer.num_repeats), np.repeat(channels, layer.num_repeats, axis=0)
    sizes = _Inside(repeated[0], shared, repeated[1], channels, repeated[1], channels)
    _project(call, streams, sizes)
    output = layer._output_dense
    made = call.make(output.kernel, 2, layer=output)
    call.index(output.bias, 0, made, layer=output)
    # It returns as many channels as the query has, and needs as many of the value.
    call.unite(call.line(streams[0], -1), made)
    call.unite(call.line(streams[1], -1), made)
    call.resize("num_query_heads", sizes.queries)
    call.resize("num_key_value_heads", shared)
    call.resize("head_dim", channels)
    _count(call, streams, sizes, made)
    return _given(call, sizes.queries, made)


@dataclass(frozen=True, eq=False)
class _Inside:
    """The ids of an attention layer's heads, (heads,), and of the channels inside them, (heads, channels).

    Attributes:
        queries: the heads of the query and of what comes out.
        shared: the heads of key and value.
        query_channels, key_channels: what is summed over in the product of query and key.
        output_channels, value_channels: what comes out of each head, and the value's channels that it is a mean of.
    """

    queries: np.ndarray
    shared: np.ndarray
    query_channels: np.ndarray
    key_channels: np.ndarray
    output_channels: np.ndarray
    value_channels: np.ndarray


def _streams(call: Call) -> tuple[Value, Value, Value]:
    """The query, the value and the key (the value where none is passed); masks are kept whole."""
    named = {**dict(zip(("query", "value", "key"), call.args, strict=False)), **call.kwargs}
    query, value = named["query"], named["value"]
    key = named.get("key")
    streams = (query, value, value if key is None else key)
    for other in call.inputs:
        if not any(other is stream for stream in streams):
            call.freeze(other, f"{call.name} uses it as a mask")
    for stream in streams:
        call.channels(stream, -1)
    return streams


def _project(call: Call, streams: Sequence[Value], sizes: _Inside) -> None:
    """The projections of the streams, and the output projection that reads the heads."""
    layer = call.layer
    query, output = layer._query_dense, layer._output_dense
    projections = [
        (query, streams[0], sizes.queries, sizes.query_channels),
        (layer._value_dense, streams[1], sizes.shared, sizes.value_channels),
        (layer._key_dense, streams[2], sizes.shared, sizes.key_channels),
    ]
    # In Keras 3 what comes out of each head may be multiplied by a projection of the query.
    if getattr(layer, "use_gate", getattr(layer, "_use_gate", False)):
        projections.append((layer._gate_dense, streams[0], sizes.queries, sizes.output_channels))
    for dense, stream, heads, channels in projections:
        read = call.read(stream, -1, dense.kernel, 0)
        consume = call.read_inside if dense is query else call.index
        for weight, axis in ((dense.kernel, 1), (dense.bias, 0)):
            call.index(weight, axis, heads, layer=dense)
            consume(weight, axis + 1, channels, layer=dense)
        call.count_macs(places(stream.shape, -1), factor(read, stream.shape[-1]), heads, channels)
    for weight in (query.kernel, query.bias):
        call.rescale(weight, sizes.query_channels)
    call.read_inside(output.kernel, 0, sizes.queries, layer=output)
    call.read_inside(output.kernel, 1, sizes.output_channels, layer=output)


def _count(call: Call, streams: Sequence[Value], sizes: _Inside, made: np.ndarray) -> None:
    """The scores, their product with the values, the projection of what comes out."""
    query, _, key = streams
    axes = getattr(call.layer, "_attention_axes", None) or (1,)
    keys = math.prod(key.shape[axis] for axis in axes)
    for channels in (sizes.query_channels, sizes.output_channels):
        call.count_macs(places(query.shape, -1) * keys, sizes.queries, channels)
    call.count_macs(places(query.shape, -1), sizes.queries, sizes.output_channels, made)


def _given(call: Call, heads: np.ndarray, made: np.ndarray) -> list[Value]:
    """The stream, and the scores (samples, heads, queries, keys) if they are asked for."""
    given = [call.output({-1: made})]
    if len(call.output_shapes) > 1:
        if len(call.output_shapes[1]) != 4:
            call.freeze(heads, f"{call.name} returns scores along several axes")
        given.append(call.output({1: heads}, number=1))
    return given


@rule("Attention", "AdditiveAttention")
def attention(call: Call) -> list[Value]:
    """Scores by the product of query and key, or by the sum over tanh of their sum: either sums over the channels."""
    streams = call.args[0] if call.args else call.kwargs["inputs"]
    query, value, *keys = streams
    key = keys[0] if keys else value
    for other in call.inputs:
        if not any(other is stream for stream in streams):
            call.freeze(other, f"{call.name} uses it as a mask")
    line = call.channels(query, -1)
    call.unite(line, call.channels(key, -1))
    for stream in (query, key):
        call.contract(stream, -1)
    scale: Any = call.layer.scale if type(call.layer).__name__ == "AdditiveAttention" else None
    call.index(scale, 0, line)
    if scale is not None and value.shape[-1] == query.shape[-1]:  # tf_keras has the scale's size of the value
        call.unite(line, call.channels(value, -1))
    queries, keys, channels = query.shape[1], key.shape[1], factor(line, query.shape[-1])
    made = call.channels(value, -1)
    if scale is None and getattr(call.layer, "score_mode", None) == "dot":
        call.count_macs(query.shape[0] * queries * keys, channels)
    call.count_macs(query.shape[0] * queries * keys, factor(made, value.shape[-1]))
    return [call.output({-1: made}), *(Value(shape) for shape in call.output_shapes[1:])]


@function_rule("dotproductattention")
def dot_product_attention(call: Call) -> Value:
    """Heads along axis 2 of query, key and value are coupled; where several of the query share one, all are kept.

    Without `scale=` it follows the number of channels inside a head, so all of those are kept.
    """
    query, key, value = streams = [call.argument(name) for name in ("query", "key", "value")]
    if not all(isinstance(stream, Value) for stream in streams):
        raise CannotFollow("one of query, key and value is a constant")
    heads = [call.line(stream, 2) for stream in streams]
    for stream in streams:
        call.freeze(call.line(stream, 1), f"{call.name} works along it")
    for shared in heads[1:]:
        if key.shape[2] == query.shape[2]:
            call.unite(heads[0], shared)
        else:  # with TensorFlow a single head cannot be shared by several, which is what might be left
            call.freeze(heads[0], f"{call.name} shares heads")
            call.freeze(shared, f"{call.name} shares heads")
    for name in ("bias", "mask"):
        _joins_scores(call, call.argument(name), heads[0])
    channels = [call.line(stream, 3) for stream in streams]
    for other in channels[1:]:  # Keras's symbolic call says that as many come out as the query has
        call.unite(channels[0], other)
    for stream in streams:
        if call.argument("scale") is None:
            call.freeze(call.line(stream, 3), f"{call.name} divides by the square root of their number")
    for stream in (query, key):
        call.contract(stream, 3)
    places = query.shape[0] * query.shape[1] * key.shape[1]
    for line, size in ((channels[0], query.shape[3]), (channels[2], value.shape[3])):
        call.count_macs(places, factor(heads[0], query.shape[2]), factor(line, size))
    return call.output({2: heads[0], 3: channels[2]})


def _joins_scores(call: Call, other: object, heads: np.ndarray | None) -> None:
    """What is added to the scores (samples, heads, queries, keys), or masks them."""
    shape: Any = getattr(other, "shape", ())
    line = None
    if isinstance(other, Value):
        line = call.line(other, 1) if len(shape) == 4 else None
        for axis in range(1, len(shape)):
            if axis != 1 or len(shape) != 4:
                call.freeze(call.line(other, axis), f"{call.name} works along it")
    if len(shape) == 4 and shape[1] > 1:
        call.unite(heads, line)
