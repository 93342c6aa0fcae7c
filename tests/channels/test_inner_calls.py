"""What composite layers of Keras 3 do inside beside plain calls: open sizes, constants, losses, numbers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from nets.cuts import halved, randomize
from nets.pieces import between_dense_layers

from edgeprune.channels.graph.trace import trace

STEPS, HEADS, DEPTH = 5, 4, 3  # Keras takes what it adds for a bias of axis 1 where it has as many places
WIDTH = HEADS * DEPTH


class Inside(layers.Layer):
    """A composite layer that works on `(batch, STEPS, WIDTH)` in one of the ways below."""

    def __init__(self, kind, **kwargs):
        super().__init__(**kwargs)
        self.kind, self.number = kind, 2.0
        heads = "nh" if kind == "open" else None
        self.first = layers.EinsumDense("btd,dnh->btnh", (None, HEADS, DEPTH), bias_axes=heads, name="first")
        self.joint = layers.Dense(3 * WIDTH, name="joint")
        self.last = layers.Dense(WIDTH, name="last")

    def build(self, shape):
        self.first.build(shape)
        self.joint.build(shape)
        self.last.build((*shape[:-1], WIDTH))
        self.built = True

    def call(self, x, training=None):
        batch, steps, _ = ops.shape(x)
        return x + self.last(ops.reshape(getattr(self, self.kind)(x, batch, training), (batch, steps, WIDTH)))

    def open(self, x, batch, training):
        heads = self.first(x)
        return ops.reshape(heads, ops.shape(heads))

    def uniform(self, x, batch, training):
        mask = ops.zeros((batch, HEADS, STEPS, STEPS))
        heads = ops.transpose(self.first(x), (0, 2, 1, 3))
        scores = ops.matmul(heads, ops.transpose(heads, (0, 1, 3, 2))) + mask
        moved = ops.matmul(ops.ones((batch, 1, STEPS, STEPS)) / STEPS, heads)
        return ops.transpose(ops.matmul(ops.softmax(scores), heads) + moved, (0, 2, 1, 3))

    def unstacked(self, x, batch, training):
        joint = ops.reshape(self.joint(x), (batch, STEPS, 3, HEADS, DEPTH))
        query, key, value = ops.unstack(ops.transpose(joint, (2, 0, 3, 1, 4)))
        scores = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))))
        return ops.transpose(ops.matmul(scores, value), (0, 2, 1, 3))

    def numbered(self, x, batch, training):
        joint = ops.reshape(self.joint(x), (batch, STEPS, 3, HEADS, DEPTH))
        return joint[:, :, 0] * ops.sigmoid(joint[:, :, 2])

    def turned(self, x, batch, training):
        heads = ops.reshape(self.joint(x)[..., :WIDTH], (batch, STEPS, HEADS, DEPTH))
        return ops.concatenate([heads[..., 1:], -heads[..., :1]], axis=-1) * ops.cos(ops.arange(1.0, DEPTH + 1))

    def gathered(self, x, batch, training):
        places = ops.broadcast_to(ops.arange(STEPS)[::-1], (batch, HEADS, DEPTH, STEPS))
        heads = ops.transpose(self.first(x), (0, 2, 3, 1))
        return ops.transpose(tf.gather(heads, places, batch_dims=3), (0, 3, 1, 2))

    def masked(self, x, batch, training):
        mask = ops.broadcast_to(ops.max(x, axis=-1)[:, None, :, None] > 0, (batch, HEADS, STEPS, DEPTH))
        return ops.where(ops.transpose(mask, (0, 2, 1, 3)), self.first(x), 0.0)

    def trained_with_a_loss(self, x, batch, training):
        heads = self.first(x)
        if training:
            self.add_loss(ops.mean(heads))
        return heads

    def always_with_a_loss(self, x, batch, training):
        self.add_loss(ops.mean(x))
        return self.first(x)


KINDS = {  # to the number of groups that lose channels: the width, and heads or what is inside them
    "open": 2,
    "uniform": 2,
    "unstacked": 2,
    "numbered": 2,
    "turned": 2,
    "gathered": 2,
    "masked": 1,
    "trained_with_a_loss": 2,
}


def net(*parts):
    return randomize(between_dense_layers(keras, (STEPS, 5), WIDTH, parts))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_inside_loses_half(kind):
    model = net(Inside(kind, name="inside"))
    graph, smaller, proof = halved(model)
    assert not graph.not_followed and proof.passed
    assert sum(group.frozen is None for group in graph.groups) >= KINDS[kind], graph.groups
    for batch in (1, HEADS):
        x = np.random.default_rng(0).normal(size=(batch, STEPS, 5)).astype("float32")
        np.testing.assert_allclose(graph.walked(x), model(x), rtol=1e-5, atol=1e-6)
        assert smaller(x).shape == (batch, STEPS, 2)


def test_losses_of_training_are_noted_and_others_keep_the_layer():
    noted = trace(net(Inside("trained_with_a_loss", name="inside")))
    assert "inside adds a loss in training" in noted.notes[0]
    kept = trace(net(Inside("always_with_a_loss", name="inside")))
    assert "it adds a loss of its own" in kept.not_followed["inside"]


class Fold(layers.Layer):
    """Frames as samples, or back."""

    def __init__(self, shape, **kwargs):
        super().__init__(**kwargs)
        self.shape = shape

    def call(self, x):
        return ops.reshape(x, (-1, *self.shape))

    def compute_output_shape(self, shape):
        return (None, *self.shape)


class Places(layers.Layer):
    """Numbers that follow from a shape alone."""

    def call(self, x):
        return ops.cos(ops.arange(float(x.shape[1])))[:, None]


class Unchanged(layers.Layer):
    """It passes what it is given."""

    def call(self, x):
        return x


def test_frames_among_the_samples_and_constants():
    i = keras.Input((3, STEPS, 5))
    x = layers.Dense(WIDTH, name="stem")(Fold((STEPS, 5))(i))
    x = Inside("open", name="inside")(x * Places()(x))
    x = layers.Dense(8, name="last")(Unchanged()(Fold((3, STEPS, WIDTH))(x)))
    model = keras.Model(i, layers.Dense(2, name="head")(x))
    graph, smaller, proof = halved(model)
    assert proof.passed and not graph.not_followed
    assert {"stem", "last"} <= {group.layers[0] for group in graph.groups if group.frozen is None}
    assert smaller(np.ones((2, 3, STEPS, 5), "float32")).shape == (2, 3, STEPS, 2)


class Grown(layers.Layer):
    """The number that it is made with becomes a weight of that name, and its configuration holds the weight."""

    def __init__(self, number, **kwargs):
        super().__init__(**kwargs)
        self.number = number

    def build(self, shape):
        self.number = self.add_weight(shape=(1,), initializer=keras.initializers.Constant(self.number), name="number")
        self.built = True

    def call(self, x):
        return ops.round(tf.identity(x)) if ops.is_tensor(x) else keras.KerasTensor(x.shape)

    def get_config(self):
        return {**super().get_config(), "number": self.number}


def test_a_weight_in_the_place_of_a_number():
    i = keras.Input((5,))
    x = layers.Dense(6, name="free")(i)
    model = keras.Model(i, Grown(2.0, name="grown")(layers.Dense(4, name="kept")(x)))
    graph, smaller, proof = halved(model)
    assert proof.passed
    assert len(smaller.get_layer("grown").weights) == 1
    np.testing.assert_array_equal(smaller.get_layer("grown").weights[0], model.get_layer("grown").weights[0])


class Pair(layers.Layer):
    """It says that it gives two tensors, and gives one."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(WIDTH, name="inner")

    def build(self, shape, *others):
        self.inner.build(shape)
        self.built = True

    def call(self, x):
        return self.inner(x), None

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape), keras.KerasTensor(x.shape)


def test_a_tensor_that_is_never_given():
    i = keras.Input((None, 5))
    x, _ = Pair(name="pair")(layers.Dense(WIDTH, name="stem")(i))
    graph, _, proof = halved(keras.Model(i, layers.Dense(2, name="head")(x)))
    assert proof.passed
    assert {group.name for group in graph.groups if group.frozen is None} == {"stem", "pair/inner"}


class Misnamed(layers.ReLU):
    """Its configuration has an entry that it cannot be made with, so no file that holds it can be loaded."""

    def get_config(self):
        return {**super().get_config(), "other": 1}


def test_a_layer_that_no_file_can_hold_is_replaced_by_its_calls():
    i = keras.Input((5,))
    x = Misnamed(name="misnamed")(layers.Dense(8, name="stem")(i))
    _, smaller, proof = halved(keras.Model(i, layers.Dense(2, name="head")(x)))
    assert proof.passed
    assert not any(isinstance(layer, Misnamed) for layer in smaller.layers)
