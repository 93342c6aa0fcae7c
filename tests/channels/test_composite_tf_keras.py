"""Composite layers and subclassed models of tf_keras: what they compute is followed inside, as in Keras 3."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from nets.cuts import halved, randomize
from nets.pieces import between_dense_layers
from nets.samples import numbers
from tf_keras import layers

import edgeprune as ep
from edgeprune.channels.graph.trace import trace

STEPS, WIDTH = 3, 4


class Block(layers.Layer):
    """One of the things that blocks do; `(batch, n, 4)` both ways."""

    def __init__(self, kind, regularizer=None, **kwargs):
        super().__init__(**kwargs)
        self.kind, self.regularizer = kind, regularizer
        self.first, self.last = layers.Dense(2 * WIDTH, name="first"), layers.Dense(WIDTH, name="last")
        self.drop = layers.Dropout(0.5, name="drop")
        self.supports_masking = kind == "masked"
        self.rows = layers.Embedding(STEPS, 2 * WIDTH, name="rows") if kind == "constants" else None

    def get_config(self):
        return {**super().get_config(), "kind": self.kind}

    def build(self, shape):
        if self.kind in ("gain", "positions", "token", "loss", "training"):
            size = {"positions": (shape[1], 2 * WIDTH), "token": (1, 1, 2 * WIDTH)}.get(self.kind, (2 * WIDTH,))
            self.own = self.add_weight(name="own", shape=size, regularizer=self.regularizer)
        super().build(shape)

    def call(self, x, training=None):
        hidden = self.first(x)
        if self.kind in ("gain", "loss"):
            hidden = hidden * self.own
        elif self.kind == "positions":
            hidden = hidden + self.own
        elif self.kind == "token":
            hidden = tf.concat([tf.tile(self.own, [tf.shape(x)[0], 1, 1]), hidden], axis=1)[:, 1:]
        elif self.kind == "heads":
            batch = tf.shape(x)[0]
            split = tf.transpose(tf.reshape(hidden, (batch, STEPS, 2, WIDTH)), (0, 2, 1, 3))
            scores = tf.nn.softmax(tf.matmul(split, split, transpose_b=True) / 2.0)
            hidden = tf.reshape(tf.transpose(tf.matmul(scores, split), (0, 2, 1, 3)), (batch, STEPS, 2 * WIDTH))
        elif self.kind == "training" and training:
            hidden = hidden * self.own
        elif self.kind == "kernel":
            hidden = hidden * tf.sigmoid(self.first.bias)
        elif self.kind == "constants":
            hidden = hidden + self.rows(tf.range(STEPS))
        if self.kind == "loss":
            self.add_loss(tf.reduce_mean(hidden))
        return x + self.last(self.drop(tf.nn.relu(hidden), training=training))


class Chain(layers.Layer):
    def __init__(self, parts, **kwargs):
        super().__init__(**kwargs)
        self.parts = parts

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


def net(*parts):
    return randomize(between_dense_layers(keras, (STEPS, 5), WIDTH, parts))


def inputs(batch):
    return numbers(batch, STEPS, 5)


@pytest.fixture(scope="module")
def halves():
    """Models, each with the plan and the smaller model with half of its channels."""
    found = {}
    for kind in ("plain", "gain", "positions", "heads"):
        block = Block(kind, name="block")
        model = net(Chain([block], name="chain"), Block("plain", name="other")) if kind == "gain" else net(block)
        plan = ep.plan_channels(model, pruning_ratio=0.5, scope="local")
        found[kind] = model, plan, plan.apply()
    twice = Block("gain", name="block")
    plan = ep.plan_channels(net(twice, twice), pruning_ratio=0.5, scope="local")
    return {**found, "twice": (plan.model, plan, plan.apply())}


KINDS = ("plain", "gain", "positions", "heads", "twice")


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_followed_and_cut(halves, kind):
    """Against the whole model called at once, with zeros in its own weights where they read what went."""
    model, plan, smaller = halves[kind]
    graph = plan.graph
    assert not graph.not_followed and not plan.frozen.keys() & {"stem", "block/first"} and plan.verify().passed
    x = inputs(3)
    np.testing.assert_allclose(graph.walked(x), model(x), rtol=1e-5, atol=1e-6)
    before = model.get_weights()
    for slot in graph.slots:
        if slot.reads or slot.name == "own":
            values = slot.weight.numpy()
            values[(slice(None),) * slot.axis + (~plan.kept_mask[slot.classes],)] = 0
            slot.weight.assign(values)
    expected = model(x).numpy()
    model.set_weights(before)
    np.testing.assert_allclose(smaller(x), expected, rtol=1e-4, atol=1e-5)
    name = next(layer.name for layer in smaller.layers if layer.name.endswith("block_first"))
    assert smaller.get_layer(name).units == WIDTH
    for own in (layer for layer in smaller.layers if layer.name.endswith("_own")):
        values = own.kernel.numpy()
        smaller.compile("sgd", "mse")
        smaller.fit(x, np.ones((3, STEPS, 2)), verbose=0)
        assert (own.kernel.numpy() != values).any()


def test_files_load_without_this_package(halves, tmp_path, elsewhere):
    x = inputs(3)
    for kind, (_, _, smaller) in halves.items():
        smaller.save(tmp_path / f"{kind}.keras")
        loaded = elsewhere.outputs("tf_keras", tmp_path / f"{kind}.keras", x)
        np.testing.assert_allclose(loaded, smaller(x), rtol=1e-5, atol=1e-6)


def test_a_smaller_model_is_converted(halves, tmp_path):
    _, _, smaller = halves["positions"]
    ep.export_tflite(smaller, tmp_path / "m.tflite", quantization=None, verify=True, verbose=False)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("training", "it makes other calls in training"),
        ("kernel", "it uses weights outside of the layers that hold them"),
        ("constants", "it calls a layer with weights on constants"),
        ("loss", "it adds a loss of its own"),
    ],
)
def test_what_cannot_be_followed_stays_whole_with_the_reason(kind, reason):
    model = net(Block(kind, name="block"), layers.Dense(6, name="after"))
    model(inputs(2))
    losses = len(model.losses)
    graph, _, proof = halved(model)
    assert proof.passed and reason in graph.frozen["block"] and "after" not in graph.frozen
    assert len(model.losses) == losses == int(kind == "loss")


def test_masks_that_a_layer_passes_on_itself_keep_it_whole():
    steps = keras.Input((STEPS,), dtype="int32")
    x = layers.Embedding(5, WIDTH, mask_zero=True, name="words")(steps)
    block = Block("masked", name="block")
    model = randomize(keras.Model(steps, layers.Dense(2, name="head")(layers.LSTM(6, name="lstm")(block(x)))))
    graph, _, proof = halved(model)
    assert proof.passed and "return other masks" in graph.frozen["block"] and "lstm" not in graph.frozen


def test_a_subclassed_model():
    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="net")
            self.stem, self.block = layers.Dense(WIDTH, name="stem"), Block("gain", name="block")
            self.head = layers.Dense(2, name="head")

        def call(self, x, training=None):
            return self.head(self.block(self.stem(x), training=training))

    model = Net()
    model(inputs(1))
    graph, smaller, proof = halved(randomize(model))
    assert proof.passed and [group.name for group in graph.groups] == ["stem", "block/first", "head"]
    assert smaller.get_layer("block_first").units == WIDTH


def test_frozen_and_regularized_weights_stay_so():
    model = net(Block("gain", "l2", name="one"), Block("gain", "l2", name="two"))
    model.get_layer("one").trainable = False
    smaller = ep.prune_channels(model, pruning_ratio=0.5)
    still = {layer.name for layer in smaller.layers if layer.weights and not layer.trainable}
    assert still == {"one_own", "one_first", "one_last"}
    assert smaller.get_layer("two_own").kernel_regularizer is not None
    assert len(smaller.losses) == len(model.losses)


def test_mixed_precision_and_each_step():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        film = keras.Input((2, STEPS, 5))
        x = layers.TimeDistributed(Block("gain", name="block"), name="each")(layers.Dense(WIDTH, name="stem")(film))
        model = randomize(keras.Model(film, layers.Dense(2, name="head")(x)))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    graph, smaller, proof = halved(model)
    assert proof.passed and [group.name for group in graph.groups] == ["stem", "each/block/first", "head"]
    inner = smaller.get_layer("each").layer
    assert inner.get_layer("block_own").kernel.shape == (1, WIDTH)
    assert inner.get_layer("block_first").compute_dtype == "float16"


def test_a_model_is_left_as_it_is():
    model = net(Block("token", name="one"), Chain([Block("gain", name="inner")], name="two"), Block("loss"))
    model(inputs(2))

    def state():
        parts = list(model._flatten_layers())
        return [(part.name, len(part._inbound_nodes), len(part._outbound_nodes), sorted(vars(part))) for part in parts]

    before, weights, losses = state(), model.get_weights(), len(model.losses)
    for _ in range(2):
        ep.plan_channels(model, pruning_ratio=0.5).apply()
    trace(model)
    assert state() == before and len(model.losses) == losses
    assert all((a == b).all() for a, b in zip(weights, model.get_weights(), strict=True))
