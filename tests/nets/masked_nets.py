"""A small net whose channels are masked while it trains."""

from __future__ import annotations

from nets.samples import labelled

import edgeprune as ep
from edgeprune import flavor as flavors

X, Y = labelled(64, 8, 8, 2)
STEPS = 4  # of 16 images, an epoch


def net(flavor, shape=(8, 8, 2), classes=3, optimizer="sgd", width=12):
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(1)
    layers = keras.layers
    inputs = keras.Input(shape)
    x = layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False, name="stem")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="stem_norm", momentum=0.8)(x))
    y = layers.Conv2D(2 * width, 1, name="expand")(x)
    y = layers.ReLU()(layers.BatchNormalization(name="expand_norm", momentum=0.8)(y))
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y)
    y = layers.Activation("sigmoid")(y)  # is one half where its input is masked
    x = layers.Add()([x, layers.Conv2D(width, 1, name="project")(y)])
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(classes, activation="softmax", name="head")(x), name="net")
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def fit(model, pruning, epochs=4, callbacks=(), **arguments):
    return model.fit(X, Y, batch_size=16, epochs=epochs, verbose=0, callbacks=[pruning, *callbacks], **arguments)


def schedule(final=0.5, **arguments):
    return ep.PolynomialDecay(0.0, final, frequency=2, **arguments)
