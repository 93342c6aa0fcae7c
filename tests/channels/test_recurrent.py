"""Units of recurrent layers: removed with the states that only they keep, in every way a layer can be written."""

from __future__ import annotations

import numpy as np
import pytest
from nets.cuts import halved, random_mask, randomize

from edgeprune import flavor as flavors
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.rebuild.proof import prove
from edgeprune.channels.rebuild.slicing import rebuild
from edgeprune.measure.macs import count_macs


@pytest.fixture
def keras(flavor):
    return flavors.keras_module(flavor)


def names(graph):
    return [group.name for group in graph.groups if not group.frozen]


def check(model, prunable, frozen):
    """Half of every group goes and the result is that of the silenced original; returns graph and rebuilt model."""
    graph, rebuilt, verdict = halved(model)
    assert verdict.passed, str(verdict)
    assert names(graph) == prunable
    assert list(graph.frozen) == frozen
    return graph, rebuilt


def sequence_net(keras, *layers, width=3, steps=5):
    """A Dense before, so that the recurrent layer also reads channels that go, and one after."""
    return keras.Sequential(
        [keras.Input((steps, width)), keras.layers.Dense(8, name="before"), *layers, keras.layers.Dense(2, name="head")]
    )


CELLS = {
    "simple": lambda layers, **more: layers.SimpleRNN(6, name="rnn", **more),
    "gru": lambda layers, **more: layers.GRU(6, name="rnn", reset_after=True, **more),
    "gru_reset_before": lambda layers, **more: layers.GRU(6, name="rnn", reset_after=False, **more),
    "lstm": lambda layers, **more: layers.LSTM(6, name="rnn", **more),
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("return_sequences", [False, True])
def test_a_layer_loses_half_its_units(keras, cell, return_sequences):
    model = sequence_net(keras, CELLS[cell](keras.layers, return_sequences=return_sequences))
    graph, rebuilt = check(model, ["before", "rnn"], ["head"])
    layer = rebuilt.get_layer("rnn")
    assert layer.units == 3
    assert tuple(layer.cell.recurrent_kernel.shape)[0] == 3
    assert tuple(layer.cell.kernel.shape)[0] == 4
    assert graph.macs == count_macs(model).total
    mask = graph.full_mask()
    mask[[group.classes[0] for group in graph.groups if not group.frozen]] = False
    assert graph.remaining_macs(mask) < graph.macs


def test_the_macs_left_are_those_of_the_smaller_model(keras):
    model = sequence_net(keras, keras.layers.LSTM(8, return_sequences=True), keras.layers.GRU(6))
    graph, rebuilt, _ = halved(model)
    assert graph.remaining_macs(random_mask(graph)) == count_macs(rebuilt).total


@pytest.mark.parametrize("arguments", [{"use_bias": False}, {"unroll": True}, {"go_backwards": True}])
def test_arguments_of_a_layer_are_kept(keras, arguments):
    _, rebuilt = check(sequence_net(keras, keras.layers.LSTM(6, name="rnn", **arguments)), ["before", "rnn"], ["head"])
    ((name, value),) = arguments.items()
    assert rebuilt.get_layer("rnn").get_config()[name] == value


def test_states_go_with_the_units_they_belong_to(keras):
    layers = keras.layers
    inputs = keras.Input((5, 3))
    encoded, *states = layers.LSTM(6, return_state=True, name="encoder")(inputs)
    decoder = layers.LSTM(6, return_sequences=True, name="decoder")
    decoded = decoder(layers.RepeatVector(4)(encoded), initial_state=states)
    model = keras.Model(inputs, layers.TimeDistributed(layers.Dense(2, name="head"), name="each")(decoded))
    graph, rebuilt = check(model, ["encoder"], ["each/head"])
    assert graph.groups[0].layers == ("encoder", "decoder")
    assert rebuilt.get_layer("decoder").units == rebuilt.get_layer("encoder").units == 3


def test_initial_states_from_elsewhere(keras):
    layers = keras.layers
    inputs, image = keras.Input((5, 3)), keras.Input((7,))
    state = layers.Dense(6, activation="tanh", name="state")(image)
    x = layers.GRU(6, name="gru")(inputs, initial_state=state)
    check(keras.Model([inputs, image], layers.Dense(2, name="head")(x)), ["state"], ["head"])


def test_states_that_come_in_keep_the_units(keras):
    inputs, state = keras.Input((5, 3)), keras.Input((6,))
    x = keras.layers.GRU(6, name="gru")(inputs, initial_state=state)
    graph = trace(keras.Model([inputs, state], keras.layers.Dense(2, name="head")(x)))
    assert names(graph) == []


@pytest.mark.parametrize(
    ("mode", "return_sequences"), [("concat", False), ("sum", False), ("mul", False), ("ave", False), ("concat", True)]
)
def test_bidirectional(keras, mode, return_sequences):
    layers = keras.layers
    wrapped = layers.Bidirectional(
        layers.LSTM(6, return_sequences=return_sequences, name="lstm"), merge_mode=mode, name="both"
    )
    graph, rebuilt = check(sequence_net(keras, wrapped), ["before", "both/forward_lstm"], ["head"])
    both = rebuilt.get_layer("both")
    assert [both.forward_layer.units, both.backward_layer.units] == [3, 3]
    assert [both.forward_layer.name, both.backward_layer.name] == ["forward_lstm", "backward_lstm"]
    assert graph.macs == count_macs(graph.model).total


def test_bidirectional_gives_both_apart_with_their_states(keras):
    layers = keras.layers
    inputs = keras.Input((5, 3))
    wrapped = layers.Bidirectional(layers.GRU(6, return_state=True, name="gru"), merge_mode=None, name="both")
    one, other, *states = wrapped(inputs)
    x = layers.Concatenate()([layers.Dense(4, name="a")(one), layers.Dense(4, name="b")(other), *states])
    graph, rebuilt = halved(keras.Model(inputs, layers.Dense(2, name="head")(x)))[:2]
    assert {"a", "b"} < set(names(graph))
    assert rebuilt.get_layer("both").forward_layer.units == 3


def test_bidirectional_with_a_backward_layer_of_its_own(keras):
    layers = keras.layers
    forward = layers.LSTM(6, name="there")
    backward = layers.LSTM(6, go_backwards=True, activation="relu", name="back")
    model = sequence_net(keras, layers.Bidirectional(forward, backward_layer=backward, name="both"))
    graph, rebuilt, verdict = halved(model)
    assert verdict.passed, str(verdict)
    assert len(names(graph)) == 2
    both = rebuilt.get_layer("both")
    assert [both.forward_layer.units, both.backward_layer.units] == [3, 3]
    assert both.backward_layer.activation.__name__ == "relu"


def test_stacked_cells(keras):
    layers = keras.layers
    cells = layers.StackedRNNCells([layers.LSTMCell(6, name="low"), layers.GRUCell(4, name="high")], name="cells")
    model = sequence_net(keras, layers.RNN(cells, name="rnn"))
    _, rebuilt = check(model, ["before", "rnn/cells/low", "rnn/cells/high"], ["head"])
    assert [cell.units for cell in rebuilt.get_layer("rnn").cell.cells] == [3, 2]


def test_a_cell_of_its_own(keras):
    _, rebuilt = check(
        sequence_net(keras, keras.layers.RNN(keras.layers.SimpleRNNCell(6, name="cell"), name="rnn")),
        ["before", "rnn/cell"],
        ["head"],
    )
    assert rebuilt.get_layer("rnn").cell.units == 3


@pytest.mark.parametrize(
    "inner",
    [
        lambda layers: layers.Dense(6, name="inner"),
        lambda layers: layers.Conv1D(6, 3, padding="same", name="inner"),
        lambda layers: layers.SeparableConv1D(6, 3, padding="same", name="inner"),
        lambda layers: layers.LSTM(6, return_sequences=True, name="inner"),
        lambda layers: layers.Bidirectional(layers.GRU(3, return_sequences=True), merge_mode="sum", name="inner"),
    ],
)
def test_time_distributed(keras, inner):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4, 8, 3)),
            layers.Dense(6, name="before"),
            layers.TimeDistributed(inner(layers), name="each"),
            layers.TimeDistributed(layers.BatchNormalization(), name="norm"),
            layers.TimeDistributed(layers.Flatten(), name="flat"),
            layers.Dense(2, name="head"),
        ]
    )
    graph, rebuilt, verdict = halved(model)
    assert verdict.passed, str(verdict)
    assert len(names(graph)) == 2
    assert list(graph.frozen) == ["head"]
    assert graph.macs == count_macs(model).total
    assert rebuilt.get_layer("norm").layer.gamma.shape[0] < 6


def test_convolutional_lstm(keras):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((3, 8, 8, 2)),
            layers.ConvLSTM2D(6, 3, padding="same", return_sequences=True, name="low"),
            layers.TimeDistributed(layers.Conv2D(4, 1, name="point"), name="each"),
            layers.ConvLSTM2D(4, 3, name="high"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, name="head"),
        ]
    )
    _, rebuilt = check(model, ["low", "each/point", "high"], ["head"])
    assert rebuilt.get_layer("low").filters == 3


@pytest.mark.above_flavor
def test_convolutional_lstm_with_channels_first(keras):
    layers = keras.layers
    first = {"data_format": "channels_first"}
    model = keras.Sequential(
        [
            keras.Input((3, 2, 8, 8)),
            layers.ConvLSTM2D(6, 3, return_sequences=True, name="low", **first),
            layers.ConvLSTM2D(4, 3, name="high", **first),
            layers.GlobalAveragePooling2D(**first),
            layers.Dense(2, name="head"),
        ]
    )
    graph = trace(model)
    assert names(graph) == ["low", "high"]
    mask = random_mask(graph)
    smaller = rebuild(graph, mask)
    assert tuple(smaller.get_layer("high").output.shape) == (None, 2, 4, 4)
    assert prove(graph, mask, smaller).passed


def test_padded_words_are_skipped(keras):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8,), dtype="int32"),
            layers.Embedding(2, 6, mask_zero=True, name="words"),
            layers.Bidirectional(layers.LSTM(6, return_sequences=True), merge_mode="ave", name="both"),
            layers.GRU(4, name="gru"),
            layers.Dense(2, name="head"),
        ]
    )
    graph, _, verdict = halved(model)
    assert verdict.passed, str(verdict)
    assert names(graph)[0] == "words" and names(graph)[-1] == "gru" and list(graph.frozen) == ["head"]


def test_a_shared_layer(keras):
    layers = keras.layers
    one, two = keras.Input((5, 3)), keras.Input((7, 3))
    tower = layers.LSTM(6, name="tower")
    x = layers.Subtract()([tower(one), tower(two)])
    check(keras.Model([one, two], layers.Dense(2, name="head")(x)), ["tower"], ["head"])


def test_what_cannot_be_followed_stays(keras, flavor):
    layers = keras.layers

    class Cell(layers.SimpleRNNCell):
        pass

    model = sequence_net(keras, layers.RNN(Cell(6), name="rnn"))
    assert "Cell is unknown" in trace(model).frozen["before"]


def test_a_softmax_over_units_is_told(keras):
    model = sequence_net(keras, keras.layers.SimpleRNN(6, activation="softmax", name="rnn"))
    assert "softmax" in "".join(trace(randomize(model)).notes)


def test_an_unused_unit_changes_nothing(keras):
    """The readers of a unit are its consumers outside and its rows of the recurrent kernel: without them it is idle."""
    model = randomize(sequence_net(keras, keras.layers.LSTM(6, name="rnn")))
    rnn, head = model.get_layer("rnn"), model.get_layer("head")
    for variable in (rnn.cell.recurrent_kernel, head.kernel):
        values = np.array(variable)
        values[[1, 4]] = 0
        variable.assign(values)
    graph = trace(model)
    mask = graph.full_mask()
    (group,) = (group for group in graph.groups if group.name == "rnn")
    mask[group.classes[[1, 4]]] = False
    x = np.random.default_rng(1).normal(size=(3, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(np.asarray(rebuild(graph, mask)(x)), np.asarray(model(x)), atol=1e-6)
