"""A small trained net and its data, for searches end to end."""

import numpy as np

from edgeprune import flavor as flavors


def net(keras, name="net"):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((12,), name="features"),
            layers.Dense(32, activation="relu", name="first"),
            layers.Dense(32, activation="relu", name="second"),
            layers.Dense(3, activation="softmax", name="out"),
        ],
        name=name,
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def data(count, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 12)).astype("f4")
    return x, (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)


def trained_net(flavor="keras"):
    model = net(flavors.keras_module(flavor))
    model.fit(*data(256, 0), epochs=8, verbose=0)
    return model
