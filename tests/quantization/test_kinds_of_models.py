"""Models of every kind are trained for quantization; what stays in floats is listed with the reason."""

import numpy as np
import pytest
from nets.composite_nets import composite, sequence, subclassed
from nets.quantized_nets import branched, chain, half, images, shared

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.quantization.fake_quantize import fake_quantizers, quantized_layers

X = images(32)
Y = np.arange(len(X)) % 5


def rounded(model):
    return [one.layer for one in ep.quantization_report(model).kernels]


@pytest.mark.parametrize("make", [composite, subclassed])
def test_layers_inside_layers_are_rounded_in_their_places(flavor, make):
    model = make(flavor)
    aware = ep.quantize_aware(model, calibration=X)
    assert rounded(aware) == ["block_conv", "block_dense", "head"]
    assert [layer.name for layer in fake_quantizers(aware) if "range" in layer.name][1:] == [
        *("conv_range", "norm_range", "pool_range"),  # the normalization is folded into the dense layer
    ]
    expected = np.asarray(model.predict(X, verbose=0))
    assert 0 < np.abs(aware.predict(X, verbose=0) - expected).max() < 0.05
    np.testing.assert_array_equal(ep.strip_quantization(aware).predict(X, verbose=0), expected)


@pytest.mark.above_flavor
def test_a_composite_layer_is_chosen_by_its_name(flavor):
    aware = ep.quantize_aware(composite(flavor), layers="block")
    assert rounded(aware) == ["block_conv", "block_dense"]
    assert rounded(ep.quantize_aware(composite(flavor), ignore="block/conv")) == ["block_dense", "head"]


@pytest.mark.above_flavor
def test_a_convolution_with_swish_is_split(flavor):
    aware = ep.quantize_aware(composite(flavor), calibration=X)
    conv = aware.get_layer("quantized_block_conv")
    low, high = (float(np.asarray(end)) for end in conv.before_activation.range)
    assert low < -0.3 < high, "the range of the convolution, not that of swish, which ends at -0.28"


def test_several_inputs_and_outputs_with_a_function_train(flavor):
    model = shared(flavor)
    aware = ep.quantize_aware(model, calibration={"a": X, "b": X[::-1]})
    assert flavors.output_names(aware, 2) == flavors.output_names(model, 2)
    aware.compile("sgd", "mse")
    aware.fit([X, X[::-1]], [np.zeros((32, 3)), np.zeros((32, 1))], verbose=0)
    assert rounded(aware) == ["conv", "p", "q"]


@pytest.mark.above_flavor
def test_sequences_are_rounded_and_what_is_not_is_listed_with_the_reason(flavor, tmp_path):
    x = np.random.default_rng(0).normal(size=(16, 6, 8)).astype(np.float32)
    aware = ep.quantize_aware(sequence(flavor), calibration=x)
    report = ep.quantization_report(aware)
    assert rounded(aware) == [*["attention"] * 4, "mixed", "heads", *["lstm"] * 2, "head"]
    assert [one.num_scales for one in report.kernels] == [8, 8, 8, 8, 7, 6, 4, 4, 2]
    assert report.left.keys() == {"norm"} and "several operators" in report.left["norm"]
    assert "lstm_range" not in [layer.name for layer in fake_quantizers(aware)], "the converter could not fuse it"
    result = ep.export_tflite(aware, tmp_path / "m.tflite", "int8", x)
    assert result.verification.passed
    stored = {tensor.shape: tensor.values() for tensor in ep.read_tflite(result.path).weights if tensor.dtype == "int8"}
    for wrapper in quantized_layers(aware)[1:3]:
        kernel = np.asarray(wrapper.rounded("kernel"), np.float64)
        kernel = kernel.reshape(len(kernel), -1).T
        np.testing.assert_allclose(stored[kernel.shape], kernel, atol=1e-5 * np.abs(kernel).max())


def test_mixed_precision_trains_and_keeps_float32_kernels(flavor):
    aware = ep.quantize_aware(half(flavor), calibration=X)
    aware.compile("adam", "sparse_categorical_crossentropy")
    aware.fit(X, Y, verbose=0)
    assert all(np.isfinite(weight).all() for weight in aware.get_weights())
    plain = ep.strip_quantization(aware)
    assert plain.get_layer("stem").compute_dtype == "float16"
    assert all("float32" in str(weight.dtype) for weight in plain.get_layer("stem").weights)


def test_replicas_share_one_range(flavor, two_replicas):
    with two_replicas.scope():
        aware = ep.quantize_aware(chain(flavor))
        aware.compile("sgd", "sparse_categorical_crossentropy")
    aware.fit(X, Y, batch_size=16, epochs=2, verbose=0)
    (low, high) = ep.quantization_report(aware).activations[0].range
    assert X.min() <= low < -0.9 and 0.9 < high <= X.max()


def test_a_model_is_calibrated_in_the_scope_of_replicas(flavor, two_replicas):
    with two_replicas.scope():
        aware = ep.quantize_aware(chain(flavor), calibration=X)
    expected = ep.quantize_aware(chain(flavor), calibration=X)
    found, wanted = (ep.quantization_report(model).activations for model in (aware, expected))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.range, other.range, rtol=1e-5)


@pytest.mark.above_flavor
def test_after_a_teacher(flavor):
    teacher = chain(flavor)
    teacher.compile("adam", "sparse_categorical_crossentropy")
    student = ep.quantize_aware(teacher, "int4", calibration=X)
    before, taught = student.get_weights(), teacher.get_weights()
    student = ep.distill(student, teacher, X, epochs=1, batch_size=8)
    assert np.isfinite(student.history.history["distillation_loss"]).all()
    assert any(np.any(old != new) for old, new in zip(before, student.get_weights(), strict=True))
    for old, new in zip(taught, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert rounded(student) == ["stem", "head"]


def test_h5_files_and_weights(flavor, tmp_path):
    aware = ep.quantize_aware(branched(flavor), calibration=X)
    expected = aware.predict(X, verbose=0)
    aware.save(tmp_path / "aware.h5")
    np.testing.assert_array_equal(ep.load_model(tmp_path / "aware.h5").predict(X, verbose=0), expected)
    aware.save_weights(tmp_path / "aware.weights.h5")
    again = ep.quantize_aware(branched(flavor))
    again.load_weights(tmp_path / "aware.weights.h5")
    np.testing.assert_array_equal(again.predict(X, verbose=0), expected)


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_a_layer_on_each_step_is_loaded_and_cloned(flavor, ending, tmp_path):
    keras = flavors.keras_module(flavor)
    steps = keras.Input((6, 5))
    x = np.random.default_rng(0).normal(size=(8, 6, 5)).astype(np.float32)
    model = keras.Model(steps, keras.layers.TimeDistributed(keras.layers.Dense(4, activation="relu"))(steps))
    aware = ep.quantize_aware(model, calibration=x)
    assert keras.models.clone_model(aware).count_params() == aware.count_params()
    aware.save(tmp_path / f"aware.{ending}")
    again = keras.models.load_model(tmp_path / f"aware.{ending}")
    np.testing.assert_array_equal(again.predict(x, verbose=0), aware.predict(x, verbose=0))


@pytest.mark.above_flavor
def test_int16x8_rounds_weights_alone(flavor, tmp_path):
    model = branched(flavor)
    aware = ep.quantize_aware(model, "int16x8")
    assert not fake_quantizers(aware) and len(quantized_layers(aware)) == 7
    assert flavors.output_names(aware, 1) == flavors.output_names(model, 1) == ["head"]
    aware.compile("sgd", "sparse_categorical_crossentropy")
    aware.fit(X, Y, verbose=0)
    result = ep.export_tflite(aware, tmp_path / "m.tflite", "int16x8", X)
    assert result.verification.passed and result.verification.outputs[0].mean_error < 1e-3
    assert [layer.name for layer in ep.strip_quantization(aware).layers] == [layer.name for layer in model.layers]


def test_a_layer_whose_tensors_are_all_named(flavor, tmp_path):
    layers, keras = flavors.keras_module(flavor).layers, flavors.keras_module(flavor)
    inputs = keras.Input((6, 8))
    x = layers.MultiHeadAttention(2, 4, name="attention")(query=inputs, value=inputs)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    samples = np.random.default_rng(0).normal(size=(32, 6, 8)).astype("f4")
    aware = ep.quantize_aware(model, calibration=samples)
    assert "attention" in rounded(aware)
    error = aware.predict(samples, verbose=0) - model.predict(samples, verbose=0)
    assert 0 < np.abs(error).max() < 0.1
    assert ep.export_tflite(aware, tmp_path / "named.tflite", "int8", samples).verification.passed


def test_activations_that_read_the_same_values_have_one_range(flavor, tmp_path):
    """As in NASNet: the converter makes one operator of them, and two ranges would leave it in floats."""
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    image = keras.Input((6, 6, 2), name="image")
    z = layers.Conv2D(3, 1, name="stem")(image)
    halves = [
        layers.Conv2D(3, 3, padding="same", name="a")(layers.Activation("relu", name="first")(z)),
        layers.Conv2D(3, 1, name="b")(layers.ReLU(name="second")(layers.Dropout(0.0, name="drop")(z))),
    ]
    pooled = layers.GlobalAveragePooling2D(name="pool")(layers.Add(name="sum")(halves))
    model = keras.Model(image, layers.Dense(2, name="head")(pooled), name="net")
    x = np.random.default_rng(0).random((32, 6, 6, 2)).astype(np.float32)
    aware = ep.quantize_aware(model, calibration=x)
    names = {one.name for one in fake_quantizers(aware)}
    assert len(names & {"first_range", "second_range"}) == 1
    aware.compile("sgd", "mse")
    aware.fit(x, np.zeros((32, 2)), verbose=0)
    for one in fake_quantizers(aware):
        one.range_max.assign(one.range_max * (1.1 if one.name in ("first_range", "second_range") else 1.0))
    result = ep.export_tflite(aware, tmp_path / "m.tflite", "int8", x, verbose=False)
    assert result.verification.passed and not any("float" in note for note in result.notes)


def test_hundreds_of_layers_one_behind_the_other(flavor, tmp_path):
    keras = flavors.keras_module(flavor)
    x = keras.Input((2,))
    h = keras.layers.Dense(2)(x)
    for _ in range(550):  # each with a rounding layer behind it: more than Python's recursion limit
        h = keras.layers.Activation("tanh")(h)
    aware = ep.quantize_aware(keras.Model(x, h), "int8", calibration=np.ones((2, 2)))
    aware.save(tmp_path / "deep.keras")
    assert len(flavors.load_model(tmp_path / "deep.keras").layers) > 1000


CHOICES = {
    "two": lambda where, a, b, chosen: where(chosen, a, b),
    "zeros": lambda where, a, b, chosen: where(chosen, a, 0.0 * a),
    "a number": lambda where, a, b, chosen: where(chosen, 0.0, a),
    "numbers alone": lambda where, a, b, chosen: a * where(chosen, 1.0, 2.0),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_choice_and_what_it_chooses_from_have_one_range(flavor, choice, tmp_path):
    keras = flavors.keras_module(flavor)
    where = keras.ops.where if flavor == "keras" else __import__("tensorflow").where
    keras.utils.set_random_seed(0)
    x, chosen = keras.Input((8,)), keras.Input((8,))
    a, b = keras.layers.Dense(8)(x), keras.layers.Dense(8)(x) * 0.05
    model = keras.Model([x, chosen], keras.layers.Dense(3)(CHOICES[choice](where, a, b, chosen > 0.5)))
    random = np.random.default_rng(0)
    data = [random.normal(size=(64, 8)).astype("float32"), random.integers(0, 2, (64, 8)).astype("float32")]
    aware = ep.quantize_aware(model, calibration=data)
    made = ep.export_tflite(aware, tmp_path / "m.tflite", "int8", data, verbose=False)
    assert made.verification.outputs[0].relative_error < (0.02 if choice == "numbers alone" else 0.003)


@pytest.mark.parametrize("first", ["by place", "by name"])
def test_attention_called_with_tensors_and_options_by_name(flavor, first, tmp_path):
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(0)
    x, attention = keras.Input((6, 8)), keras.layers.MultiHeadAttention(2, 4)
    if first == "by place":
        h, _ = attention(x, value=x, return_attention_scores=True)
    else:
        h = attention(query=x, value=x, use_causal_mask=True)
    model = keras.Model(x, keras.layers.Dense(2)(h))
    data = np.random.default_rng(0).normal(size=(32, 6, 8)).astype("float32")
    aware = ep.quantize_aware(model, calibration=data)
    expected = np.asarray(model(data))
    assert np.abs(np.asarray(aware(data)) - expected).max() < 0.1
    aware.save(tmp_path / "aware.keras")
    loaded = flavors.load_model(tmp_path / "aware.keras")
    assert ep.export_tflite(loaded, tmp_path / "m.tflite", "int8", data, verbose=False).verification.passed
