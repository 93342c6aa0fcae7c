"""The XNNPACK policy against TF-MOT's own, and where it differs on purpose."""

import re

import numpy as np
import pytest
import tensorflow as tf

import edgeprune as ep
from edgeprune import flavor
from edgeprune.sparsity.policies import PruneForLatencyOnXNNPack, PruningPolicy
from edgeprune.sparsity.xnnpack import xnnpack_misses

FLAVORS = ("keras", "tf_keras")


def network(flavor_name, middle=(), *, size=96, stem=None, head=None, channels=3):
    """A small network that satisfies the policy; its parts can be replaced."""
    keras = flavor.keras_module(flavor_name)
    layers = keras.layers
    image = layers.Input((size, size, channels))
    x = image
    for layer in stem or [layers.ZeroPadding2D(1), layers.Conv2D(8, 3, strides=2, name="stem")]:
        x = layer(x)
    for layer in middle:
        x = layer(x)
    for layer in head or [layers.GlobalAveragePooling2D(keepdims=True, name="gap"), layers.Flatten()]:
        x = layer(x)
    return keras.Model(image, x, name="net")


def middles(layers):
    """Layers between the first convolution and the pooling, and whether both policies take them."""
    return {
        "pointwise": ([layers.Conv2D(16, 1), layers.BatchNormalization(), layers.ReLU(6.0)], True),
        "depthwise same": ([layers.DepthwiseConv2D(3, padding="same"), layers.Conv2D(4, 1)], True),
        "depthwise padded": ([layers.ZeroPadding2D(1), layers.DepthwiseConv2D(3, strides=2)], True),
        "depthwise 5x5": ([layers.ZeroPadding2D(2), layers.DepthwiseConv2D(5, strides=2)], True),
        "activations": (
            [layers.Activation(a) for a in ("relu", "relu6", "sigmoid", "elu")] + [layers.LeakyReLU()],
            True,
        ),
        "dropout": ([layers.Dropout(0.1), layers.Conv2D(4, 1)], True),
        "bilinear": ([layers.UpSampling2D(interpolation="bilinear")], True),
        "nearest": ([layers.UpSampling2D()], False),
        "depthwise stride 2 same": ([layers.DepthwiseConv2D(3, strides=2, padding="same")], False),
        "depthwise lopsided": (
            [layers.ZeroPadding2D(((0, 1), (0, 1))), layers.DepthwiseConv2D(3, strides=2)],
            False,
        ),
        "depthwise multiplier": ([layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)], False),
        "depthwise dilated": ([layers.DepthwiseConv2D(3, padding="same", dilation_rate=2)], False),
        "depthwise 7x7": ([layers.DepthwiseConv2D(7, padding="same")], False),
        "depthwise unpadded": ([layers.DepthwiseConv2D(3)], False),
        "3x3": ([layers.Conv2D(4, 3, padding="same")], False),
        "1x1 stride 2": ([layers.Conv2D(4, 1, strides=2)], False),
        "1x1 groups": ([layers.Conv2D(8, 1, groups=2)], False),
        "max pooling": ([layers.MaxPooling2D()], False),
        "tanh": ([layers.Activation("tanh")], False),
        "axis 1": ([layers.BatchNormalization(axis=1)], False),
        "inner pooling": ([layers.GlobalAveragePooling2D(), layers.Reshape((1, 1, 8))], False),
        "inner pooling keepdims": ([layers.GlobalAveragePooling2D(keepdims=True)], True),
        "softmax": ([layers.Softmax()], False),
    }


def stems(layers):
    return {
        "rescaled": (
            [layers.Rescaling(1 / 255), layers.ZeroPadding2D(1), layers.Conv2D(8, 3, strides=2)],
            True,
        ),
        "same": ([layers.Conv2D(8, 3, strides=2, padding="same")], False),
        "unpadded": ([layers.Conv2D(8, 3, strides=2)], False),
        "lopsided": ([layers.ZeroPadding2D(((0, 1), (0, 1))), layers.Conv2D(8, 3, strides=2)], False),
        "stride 1": ([layers.ZeroPadding2D(1), layers.Conv2D(8, 3)], False),
        "5x5": ([layers.ZeroPadding2D(2), layers.Conv2D(8, 5, strides=2)], False),
        "none": ([layers.ReLU()], False),
    }


def heads(layers):
    return {
        "dense": (
            [layers.GlobalAveragePooling2D(keepdims=True), layers.Flatten(), layers.Dense(3)],
            True,
        ),
        "flatten": ([layers.Flatten(), layers.Dense(2)], False),
        "average pooling": ([layers.AveragePooling2D(8), layers.Flatten()], False),
    }


def accepts(policy, model):
    try:
        policy.ensure_model_supports_pruning(model)
    except ValueError:
        return False
    return True


def cases(flavor_name):
    layers = flavor.keras_module(flavor_name).layers
    for part, variants in (("middle", middles), ("stem", stems), ("head", heads)):
        for name, (chain, expected) in variants(layers).items():
            yield f"{part}: {name}", network(flavor_name, **{part: chain}), expected
    yield "gray image", network(flavor_name, channels=1), False


@pytest.mark.parametrize("flavor_name", FLAVORS)
def test_accepts_and_refuses_what_tfmot_does(flavor_name):
    theirs = flavor.import_tfmot().sparsity.keras.PruneForLatencyOnXNNPack()
    for name, model, expected in cases(flavor_name):
        assert accepts(PruneForLatencyOnXNNPack(), model) is expected, name
        if flavor_name == "tf_keras":
            assert accepts(theirs, model) is expected, name


def residual(flavor_name, combine):
    keras = flavor.keras_module(flavor_name)
    layers = keras.layers
    image = layers.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2)(layers.ZeroPadding2D(1)(image))
    x = combine(keras, x, layers.Conv2D(8, 1, name="expand")(x))
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return keras.Model(image, layers.Flatten()(x))


@pytest.mark.parametrize("flavor_name", FLAVORS)
@pytest.mark.parametrize(
    ("combine", "expected"),
    [
        (lambda keras, x, y: x + y, True),
        (lambda keras, x, y: x * y, True),
        (lambda keras, x, y: x + (keras.ops.copy if hasattr(keras, "ops") else tf.identity)(y), True),
        (lambda keras, x, y: keras.layers.Add()([x, y]), True),
        (lambda keras, x, y: keras.layers.Multiply()([x, y]), True),
        (lambda keras, x, y: keras.layers.Concatenate()([x, y]), False),
        (lambda keras, x, y: x / y, False),
    ],
    ids=["+", "*", "copy", "Add", "Multiply", "Concatenate", "/"],
)
def test_joins_of_two_branches(flavor_name, combine, expected):
    model = residual(flavor_name, combine)
    assert accepts(PruneForLatencyOnXNNPack(), model) is expected
    if flavor_name == "tf_keras":
        theirs = flavor.import_tfmot().sparsity.keras.PruneForLatencyOnXNNPack()
        assert accepts(theirs, model) is expected


def dense_in_the_file(flavor_name):
    """Models that TF-MOT's policy accepts and XNNPACK runs dense, with what the warning says of each."""
    layers = flavor.keras_module(flavor_name).layers
    odd_map = [layers.ZeroPadding2D(1), layers.DepthwiseConv2D(3, strides=2)]
    zeros = layers.ZeroPadding2D(1)
    return {
        "keepdims": network(flavor_name, head=[layers.GlobalAveragePooling2D()]),
        "odd sizes": network(flavor_name, size=97),
        "odd sizes the converter": network(flavor_name, odd_map, size=98),
        "swish|silu": network(flavor_name, [layers.Conv2D(4, 1, activation="swish")]),
        "tanh": network(flavor_name, [layers.DepthwiseConv2D(3, padding="same", activation="tanh")]),
        "form of ReLU": network(flavor_name, [layers.ReLU(4.0)]),
        "no such operator": residual(flavor_name, lambda keras, x, y: y * 2.0),
        "(?i)subtract.*no such operator": residual(flavor_name, lambda keras, x, y: x - y),
        "zeros are not read": residual(
            flavor_name,
            lambda keras, x, y: (
                layers.DepthwiseConv2D(3)(zeros(y)) + layers.DepthwiseConv2D(3, activation="relu")(zeros.output)
            ),
        ),
    }


@pytest.mark.parametrize("flavor_name", FLAVORS)
def test_warns_where_tfmot_accepts_what_the_file_would_run_dense(flavor_name):
    theirs = flavor.import_tfmot().sparsity.keras.PruneForLatencyOnXNNPack()
    for said, model in dense_in_the_file(flavor_name).items():
        with pytest.warns(UserWarning, match=said):
            PruneForLatencyOnXNNPack().ensure_model_supports_pruning(model)
        assert all(miss.tolerated for miss in xnnpack_misses(model)), said
        if flavor_name == "tf_keras":
            assert accepts(theirs, model), said


def test_a_transposed_convolution_is_the_one_thing_refused_that_tfmot_accepts():
    model = network("tf_keras", [flavor.keras_module("tf_keras").layers.Conv2DTranspose(4, 1)])
    assert accepts(flavor.import_tfmot().sparsity.keras.PruneForLatencyOnXNNPack(), model)
    assert not accepts(PruneForLatencyOnXNNPack(), model)


@pytest.mark.parametrize("flavor_name", FLAVORS)
def test_refuses_with_tfmots_messages(flavor_name):
    """A script that matches on TF-MOT's message finds it; TF-MOT reads only `tf_keras`."""
    theirs = flavor.import_tfmot().sparsity.keras.PruneForLatencyOnXNNPack()
    for models in (
        lambda keras: network(keras.__name__, stem=[keras.layers.Conv2D(4, 3)]),
        lambda keras: network(keras.__name__, head=[keras.layers.Flatten()]),
        lambda keras: network(keras.__name__, [keras.layers.MaxPooling2D()]),
        lambda keras: keras.Sequential([keras.layers.Conv2D(1, 1)]),
    ):
        with pytest.raises(ValueError) as wanted:
            theirs.ensure_model_supports_pruning(models(flavor.keras_module("tf_keras")))
        with pytest.raises(ValueError) as given:
            PruneForLatencyOnXNNPack().ensure_model_supports_pruning(models(flavor.keras_module(flavor_name)))
        assert str(given.value) == str(wanted.value)
        assert given.value.__notes__


@pytest.mark.parametrize("flavor_name", FLAVORS)
def test_looks_into_nested_models(flavor_name):
    keras = flavor.keras_module(flavor_name)
    layers = keras.layers
    for pool, expected in ((layers.MaxPooling2D(name="inner_pool"), False), (layers.ReLU(), True)):
        body = keras.Sequential(
            [layers.Input((32, 32, 3)), layers.ZeroPadding2D(1), layers.Conv2D(8, 3, strides=2), pool]
        )
        model = keras.Sequential([layers.Input((32, 32, 3)), body, layers.GlobalAveragePooling2D(keepdims=True)])
        assert accepts(PruneForLatencyOnXNNPack(), model) is expected


@pytest.mark.parametrize("flavor_name", FLAVORS)
def test_one_error_lists_every_miss_and_the_way_out(flavor_name):
    keras = flavor.keras_module(flavor_name)
    layers = keras.layers
    model = network(
        flavor_name,
        [
            layers.MaxPooling2D(name="pool"),
            layers.Activation("tanh", name="act"),
            layers.Conv2D(4, 3, padding="same", name="wide"),
        ],
        size=97,
        stem=[layers.Conv2D(8, 3, strides=2, padding="same", name="stem")],
        head=[layers.GlobalAveragePooling2D(name="gap")],
    )
    with pytest.raises(ValueError) as error:
        PruneForLatencyOnXNNPack().ensure_model_supports_pruning(model)
    (message,) = error.value.__notes__
    assert re.findall(r"^- (\w+) \((\w+)\)", message, re.M) == [
        ("stem", "Conv2D"),
        ("pool", "MaxPooling2D"),
        ("act", "Activation"),
        ("wide", "Conv2D"),
        ("gap", "GlobalAveragePooling2D"),
    ]
    assert "keepdims=True" in message and "ZeroPadding2D(1)" in message and "use relu" in message
    assert "`edgeprune.adapt_for_xnnpack(model)` mends 2 of these 5" in message


@pytest.mark.parametrize("flavor_name", FLAVORS)
def test_no_adaptation_is_promised_where_it_cannot_help(flavor_name):
    layers = flavor.keras_module(flavor_name).layers
    with pytest.raises(ValueError, match="pool \\(MaxPooling2D\\)") as error:
        PruneForLatencyOnXNNPack().ensure_model_supports_pruning(
            network(flavor_name, [layers.MaxPooling2D(name="pool")])
        )
    assert "adapt_for_xnnpack" not in error.value.__notes__[0]


@pytest.mark.parametrize("flavor_name", FLAVORS)
def test_subclassed_and_unbuilt_models_are_refused(flavor_name):
    keras = flavor.keras_module(flavor_name)

    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    policy = PruneForLatencyOnXNNPack()
    with pytest.raises(ValueError, match="subclassed"):
        policy.ensure_model_supports_pruning(Subclassed())
    with pytest.raises(ValueError, match="not built"):
        policy.ensure_model_supports_pruning(keras.Sequential([keras.layers.Conv2D(1, 1)]))


@pytest.mark.parametrize("flavor_name", FLAVORS)
def test_prunes_only_pointwise_convolutions(flavor_name):
    layers = flavor.keras_module(flavor_name).layers
    allow = PruneForLatencyOnXNNPack().allow_pruning
    assert allow(layers.Conv2D(4, 1)) and allow(layers.Conv2D(4, (1, 1), strides=2))
    for layer in (
        layers.Conv2D(4, 3),
        layers.Conv2D(4, (1, 3)),
        layers.DepthwiseConv2D(1),
        layers.Conv2DTranspose(4, 1),
        layers.Conv1D(4, 1),
        layers.Dense(4),
        layers.ReLU(),
        None,
    ):
        assert not allow(layer)


def test_the_policies_are_tfmots_kind_and_work_in_its_pruning():
    tfmot = flavor.import_tfmot()
    sparsity = tfmot.sparsity.keras
    assert PruningPolicy is sparsity.PruningPolicy
    layers = flavor.keras_module("tf_keras").layers
    model = network("tf_keras", [layers.Conv2D(4, 1, name="pointwise"), layers.DepthwiseConv2D(3, padding="same")])
    schedule = sparsity.ConstantSparsity(0.5, 0)
    pruned = sparsity.prune_low_magnitude(model, schedule, pruning_policy=PruneForLatencyOnXNNPack())
    wrapped = [layer.layer.name for layer in pruned.layers if hasattr(layer, "layer")]
    assert wrapped == ["pointwise"]
    PruneForLatencyOnXNNPack().ensure_model_supports_pruning(pruned)


@pytest.mark.parametrize("flavor_name", FLAVORS)
def test_a_policy_of_ones_own(flavor_name):
    class NoDepthwise(PruningPolicy):
        def allow_pruning(self, layer):
            return "Depthwise" not in type(layer).__name__

        def ensure_model_supports_pruning(self, model):
            if not model.layers:
                raise ValueError("no layers")

    layers = flavor.keras_module(flavor_name).layers
    policy = NoDepthwise()
    assert policy.allow_pruning(layers.Conv2D(1, 1)) and not policy.allow_pruning(layers.DepthwiseConv2D(3))
    with pytest.raises(TypeError, match="abstract"):
        PruningPolicy()


@pytest.mark.parametrize("flavor_name", FLAVORS)
def test_only_the_pointwise_weights_become_zero(flavor_name):
    layers = flavor.keras_module(flavor_name).layers
    model = network(
        flavor_name,
        [
            layers.DepthwiseConv2D(3, padding="same", name="depthwise"),
            layers.Conv2D(16, 1, name="pointwise"),
        ],
        size=32,
        head=[layers.GlobalAveragePooling2D(keepdims=True), layers.Flatten(), layers.Dense(2, name="dense")],
    )
    pruned = ep.prune_low_magnitude(
        model, ep.ConstantSparsity(0.75, 0, frequency=1), pruning_policy=PruneForLatencyOnXNNPack()
    )
    pruned.compile("sgd", "mse")
    x, y = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype("float32"), np.zeros((8, 2), "float32")
    pruned.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[ep.UpdatePruningStep()])
    plain = ep.strip_pruning(pruned)
    zeros = {
        name: float(np.mean(plain.get_layer(name).get_weights()[0] == 0))
        for name in ("stem", "depthwise", "pointwise", "dense")
    }
    assert zeros == {"stem": 0, "depthwise": 0, "pointwise": 0.75, "dense": 0}


@pytest.mark.parametrize("flavor_name", FLAVORS)
def test_pruning_stops_at_a_model_that_does_not_fit(flavor_name):
    layers = flavor.keras_module(flavor_name).layers
    model = network(flavor_name, [layers.MaxPooling2D(name="pool")])
    with pytest.raises(ValueError, match="pool \\(MaxPooling2D\\)"):
        ep.prune_low_magnitude(model, ep.ConstantSparsity(0.5, 0), pruning_policy=PruneForLatencyOnXNNPack())
