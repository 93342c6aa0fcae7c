"""Layers that act only in training do not act while a smaller model is proven and activations are scored."""

import numpy as np
import pytest

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.plan.importance import class_scores

SIDE = 12


def of_both(L):
    return [
        L.RandomFlip("horizontal_and_vertical"),
        L.RandomRotation(0.4),
        L.RandomZoom(0.4),
        L.RandomContrast(0.5),
        L.RandomBrightness(0.5, value_range=(0, 1)),
        L.RandomTranslation(0.4, 0.4),
        L.RandomCrop(SIDE, SIDE),
        L.Dropout(0.5),
        L.AlphaDropout(0.5),
        L.GaussianDropout(0.5),
        L.GaussianNoise(1.0),
        L.SpatialDropout2D(0.5),
    ]


def of_keras_3(L):
    known = {"value_range": (0, 1)}
    return [
        L.RandomShear((0.0, 0.5), (0.0, 0.5)),
        L.RandomPerspective(1.0),
        L.RandomHue(0.5, **known),
        L.RandomSaturation(0.9, **known),
        L.RandomSharpness(0.9, **known),
        L.RandomGrayscale(1.0),
        L.RandomInvert(1.0, **known),
        L.RandomErasing(1.0, **known),
        L.RandomGaussianBlur(1.0, **known),
        L.RandomColorJitter((0, 1), 0.5, 0.5, 0.5, 0.5),
        L.RandomColorDegeneration(1.0, **known),
        L.RandomElasticTransform(1.0, **known),
        L.RandAugment(**known),
        L.AugMix(**known),
        L.CutMix(),
        L.MixUp(),
        L.Pipeline([L.RandomFlip(), L.RandomZoom(0.4)]),
    ]


def net(keras, *front):
    keras.utils.set_random_seed(0)
    L = keras.layers
    layers = [*front, L.Conv2D(8, 3, activation="relu", name="conv"), L.BatchNormalization(), L.Flatten()]
    return keras.Sequential([keras.Input((SIDE, SIDE, 3)), *layers, L.Dense(3, activation="softmax")])


def images():
    return np.random.default_rng(0).random((4, SIDE, SIDE, 3)).astype("float32")


def check(model, x):
    expected = np.asarray(model(x, training=False))
    graph = trace(model)
    np.testing.assert_allclose(flavors.call_model(graph.walked, [x])[0], expected, rtol=1e-5, atol=1e-6)
    scores = [class_scores(graph, "activation", data=x) for _ in range(2)]
    np.testing.assert_array_equal(*scores)
    smaller = ep.prune_channels(model, pruning_ratio=0.5, importance="activation", data=x)
    assert smaller.count_params() < model.count_params()
    return smaller


def test_layers_of_augmentation_and_of_noise(flavor):
    keras = flavors.keras_module(flavor)
    layers = of_both(keras.layers) + (of_keras_3(keras.layers) if flavor == flavors.KERAS_3 else [])
    x = images()
    crowd = net(keras, *layers)
    assert not np.array_equal(crowd(x, training=True), crowd(x, training=True))
    smaller = check(crowd, x)
    assert not np.array_equal(smaller(x, training=True), smaller(x, training=True))
    inner = keras.Sequential([keras.Input((SIDE, SIDE, 3)), keras.layers.RandomFlip(), keras.layers.RandomZoom(0.4)])
    nested = check(net(keras, inner), x)
    alone = check(net(keras), x)
    np.testing.assert_array_equal(nested(x, training=False), alone(x, training=False))  # so it did nothing to scores


def test_recurrent_dropout_and_statistics(flavor):
    keras = flavors.keras_module(flavor)
    L = keras.layers
    model = keras.Sequential(
        [
            keras.Input((5, 4)),
            L.LSTM(6, return_sequences=True, dropout=0.5, recurrent_dropout=0.5),
            L.Bidirectional(L.GRU(4, dropout=0.5, return_sequences=True)),
            L.TimeDistributed(L.Dropout(0.5)),
            L.BatchNormalization(),
            L.GRU(4, recurrent_dropout=0.5),
            L.Dense(2),
        ]
    )
    norm = next(layer for layer in model.layers if "batch" in layer.name)
    check(model, np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32"))
    np.testing.assert_array_equal(np.asarray(norm.moving_mean), 0)


def own_layers(keras):
    class Front(keras.layers.Layer):
        """Without the argument `training`: what is inside learns of it from the model that calls."""

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.flip, self.conv = keras.layers.RandomFlip(), keras.layers.Conv2D(6, 3, name="conv")

        def build(self, shape):
            self.conv.build(shape)
            self.built = True

        def call(self, x):
            return self.conv(self.flip(x))

        def compute_output_shape(self, shape):
            return self.conv.compute_output_shape(shape)

    class Shifting(Front):
        def call(self, x, training=True):
            return self.conv(self.flip(x + 1 if training else x, training=training))

    class Model(keras.Model):
        def __init__(self, front):
            super().__init__()
            self.front, self.last = front, keras.layers.Dense(3)
            self.flatten = keras.layers.Flatten()

        def call(self, x, training=True):
            return self.last(self.flatten(self.front(2 * x if training else x)))

    return Front, Shifting, Model


@pytest.mark.parametrize("kind", [0, 1])
def test_layers_of_ones_own(flavor, kind):
    keras = flavors.keras_module(flavor)
    check(net(keras, own_layers(keras)[kind](name="front")), images())


def test_a_subclassed_model_that_trains_unless_it_is_told_not_to():
    keras = flavors.keras_module(flavors.KERAS_3)
    Front, Shifting, Model = own_layers(keras)
    model = Model(Front(name="front"))
    model(images(), training=False)
    smaller = check(model, images())
    assert (
        "front/conv" in str(ep.plan_channels(model, pruning_ratio=0.5))
        and smaller.count_params() < model.count_params()
    )
    kept = Model(Shifting(name="front"))  # in training it adds one, which its class alone can do
    kept(images(), training=False)
    assert "other calls in training" in trace(kept).frozen["front"]
