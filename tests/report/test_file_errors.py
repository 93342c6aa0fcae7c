"""A file beside its model, layer by layer: against errors that are put in by hand, and a float file, which has none."""

from __future__ import annotations

import json

import numpy as np
import pytest

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.report.file_errors import quantization_error
from edgeprune.report.layer_outputs import ComputedTensor, LayerOutput, paired
from edgeprune.tflite.runtime import Port


def net(flavor):
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    keras.utils.set_random_seed(0)
    image, extra = keras.Input((8, 8, 2), name="image"), keras.Input((4,), name="extra")
    x = layers.Conv2D(6, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_norm")(x))
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(x)
    x = layers.Add(name="sum")([x, y])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Concatenate(name="both")([x, layers.Dense(4, activation="relu", name="side")(extra)])
    return keras.Model([image, extra], layers.Dense(3, activation="softmax", name="head")(x), name="net")


def data(rng, count=12):
    image = rng.normal(size=(count, 8, 8, 2)).astype(np.float32)
    return {"image": image, "extra": rng.normal(size=(count, 4)).astype(np.float32)}


def test_figures_are_those_of_the_tensors(flavor, rng, tmp_path):
    model, x = net(flavor), data(rng)
    path = tmp_path / "m.tflite"
    ep.export_tflite(model, path, "int8", x, verify=False, verbose=False)
    report = quantization_error(model, path, x)
    rows = {row.layer: row for row in report.layers}
    assert set(rows) == {"stem_relu", "depthwise", "sum", "pool", "side", "both", "head"}
    assert report.samples == 12 and report.quantization == "int8" and report.path == path
    assert report.breaks_first is None and report.largest_loss in report.layers
    # The last layer, from the file's output alone.
    from edgeprune.tflite.runtime import Runtime

    runtime = Runtime(path, use_xnnpack=False)
    (made,) = runtime.run_all(x, "").values()
    wanted = np.asarray(model([x["image"], x["extra"]], training=False), np.float64)
    noise = made - wanted
    assert rows["head"].operator == "SOFTMAX" and rows["head"].dtype == "int8"
    assert rows["head"].signal_to_noise == pytest.approx(
        10 * np.log10(np.square(wanted).sum() / np.square(noise).sum()), abs=0.1
    )
    assert rows["head"].mean_error == pytest.approx(np.abs(noise).mean(), rel=0.02)
    assert rows["head"].largest_error == pytest.approx(np.abs(noise).max(), rel=0.02)
    assert rows["head"].bias == pytest.approx(noise.mean() / wanted.std(), abs=0.01)
    assert 0 < rows["head"].range_used <= 1 and rows["head"].saturated == 0
    json.dumps(report.to_dict(), allow_nan=False)
    for name in rows:
        assert name in str(report)


def test_a_float_file_has_no_noise_to_speak_of(rng, tmp_path):
    model, x = net(flavors.KERAS_3), data(rng, 3)
    ep.export_tflite(model, tmp_path / "m.tflite", verify=False, verbose=False)
    report = quantization_error(model, tmp_path / "m.tflite", x)
    assert report.quantization is None and len(report.layers) >= 6
    for row in report.layers:
        assert row.signal_to_noise is None or row.signal_to_noise > 90
        assert row.range_used is None and row.saturated is None


def test_the_layer_that_breaks_first_is_named(rng, tmp_path):
    """A layer of the model gets other weights than the file has."""
    model, x = net(flavors.KERAS_3), data(rng)
    ep.export_tflite(model, tmp_path / "m.tflite", "int8", x, verify=False, verbose=False)
    kernel = model.get_layer("depthwise").kernel
    kernel.assign(-np.asarray(kernel))
    report = quantization_error(model, tmp_path / "m.tflite", x, own=True)
    assert report.breaks_first.layer == "depthwise" and report.largest_loss.layer == "depthwise"
    own = {row.layer: row.own_signal_to_noise for row in report.layers}
    assert own.pop("depthwise") < 10 and all(value is None or value > 20 for value in own.values()), own
    after = next(row for row in report.layers if row.layer == "sum")
    assert after.own_signal_to_noise > after.signal_to_noise + 5
    assert "First layer below 10 dB: 'depthwise' (DepthwiseConv2D)" in str(report)


def test_values_outside_of_the_range_are_counted(rng, tmp_path):
    model, x = net(flavors.KERAS_3), data(rng)
    small = {name: values / 100 for name, values in x.items()}
    ep.export_tflite(model, tmp_path / "m.tflite", "int8", small, verify=False, verbose=False)
    rows = {row.layer: row for row in quantization_error(model, tmp_path / "m.tflite", x).layers}
    assert rows["stem_relu"].saturated > 0.2 and rows["stem_relu"].range_used == pytest.approx(1, abs=0.02)


def test_a_scheme_is_converted_first(flavor, rng):
    keras = flavors.keras_module(flavor)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, activation="relu", name="a")])
    x = rng.normal(size=(20, 6)).astype(np.float32)
    by_scheme = {
        name: quantization_error(model, name, x, num_samples=5) for name in ("int8", ep.Scheme(8, 16), "dynamic")
    }
    assert [report.path for report in by_scheme.values()] == [None] * 3
    noise = [report.layers[0].signal_to_noise for report in by_scheme.values()]
    assert noise[1] > noise[0] > 25 and all(report.samples == 5 for report in by_scheme.values())


def test_a_plot_has_a_bar_for_each_layer(rng):
    pytest.importorskip("matplotlib").use("Agg")
    keras = flavors.keras_module(flavors.KERAS_3)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, name="a"), keras.layers.Dense(2, name="b")])
    axes = quantization_error(model, "int8", rng.normal(size=(20, 6)).astype(np.float32)).plot()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


def test_tensors_are_paired_by_name_then_by_value(rng):
    def tensor(layers, place):
        return ComputedTensor("CONV_2D", Port("", (1, 4), np.dtype("float32"), 0.0, 0, place), layers, place)

    values = rng.normal(size=(3, 40))
    outputs = [(LayerOutput(name, "", number), values[number]) for number, name in enumerate(("conv", "relu", "other"))]
    fused, nameless = tensor(("relu", "conv"), 0), tensor((), 1)
    noisy = values[1] + rng.normal(size=40)
    assert paired(outputs, [(fused, noisy), (nameless, values[2] * 1.01)]) == [
        (outputs[1][0], fused),
        (outputs[2][0], nameless),
    ]
    assert paired(outputs, [(nameless, rng.normal(size=40)), (tensor(("conv",), 2), rng.normal(size=39))]) == []


def test_bad_input(rng, tmp_path):
    keras = flavors.keras_module(flavors.KERAS_3)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, name="a")])
    x = rng.normal(size=(20, 6)).astype(np.float32)
    with pytest.raises(TypeError, match="Keras model"):
        quantization_error("model", "int8", x)
    with pytest.raises(FileNotFoundError, match=r"none\.tflite"):
        quantization_error(model, tmp_path / "none.tflite", x)
    with pytest.raises(ValueError, match="num_samples"):
        quantization_error(model, "int8", x, num_samples=0)
    other = keras.Sequential([keras.Input((6,)), keras.layers.Dense(7)])
    ep.export_tflite(other, tmp_path / "other.tflite", verify=False, verbose=False)
    with pytest.raises(ValueError, match="converted from another model"):
        quantization_error(model, tmp_path / "other.tflite", x)
