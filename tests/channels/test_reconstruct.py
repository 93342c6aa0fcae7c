"""Reconstruction against independent oracles: exact where it can be, never worse than the cut, equal to lstsq."""

import keras
import numpy as np
import pytest
import tf_keras
from nets.cuts import random_mask, randomize

import edgeprune as ep
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.rebuild.slicing import rebuild
from edgeprune.channels.reconstruct.reconstruct import reconstruct

BOTH = pytest.mark.parametrize("K", [keras, tf_keras], ids=["keras", "tf_keras"])


def images(count=24, shape=(8, 8, 3), seed=0):
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def cut_and_reconstructed(model, x, ratio=0.5, seed=0, **settings):
    graph = trace(randomize(model, seed))
    mask = random_mask(graph, ratio, seed)
    smaller = rebuild(graph, mask)
    cut = [np.array(weight) for weight in smaller.weights]
    return cut, reconstruct(graph, mask, smaller, x, **settings)


def redundant(model, layer, makes=-1):
    """The second half of a layer's filters become mixtures of the first half."""
    kernel, bias = (np.array(weight) for weight in layer.weights[:2])
    half = kernel.shape[makes] // 2
    mixing = np.random.default_rng(3).normal(size=(half, kernel.shape[makes] - half)).astype(np.float32)
    kernel[..., half:] = kernel[..., :half] @ mixing
    bias[half:] = bias[:half] @ mixing
    layer.kernel.assign(kernel)
    layer.bias.assign(bias)
    return list(range(half, kernel.shape[makes]))


def without(model, dropped):
    plan = ep.plan_channels(model, pruning_ratio=0.1)
    for group in plan.groups:
        if group.frozen is None:
            plan = plan.keep(group.name)
    for name, indices in dropped.items():
        plan = plan.drop(name, indices)
    return plan


def linear_nets(K):
    L = K.layers

    def dense():
        x = i = K.Input((6,))
        x = L.Dense(8, name="a")(x)
        return K.Model(i, L.Dense(3)(L.Dense(5, name="b")(x)))

    def convolutions():
        x = i = K.Input((8, 8, 3))
        x = L.Conv2D(6, 3, padding="same", strides=2, name="a")(x)
        return K.Model(i, L.Dense(3)(L.Flatten()(L.Conv2D(4, 3, dilation_rate=2, padding="same", name="b")(x))))

    def normalized():
        x = i = K.Input((8, 8, 3))
        x = L.BatchNormalization()(L.Conv2D(6, 3, name="a")(x))
        x = L.BatchNormalization()(L.Conv2D(4, 3, use_bias=False)(x))
        return K.Model(i, L.Dense(3)(L.GlobalAveragePooling2D()(x)))

    def concatenated():
        x = i = K.Input((8, 8, 3))
        x = L.Concatenate()([L.Conv2D(6, 3, padding="same", name="a")(x), L.Conv2D(4, 3, padding="same")(x)])
        return K.Model(i, L.Conv2D(3, 1)(x))

    def residual():
        x = i = K.Input((8, 8, 3))
        y = L.Conv2D(4, 3, padding="same")(L.Conv2D(6, 3, padding="same", name="a")(x))
        return K.Model(i, L.Dense(2)(L.Add()([y, L.Conv2D(4, 1)(x)])))

    return {one.__name__: one for one in (dense, convolutions, normalized, concatenated, residual)}


@BOTH
@pytest.mark.parametrize("name", list(linear_nets(keras)))
def test_what_the_others_can_make_up_for_is_lost_without_a_trace(K, name):
    model = randomize(linear_nets(K)[name]())
    dropped = redundant(model, model.get_layer("a"))
    x = images(64, model.input_shape[1:])
    found = without(model, {"a": dropped}).reconstruct(x)
    assert found.before > 0.05
    assert found.after < 1e-4
    fresh = images(8, model.input_shape[1:], seed=9)
    wanted = model.predict(fresh, verbose=0)
    assert np.abs(found.model.predict(fresh, verbose=0) - wanted).max() < 1e-3 * np.abs(wanted).max()
