"""All that runs a channels-first model, in a process of its own: TensorFlow reads TF_ENABLE_ONEDNN_OPTS only once."""

import sys

import numpy as np

import edgeprune as ep
from edgeprune import flavor as flavors


def images(L, form):
    """Layers of images that have a data_format and weights, and those that TensorFlow computes by its format."""
    last = form == "channels_last"
    return [
        L.Conv2D(8, 3, padding="same", activation="relu", data_format=form, name="a"),
        L.BatchNormalization(axis=-1 if last else 1),
        L.DepthwiseConv2D(3, data_format=form),
        L.SeparableConv2D(10, 3, padding="same", data_format=form, name="b"),
        L.MaxPooling2D(2, data_format=form),
        L.Conv2DTranspose(6, 2, strides=2, data_format=form, name="c"),
        L.AveragePooling2D(2, data_format=form),
        L.Conv2D(8, 1, groups=2, data_format=form, name="d"),
        L.GlobalMaxPooling2D(data_format=form),
        L.Dense(3, activation="softmax"),
    ]


def others(L, form):
    """Those of one dimension, and of three."""
    last = form == "channels_last"
    return [
        L.Conv1D(8, 3, data_format=form, name="a"),
        L.DepthwiseConv1D(3, padding="same", data_format=form),
        L.SeparableConv1D(6, 3, padding="same", data_format=form, name="b"),
        L.Conv1DTranspose(5, 2, data_format=form, name="c"),
        L.Reshape((2, 2, 2, 5) if last else (5, 2, 2, 2)),
        L.Conv3D(6, 1, data_format=form, name="d"),
        L.Conv3DTranspose(5, 2, data_format=form, name="e"),
        L.GlobalAveragePooling3D(data_format=form),
        L.Dense(3, activation="softmax"),
    ]


def pair(keras, layers, sides):
    """A net on channels-first data, and the same weights on channels-last data."""
    nets = []
    for form, shape in (("channels_first", (3, *sides)), ("channels_last", (*sides, 3))):
        keras.utils.set_random_seed(0)
        nets.append(keras.Sequential([keras.Input(shape), *layers(keras.layers, form)]))
    nets[1].set_weights(nets[0].get_weights())
    return nets


def check_layers(keras, layers, sides, x):
    """What a net computes; returns it with its twin."""
    first, last = pair(keras, layers, sides)
    expected = np.asarray(last(np.moveaxis(x, 1, -1), training=False))
    np.testing.assert_allclose(flavors.call_model(first, [x])[0], expected, rtol=1e-4, atol=1e-5)
    return first, last


def check_importance(first, last, x, importance):
    y = np.arange(len(x)) % 3
    settings = {"pruning_ratio": 0.4, "importance": importance, "loss": "sparse_categorical_crossentropy"}
    found = ep.plan_channels(first, data=(x, y), **settings).kept
    wanted = ep.plan_channels(last, data=(np.moveaxis(x, 1, -1), y), **settings).kept
    for a, b in zip(found, wanted, strict=True):
        assert a.keys() == b.keys() and all((a[axis] == b[axis]).all() for axis in a), importance


def check_proofs(first, last):
    """The smaller models on channels-first data are proven."""
    smaller = ep.prune_channels(first, pruning_ratio=0.4)
    assert smaller.count_params() == ep.prune_channels(last, pruning_ratio=0.4, verify=False).count_params()
    for model in (first, last):
        kernel = np.array(model.get_layer("a").kernel)
        kernel[..., :3] = 0
        model.get_layer("a").kernel.assign(kernel)
    without_dead = ep.remove_dead_channels(first)
    assert without_dead.count_params() == ep.remove_dead_channels(last, verify=False).count_params()


def check_blocks_and_export(keras, x, folder):
    first = {"data_format": "channels_first"}
    i = keras.Input(x.shape[1:])
    h = keras.layers.Conv2D(6, 3, padding="same", **first)(i)
    h = keras.layers.Add()([h, keras.layers.Conv2D(6, 3, padding="same", **first)(h)])
    model = keras.Model(i, keras.layers.GlobalAveragePooling2D(**first)(h))
    shallower = ep.remove_blocks(model, num_blocks=1, data=x)
    assert len(shallower.layers) == len(model.layers) - 2
    written = ep.export_tflite(shallower, f"{folder}/{keras.__name__}.tflite", "int8", x, verbose=False)
    assert written.verification.passed, written.verification


def check(keras, folder):
    random = np.random.default_rng(0)
    x = random.normal(size=(6, 3, 10, 12)).astype("float32")
    nets = check_layers(keras, images, (10, 12), x)
    # One measures in the forward pass, the other in the backward pass; how layers are called is the same in both.
    check_importance(*nets, x, {"keras": "taylor", "tf_keras": "activation"}[keras.__name__])
    check_layers(keras, others, (9,), random.normal(size=(2, 3, 9)).astype("float32"))
    if keras.__name__ == "keras":  # proofs and scores call the layers of both in the same way
        check_proofs(*nets)
        check_blocks_and_export(keras, x, folder)


if __name__ == "__main__":
    for name in (flavors.KERAS_3, flavors.TF_KERAS):
        check(flavors.keras_module(name), sys.argv[1])
