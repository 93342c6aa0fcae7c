"""States that recurrent layers carry from batch to batch, cells of one's own, and states that a model takes apart."""

from __future__ import annotations

import numpy as np
import pytest
from nets.cuts import randomize

import edgeprune as ep
from edgeprune import flavor as flavors


@pytest.fixture
def keras(flavor):
    return flavors.keras_module(flavor)


def net(keras, *layers, shape=(5, 4), batch=None):
    """A Dense before and one after."""
    i = x = keras.Input(batch_shape=(batch, *shape))
    for layer in (keras.layers.Dense(8, name="before"), *layers, keras.layers.Dense(2, name="head")):
        x = layer(x)
    return randomize(keras.Model(i, x))


STATEFUL = {
    "simple": lambda L: [L.SimpleRNN(6, stateful=True, name="rnn")],
    "gru": lambda L: [L.GRU(6, stateful=True, return_sequences=True, go_backwards=True, name="rnn")],
    "lstm": lambda L: [L.LSTM(6, stateful=True, name="rnn")],
    "stack": lambda L: [L.RNN([L.LSTMCell(6), L.GRUCell(4)], stateful=True, name="rnn")],
    "both ways": lambda L: [L.Bidirectional(L.GRU(6, stateful=True), name="rnn")],
    "two layers": lambda L: [L.GRU(6, stateful=True, return_sequences=True), L.LSTM(4, stateful=True, name="rnn")],
}


@pytest.mark.parametrize("kind", STATEFUL)
def test_carried_states_lose_the_units_too(keras, kind):
    """The model itself, batch after batch, with zeros where the dropped units are read."""
    model = net(keras, *STATEFUL[kind](keras.layers), batch=2)
    plan = ep.plan_channels(model, pruning_ratio=0.5, scope="local")
    assert list(plan.frozen) == ["head"]
    smaller = plan.apply()
    assert smaller.inputs[0].shape[0] == 2
    before = [np.array(weight) for weight in model.weights]
    for slot in plan.graph.slots:
        if slot.reads:
            values = np.array(slot.weight)
            values[(slice(None),) * slot.axis + (~plan.kept_mask[slot.classes],)] = 0
            slot.weight.assign(values)
    batches = np.random.default_rng(0).normal(size=(3, 2, 5, 4)).astype("float32")
    given = [np.asarray(smaller(batch)) for batch in batches]
    for expected, new in zip([np.asarray(model(batch)) for batch in batches], given, strict=True):
        np.testing.assert_allclose(new, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(np.asarray(smaller(batches[0])) - given[0]).max() > 1e-3  # what it gives depends on the calls before
    for weight, values in zip(model.weights, before, strict=True):
        weight.assign(values)


def test_a_wrong_state_fails_the_proof(keras):
    """A unit of the smaller model that only a carried state reads: one batch alone would not show it."""
    model = net(keras, keras.layers.SimpleRNN(6, stateful=True, name="rnn"), shape=(1, 4), batch=2)
    plan = ep.plan_channels(model, pruning_ratio=0.5, scope="local")
    from edgeprune.channels.rebuild.proof import prove

    smaller = plan.apply()
    kernel = smaller.get_layer("rnn").cell.recurrent_kernel
    assert prove(plan.graph, plan.kept_mask, smaller).passed
    kernel.assign(np.array(kernel) * 1.5)
    assert not prove(plan.graph, plan.kept_mask, smaller).passed


def test_a_stateful_convolution(keras):
    L = keras.layers
    layers = [L.ConvLSTM2D(6, 2, stateful=True, name="rnn"), L.Flatten()]
    model = net(keras, *layers, shape=(3, 5, 5, 2), batch=2)
    smaller = ep.prune_channels(model, pruning_ratio=0.5, scope="local")
    assert smaller.get_layer("rnn").filters == 3


def test_steps_that_carry_states_are_no_samples(keras):
    L = keras.layers
    inner = keras.Sequential([keras.Input(batch_shape=(2, 5, 8)), L.LSTM(6, stateful=True)], name="inner")
    plan = ep.plan_channels(
        net(keras, L.TimeDistributed(inner, name="each"), L.Dense(6), shape=(3, 5, 4), batch=2), pruning_ratio=0.5
    )
    assert "carries states from step to step" in plan.frozen["before"]
    plan.apply()


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutional_states_are_handed_over(keras, rank):
    L = keras.layers
    layer = getattr(L, f"ConvLSTM{rank}D")
    i = keras.Input((2, *(4,) * rank, 2))
    _, *states = layer(6, 2, padding="same", return_state=True, name="encoder")(i)
    x = layer(6, 2, padding="same", go_backwards=True, name="decoder")(i, initial_state=states)
    model = randomize(keras.Model(i, L.Dense(2, name="head")(L.Flatten()(x))))
    plan = ep.plan_channels(model, pruning_ratio=0.5)
    assert [group.layers for group in plan.groups if not group.frozen] == [("encoder", "decoder")]
    smaller = plan.apply()
    assert smaller.get_layer("decoder").filters == 3


def cells(keras):
    """Cells that no rule knows: with weights of its own, with a layer inside, a stock one with another call."""

    class Leaky(keras.layers.Layer):
        def __init__(self, units=8, **settings):
            super().__init__(**settings)
            self.units = self.state_size = self.output_size = units

        def build(self, shape):
            self.mix = self.add_weight(shape=(shape[-1], self.units), name="mix")
            self.built = True

        def call(self, x, states):
            h = 0.9 * states[0] + x @ self.mix
            return h, [h]

        def get_config(self):
            return {**super().get_config(), "units": self.units}

    class Wrapping(Leaky):
        def build(self, shape):
            self.inner = keras.layers.Dense(self.units, activation="tanh")
            self.inner.build((None, shape[-1]))
            self.built = True

        def call(self, x, states):
            h = self.inner(x) + states[0]
            return h, [h]

    class Peephole(keras.layers.LSTMCell):
        def call(self, x, states, training=None):
            h, c = states
            return super().call(x, [h + 0.1 * c, c])

    return {kind.__name__: kind for kind in (Leaky, Wrapping, Peephole)}


@pytest.mark.parametrize(
    ("place", "name"),
    [
        *(("alone", name) for name in ("Leaky", "Wrapping", "Peephole")),
        ("in a stack", "Leaky"),
        ("both ways", "Wrapping"),
        ("on each step", "Peephole"),
    ],
)
def test_a_cell_of_ones_own_keeps_its_units(keras, name, place, tmp_path):
    L, known = keras.layers, cells(keras)
    cell = known[name]
    make = {
        "alone": lambda: L.RNN(cell(8), name="rnn"),
        "in a stack": lambda: L.RNN([L.GRUCell(6), cell(8)], name="rnn"),
        "both ways": lambda: L.Bidirectional(L.RNN(cell(8)), name="rnn"),
        "on each step": lambda: L.TimeDistributed(L.RNN(cell(8)), name="rnn"),
    }[place]
    shape = (3, 5, 4) if place == "on each step" else (5, 4)
    with keras.utils.custom_object_scope(known):
        model = net(keras, make(), L.Dense(6, activation="relu", name="after"), shape=shape)
    plan = ep.plan_channels(model, pruning_ratio=0.5)
    assert [group.name for group in plan.groups if not group.frozen] == ["after"]
    assert f"its cell {name} is unknown" in plan.frozen["rnn"] and "its cell" in plan.frozen["before"]
    smaller = plan.apply()
    assert smaller.get_layer("after").units == 3
    smaller.save(tmp_path / "smaller.keras")
    with keras.utils.custom_object_scope(known):
        loaded = keras.models.load_model(tmp_path / "smaller.keras")
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    np.testing.assert_allclose(np.asarray(loaded(x)), np.asarray(smaller(x)), rtol=1e-5, atol=1e-6)


def test_padded_steps_are_skipped_backwards_too(keras):
    L = keras.layers
    both = L.Bidirectional(L.GRU(4, return_sequences=True), name="both")
    layers = [L.Masking(), both, L.LSTM(6, go_backwards=True, name="lstm")]
    i = x = keras.Input((5, 4))
    for layer in layers:
        x = layer(x)
    model = randomize(keras.Model(i, L.Dense(2, name="head")(x)))
    smaller = ep.prune_channels(model, pruning_ratio=0.5, scope="local")
    assert smaller.get_layer("lstm").units == 3 and smaller.get_layer("both").forward_layer.units == 2
