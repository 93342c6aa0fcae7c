"""Recurrent layers and the wrappers around them: what a unit makes, its own recurrent kernel reads."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.channel_values import Value
from edgeprune.channels.graph.rules.elementwise import follow_activation
from edgeprune.channels.graph.rules.kernels import factor, places
from edgeprune.channels.graph.rules.registry import Call, CannotFollow, rule
from edgeprune.types import Layer

# The kernels of a cell hold one run of all units for each gate.
_GATES = {"SimpleRNNCell": 1, "GRUCell": 3, "LSTMCell": 4, "ConvLSTMCell": 4}
_STATES = {"SimpleRNNCell": 1, "GRUCell": 1, "LSTMCell": 2, "ConvLSTMCell": 2}


@rule("SimpleRNN", "GRU", "LSTM", "RNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
def recurrent(call: Call) -> list[Value]:
    """One cell, or several on top of each other in each step."""
    layer = call.layer
    if getattr(layer, "time_major", False):
        raise CannotFollow("it is time-major")
    cells = getattr(layer.cell, "cells", [layer.cell])
    if getattr(layer.cell, "reverse_state_order", False):
        raise CannotFollow("it hands its states over in the reverse order")
    for cell in cells:
        if type(cell).__name__ not in _GATES:
            raise CannotFollow(
                f"its cell {type(cell).__name__} is unknown: register a rule for the layer with edgeprune.channels.rule"
            )
    sequence, *states = _without_mask(call)
    steps = 1 if layer.return_sequences else sequence.shape[1]
    below: Value | np.ndarray = sequence
    lines: list[Any] = []
    for cell in cells:
        # The configuration of an LSTM layer is that of its cell.
        below = _cell(call, cell, cell if type(layer).__name__ == "RNN" else layer, below, steps)
        lines += [below] * _STATES[type(cell).__name__]
    axis = _channel_axis(cells[-1])
    for state, line in zip(states, lines, strict=False):
        call.unite(call.channels(state, axis), line)
    given = [below, *lines][: len(call.output_shapes)]
    return [call.output({axis: line}, number=number) for number, line in enumerate(given)]


def _without_mask(call: Call) -> list[Value]:
    """The input tensors of a recurrent layer: the sequence and its initial states."""
    return [value for value in call.inputs if value is not call.kwargs.get("mask")]


def _channel_axis(cell: Layer) -> int:
    """The axis of the channels, counted from the end: the same for a sequence and for a state."""
    first = getattr(cell, "data_format", None) == "channels_first"
    return 1 - len(cell.kernel.shape) if first else -1


def _cell(call: Call, cell: Layer, owner: Layer, below: Value | np.ndarray, steps: int) -> Any:
    """What a cell makes: one line for its output and each of its states.

    Args:
        call: the call of the layer.
        cell: the cell.
        owner: the layer whose configuration holds the number of units.
        below: the sequence that the cell reads, or what the cell under it makes.
        steps: how many steps there are for each place of the layer's first output.
    """
    kind, kernel = type(cell).__name__, cell.kernel
    gates, axis = _GATES[kind], _channel_axis(cell)
    if isinstance(below, Value):
        call.channels(below, axis)
        read = call.read(below, axis, kernel, -2)
    else:
        read = below
        call.read_inside(kernel, -2, read, layer=owner)
    made = call.make(kernel, -1, layer=owner)
    units: Any = call.tie_repeats(made, gates)
    call.read_inside(cell.recurrent_kernel, -2, units, layer=owner)
    call.index(cell.recurrent_kernel, -1, made, layer=owner)
    call.index(cell.bias, -1, made, layer=owner)
    call.record.add_resize(owner, "filters" if kind == "ConvLSTMCell" else "units", (units,), int)
    for activation in (cell.activation, getattr(cell, "recurrent_activation", None)):
        follow_activation(call, activation, units)
    count = steps * places(call.output_shapes[0], axis) * gates
    call.count_macs(count * math.prod(kernel.shape[:-2]), factor(read, kernel.shape[-2]), units)
    call.count_macs(count * math.prod(cell.recurrent_kernel.shape[:-2]), units, units)
    return units


@rule("Bidirectional")
def bidirectional(call: Call) -> list[Value]:
    """A recurrent layer from the first step on and another from the last, and their outputs put together."""
    layer, mode = call.layer, call.layer.merge_mode
    parts = (layer.forward_layer, layer.backward_layer)
    sequence, *states = _without_mask(call)
    count = 2 if mode is None else 1
    shapes, state_shapes = call.output_shapes[:count], call.output_shapes[count:]
    given = []
    for number, part in enumerate(parts):
        shape = shapes[number % count]
        if mode == "concat":
            shape = (*shape[:-1], shape[-1] // 2)
        own_states, own_shapes = (some[number * len(some) // 2 :][: len(some) // 2] for some in (states, state_shapes))
        given.append(call.follow(part, [sequence, *own_states], [shape, *own_shapes]))
    if "backward_layer" not in layer.get_config():
        _unite_weights(call, *parts)
    (forward, *forward_states), (backward, *backward_states) = given
    if mode is None:
        together = [forward, backward]
    elif mode == "concat":
        # Keras assumes that both are equally wide.
        call.unite(call.line(forward, -1), call.line(backward, -1))
        together = [call.space.concatenate([forward, backward], -1)]
    else:
        together = [call.merge([forward, backward])]
    return [*together, *forward_states, *backward_states]


def _unite_weights(call: Call, a: Layer, b: Layer) -> None:
    """Two layers that are made from one configuration have equally many units."""
    weights = zip(flavor.weights_of(a), flavor.weights_of(b), strict=True)
    for first, second in weights:
        for axis in range(len(first.shape)):
            call.unite(call.record.line_of(first, axis), call.record.line_of(second, axis))


@rule("TimeDistributed")
def time_distributed(call: Call) -> Value:
    """Another layer for each step: the steps count as samples."""
    if flavor.is_model(call.layer.layer):
        raise CannotFollow("the model it holds is subclassed, or carries states from step to step")
    steps = call.x.shape[1]
    folded = call.space.into_batch(call.x, f"{call.name} works along it")
    (given,) = call.follow(call.layer.layer, [folded], [(folded.shape[0], *call.output_shapes[0][2:])])
    return call.space.out_of_batch(given, steps)
