import importlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nets.converted import convert, images, set_zeros, small_cnn

from edgeprune.data.named_inputs import named_samples
from edgeprune.tflite.runtime import Port, Runtime, in_number_order


@pytest.fixture(scope="module")
def cnn(tmp_path_factory):
    """A Keras 3 model with its float and its int8 file."""
    model = set_zeros(small_cnn(importlib.import_module("keras")), 0.5)
    folder = tmp_path_factory.mktemp("cnn")
    return model, {q: convert(model, folder / f"{q}.tflite", q, images()) for q in (None, "int8")}


@pytest.fixture(scope="module")
def two_inputs(tmp_path_factory):
    """A file with the inputs b and a, in this order, and two outputs; and its model."""
    tf_keras = importlib.import_module("tf_keras")
    a, b = (tf_keras.Input(batch_shape=(1, size), name=name) for size, name in ((8, "a"), (4, "b")))
    joined = tf_keras.layers.Concatenate()([a, b])
    outputs = [tf_keras.layers.Dense(3, name="z_first")(joined), tf_keras.layers.Dense(2, name="a_second")(joined)]
    model = tf_keras.Model([b, a], outputs)
    return model, convert(model, tmp_path_factory.mktemp("two") / "two.tflite")


def test_float_file_gives_the_models_outputs(cnn):
    model, files = cnn
    runtime = Runtime(files[None])
    x = images(5)
    (output,) = runtime.run_all({"image": x}, "Running").values()
    expected = np.concatenate([np.asarray(model(x[i : i + 1])) for i in range(5)])
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4)


def test_int8_file_takes_and_gives_real_values(cnn):
    model, files = cnn
    runtime = Runtime(files["int8"])
    assert runtime.inputs["image"].quantized
    x = images(5)
    (output,) = runtime.run_all({"image": x}, "Running").values()
    expected = np.concatenate([np.asarray(model(x[i : i + 1])) for i in range(5)])
    assert output.dtype == np.float32
    assert np.linalg.norm(output - expected) < 0.1 * np.linalg.norm(expected)


def test_without_xnnpack_and_with_threads_the_float_outputs_agree(cnn):
    _, files = cnn
    outputs = [
        next(iter(Runtime(files[None], **options).run_all({"image": images(2)}, "Running").values()))
        for options in ({}, {"use_xnnpack": False}, {"num_threads": 2})
    ]
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs[2], outputs[0], rtol=1e-4, atol=1e-5)


def test_inputs_and_outputs_are_matched_by_name(two_inputs):
    model, path = two_inputs
    runtime = Runtime(path)
    rng = np.random.default_rng(0)
    samples = {"a": rng.normal(size=(3, 8)).astype("f4"), "b": rng.normal(size=(3, 4)).astype("f4")}
    outputs = runtime.run_all(named_samples(runtime, samples), "Running")
    first, second = model([samples["b"], samples["a"]])
    np.testing.assert_allclose(outputs["z_first"], first, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(outputs["a_second"], second, rtol=1e-5, atol=1e-5)
    listed = named_samples(runtime, [samples["b"], samples["a"]], order=["b", "a"])
    assert listed["a"].shape == (3, 8)


def test_state_does_not_pass_from_sample_to_sample(tmp_path):
    tf_keras = importlib.import_module("tf_keras")
    model = tf_keras.Sequential([tf_keras.Input(batch_shape=(1, 5, 3)), tf_keras.layers.LSTM(4)])
    runtime = Runtime(convert(model, tmp_path / "m.tflite"))
    x = np.repeat(np.random.default_rng(0).normal(size=(1, 5, 3)).astype("f4"), 2, axis=0)
    (output,) = runtime.run_all(named_samples(runtime, x), "Running").values()
    np.testing.assert_array_equal(output[0], output[1])


def test_file_with_a_larger_batch_runs_a_rest_too(tmp_path):
    keras = importlib.import_module("keras")
    model = keras.Sequential([keras.Input(batch_shape=(4, 3)), keras.layers.Dense(2)])
    runtime = Runtime(convert(model, tmp_path / "m.tflite"))
    x = np.random.default_rng(0).normal(size=(6, 3)).astype("f4")
    (output,) = runtime.run_all(named_samples(runtime, x), "Running").values()
    np.testing.assert_allclose(output, x @ model.layers[0].kernel.numpy(), rtol=1e-5, atol=1e-6)


@given(st.floats(-1000, 1000), st.floats(0.001, 10), st.integers(-128, 127))
def test_encoding_and_decoding_is_rounding_and_clipping(value, scale, zero_point):
    port = Port("x", (1, 1), np.dtype("int8"), scale, zero_point, 0)
    decoded = port.decode(port.encode(np.array([[value]])))[0, 0]
    low, high = (-128 - zero_point) * scale, (127 - zero_point) * scale
    assert abs(decoded - np.clip(value, low, high)) <= scale / 2 * 1.001 + 1e-3


def test_names_are_sorted_by_number():
    assert in_number_order(["output_10", "output_2", "a"]) == ["a", "output_2", "output_10"]


# Errors.


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.tflite"):
        Runtime(tmp_path / "nothing.tflite")


def test_junk_does_not_load(tmp_path):
    (tmp_path / "junk.tflite").write_bytes(b"junk" * 50)
    with pytest.raises(ValueError, match="junk.tflite does not load"):
        Runtime(tmp_path / "junk.tflite")


def test_truncated_file_does_not_load(cnn, tmp_path):
    content = cnn[1][None].read_bytes()
    (tmp_path / "cut.tflite").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="cut.tflite does not load"):
        Runtime(tmp_path / "cut.tflite")


def test_threads_must_be_positive(cnn):
    with pytest.raises(ValueError, match="threads must be .*1 or more; got 0"):
        Runtime(cnn[1][None], num_threads=0)


@pytest.mark.parametrize("value", [1.5, -0.25, 2.0**40])
def test_fractions_are_not_cut_to_whole_numbers(tmp_path, value):
    keras = importlib.import_module("keras")
    ids = keras.Input(batch_shape=(1, 2), dtype="int32", name="ids")
    runtime = Runtime(convert(keras.Model(ids, keras.layers.Embedding(5, 3)(ids)), tmp_path / "m.tflite"))
    assert named_samples(runtime, np.array([[1.0, 3.0]]))["ids"].shape == (1, 2)
    with pytest.raises(ValueError, match="'ids' expects whole numbers of type int32"):
        named_samples(runtime, np.array([[1.0, value]]))


def broken_image(value):
    x = images(3)
    x[1, 2, 3, 0] = value
    return x


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (broken_image(np.nan), "'image' holds NaN"),
        (broken_image(np.inf), "'image' holds NaN or infinity"),
        (images(0), "'image' has no samples"),
        (images(1)[0], r"'image' expects samples of shape \(12, 12, 3\).*got an array of shape \(12, 12, 3\)"),
        (np.zeros((2, 12, 12, 1), "f4"), r"got an array of shape \(2, 12, 12, 1\)"),
        (np.float32(3), r"got an array of shape \(\)"),
        (np.full((2, 12, 12, 3), "a"), "expected numbers"),
        (images(2).astype(complex), "expected numbers"),
        ({"picture": images(2)}, "has the inputs 'image', got 'picture'"),
    ],
)
def test_samples_that_do_not_fit_are_refused(cnn, samples, message):
    with pytest.raises(ValueError, match=message):
        named_samples(Runtime(cnn[1][None]), samples)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([np.zeros((2, 4))], "has 2 inputs .*, got 1"),
        ({"a": np.zeros((2, 8))}, "has the inputs .*, got 'a'"),
        ({"a": np.zeros((2, 8)), "b": np.zeros((3, 4))}, r"different numbers of samples: \[2, 3\]"),
    ],
)
def test_several_inputs_must_fit_each_other(two_inputs, samples, message):
    with pytest.raises(ValueError, match=message):
        named_samples(Runtime(two_inputs[1]), samples)
