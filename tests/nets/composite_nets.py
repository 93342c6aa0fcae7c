"""Nets whose layers are inside other layers, or that are subclassed."""

import numpy as np

from edgeprune import flavor as flavors


def block_class(flavor):
    """A layer that is made of others, as KerasHub's are: a convolution with swish, a dense layer, a normalisation."""
    keras = flavors.keras_module(flavor)
    layers = keras.layers

    class Block(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.conv = layers.Conv2D(4, 3, activation="swish", name="conv")
            self.dense = layers.Dense(4, name="dense")
            self.norm = layers.BatchNormalization(name="norm")

        def build(self, shape):
            for part in (self.conv, self.dense, self.norm):
                part.build(shape)
                shape = part.compute_output_shape(shape)
            self.built = True

        def call(self, x):
            return self.norm(self.dense(self.conv(x)))

    return Block


def composite(flavor):
    """A Functional net with such a layer."""
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(1)
    layers, image = keras.layers, keras.Input((12, 12, 3), name="image")
    x = layers.GlobalAveragePooling2D(name="pool")(block_class(flavor)(name="block")(image))
    return keras.Model(image, layers.Dense(5, activation="softmax", name="head")(x), name="composite")


def subclassed(flavor):
    """The same as a model of a class of its own, built."""
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(1)
    layers, block = keras.layers, block_class(flavor)

    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="net")
            self.block = block(name="block")
            self.pool = layers.GlobalAveragePooling2D(name="pool")
            self.head = layers.Dense(5, activation="softmax", name="head")

        def call(self, x):
            return self.head(self.pool(self.block(x)))

    model = Net()
    model(np.zeros((1, 12, 12, 3), np.float32))
    return model


def sequence(flavor):
    """A sequence `(6, 8)` through normalisation, attention, EinsumDense of two kinds and an LSTM."""
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(1)
    layers, steps = keras.layers, keras.Input((6, 8), name="steps")
    x = layers.LayerNormalization(name="norm")(steps)
    x = layers.Add(name="sum")([steps, layers.MultiHeadAttention(2, 4, name="attention")(x, x)])
    x = layers.EinsumDense("abc,cd->abd", (6, 7), bias_axes="d", activation="relu", name="mixed")(x)
    x = layers.EinsumDense("abc,cde->abde", (6, 2, 3), bias_axes="de", name="heads")(x)
    x = layers.LSTM(5, name="lstm")(layers.Reshape((6, 6), name="joined")(x))
    return keras.Model(steps, layers.Dense(2, name="head")(x), name="sequence")
