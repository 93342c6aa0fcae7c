"""Small nets with all that is placed in a way of its own, and data for them."""

import numpy as np

from edgeprune import flavor as flavors


def images(count=64, seed=0):
    """Images `(count, 12, 12, 3)` of smooth random patterns."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-1, 1, (count, 4, 4, 3)).astype(np.float32)
    return np.repeat(np.repeat(coarse, 3, axis=1), 3, axis=2)


def branched(flavor):
    """Convolutions with batch normalization, a residual, a concatenation, pooling, swish, softmax."""
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(1)
    layers = keras.layers
    image = keras.Input((12, 12, 3), name="image")
    stem = layers.Conv2D(8, 3, strides=2, use_bias=False, name="stem")(image)
    stem = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_bn")(stem))
    inner = layers.DepthwiseConv2D(3, padding="same", name="depth")(stem)
    inner = layers.ReLU(6.0, name="depth_relu")(layers.BatchNormalization(name="depth_bn")(inner))
    inner = layers.BatchNormalization(name="point_bn")(layers.Conv2D(8, 1, name="point")(inner))
    x = layers.ReLU(name="sum_relu")(layers.Add(name="sum")([stem, inner]))
    x = layers.Dropout(0.1, name="dropout")(x)
    left = layers.Conv2D(4, 3, padding="same", activation="relu", name="left")(x)
    right = layers.Conv2D(6, 1, activation="swish", name="right")(x)
    x = layers.AveragePooling2D(2, name="pool")(layers.Concatenate(name="join")([left, right]))
    x = layers.Dense(12, activation="relu", name="hidden")(layers.Flatten(name="flat")(x))
    model = keras.Model(image, layers.Dense(5, activation="softmax", name="head")(x), name="branched")
    return settled(model)


def chain(flavor):
    """A Sequential model of a few layers."""
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3), name="image"),
            layers.Conv2D(8, 3, strides=2, use_bias=False, name="stem"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(name="relu"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(5, activation="softmax", name="head"),
        ],
        name="chain",
    )
    return settled(model)


def settled(model):
    """Statistics and offsets as of a model that was trained, random ones."""
    rng = np.random.default_rng(0)
    for layer in flavors.layers_of(model):
        if type(layer).__name__ == "BatchNormalization":
            size = layer.gamma.shape[0]
            layer.gamma.assign(rng.uniform(0.5, 2, size) * rng.choice([-1, 1], size))
            layer.beta.assign(rng.normal(size=size) * 0.2)
            layer.moving_mean.assign(rng.normal(size=size) * 0.1)
            layer.moving_variance.assign(rng.uniform(0.2, 1.5, size))
    return model


def nested(flavor):
    """A convolution with batch normalization in a model inside, whose ReLU stands outside."""
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(1)
    layers = keras.layers
    image = keras.Input((12, 12, 3))
    parts = [layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(name="bn")]
    inner = keras.Sequential([keras.Input((12, 12, 3)), *parts], name="inner")
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(inner(image)))
    return settled(keras.Model(image, layers.Dense(3, name="out")(x)))


def shared(flavor):
    """Two inputs, a layer called on both, a function in the graph, two outputs."""
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(1)
    layers = keras.layers
    a, b = keras.Input((12, 12, 3), name="a"), keras.Input((12, 12, 3), name="b")
    conv = layers.Conv2D(4, 3, activation="relu", name="conv")
    x = layers.GlobalAveragePooling2D()(conv(a) + conv(b))
    return keras.Model([a, b], [layers.Dense(3, name="p")(x), layers.Dense(1, activation="sigmoid", name="q")(x)])


def half(flavor):
    """A model in mixed precision."""
    keras = flavors.keras_module(flavor)
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        return chain(flavor)
    finally:
        keras.mixed_precision.set_global_policy("float32")
