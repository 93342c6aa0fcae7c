"""The statistics of batch normalization, measured again on data, one layer after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Step
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.rebuild.slicing import counterparts, rebuild
from edgeprune.channels.reconstruct.batch_norm import Moments, assign, by_channel, is_batch_norm, statistics_axis
from edgeprune.channels.reconstruct.order import nodes_of_steps, run_layer_by_layer
from edgeprune.channels.reconstruct.stream import Store, Stream, input_streams, steps_folded
from edgeprune.data.batches import check_data
from edgeprune.types import DataLike, Layer, Model


def recalibrate_batch_norm(model: Model, data: DataLike, *, batch_size: int = 32, steps: int | None = None) -> Model:
    """Measure the statistics of every batch normalization of a model again, on unlabelled data.

    In the order of the graph, each layer's mean and variance become those of its inputs over all samples, as the layers
    before it give them with their new statistics. Good after a cut, or for data of another kind than the training
    data; `ChannelPlan.reconstruct` already does it where it helps.

    Args:
        model: a built model of `keras` 3 or `tf_keras`. It is not changed.
        data: samples in any form that `model.fit` accepts; labels are not looked at.
        batch_size: samples at once where `data` are arrays.
        steps: batches of `data` at most.

    Returns:
        A model of the same kind and the same Keras, with the same names. Layers with statistics along several axes, and
        those inside layers that could not be followed, keep theirs.

    Raises:
        TypeError: `model` is no Keras model, or `batch_size` or `steps` no number.
        ValueError: the model is not built, or the data have no batches, do not fit it, or are not finite.

    Source: Li et al., Revisiting Batch Normalization For Practical Domain Adaptation, 2016.

    Example:
        >>> import keras, numpy as np, edgeprune as ep
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.BatchNormalization()])
        >>> ep.recalibrate_batch_norm(model, np.array([[1.0], [3.0]])).layers[0].moving_mean.numpy().tolist()
        [2.0]
    """
    check_data(data, batch_size, steps)
    graph = trace(model)
    new = rebuild(graph, graph.full_mask())
    with Store() as store, flavor.state_restored(new):
        inputs = input_streams(graph.walked, data, batch_size, steps, store)
        moments = _measured(graph, new, inputs, store)
    for layer, own in moments:
        assign(layer, own.mean, own.variance)
    return new


def _measured(graph: ChannelGraph, new: Model, inputs: list[Stream], store: Store) -> list[tuple[Layer, Moments]]:
    """Recalibrate each layer of a copy before it is called; returns what was measured."""
    layers, nodes = counterparts(graph, new), nodes_of_steps(graph)
    found: list[tuple[Layer, Moments]] = []

    def call(steps: list[Step], taken: list[list[Stream]]) -> list[list[Stream]]:
        own = steps[0].layer
        layer = layers.get(id(own), own)
        if is_batch_norm(own) and statistics_axis(own) is not None and not any(layer is one for one, _ in found):
            found.append((layer, _moments(layer, graph.name_of(own), [streams[0] for streams in taken])))
            assign(layer, found[-1][1].mean, found[-1][1].variance)
        return [
            store.streams(flavor.call_layer(nodes[id(step)], list(batch), layer) for batch in _batches(streams, inputs))
            for step, streams in zip(steps, taken, strict=True)
        ]

    run_layer_by_layer(graph, inputs, call, steps_folded)
    return found


def _batches(taken: list[Stream], inputs: list[Stream]) -> Iterable[Sequence[Any]]:
    """The tensors of each batch; none for a call without inputs."""
    return zip(*taken, strict=True) if taken else ([] for _ in inputs[0])


def _moments(layer: Layer, name: str, streams: list[Stream]) -> Moments:
    axis = statistics_axis(layer)
    assert axis is not None
    moments = Moments()
    for stream in streams:
        for x in stream:
            for (own,) in by_channel(axis, x):
                moments.add(own)
    moments.check(name)
    return moments
