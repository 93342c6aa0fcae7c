"""Composite layers of Keras 3: what they compute is followed inside, with the weights that they use themselves."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
from channel_nets import halved, randomize
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers, ops

import edgeprune as ep
from edgeprune.channels.graph.trace import trace

RNG = np.random.default_rng(0)
STEPS, WIDTH = 3, 4


class Step(layers.Layer):
    """One of the things that blocks do with a weight of their own, or with shapes; `(batch, n, 4)` both ways."""

    def __init__(self, kind, settings=None, **kwargs):
        super().__init__(**kwargs)
        self.kind, self.settings = kind, settings or {}
        self.first = layers.Dense(2 * WIDTH, name="first")
        self.last = layers.Dense(WIDTH, name="last")

    def build(self, shape):
        sizes = {
            "vector": (2 * WIDTH,),
            "gain": (2 * WIDTH,),
            "unused": (2 * WIDTH,),
            "positions": (shape[1], 2 * WIDTH),
            "joined": (shape[1], 2),
            "product": (2 * WIDTH, 2 * WIDTH),
        }
        size = sizes.get(self.kind, (1, 1, 2 * WIDTH))
        if self.kind not in ("reshaped", "heads"):
            self.own = self.add_weight(shape=size, name="own", initializer="random_normal", **self.settings)
        self.first.build(shape)
        width = 2 * WIDTH + 2 * (self.kind == "joined")
        self.last.build((*shape[:-1], width))
        self.built = True

    def call(self, x):
        hidden = self.first(x)
        batch = ops.shape(x)[0]
        if self.kind in ("vector", "positions"):
            hidden = hidden + self.own
        elif self.kind == "gain":
            hidden = hidden * self.own
        elif self.kind == "product":
            hidden = ops.matmul(hidden, self.own)
        elif self.kind == "joined":
            own = ops.broadcast_to(self.own, (batch, *self.own.shape))
            hidden = ops.concatenate([hidden, own], axis=-1)
        elif self.kind == "tiled":
            hidden = ops.concatenate([ops.tile(self.own, (batch, 1, 1)), hidden], axis=1)[:, 1:] + self.own
        elif self.kind == "broadcast":
            hidden = ops.concatenate([ops.broadcast_to(self.own, (batch, 1, 2 * WIDTH)), hidden], axis=1)[:, :-1]
        elif self.kind == "repeated":
            hidden = ops.concatenate([ops.repeat(self.own, batch, axis=0), hidden], axis=1)[:, :-1]
        elif self.kind == "reshaped":
            hidden = ops.reshape(ops.reshape(hidden, (batch, -1)), (batch, -1, 2 * WIDTH))
        elif self.kind == "heads":
            split = ops.transpose(ops.reshape(hidden, (batch, -1, 2, WIDTH)), (0, 2, 1, 3))
            scores = ops.softmax(ops.matmul(split, ops.transpose(split, (0, 1, 3, 2))) / 2.0)
            hidden = ops.reshape(ops.transpose(ops.matmul(scores, split), (0, 2, 1, 3)), (batch, -1, 2 * WIDTH))
        return x + self.last(ops.relu(hidden))


class Chain(layers.Layer):
    """Layers one after the other."""

    def __init__(self, parts, **kwargs):
        super().__init__(**kwargs)
        self.parts = parts

    def build(self, shape):
        for part in self.parts:
            part.build(shape)
        self.built = True

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


KINDS = (
    *("vector", "gain", "unused", "positions", "joined", "product"),
    *("tiled", "broadcast", "repeated", "reshaped", "heads"),
)


def net(*parts, nested=False):
    """The parts between two dense layers; in a model inside another where asked for."""
    i = keras.Input((STEPS, 5))
    x = layers.Dense(WIDTH, name="stem")(i)
    if nested:
        inside = inner = keras.Input((STEPS, WIDTH))
        for part in parts:
            inner = part(inner)
        x = keras.Model(inside, inner, name="inside")(x)
    else:
        for part in parts:
            x = part(x)
    return randomize(keras.Model(i, layers.Dense(2, name="head")(x)))


def numbers(batch):
    return RNG.normal(size=(batch, STEPS, 5)).astype("float32")


def check_unfolded(model):
    """What was walked computes what the model does, for batches of any size; returns the graph."""
    graph = trace(model)
    assert not graph.not_followed
    for batch in (1, 2, WIDTH, 2 * WIDTH):
        x = numbers(batch)
        np.testing.assert_allclose(graph.walked(x), model(x), rtol=1e-5, atol=1e-6)
    return graph


@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
    chained=st.booleans(),
    nested=st.booleans(),
    twice=st.booleans(),
)
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_random_blocks_are_unfolded_equal_and_lose_half(kinds, chained, nested, twice):
    parts = [Step(kind, name=f"{kind}_{number}") for number, kind in enumerate(kinds)]
    parts = [Chain(parts, name="chain")] if chained else parts
    model = net(*parts, *parts[: int(twice)], nested=nested)
    check_unfolded(model)
    _, smaller, proof = halved(model)
    assert proof.passed, proof
    assert smaller.count_params() < model.count_params()


@pytest.fixture(scope="module")
def halves():
    """For each kind a model with it and the plan and the smaller model with half of its channels."""
    found = {}
    for kind in KINDS:
        model = net(Step(kind, name="block"))
        plan = ep.plan_channels(model, ratio=0.5, scope="local")
        found[kind] = model, plan, plan.apply()
    return found


LOAD = """
import sys, numpy as np, keras
x = np.load(sys.argv[1] + "/x.npy")
for kind in sys.argv[2:]:
    model = keras.models.load_model(f"{sys.argv[1]}/{kind}.keras")
    np.save(f"{sys.argv[1]}/{kind}.npy", model(x))
assert "edgeprune" not in sys.modules
"""


def test_files_load_without_this_package(halves, tmp_path):
    x = numbers(3)
    np.save(tmp_path / "x.npy", x)
    for kind, (_, _, smaller) in halves.items():
        smaller.save(tmp_path / f"{kind}.keras")
    run = subprocess.run(
        [sys.executable, "-I", "-c", LOAD, str(tmp_path), *halves], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr[-2000:]
    for kind, (_, _, smaller) in halves.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{kind}.npy"), smaller(x), rtol=1e-5, atol=1e-6)


def own_weights_of(smaller):
    return [layer for layer in smaller.layers if layer.name.startswith("block_own")]


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_in_what_reads_the_channels_give_the_same(halves, kind):
    """The whole model called at once, with zeros in its own weights where they read what went."""
    model, plan, smaller = halves[kind]
    assert plan.verify().passed and plan.channels.after < plan.channels.before
    x = numbers(3)
    before = model.get_weights()
    for slot in plan.graph.slots:
        if slot.reads or slot.name == "own":  # one that is multiplied by a matrix of its own is read by that
            values = np.array(slot.weight)
            values[(slice(None),) * slot.axis + (~plan.kept_mask[slot.classes],)] = 0
            slot.weight.assign(values)
    expected = np.asarray(model(x))
    model.set_weights(before)
    np.testing.assert_allclose(smaller(x), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("unused", "reshaped", "heads")])
def test_own_weights_are_cut_and_trained(halves, kind):
    model, _, smaller = halves[kind]
    (own,) = own_weights_of(smaller)
    assert own.trainable and own.count_params() <= model.get_layer("block").own.shape.num_elements()
    before = np.array(own.kernel)
    smaller.compile(keras.optimizers.SGD(0.1), "mse")
    smaller.fit(numbers(4), np.ones((4, STEPS, 2)), epochs=1, verbose=0)
    assert (np.array(own.kernel) != before).any()


def test_an_unfolding_that_is_not_equal_fails_the_proof():
    """The layer computes something else when it is called on numbers than when it is looked into."""

    class Deceiving(Step):
        def call(self, x):
            return super().call(x) * (1.0 if isinstance(x, keras.KerasTensor) else 2.0)

    _, _, proof = halved(net(Deceiving("vector", name="block")))
    assert not proof.passed
