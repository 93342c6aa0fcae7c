"""Equalization: whatever the factors are, the model computes the same; and the file in int8 loses less."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from nets.catalogue import NETS, built
from nets.cuts import randomize

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.channels.graph.trace import trace
from edgeprune.quantization.channel_scales import ChannelScales
from edgeprune.quantization.equalization import equalize, with_factors

CHOSEN = (
    *("mobile_net_v2", "res_ne_xt", "se_res_net", "grouped_convolutions", "depthwise_multiplier", "generator"),
    *("pre_activation_res_net", "separable_1d", "shared_layer", "nested_of_nested", "merges"),
    *("slicing", "volumes", "text_classifier", "dense_connections", "subclassed_with_a_gate", "shuffle_units"),
)


def outputs(model, inputs):
    given = model(inputs, training=False)
    given = given.values() if isinstance(given, dict) else given if isinstance(given, list | tuple) else [given]
    return [np.asarray(one, np.float64) for one in given]


def inputs_of(model, rng):
    made = []
    for tensor in model.inputs:
        shape = (3, *(size or 5 for size in tensor.shape[1:]))
        whole = "int" in str(tensor.dtype)
        made.append(rng.integers(0, 3, shape) if whole else rng.normal(size=shape).astype(np.float32))
    return made if len(made) > 1 else made[0]


@functools.cache
def scales_of(flavor, name):
    model = randomize(built(name, flavor))
    return model, ChannelScales(trace(model))


@pytest.mark.parametrize("name", CHOSEN)
@given(seed=st.integers(0, 10_000), spread=st.sampled_from([0.5, 4.0]))
@settings(max_examples=2, deadline=None, phases=[Phase.explicit, Phase.generate])
def test_any_factors_leave_the_function_as_it_is(name, seed, spread):
    model, scales = scales_of(flavors.KERAS_3, name)
    same_function(model, scales, seed, spread)


@pytest.mark.parametrize("name", [name for name in CHOSEN if flavors.TF_KERAS in NETS[name].flavors][:8])
def test_the_same_in_tf_keras(name):
    same_function(*scales_of(flavors.TF_KERAS, name), seed=0, spread=3.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_every_net(flavor, name):
    if flavor not in NETS[name].flavors or "channels_first" in name:  # which not every machine runs
        pytest.skip("it is not written for this Keras")
    model, scales = scales_of(flavor, name)
    if any(reason is None for reason in scales.frozen):
        same_function(model, scales, seed=0, spread=3.0)


def same_function(model, scales, seed, spread):
    rng = np.random.default_rng(seed)
    free = np.array([reason is None for reason in scales.frozen])
    assert free.any()
    factors = np.where(free, 2 ** rng.uniform(-spread, spread, len(free))[scales.roots], 1.0)
    scaled = with_factors(scales, factors)
    assert flavors.is_keras_3(scaled) == flavors.is_keras_3(model)
    x = inputs_of(scales.graph.walked, rng)
    for old, new in zip(outputs(scales.graph.walked, x), outputs(scaled, x), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(old).max()))


def small(keras, activation="relu"):
    layers = keras.layers
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 2), name="image"),
            layers.Conv2D(6, 3, padding="same", use_bias=False, name="stem"),
            layers.BatchNormalization(name="norm"),
            layers.Activation(activation, name="act"),
            layers.DepthwiseConv2D(3, activation=activation, name="depthwise"),
            layers.Conv2D(5, 1, activation=activation, name="point"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, name="head"),
        ]
    )


def unbalanced(keras, rng):
    """The small net, its channels multiplied by hand."""
    model = small(keras)
    stem, middle, point = (np.exp2(rng.uniform(-4, 4, size)) for size in (6, 6, 5))
    layer = model.get_layer
    layer("norm").gamma.assign(layer("norm").gamma * stem)
    layer("norm").beta.assign((layer("norm").beta + 0.1) * stem)
    depthwise = layer("depthwise")
    kernel = depthwise.kernel if hasattr(depthwise, "kernel") else depthwise.depthwise_kernel
    kernel.assign(np.asarray(kernel) * (middle / stem)[:, None])
    layer("point").kernel.assign(np.asarray(layer("point").kernel) * point / middle[:, None])
    layer("head").kernel.assign(np.asarray(layer("head").kernel) / point[:, None])
    return model


@pytest.mark.parametrize("with_data", [True, False])
def test_ranges_become_alike_and_the_function_stays(flavor, with_data, rng):
    model = unbalanced(flavors.keras_module(flavor), rng)
    weights = [np.asarray(weight).copy() for weight in model.weights]
    x = rng.normal(size=(40, 6, 6, 2)).astype(np.float32)
    found = equalize(model, x if with_data else None)
    assert found.measured == with_data and found.difference < 1e-5
    np.testing.assert_allclose(outputs(found.model, x), outputs(model, x), rtol=1e-4, atol=1e-5)
    for weight, before in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), before)
    assert [row.layers for row in found.scaled] == [("norm",), ("depthwise",), ("point",)]

    def spread(model, name):
        keras = flavors.keras_of(model)
        largest = np.abs(np.asarray(keras.Model(model.inputs, model.get_layer(name).output)(x))).max(axis=(0, 1, 2))
        return largest.max() / largest.min()

    for name in ("act", "depthwise"):
        assert spread(found.model, name) < spread(model, name) / 4


@pytest.mark.above_flavor
def test_the_file_in_int8_loses_less(flavor, rng, tmp_path):
    model = unbalanced(flavors.keras_module(flavor), rng)
    x = rng.normal(size=(60, 6, 6, 2)).astype(np.float32)
    (expected,) = outputs(model, x)

    def error(model, name):
        ep.export_tflite(model, tmp_path / name, "int8", x, calibration="min-max", verify=False, verbose=False)
        from edgeprune.data.named_inputs import named_samples
        from edgeprune.tflite.runtime import Runtime

        runtime = Runtime(tmp_path / name)
        (made,) = runtime.run_all(named_samples(runtime, x), "").values()
        return np.square(made - expected).mean()

    assert error(equalize(model, x).model, "equalized.tflite") < error(model, "plain.tflite") / 4


@pytest.mark.above_flavor
def test_what_stops_factors_is_named(flavor):
    found = equalize(small(flavors.keras_module(flavor), "relu6"))
    assert "another function of scaled values" in found.left_out["norm"]
    assert "another function of scaled values" in found.left_out["depthwise"]
    assert found.left_out["head"] == "output of the model"
    assert "not scaled: point: the activation of point" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["scaled"] == []


@pytest.mark.above_flavor
def test_below_the_bound_of_a_relu_channels_are_scaled(flavor, rng):
    model = small(flavors.keras_module(flavor), "relu6")
    layer = model.get_layer
    factors = np.array([0.02, 1.0, 0.1, 8.0, 0.5, 0.01])  # the fourth reaches 6
    for weight in (layer("norm").gamma, layer("norm").beta):
        weight.assign((np.asarray(weight) + 0.1) * factors)
    x = rng.normal(size=(40, 6, 6, 2)).astype(np.float32)
    found = equalize(model, x)
    assert found.difference < 1e-5 and found.scaled[0].layers == ("norm",) and found.scaled[0].channels == 5
    assert found.scaled[0].use_after > 2 * found.scaled[0].use_before
    for values in (x, 1.2 * x):  # values a quarter larger are below the bound too
        np.testing.assert_allclose(outputs(found.model, values), outputs(model, values), rtol=1e-4, atol=1e-5)
    gammas = [np.asarray(one.get_layer("norm").gamma) for one in (model, found.model)]
    assert gammas[1][3] == gammas[0][3] and (gammas[1][[0, 2, 5]] > 2 * gammas[0][[0, 2, 5]]).all()


def test_channels_at_the_bound_of_a_relu_are_left_out_with_the_reason(rng):
    model = small(flavors.keras_module(flavors.KERAS_3), "relu6")
    norm = model.get_layer("norm")
    norm.gamma.assign(np.asarray(norm.gamma) * 50)
    found = equalize(model, rng.normal(size=(40, 6, 6, 2)).astype(np.float32))
    assert found.left_out["norm"] == "its values come near 6, the bound of a ReLU"


def test_a_trained_model_goes_on_training(flavor, rng):
    """Statistics of batch normalization that was not folded follow its input."""
    keras = flavors.keras_module(flavor)
    model = randomize(built("pre_activation_res_net", flavor))
    x = inputs_of(model, rng)
    scaled = equalize(model, x).model
    before, after = (np.asarray(one(x, training=True), np.float64) for one in (model, scaled))
    np.testing.assert_allclose(after, before, rtol=5e-2, atol=2e-2 * np.abs(before).max())
    assert isinstance(scaled, keras.Model)


def test_zeros_stay_zeros(rng):
    model = unbalanced(flavors.keras_module(flavors.KERAS_3), rng)
    kernel = model.get_layer("point").kernel
    kernel.assign(np.where(rng.random(kernel.shape) < 0.5, 0, np.asarray(kernel)))
    scaled = equalize(model).model.get_layer("point").kernel
    np.testing.assert_array_equal(np.asarray(scaled) == 0, np.asarray(kernel) == 0)


def test_bad_input(rng):
    keras = flavors.keras_module(flavors.KERAS_3)
    with pytest.raises(TypeError, match="Keras model"):
        equalize("model")
    with pytest.raises(ValueError, match="no batches"):
        equalize(small(keras), iter([]))
    x = np.full((4, 6, 6, 2), np.nan, np.float32)
    with pytest.raises(ValueError, match="'act' returns is NaN or infinite"):
        equalize(small(keras), x)
