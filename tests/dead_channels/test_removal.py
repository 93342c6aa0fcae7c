"""Dead channels: whatever slices are zero, the model without them computes what the original computes."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nets.catalogue import built
from nets.cuts import randomize

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.channels.graph.trace import trace
from edgeprune.dead_channels import removal as dead_module
from edgeprune.dead_channels.constant_channels import constants
from edgeprune.dead_channels.removal import find_dead_channels, remove_dead_channels


def residual(keras):
    layers = keras.layers
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(inputs)
    x = layers.BatchNormalization(name="stem_norm")(x)
    x = layers.ReLU(6.0)(x)
    y = layers.Conv2D(12, 1, use_bias=False, name="expand")(x)
    y = layers.BatchNormalization(name="expand_norm")(y)
    y = layers.ReLU()(y)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y)
    y = layers.Conv2D(8, 1, name="project")(y)
    x = layers.Add()([x, y])
    gate = layers.GlobalAveragePooling2D()(x)
    gate = layers.Dense(4, activation="relu", name="squeeze")(gate)
    gate = layers.Dense(8, activation="sigmoid", name="excite")(gate)
    x = layers.Multiply()([x, layers.Reshape((1, 1, 8))(gate)])
    x = layers.Conv2D(8, 3, groups=2, padding="valid", name="grouped")(x)
    x = layers.Concatenate()([layers.MaxPooling2D(2)(x), layers.AveragePooling2D(2)(x)])
    x = layers.Conv2DTranspose(6, 2, strides=2, name="up")(x)
    x = layers.SeparableConv2D(6, 3, name="separable")(layers.ZeroPadding2D()(x))
    x = layers.Flatten()(x)
    x = layers.Dense(10, activation="elu", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x), name="residual")


def nested(keras):
    layers = keras.layers
    body = keras.Sequential(
        [keras.Input((5, 4)), layers.Dense(8, activation="tanh", name="inner"), layers.Dense(6, name="inner_out")],
        name="body",
    )
    a, b = keras.Input((5, 4), name="a"), keras.Input((5, 4), name="b")
    x = layers.Concatenate()([body(a), body(b)])  # shared, and its channels are read at two places
    x = layers.LSTM(6, return_sequences=True, name="lstm")(x)
    x = layers.Conv1D(7, 2, name="conv", activation="relu")(x)
    x = x + layers.Dense(7, name="side")(x)
    x = layers.LayerNormalization(name="norm")(layers.Dense(5, name="before_norm")(x))
    return keras.Model([a, b], layers.Dense(2, name="head")(layers.GlobalMaxPooling1D()(x)), name="nested")


NETS = {"residual": residual, "nested": nested}


@functools.cache
def net(flavor, name):
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(0)
    return randomize(NETS[name](keras))


@functools.cache
def first_weights(flavor, name):
    return [np.asarray(weight).copy() for weight in net(flavor, name).weights]


def outputs(model):
    rng = np.random.default_rng(1)
    inputs = [rng.normal(size=(3, *tensor.shape[1:])).astype(np.float32) for tensor in model.inputs]
    return np.asarray(model(inputs if len(inputs) > 1 else inputs[0], training=False))


def change(model, layer, name, at, value=0.0):
    """Set a part of a weight."""
    weight = getattr(model.get_layer(layer), name)
    values = np.asarray(weight).copy()
    values[at] = value
    weight.assign(values)


def widths(model):
    return {group.name: group.size for group in trace(model).groups}


@pytest.mark.parametrize("name", NETS)
@given(data=st.data())
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_zero_slices_leave_the_output_as_it_is(flavor, name, data):
    model = net(flavor, name)
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000), "seed"))
    share = data.draw(st.sampled_from([0.2, 0.5, 0.9]), "share of the slices")
    for weight, values in zip(model.weights, first_weights(flavor, name), strict=True):
        values = values.copy()
        if "variance" not in weight.name:
            axis = rng.integers(values.ndim) if rng.random() < 0.5 else values.ndim - 1
            values[(slice(None),) * axis + (rng.random(values.shape[axis]) < share,)] = 0
        weight.assign(values)
    before = [np.asarray(weight).copy() for weight in model.weights]
    expected = outputs(model)
    smaller = remove_dead_channels(model, verify=False)
    np.testing.assert_allclose(outputs(smaller), expected, rtol=1e-4, atol=1e-5)
    for weight, values in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(np.asarray(weight).copy(), values)
    assert find_dead_channels(smaller).count == 0


@pytest.mark.parametrize(
    "name", ["shuffle_net", "feature_pyramid", "shifted_windows", "mobile_net_v3", "feature_reuse"]
)
def test_random_zero_slices_of_architectures(name):
    """`remove_dead_channels` compares the outputs itself."""
    model = randomize(built(name, flavors.KERAS_3))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        values = np.asarray(weight).copy()
        if "variance" not in weight.name:
            axis = values.ndim - 1 if rng.random() < 0.7 else rng.integers(values.ndim)
            if values.shape[axis] > 2:
                values[(slice(None),) * axis + (rng.random(values.shape[axis]) < 0.4,)] = 0
        weight.assign(values)
    smaller = remove_dead_channels(model)
    assert sum(widths(smaller).values()) < sum(widths(model).values())


def unread(model):
    change(model, "hidden", "kernel", (slice(None), [0, 1]), 5.0)
    change(model, "head", "kernel", [0, 1])


def silent(model):
    change(model, "hidden", "kernel", (slice(None), [0, 1]))
    change(model, "hidden", "bias", [0, 1])


def constant(model):
    change(model, "hidden", "kernel", (slice(None), [0, 1]))
    change(model, "hidden", "bias", [0, 1], 0.7)


def scaled_to_a_constant(model):
    change(model, "stem_norm", "gamma", [0, 1, 4, 5])
    change(model, "stem_norm", "beta", [0, 1, 4, 5], 0.3)
    change(model, "project", "kernel", (..., [0, 1, 4, 5]))


CASES = {
    "unread": (unread, {"hidden": 8}),
    "silent": (silent, {"hidden": 8}),
    "a constant goes into the bias of its reader": (constant, {"hidden": 8}),
    "a constant that a gate makes vary": (scaled_to_a_constant, {}),
    "a depthwise kernel of zeros, its bias before a plain kernel": (
        lambda model: change(model, "depthwise", "kernel_of_zeros", (..., [2, 3], slice(None))),
        {"expand": 10},
    ),
    "nothing of a dead layer's inputs is needed": (
        lambda model: [change(model, "excite", "kernel", ...), change(model, "excite", "bias", ..., 9.0)],
        {"squeeze": 1},
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.above_flavor
def test_dead_channels_are_found(flavor, case):
    make, expected = CASES[case]
    keras = flavors.keras_module(flavor)
    model = randomize(residual(keras))
    depthwise = model.get_layer("depthwise")
    kernel = depthwise.depthwise_kernel if hasattr(depthwise, "depthwise_kernel") else depthwise.kernel
    object.__setattr__(depthwise, "kernel_of_zeros", kernel)  # the two Kerases call it differently
    make(model)
    smaller = remove_dead_channels(model)
    assert widths(smaller) == {**widths(model), **expected}
    np.testing.assert_allclose(outputs(smaller), outputs(model), rtol=1e-4, atol=1e-5)


def test_a_chain_of_dead_layers_is_followed_to_its_start(flavor):
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    inputs = keras.Input((4,))
    x = layers.Dense(6, name="kept")(inputs)
    y = inputs
    for number in range(4):
        y = layers.Dense(6, activation="relu", name=f"dead_{number}")(y)
    x = layers.Dense(2, name="head")(layers.Concatenate()([x, y]))
    model = randomize(keras.Model(inputs, x))
    change(model, "head", "kernel", slice(6, 12))
    found = find_dead_channels(model)
    assert widths(found.apply()) == {"kept": 6, **{f"dead_{n}": 1 for n in range(4)}, "head": 2}
    assert found.count == 20
    assert "dead_0: 6 -> 1" in str(found)


def test_a_recurrent_unit_that_only_feeds_itself_is_dead(flavor):
    keras = flavors.keras_module(flavor)
    model = keras.Sequential(
        [keras.Input((5, 3)), keras.layers.LSTM(6, name="lstm"), keras.layers.Dense(2, name="head")]
    )
    randomize(model)
    recurrent = model.layers[0].cell.recurrent_kernel
    values = np.asarray(recurrent).copy()
    others = [column for column in range(24) if column % 6 != 2]
    values[2, others] = 0  # unit 2 is read by its own four gates alone
    recurrent.assign(values)
    change(model, "head", "kernel", 2)
    smaller = remove_dead_channels(model)
    assert widths(smaller)["lstm"] == 5
    np.testing.assert_allclose(outputs(smaller), outputs(model), rtol=1e-4, atol=1e-6)


def test_a_constant_goes_into_the_batch_norm_behind_a_layer_without_bias(flavor):
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((5, 5, 2)),
            layers.Conv2D(6, 3, name="a"),
            layers.BatchNormalization(name="a_norm"),
            layers.Conv2D(4, 3, use_bias=False, name="b"),
            layers.BatchNormalization(name="b_norm"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(2, name="head"),
        ]
    )
    randomize(model)
    change(model, "a_norm", "gamma", [1, 4])
    smaller = remove_dead_channels(model)
    assert widths(smaller)["a"] == 4
    np.testing.assert_allclose(outputs(smaller), outputs(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_a_constant_under_a_padded_kernel_stays_and_is_told(flavor, padding):
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((5, 5, 2)),
            layers.Conv2D(6, 3, name="a"),
            layers.Conv2D(4, 3, padding=padding, name="b"),
            layers.Flatten(),
            layers.Dense(2, name="head"),
        ]
    )
    randomize(model)
    change(model, "a", "kernel", (..., [1, 4]))
    found = find_dead_channels(model)
    assert widths(found.apply())["a"] == (6 if padding == "same" else 4)
    assert found.left == (
        {"a": "2 constant channels are kept: no bias of b can hold them"} if padding == "same" else {}
    )
    assert ("2 constant channels" in str(found)) == (padding == "same")


def test_a_softmax_behind_a_kernel_does_not_hide_what_the_kernel_leaves_out(flavor):
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(6, name="a"), layers.Dense(2, activation="softmax", name="head")]
    )
    randomize(model)
    change(model, "head", "kernel", [0, 1])
    assert widths(remove_dead_channels(model))["a"] == 4


def test_channels_whose_statistics_others_see_stay(flavor):
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(6, name="a"), layers.LayerNormalization(), layers.Dense(2, name="head")]
    )
    randomize(model)
    change(model, "head", "kernel", [0, 1])
    assert find_dead_channels(model).count == 0


@pytest.mark.parametrize("stripped", [False, True])
def test_during_and_after_unstructured_pruning(flavor, stripped):
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(32, activation="relu", name="a"),
            layers.Dense(32, activation="relu", name="b"),
            layers.Dense(2, name="head"),
        ]
    )
    model = ep.prune_low_magnitude(model, ep.ConstantSparsity(0.97, 1, frequency=1))
    model.compile("sgd", "mse")
    x, y = rng.normal(size=(32, 8)).astype(np.float32), rng.normal(size=(32, 2)).astype(np.float32)
    model.fit(x, y, batch_size=16, verbose=0, callbacks=[ep.UpdatePruningStep()])
    if stripped:
        model = ep.strip_pruning(model)
    expected = outputs(model)
    smaller = remove_dead_channels(model)
    np.testing.assert_allclose(outputs(smaller), expected, rtol=1e-4, atol=1e-6)
    assert widths(smaller)["b"] < 32
    assert [type(layer).__name__ for layer in smaller.layers] == ["Dense"] * 3


def test_constants_of_a_net_are_what_it_computes(flavor):
    """Whatever is called constant has one value on random inputs."""
    keras = flavors.keras_module(flavor)
    model = randomize(residual(keras))
    change(model, "stem_norm", "gamma", [0, 1, 4, 5])  # 0 and 4 go together, as the groups of a convolution do
    change(model, "stem_norm", "beta", [0, 1, 4, 5], 0.3)
    change(model, "expand_norm", "gamma", [0, 1])
    change(model, "project", "kernel", (..., [0, 4]))
    graph = trace(model)
    known = constants(graph)
    from edgeprune.channels.graph.execution import run

    seen = []

    def watched(step, node, taken):
        given = flavors.call_layer(node, taken)
        for place, tensor in zip(step.outputs, given, strict=True):
            for axis, classes in graph.tensors[place].axes.items():
                channels = np.moveaxis(np.asarray(tensor), axis, 0).reshape(len(classes), -1)
                for number, values in zip(classes.tolist(), channels, strict=True):
                    if number in known[place]:
                        seen.append(number)
                        np.testing.assert_allclose(values, known[place][number], rtol=1e-4, atol=1e-5)
        return given

    run(graph, [np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype(np.float32)], watched)
    assert len(set(seen)) == 4


def test_a_wrong_removal_is_noticed(flavor, monkeypatch):
    keras = flavors.keras_module(flavor)
    model = randomize(residual(keras))
    constant(model)
    monkeypatch.setattr(dead_module.DeadChannels, "_fold_into", lambda self, smaller: None)
    with pytest.raises(RuntimeError, match="output differs"):
        remove_dead_channels(model)


def test_no_model():
    with pytest.raises(TypeError, match="Expected a Keras model"):
        remove_dead_channels("model.keras")
