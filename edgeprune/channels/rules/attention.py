"""Attention: whole heads can go, and the width of the streams they read and write."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeprune.channels.rules.kernels import factor, places
from edgeprune.channels.rules.registry import Call, CannotFollow, rule
from edgeprune.channels.values import Value


@rule("MultiHeadAttention")
def multi_head_attention(call: Call) -> list[Value]:
    """Kernels (in, heads, depth) for the query, the key and the value, and one (heads, depth, out) for what comes out.

    The depth of a head stays: the scores are scaled by it.
    """
    layer = call.layer
    streams = _streams(call)
    queries = call.make(layer._query_dense.kernel, 1)
    reads = _project(call, streams, [queries] * 3)
    _gate(call, streams[0], queries)
    output = layer._output_dense
    if len(output.kernel.shape) != 3:
        raise CannotFollow("it gives several axes")
    call.read_inside(output.kernel, 0, queries)
    made = call.make(output.kernel, 2, layer=output)
    call.index(output.bias, 0, made, layer=output)
    call.resize("num_heads", queries)
    call.resize("output_shape", made)
    for key, stream in zip(("query_shape", "value_shape", "key_shape"), streams, strict=True):
        if (shape := getattr(layer, f"_{key}", None)) is not None:  # tf_keras keeps them in the configuration
            call.resize_shape(key, tuple(shape), stream, of_function=False)
    _count(call, streams, reads, queries, queries, made)
    return _given(call, queries, made)


@rule("GroupedQueryAttention")
def grouped_query_attention(call: Call) -> list[Value]:
    """Several neighbouring heads of the query share one of the key and the value, and go with it."""
    layer = call.layer
    streams = _streams(call)
    shared = call.make(layer._key_dense.kernel, 1)
    queries = np.repeat(shared, layer.num_repeats)
    call.index(layer._query_dense.kernel, 1, queries)
    reads = _project(call, streams, [queries, shared, shared])
    _gate(call, streams[0], queries)
    output = layer._output_dense
    call.read_inside(output.kernel, 0, queries)
    made = call.make(output.kernel, 2, layer=output)
    call.index(output.bias, 0, made, layer=output)
    # It gives as many channels as the query has, and wants as many of the value.
    call.unite(call.line(streams[0], -1), made)
    call.unite(call.line(streams[1], -1), made)
    call.resize("num_query_heads", queries)
    call.resize("num_key_value_heads", shared)
    _count(call, streams, reads, queries, shared, made)
    return _given(call, queries, made)


def _streams(call: Call) -> tuple[Value, Value, Value]:
    """The query, the value and the key (the value where none is given); masks are kept whole."""
    named = {**dict(zip(("query", "value", "key"), call.args, strict=False)), **call.kwargs}
    query, value = named["query"], named["value"]
    key = named.get("key")
    streams = (query, value, value if key is None else key)
    for other in call.inputs:
        if not any(other is stream for stream in streams):
            call.freeze(other, f"{call.name} takes it for a mask")
    for stream in streams:
        call.channels(stream, -1)
    return streams


def _project(call: Call, streams: Sequence[Value], heads: Sequence[np.ndarray]) -> list[np.ndarray | None]:
    """The projections of the streams; returns what each of them reads."""
    layer = call.layer
    reads = []
    for dense, stream, line in zip(
        (layer._query_dense, layer._value_dense, layer._key_dense), streams, heads, strict=True
    ):
        reads.append(call.read(stream, -1, dense.kernel, 0))
        call.index(dense.kernel, 1, line, layer=dense)
        call.index(dense.bias, 0, line, layer=dense)
    return reads


def _gate(call: Call, query: Value, heads: np.ndarray) -> None:
    """In Keras 3 what comes out of each head may be multiplied by a projection of the query."""
    if getattr(call.layer, "use_gate", getattr(call.layer, "_use_gate", False)):
        gate = call.layer._gate_dense
        read = call.read(query, -1, gate.kernel, 0)
        call.index(gate.kernel, 1, heads, layer=gate)
        call.index(gate.bias, 0, heads, layer=gate)
        count = places(query.shape, -1) * gate.kernel.shape[2]
        call.count_macs(count, factor(read, query.shape[-1]), heads)


def _count(
    call: Call,
    streams: Sequence[Value],
    reads: Sequence[np.ndarray | None],
    queries: np.ndarray,
    shared: np.ndarray,
    made: np.ndarray,
) -> None:
    """The projections, the scores, their product with the values, the projection of what comes out."""
    layer = call.layer
    query, value, key = streams
    depth, value_depth = layer._query_dense.kernel.shape[2], layer._value_dense.kernel.shape[2]
    for stream, read, heads, size in zip(
        streams, reads, (queries, shared, shared), (depth, value_depth, depth), strict=True
    ):
        call.count_macs(places(stream.shape, -1) * size, factor(read, stream.shape[-1]), heads)
    axes = getattr(layer, "_attention_axes", None) or (1,)
    keys = math.prod(key.shape[axis] for axis in axes)
    call.count_macs(places(query.shape, -1) * keys * (depth + value_depth), queries)
    call.count_macs(places(query.shape, -1) * value_depth, queries, made)


def _given(call: Call, heads: np.ndarray, made: np.ndarray) -> list[Value]:
    """The stream, and the scores (samples, heads, queries, keys) if they are asked for."""
    given = [call.output({-1: made})]
    if len(call.output_shapes) > 1:
        if len(call.output_shapes[1]) != 4:
            call.freeze(heads, f"{call.name} gives the scores of several axes")
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
            call.freeze(other, f"{call.name} takes it for a mask")
    line = call.channels(query, -1)
    call.unite(line, call.channels(key, -1))
    for stream in (query, key):
        call.contract(stream, -1)
    scale: Any = call.layer.scale if type(call.layer).__name__ == "AdditiveAttention" else None
    call.index(scale, 0, line)
    if scale is not None and value.shape[-1] == query.shape[-1]:  # tf_keras takes the scale's size from the value
        call.unite(line, call.channels(value, -1))
    queries, keys, channels = query.shape[1], key.shape[1], factor(line, query.shape[-1])
    made = call.channels(value, -1)
    if scale is None and getattr(call.layer, "score_mode", None) == "dot":
        call.count_macs(query.shape[0] * queries * keys, channels)
    call.count_macs(query.shape[0] * queries * keys, factor(made, value.shape[-1]))
    return [call.output({-1: made}), *(Value(shape) for shape in call.output_shapes[1:])]
