"""Layers that keep their class: a rule says what the axes of their weights are, and they are made again smaller."""

from __future__ import annotations

import numpy as np
import pytest
from nets.cuts import halved, randomize
from nets.samples import numbers

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.channels import axes_rule

WEIGHTS = {
    "up.kernel": ("in", "hidden"),
    "up.bias": ("hidden",),
    "norm.gamma": ("hidden",),
    "norm.beta": ("hidden",),
    "gain": (None, "hidden"),
    "parts.0.kernel": ("hidden", "units"),
    "parts.0.bias": ("units",),
}


@pytest.fixture
def keras(flavor):
    return flavors.keras_module(flavor)


@pytest.fixture
def block(keras):
    """A class with layers inside and a weight of its own, whose call cannot be followed; and its rule."""
    L = keras.layers

    class Block(L.Layer):
        def __init__(self, hidden, units, **kwargs):
            super().__init__(**kwargs)
            self.hidden, self.units = hidden, units
            self.up, self.norm = L.Dense(hidden, activation="relu", name="up"), L.BatchNormalization(name="norm")
            self.parts = [L.Dense(units, name="down")]

        def build(self, shape):
            self.gain = self.add_weight(shape=(1, self.hidden), name="gain", initializer="ones")
            self.up.build(shape)
            self.norm.build((*shape[:-1], self.hidden))
            self.parts[0].build((*shape[:-1], self.hidden))
            self.built = True

        def call(self, x, training=None):
            if training:  # which a graph of its calls could not do
                x = x * 1.0
            return self.parts[0](self.norm(self.up(x), training=training) * self.gain)

        def compute_output_shape(self, shape):
            return (*shape[:-1], self.units)

        def get_config(self):
            return {**super().get_config(), "hidden": self.hidden, "units": self.units}

    statistics = {"norm.moving_mean": ("hidden",), "norm.moving_variance": ("hidden",)}
    axes_rule(Block, weights={**WEIGHTS, **statistics}, output="units")
    return Block


def net(keras, *parts):
    i = keras.Input((3, 5))
    x = keras.layers.Dense(6, name="stem")(i)
    for part in parts:
        x = part(x)
    return randomize(keras.Model(i, keras.layers.Dense(2, name="head")(x)))


def test_it_keeps_its_class_and_loses_channels(keras, block, tmp_path):
    model = net(keras, block(8, 4, name="one"), block(6, 4, name="two"))
    plan = ep.plan_channels(model, pruning_ratio=0.5, scope="local")
    assert [row.name for row in plan.planned] == ["stem", "one/up", "one/down", "two/up", "two/down"]
    assert list(plan.frozen) == ["head"]
    smaller = plan.apply()
    one = smaller.get_layer("one")
    assert type(one) is block and (one.hidden, one.units, one.up.units) == (4, 2, 4)
    assert plan.macs.before == 3 * (5 * 6 + 6 * 8 + 8 * 4 + 4 * 6 + 6 * 4 + 4 * 2)
    assert plan.macs.after == 3 * (5 * 3 + 3 * 4 + 4 * 2 + 2 * 3 + 3 * 2 + 2 * 2)
    # By hand, on the whole model: zeros in what reads the channels that go.
    x, before = numbers(4, 3, 5), model.get_weights()
    for slot in plan.graph.slots:
        if slot.reads:
            values = np.asarray(slot.weight).copy()
            values[(slice(None),) * slot.axis + (~plan.kept_mask[slot.classes],)] = 0
            slot.weight.assign(values)
    expected = np.asarray(model(x, training=False))
    model.set_weights(before)
    np.testing.assert_allclose(smaller(x, training=False), expected, rtol=1e-4, atol=1e-5)
    smaller.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras", custom_objects={"Block": block})
    np.testing.assert_allclose(loaded(x), smaller(x), rtol=1e-5, atol=1e-6)
    loaded.compile("sgd", "mse")
    kernel = np.asarray(loaded.get_layer("one").up.kernel).copy()
    loaded.fit(x, np.ones((4, 3, 2)), verbose=0)
    assert (np.asarray(loaded.get_layer("one").up.kernel) != kernel).any()


def test_the_input_may_set_an_argument_and_come_out_again(keras):
    """A residual block whose argument is the width of what it is called on, with statistics over channels."""
    L = keras.layers

    class Residual(L.Layer):
        def __init__(self, width, hidden, **kwargs):
            super().__init__(**kwargs)
            self.width, self.hidden = width, hidden
            self.norm = L.LayerNormalization(name="norm")
            self.up, self.down = L.Dense(hidden, name="up"), L.Dense(width, name="down")

        def build(self, shape):
            self.norm.build(shape)
            self.up.build(shape)
            self.down.build((*shape[:-1], self.hidden))
            self.built = True

        def call(self, x):
            return x + self.down(self.up(self.norm(x)))

        def get_config(self):
            return {**super().get_config(), "width": self.width, "hidden": self.hidden}

    axes_rule(
        Residual,
        weights={
            **{"norm.gamma": ("width",), "norm.beta": ("width",), "up.kernel": ("width", "hidden")},
            **{"up.bias": ("hidden",), "down.kernel": ("hidden", "width"), "down.bias": ("width",)},
        },
        input="width",
        output="width",
        mixes=True,
    )
    graph, smaller, proof = halved(net(keras, Residual(6, 8, name="block")))
    assert proof.passed and [group.name for group in graph.groups if not group.frozen] == ["stem", "block/up"]
    block = smaller.get_layer("block")
    assert type(block) is Residual and (block.width, block.hidden) == (3, 4)


def test_channels_first_and_filters_before_inputs(keras):
    """The axis of the channels, and a transposed kernel, whose axes are the other way round."""
    L = keras.layers

    class Up(L.Conv1DTranspose):
        def call(self, x):
            return super().call(x) * 2.0

    axes_rule(Up, weights={"kernel": (None, "filters", "in"), "bias": ("filters",)}, output="filters")
    graph, smaller, proof = halved(net(keras, Up(8, 2, name="up")))
    assert proof.passed and smaller.get_layer("up").filters == 4
    assert not graph.frozen.keys() & {"stem", "up"}


@pytest.mark.parametrize(
    ("weights", "output", "message"),
    [
        ({"kernel": ("in", "units")}, "width", "'width' is the label of no axis; there are in, units"),
        ({"kernl": ("in", "units")}, "units", "'kernl', which it has not"),
        ({"kernel": ("in", "units", None)}, "units", "3 labels for 'kernel', whose shape is"),
        ({"kernel": ("in", "width")}, "width", "'width', which is no entry of its get_config"),
        ({"kernel": ("in", "units"), "bias": ("in",)}, "units", "6 channels, and the axis has the size 4"),
    ],
)
def test_rules_that_do_not_fit(keras, weights, output, message):
    class Odd(keras.layers.Dense):
        def call(self, x):
            return super().call(x)

    with pytest.raises(ValueError, match=message):
        axes_rule(Odd, weights=weights, output=output)
        ep.plan_channels(net(keras, Odd(4)), pruning_ratio=0.5)
