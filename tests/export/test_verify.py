import importlib
import json
from itertools import pairwise

import numpy as np
import pytest
from nets.converted import FLAVORS, convert, images, set_zeros, small_cnn

from edgeprune.export.convert import export_tflite
from edgeprune.export.verify import FORMAT_TOLERANCE, verify_tflite
from edgeprune.export.weight_zeros import zeros_of_weights
from edgeprune.measure.size import file_size
from edgeprune.tflite.file import read_tflite

QUANTIZATIONS = {"keras": (None, "float16", "dynamic", "int8"), "tf_keras": (None, "int8")}
CASES = pytest.mark.parametrize(
    ("flavor", "quantization"), [(name, q) for name, formats in QUANTIZATIONS.items() for q in formats]
)
KERNEL_SIZES = {"stem": [216], "depthwise": [72], "separable": [72, 96], "transposed": [540], "head": [4050]}


@pytest.fixture(scope="module")
def cnns(tmp_path_factory):
    """For each Keras a model with 75 % zeros in every kernel, and its files."""
    folder = tmp_path_factory.mktemp("cnns")
    cnns = {}
    for flavor in FLAVORS:
        model = set_zeros(small_cnn(importlib.import_module(flavor)), 0.75)
        files = {q: convert(model, folder / f"{flavor}_{q}.tflite", q, images()) for q in QUANTIZATIONS[flavor]}
        cnns[flavor] = model, files
    return cnns


@CASES
def test_a_good_file_passes_with_every_figure(cnns, flavor, quantization):
    model, files = cnns[flavor]
    x = images(12)
    labels = np.concatenate([np.asarray(model(image[None])) for image in x]).argmax(axis=1)
    labels[:3] = (labels[:3] + 1) % 10
    result = verify_tflite(files[quantization], model, x, labels)
    assert result.passed, result.problems
    assert result.quantization == quantization
    assert result.tolerance == FORMAT_TOLERANCE[quantization]
    assert result.samples == 12
    assert result.size == file_size(files[quantization])
    assert result.operators["CONV_2D"] == 2
    assert result.parameters.total == model.count_params()
    assert result.keras_accuracy == 0.75
    assert result.accuracy == pytest.approx(0.75, abs=0.1)
    (output,) = result.outputs
    assert output.shape == (10,)
    assert output.mean_error <= output.largest_error
    assert output.agreement >= 0.9
    if quantization is None:
        assert output.relative_error < 1e-5


@CASES
def test_each_kernel_is_found_with_its_zeros(cnns, flavor, quantization):
    model, files = cnns[flavor]
    rows = verify_tflite(files[quantization], model).weights
    assert [row.layer for row in rows] == [name for name, sizes in KERNEL_SIZES.items() for _ in sizes]
    assert [row.elements for row in rows] == [size for sizes in KERNEL_SIZES.values() for size in sizes]
    tensors = {tensor.name: tensor for tensor in read_tflite(files[quantization]).tensors}
    for row in rows:
        zeros = round(0.75 * row.elements)
        assert (row.keras_zeros, row.file_zeros, row.kept) == (zeros, zeros, zeros)
        assert tensors[row.tensor].elements == row.elements
    assert len({row.tensor for row in rows}) == len(rows)


@pytest.mark.above_flavor
def test_zeros_that_drift_away_are_seen(flavor, tmp_path):
    """The file is made from a model in which 40 of the head's zeros and 10 of the stem's have become small values."""
    keras = importlib.import_module(flavor)
    pruned, drifted = (set_zeros(small_cnn(keras), 0.75) for _ in range(2))
    for name, lost in (("head", 40), ("stem", 10)):
        weight = drifted.get_layer(name).weights[0]
        values = np.asarray(weight).copy()
        values.flat[np.flatnonzero(values == 0)[:lost]] = 0.05
        weight.assign(values)
    result = verify_tflite(convert(drifted, tmp_path / "m.tflite"), pruned, images(4))
    rows = {row.layer: row for row in result.weights if row.elements != 72}
    for name, lost in (("head", 40), ("stem", 10), ("transposed", 0)):
        assert rows[name].kept == rows[name].file_zeros == rows[name].keras_zeros - lost
    zeros = sum(round(0.75 * size) for sizes in KERNEL_SIZES.values() for size in sizes)
    assert result.zeros_kept == pytest.approx(1 - 50 / zeros)
    assert f"{result.zeros_kept:.2%}" in str(result)
    assert not result.passed  # and the outputs tell it too


def test_weights_that_the_file_does_not_hold_are_not_found(cnns):
    model, files = cnns["keras"]
    other = set_zeros(small_cnn(importlib.import_module("keras")), 0.75, seed=9)
    rows = zeros_of_weights(other, read_tflite(files[None]))
    assert {row.tensor for row in rows} == {None}
    result = verify_tflite(files[None], other, images(3))
    assert result.zeros_kept is None
    assert "not found" in str(result)


def test_attention_embedding_and_recurrent_kernels_are_found(flavor, tmp_path):
    keras = importlib.import_module(flavor)
    layers = keras.layers
    ids = keras.Input(batch_shape=(1, 6), dtype="int32", name="ids")
    x = layers.Embedding(11, 8, name="embedding")(ids)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.LSTM(5, return_sequences=True, name="lstm")(x)
    x = layers.Conv1D(4, 3, name="conv")(x)
    model = set_zeros(keras.Model(ids, layers.Dense(3, name="head")(layers.Flatten()(x))), 0.5)
    path = convert(model, tmp_path / "m.tflite", "float16")
    samples = np.random.default_rng(0).integers(0, 11, (5, 6)).astype("int32")
    result = verify_tflite(path, model, samples)
    assert result.passed, result.problems
    assert len(result.weights) == 9
    for row in result.weights:
        assert row.kept == row.keras_zeros == round(0.5 * row.elements), row
    assert result.zeros_kept == 1
    assert not result.macs.uncounted  # a loop in the file: the model's own count stands in


def two_headed(keras):
    a, b = keras.Input(batch_shape=(1, 8), name="a"), keras.Input(batch_shape=(1, 4), name="b")
    joined = keras.layers.Add()([keras.layers.Dense(6)(a), keras.layers.Dense(6)(b)])
    outputs = [keras.layers.Dense(3, name="z_first")(joined), keras.layers.Dense(3, name="a_second")(joined)]
    return keras.Model([b, a], outputs)


def test_several_inputs_and_outputs_are_matched(flavor, tmp_path):
    model = two_headed(importlib.import_module(flavor))
    path = convert(model, tmp_path / "m.tflite")
    rng = np.random.default_rng(0)
    samples = {"a": rng.normal(size=(4, 8)).astype("f4"), "b": rng.normal(size=(4, 4)).astype("f4")}
    for given in (samples, [samples["b"], samples["a"]], (samples["b"], samples["a"])):
        result = verify_tflite(path, model, given)
        assert result.passed, result.problems
        assert len(result.outputs) == 2
    with pytest.raises(ValueError, match="several outputs"):
        verify_tflite(path, model, samples, [0, 1, 2, 0])
    scored = verify_tflite(path, model, samples, [0, 1, 2, 0], output=result.outputs[0].name)
    assert scored.accuracy == scored.keras_accuracy


def heads(keras):
    """Three outputs of one shape, about 1, 10 and 100; two of them are called as the other's layer is."""
    x = keras.Input((4,), name="x")
    layers = {key: keras.layers.Dense(1, name=name) for key, name in (("prob", "age"), ("age", "prob"), ("c", "b"))}
    outputs = {key: layer(x) for key, layer in layers.items()}
    for number, layer in enumerate(layers.values()):
        layer.bias.assign([10.0**number])
    return x, outputs


@pytest.mark.parametrize("structure", ["dict", "nested", "list", "subclassed"])
@pytest.mark.above_flavor
def test_outputs_are_paired_by_what_they_are(flavor, tmp_path, structure):
    keras = importlib.import_module(flavor)
    inputs, outputs = heads(keras)
    if structure == "nested":
        outputs = {"z": {"q": outputs["prob"], "p": outputs["age"]}, "a": [outputs["c"]]}
    if structure == "list":
        outputs = list(outputs.values())
    model = keras.Model(inputs, outputs)
    if structure == "subclassed":
        inner = model

        class Net(keras.Model):
            def __init__(self):
                super().__init__()
                self.inner = inner

            def call(self, x):
                return self.inner(x)

        model = Net()
        model(np.zeros((1, 4), "f4"))
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("f4")
    result = export_tflite(model, tmp_path / "m.tflite", None, x)
    assert result.verification.passed, result.notes
    assert len(result.outputs) == 3
    if structure in ("dict", "subclassed"):  # scored on the output that is asked for
        for name in ("age", "c"):
            scored = verify_tflite(tmp_path / "m.tflite", model, x, np.zeros(8, int), output=name)
            assert scored.accuracy == scored.keras_accuracy == 0


def test_outputs_under_the_layers_names_are_paired_too(flavor, tmp_path):
    """TensorFlow's own conversion of a tf_keras model names a dict's outputs by the layers."""
    keras = importlib.import_module(flavor)
    x = keras.Input(batch_shape=(1, 4), name="x")
    model = keras.Model(x, {"z": keras.layers.Dense(1, name="one")(x), "a": keras.layers.Dense(1, name="two")(x)})
    samples = np.random.default_rng(0).normal(size=(8, 4)).astype("f4")
    assert verify_tflite(convert(model, tmp_path / "m.tflite"), model, samples).passed


def test_subclassed_model(flavor, tmp_path):
    keras = importlib.import_module(flavor)

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.head = keras.layers.Dense(6), keras.layers.Dense(3)

        def call(self, x):
            return self.head(keras.activations.relu(self.hidden(x)))

    model = Net()
    model(np.zeros((1, 4), "f4"))
    set_zeros(model, 0.5)
    x = keras.Input(batch_shape=(1, 4))
    path = convert(keras.Model(x, model(x)), tmp_path / "m.tflite")
    result = verify_tflite(path, model, np.random.default_rng(0).normal(size=(5, 4)).astype("f4"))
    assert result.passed, result.problems
    assert result.zeros_kept == 1


def test_without_model_or_samples_the_file_still_is_run_and_measured(cnns):
    _, files = cnns["keras"]
    result = verify_tflite(files["int8"])
    assert result.passed
    assert (result.outputs, result.weights, result.parameters) == ((), (), None)
    assert (result.zeros_kept, result.accuracy, result.keras_accuracy) == (None, None, None)
    head = next(tensor for tensor in result.tensors if tensor.elements == 4050)
    assert head.zeros == round(0.75 * 4050)
    assert "75.0" in str(result)
    scored = verify_tflite(files["int8"], None, images(4), [0, 1, 2, 3])
    assert 0 <= scored.accuracy <= 1


def test_report_and_json(cnns):
    model, files = cnns["keras"]
    result = verify_tflite(files["int8"], model, images(4), [0, 1, 2, 3])
    text = str(result)
    assert text.startswith(f"{files['int8']}: passed")
    for word in (
        "int8",
        f"{result.size.bytes:,} bytes",
        "zeros kept    100.00%",
        "transposed",
        "3x3x3x8",
        "same class",
    ):
        assert word in text
    stored = json.loads(json.dumps(result.to_dict()))
    assert stored["passed"] is True
    assert stored["zeros_kept"] == 1
    assert stored["macs"]["total"] == result.macs.total
    assert len(stored["weights"]) == 6


# What is wrong with a file stands in the result.


def test_disagreement_is_a_problem(cnns):
    _, files = cnns["keras"]
    other = set_zeros(small_cnn(importlib.import_module("keras")), 0.75, seed=9)
    result = verify_tflite(files["int8"], other, images(4))
    assert not result.passed
    assert "more than the tolerance 0.25" in result.problems[0]
    assert "FAILED" in str(result)
    (problem,) = verify_tflite(files["int8"], other, images(4), tolerance=100).problems
    assert "converted from another model" in problem


def test_tolerance_can_be_tightened(cnns):
    model, files = cnns["keras"]
    assert not verify_tflite(files["float16"], model, images(4), tolerance=1e-6).passed


@pytest.mark.parametrize("integer_io", [True, False])
def test_probabilities_below_one_integer_step_are_no_disagreement(tmp_path, integer_io):
    """An int8 softmax has steps of 1/256, so 1,000 even classes all become 0: a relative error of 1."""
    import tensorflow as tf

    keras = importlib.import_module("keras")
    model = keras.Sequential([keras.Input(batch_shape=(1, 4)), keras.layers.Dense(1000, activation="softmax")])
    x = np.random.default_rng(0).uniform(-0.1, 0.1, (8, 4)).astype("f4")
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[None]] for sample in x)
    if integer_io:
        converter.inference_input_type = converter.inference_output_type = tf.int8
    path = tmp_path / "m.tflite"
    path.write_bytes(converter.convert())
    result = verify_tflite(path, model, x)
    assert result.outputs[0].relative_error > 0.9
    assert result.passed, result.problems


@pytest.mark.above_flavor
def test_half_precision_model_is_a_coarser_reference(flavor, tmp_path):
    keras = importlib.import_module(flavor)
    half, full = (
        keras.Sequential([keras.Input(batch_shape=(1, 8)), keras.layers.Dense(4, dtype=dtype)])
        for dtype in ("mixed_float16", "float32")
    )
    half.set_weights(full.get_weights())
    path = convert(full, tmp_path / "m.tflite")
    result = verify_tflite(path, half, np.random.default_rng(0).normal(size=(4, 8)).astype("f4"))
    assert result.passed, result.problems
    assert result.tolerance > FORMAT_TOLERANCE[None]


@pytest.mark.above_flavor
def test_nan_outputs_are_a_problem(flavor, tmp_path):
    keras = importlib.import_module(flavor)
    model = keras.Sequential([keras.Input(batch_shape=(1, 3)), keras.layers.Dense(2, name="head")])
    weight = model.get_layer("head").weights[0]
    weight.assign(np.full((3, 2), np.nan, "f4"))
    path = convert(model, tmp_path / "m.tflite")
    result = verify_tflite(path, model, np.ones((2, 3), "f4"), [0, 1])
    assert any("holds NaN or infinity" in problem for problem in result.problems)
    assert any("The Keras output" in problem for problem in result.problems)
    assert result.accuracy is None
    assert not verify_tflite(path).passed  # on random values too


@pytest.mark.above_flavor
def test_other_shape_or_number_of_outputs_is_a_problem(flavor, tmp_path):
    keras = importlib.import_module(flavor)
    small, large = (
        keras.Sequential([keras.Input(batch_shape=(1, 8), name="a"), keras.layers.Dense(n)]) for n in (2, 3)
    )
    path = convert(small, tmp_path / "m.tflite")
    result = verify_tflite(path, large, np.ones((2, 8), "f4"))
    assert "has shape (2,) in the file and (3,) in Keras" in result.problems[0]
    a = keras.Input((8,), name=large.inputs[0].name)
    both = keras.Model(a, [keras.layers.Dense(2)(a), keras.layers.Dense(2)(a)])
    result = verify_tflite(path, both, np.ones((2, 8), "f4"))
    assert result.problems == ("The file has 1 outputs, the Keras model has 2.",)


@pytest.mark.parametrize(("flavor", "quantization"), [("keras", None), ("keras", "dynamic"), ("tf_keras", "int8")])
def test_without_samples_another_model_fails(cnns, flavor, quantization, tmp_path):
    keras = importlib.import_module(flavor)
    model, files = cnns[flavor]
    right = verify_tflite(files[quantization], model)
    assert right.passed and right.samples == 0, right.problems
    assert bool(right.outputs) is (quantization != "int8")
    other = set_zeros(small_cnn(keras), 0.75, seed=9)
    assert not verify_tflite(files[quantization], other).passed
    a, b = keras.Input((4,)), keras.Input((4,))
    two_inputs = keras.Model([a, b], keras.layers.Dense(10)(keras.layers.Concatenate()([a, b])))
    larger = keras.Sequential([keras.Input((14, 14, 3)), keras.layers.Flatten(), keras.layers.Dense(10)])
    for stranger in (two_inputs, larger):
        for samples in (None, images(3)):
            assert "converted from another model" in verify_tflite(files[quantization], stranger, samples).problems[0]


def test_made_up_integers_stay_inside_an_embedding(flavor, tmp_path):
    keras = importlib.import_module(flavor)
    ids, real = keras.Input(batch_shape=(1, 3), dtype="int32", name="ids"), keras.Input(batch_shape=(1, 2), name="real")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(5, 4, embeddings_initializer="normal")(ids))
    model = keras.Model([ids, real], keras.layers.Dense(2)(keras.layers.Concatenate()([embedded, real])))
    path = convert(model, tmp_path / "m.tflite")
    assert verify_tflite(path, model).passed
    embedding = next(layer for layer in model.layers if "embedding" in layer.name)
    embedding.embeddings.assign(np.asarray(embedding.embeddings)[::-1])
    assert not verify_tflite(path, model).passed


# What is wrong with the call raises.


@pytest.mark.parametrize("tolerance", [float("nan"), -0.1])
def test_a_tolerance_that_is_none_is_refused(cnns, tolerance):
    model, files = cnns["keras"]
    with pytest.raises(ValueError, match=f"tolerance must be 0 or more, got {tolerance}"):
        verify_tflite(files[None], model, images(3), tolerance=tolerance)


def test_bad_samples_and_labels_are_refused(cnns):
    model, files = cnns["keras"]
    x = images(4)
    broken = x.copy()
    broken[0, 0, 0, 0] = np.nan
    for samples, message in (
        ([x, x], r"has 1 input \('image'\), got 2"),
        (broken, "holds NaN"),
        (x[:0], "no samples"),
        (x[:, :5], r"expects samples of shape \(12, 12, 3\)"),
        ({"picture": x}, "got 'picture'"),
    ):
        with pytest.raises(ValueError, match=message):
            verify_tflite(files[None], model, samples)
    with pytest.raises(ValueError, match="4 samples and 3 labels"):
        verify_tflite(files[None], model, x, [0, 1, 2])
    with pytest.raises(ValueError, match="has 10 classes"):
        verify_tflite(files[None], model, x, [0, 1, 2, 10])
    with pytest.raises(ValueError, match="y was passed without x"):
        verify_tflite(files[None], model, None, [0, 1, 2])


def test_bad_files_and_models_are_refused(cnns, tmp_path):
    model, files = cnns["keras"]
    with pytest.raises(FileNotFoundError, match="nothing.tflite"):
        verify_tflite(tmp_path / "nothing.tflite", model)
    (tmp_path / "junk.tflite").write_bytes(b"junk" * 10)
    with pytest.raises(ValueError, match="junk.tflite is not a .tflite file"):
        verify_tflite(tmp_path / "junk.tflite", model)
    with pytest.raises(TypeError, match="Keras model, got str"):
        verify_tflite(files[None], "model.keras")


def test_a_quantized_file_of_another_model_fails(tmp_path):
    """Its outputs may be near by chance; its weights are not."""
    keras = importlib.import_module("keras")
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)

    def net(width):
        return keras.Sequential(
            [
                keras.Input((16,)),
                keras.layers.Dense(width, activation="relu"),
                keras.layers.Dense(
                    4, activation="softmax", kernel_initializer=keras.initializers.RandomNormal(0, 1e-3)
                ),
            ]
        )

    export_tflite(net(24), tmp_path / "model.tflite", "int8", x)
    result = verify_tflite(tmp_path / "model.tflite", net(32), x)
    assert not result.passed and "converted from another model" in result.problems[0]


@pytest.mark.above_flavor
def test_weights_whose_channels_were_scaled_on_both_sides_are_found(flavor, tmp_path):
    keras = importlib.import_module(flavor)
    relu = dict(activation="relu", use_bias=False)
    layers = [keras.layers.Dense(n, name=f"dense{i}", **relu) for i, n in enumerate((9, 8, 7))]
    model = set_zeros(keras.Sequential([keras.Input((6,), name="x"), *layers]), 0.4)
    scaled = keras.models.clone_model(model)
    factors = [np.ones(6), *(np.exp2(np.linspace(-6, 6, n)) for n in (9, 8)), np.ones(7)]
    scaled.set_weights(
        [w / before[:, None] * after for w, (before, after) in zip(model.get_weights(), pairwise(factors), strict=True)]
    )
    path = convert(scaled, tmp_path / "m.tflite", "dynamic")
    result = verify_tflite(path, model, np.random.default_rng(0).normal(size=(8, 6)).astype("float32"))
    assert [row.tensor is not None for row in result.weights] == [True] * 3, result.problems
    assert result.zeros_kept == 1 and not any("another model" in problem for problem in result.problems)


def test_a_model_that_compares_samples_with_each_other_is_called_on_one(flavor, tmp_path):
    keras = importlib.import_module(flavor)
    import tensorflow as tf

    x = keras.Input((6,))
    h = keras.layers.Dense(4)(x)
    ops = keras.ops if flavor == "keras" else tf
    model = keras.Model(x, ops.matmul(h, ops.transpose(h)))  # as CLIP: of each with each
    made = export_tflite(model, tmp_path / "m.tflite", None, np.random.default_rng(0).normal(size=(5, 6)))
    assert made.verification.passed
