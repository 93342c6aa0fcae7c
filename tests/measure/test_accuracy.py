import importlib

import numpy as np
import pytest
from nets.converted import convert, images, set_zeros, small_cnn

from edgeprune.measure.accuracy import accuracy, predict, top_1

OUTPUTS = np.array([[0.1, 0.7, 0.2], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.5, 0.4, 0.1]])


@pytest.fixture
def keras(flavor):
    return importlib.import_module(flavor)


@pytest.fixture(scope="module")
def cnn(tmp_path_factory):
    """A model, samples, labels of which it gets exactly 9 of 12 right, and its files."""
    model = set_zeros(small_cnn(importlib.import_module("keras")), 0.5)
    x = images(12)
    labels = np.concatenate([np.asarray(model(image[None])) for image in x]).argmax(axis=1)
    labels[[2, 5, 7]] = (labels[[2, 5, 7]] + 1) % 10
    folder = tmp_path_factory.mktemp("cnn")
    return model, x, labels, {q: convert(model, folder / f"{q}.tflite", q, x) for q in (None, "int8")}


@pytest.mark.parametrize(
    "labels",
    [
        [1, 0, 2, 1],
        [[1], [0], [2], [1]],
        np.array([1.0, 0.0, 2.0, 1.0]),
        np.eye(3)[[1, 0, 2, 1]],
    ],
)
def test_sparse_and_one_hot_labels(labels):
    assert top_1(OUTPUTS, labels) == 0.75


@pytest.mark.parametrize(
    ("outputs", "threshold", "expected"),
    [
        ([[0.9], [0.2], [0.6], [0.4]], None, 0.75),  # probabilities
        ([[3.0], [-2.0], [0.2], [-0.1]], None, 0.75),  # logits
        ([0.9, 0.2, 0.6, 0.4], None, 0.75),
        ([[0.9], [0.2], [0.6], [0.4]], 0.7, 1.0),
    ],
)
def test_single_output_values(outputs, threshold, expected):
    assert top_1(np.array(outputs), [1, 0, 0, 0], threshold) == expected


def test_positions_are_scored_one_by_one():
    segmentation = np.zeros((2, 2, 2, 3))
    segmentation[..., 1] = 1
    labels = np.ones((2, 2, 2), int)
    labels[0, 0] = 2
    assert top_1(segmentation, labels) == 0.75


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2, 3], "from 0 to 3, but the model has 3 classes"),
        ([0, -1, 2, 1], "from -1 to 2"),
        ([0.5, 1, 2, 1], "whole class numbers"),
        ([np.nan, 1, 2, 1], "whole class numbers"),
        (["cat", "dog", "cat", "cat"], "type <U3"),
        ([None, 1, 2, 1], "type object"),
        ([1j, 1, 2, 1], "type complex128"),
        (np.eye(3)[[0, 1, 2, 2]] - 0.5, "0 or more"),
        (np.ones((4, 3)), "sum to 1"),
        (np.eye(3)[[0, 1, 2, 2]] * np.nan, "0 or more"),
        ([0, 1], r"shape \(2,\) do not fit outputs of shape \(4, 3\)"),
        (np.eye(4)[[0, 1, 2, 3]], r"shape \(4, 4\) do not fit"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        top_1(OUTPUTS, labels)


def test_nan_outputs_name_no_class():
    with pytest.raises(ValueError, match="NaN"):
        top_1(np.array([[0.1, np.nan]]), [1])


def test_files_and_model_get_the_known_share(cnn):
    model, x, labels, files = cnn
    assert accuracy(model, x, labels) == 0.75
    assert accuracy(files[None], x, labels) == 0.75
    assert accuracy(str(files["int8"]), x, labels) == pytest.approx(0.75, abs=0.1)


def test_data_may_come_in_batches(cnn, flavor):
    import tensorflow as tf

    model, x, labels, files = cnn

    class Data(keras_sequence(flavor)):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            part = slice(4 * index, 4 * index + 4)
            return x[part], labels[part]

    dataset = tf.data.Dataset.from_tensor_slices((x, labels)).batch(5)
    for data in (dataset, Data(), [(x[:6], labels[:6]), (x[6:], labels[6:])], ((x, labels) for _ in range(1))):
        assert accuracy(files[None], data) == 0.75
    assert accuracy(model, dataset) == 0.75


def keras_sequence(flavor):
    import keras
    import tf_keras

    return keras.utils.PyDataset if flavor == "keras" else tf_keras.utils.Sequence


def two_headed(keras, as_dict):
    a, b = keras.Input((8,), name="a"), keras.Input((4,), name="b")
    joined = keras.layers.Concatenate()([a, b])
    outputs = [keras.layers.Dense(3, name="first")(joined), keras.layers.Dense(2, name="second")(joined)]
    return keras.Model({"a": a, "b": b} if as_dict else [b, a], outputs)


@pytest.mark.parametrize("as_dict", [False, True])
def test_several_inputs_and_outputs(keras, as_dict):
    model = two_headed(keras, as_dict)
    rng = np.random.default_rng(0)
    samples = {"a": rng.normal(size=(6, 8)).astype("f4"), "b": rng.normal(size=(6, 4)).astype("f4")}
    outputs = predict(model, samples, batch_size=4)
    labels = outputs["second"].argmax(axis=1)
    labels[0] = 1 - labels[0]
    assert accuracy(model, samples, labels, output="second") == pytest.approx(5 / 6)
    listed = [samples["a"], samples["b"]] if as_dict else [samples["b"], samples["a"]]
    np.testing.assert_allclose(predict(model, listed)["first"], outputs["first"], rtol=1e-5)
    with pytest.raises(ValueError, match="several outputs .*'first', 'second'"):
        accuracy(model, samples, labels)
    with pytest.raises(ValueError, match="no output 'third'"):
        accuracy(model, samples, labels, output="third")
    with pytest.raises(ValueError, match="has the inputs .*, got"):
        accuracy(model, {"a": samples["a"], "c": samples["b"]}, labels)
    with pytest.raises(ValueError, match="has 2 inputs .*, got 1"):
        accuracy(model, [samples["a"]], labels)


def test_model_with_a_fixed_batch(keras):
    model = keras.Sequential([keras.Input(batch_shape=(4, 3)), keras.layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(6, 3)).astype("f4")
    kernel, bias = (np.asarray(weight) for weight in model.layers[0].weights)
    (output,) = predict(model, x).values()
    np.testing.assert_allclose(output, x @ kernel + bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("structure", ["array", "list", "dict"])
def test_subclassed_models_take_what_they_take(keras, structure):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, inputs):
            if isinstance(inputs, dict):
                inputs = [inputs["left"], inputs["right"]]
            return self.dense(inputs[0] - inputs[1] if isinstance(inputs, list | tuple) else inputs)

    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, 5, 3)).astype("f4")
    samples = {"array": left, "list": [left, right], "dict": {"left": left, "right": right}}[structure]
    model = Net()
    expected = np.asarray(model(samples))
    (output,) = predict(model, samples).values()
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)
    if structure == "list":
        with pytest.raises(ValueError, match="has 2 inputs .*, got 1"):
            predict(model, left)


# Errors.


def test_labels_must_come_with_the_samples(cnn):
    model, x, labels, files = cnn
    with pytest.raises(ValueError, match=r"Got 12 samples and labels of shape \(11,\)"):
        accuracy(files[None], x, labels[:11])
    with pytest.raises(ValueError, match="Labels are missing"):
        accuracy(files[None], x)
    with pytest.raises(ValueError, match="Labels are missing"):
        accuracy(files[None], [x, x])
    with pytest.raises(ValueError, match="no batches"):
        accuracy(model, [])


def test_endless_dataset_is_refused(cnn):
    import tensorflow as tf

    _, x, labels, files = cnn
    endless = tf.data.Dataset.from_tensor_slices((x, labels)).batch(4).repeat()
    with pytest.raises(ValueError, match="is infinite"):
        accuracy(files[None], endless)
    assert accuracy(files[None], endless.take(3)) == 0.75


def test_no_samples_are_refused(cnn):
    model, _, _, files = cnn
    for judged in (model, files[None]):
        with pytest.raises(ValueError, match="no samples"):
            accuracy(judged, images(0), np.zeros(0, int))


def test_what_is_neither_file_nor_model_is_refused(tmp_path):
    with pytest.raises(TypeError, match="got int"):
        accuracy(3, images(1), [0])
    with pytest.raises(FileNotFoundError, match="nothing.tflite"):
        accuracy(tmp_path / "nothing.tflite", images(1), [0])


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (lambda x: [], "no samples"),
        (lambda x: {}, "no samples"),
        (lambda x: x[:, :3], r"expects samples of shape \(12, 12, 3\)"),
        (lambda x: x * np.nan, "NaN or infinity"),
    ],
)
def test_samples_that_do_not_fit_are_refused(cnn, samples, message):
    model, x, labels, files = cnn
    for measured in (model, files[None]):
        with pytest.raises(ValueError, match=message):
            accuracy(measured, samples(x), labels)


@pytest.mark.parametrize(
    ("option", "message"),
    [({"threshold": np.nan}, "threshold must be"), ({"batch_size": 0}, "batch_size"), ({"batch_size": 1.5}, "got 1.5")],
)
def test_options_out_of_range_are_refused(cnn, option, message):
    model, x, labels, files = cnn
    for measured in (model, files[None]):
        with pytest.raises(ValueError, match=message):
            accuracy(measured, x, labels, **option)


def test_samples_that_are_no_numbers_are_refused(cnn):
    model, x, labels, files = cnn
    for samples in (x.astype(complex), np.full(x.shape, "a")):
        with pytest.raises(ValueError, match="expects numbers, got samples of type"):
            accuracy(model, samples, labels)
        with pytest.raises(ValueError, match="expected numbers"):
            accuracy(files[None], samples, labels)


def test_samples_with_nan_are_refused(cnn):
    x = images(2)
    x[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        accuracy(cnn[3][None], x, [0, 1])
