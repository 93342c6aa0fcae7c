"""`adapt_for_xnnpack`: the same function, in the structure that XNNPACK's sparse inference takes."""

import contextlib
import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune import flavor
from edgeprune.sparsity.xnnpack import adapt_for_xnnpack, xnnpack_misses

FLAVORS = ("keras", "tf_keras")


def randomize(model, seed=0):
    """Give every weight a random value under which the output depends strongly on the input."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        kind = type(layer).__name__
        weights = []
        for w in layer.get_weights():
            fan = np.prod(w.shape[:2]) if kind == "DepthwiseConv2D" else np.prod(w.shape[:-1])
            if kind == "BatchNormalization":
                weights.append(random.uniform(0.5, 1.5, w.shape))
            else:
                weights.append(random.normal(0, 2 / np.sqrt(fan), w.shape))
        layer.set_weights(weights)
    return model


def images(size, batch=3, seed=1):
    shape = (size, size) if isinstance(size, int) else size
    return np.random.default_rng(seed).normal(size=(batch, *shape, 3)).astype("float32")


def run(model, x):
    return np.asarray(model(x))


def quietly(model, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return adapt_for_xnnpack(model, **options)


def application(flavor_name, name, size, alpha):
    keras = flavor.keras_module(flavor_name)
    build = getattr(keras.applications, name)
    model = build((size, size, 3), alpha=alpha, weights=None, classes=10, classifier_activation=None)
    return randomize(model)


def tfmot_accepts(model):
    """TF-MOT's own policy, which reads only `tf_keras` models."""
    flavor.import_tfmot().sparsity.keras.PruneForLatencyOnXNNPack().ensure_model_supports_pruning(model)
    return True


@pytest.mark.parametrize(
    ("flavor_name", "name", "alpha"),
    [
        ("keras", "MobileNetV2", 0.35),
        ("tf_keras", "MobileNet", 0.25),
        # Even sizes of it are rewritten in both Kerases below.
        pytest.param("tf_keras", "MobileNetV2", 0.35, marks=pytest.mark.slow),
        pytest.param("keras", "MobileNet", 0.25, marks=pytest.mark.slow),
    ],
)
def test_mobilenets_one_less_than_a_multiple_of_32(flavor_name, name, alpha):
    model = application(flavor_name, name, 95, alpha)
    before = [w.copy() for w in model.get_weights()]
    misses = xnnpack_misses(model)
    assert misses and all(miss.adaptable for miss in misses)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapted = adapt_for_xnnpack(model)
    assert xnnpack_misses(adapted) == ()
    assert flavor.flavor_of(adapted) == flavor_name
    if flavor_name == "tf_keras":
        assert tfmot_accepts(adapted)
    x = images(95)
    expected = run(model, x)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(run(adapted, x), expected, rtol=0, atol=2e-6 * scale)
    moved = np.abs(run(model, np.roll(x, 1, axis=(1, 2))) - expected).max()
    assert moved > 2e-4 * scale  # a shift by one pixel would have been seen

    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    names = [layer.name for layer in model.layers if "ZeroPadding" not in type(layer).__name__]
    kept = {layer.name for layer in adapted.layers}
    assert set(names) <= kept
    adapted.set_weights([w * 0 for w in adapted.get_weights()])
    assert np.array_equal(run(model, x), expected)  # nothing is shared


@pytest.mark.parametrize("flavor_name", ["tf_keras", pytest.param("keras", marks=pytest.mark.slow)])
def test_even_sizes_say_what_is_missing_and_may_shift_by_a_pixel(flavor_name):
    model = application(flavor_name, "MobileNetV2", 64, 0.35)
    with pytest.warns(UserWarning, match="exact=False") as warned:
        exact = adapt_for_xnnpack(model)
    (message,) = [str(w.message) for w in warned if "XNNPACK" in str(w.message)]
    assert message.count("\n- ") == 1 and "Conv1 (Conv2D): padding 'same' with stride 2 on 64x64" in message
    assert "on 63x63 adapt_for_xnnpack does it" in message
    x = images(64)
    expected = run(model, x)
    np.testing.assert_allclose(run(exact, x), expected, rtol=0, atol=2e-6 * np.abs(expected).max())

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shifted = adapt_for_xnnpack(model, exact=False)
    assert xnnpack_misses(shifted) == ()
    if flavor_name == "tf_keras":
        assert tfmot_accepts(shifted)
    result = run(shifted, x)
    assert result.shape == expected.shape
    assert np.abs(result - expected).max() > 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("flavor_name", ["keras", pytest.param("tf_keras", marks=pytest.mark.slow)])
def test_odd_maps_inside_are_left_and_told(flavor_name):
    model = application(flavor_name, "MobileNetV2", 97, 0.35)
    with pytest.warns(UserWarning, match="multiple of 32, or one less"):
        adapted = adapt_for_xnnpack(model, exact=False)
    assert {miss.layer for miss in xnnpack_misses(adapted)} == {f"block_{block}_depthwise" for block in (1, 3, 6, 13)}


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(8, 15),
    width=st.integers(8, 15),
    kernel=st.sampled_from([3, 5]),
    stride=st.sampled_from([1, 2]),
    padding=st.one_of(
        st.just("same"),
        st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
    ),
    flavor_name=st.sampled_from(FLAVORS),
)
def test_a_depthwise_convolution_computes_the_same_or_is_left(height, width, kernel, stride, padding, flavor_name):
    keras = flavor.keras_module(flavor_name)
    layers = keras.layers
    pads = [] if padding == "same" else [layers.ZeroPadding2D(padding)]
    mode = "same" if padding == "same" else "valid"
    model = keras.Sequential(
        [
            layers.Input((height, width, 3)),
            *pads,
            layers.DepthwiseConv2D(kernel, strides=stride, padding=mode, name="depthwise"),
        ]
    )
    randomize(model)
    adapted = quietly(model)
    x = images((height, width))
    np.testing.assert_allclose(run(adapted, x), run(model, x), rtol=1e-4, atol=1e-5)
    changed = adapted.get_layer("depthwise").kernel_size != model.get_layer("depthwise").kernel_size
    if stride == 2 and height % 2 == 0 and width % 2 == 0 and padding == "same":
        assert changed == (kernel == 3)  # a 5x5 kernel has no larger one to be put into


@settings(max_examples=15, deadline=None)
@given(height=st.integers(9, 16), width=st.integers(9, 16), flavor_name=st.sampled_from(FLAVORS))
def test_a_first_convolution_computes_the_same_or_is_left(height, width, flavor_name):
    keras = flavor.keras_module(flavor_name)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((height, width, 3)),
            layers.Conv2D(4, 3, strides=2, padding="same", name="stem"),
            layers.GlobalAveragePooling2D(keepdims=True),
        ]
    )
    randomize(model)
    both_odd = height % 2 and width % 2
    (miss,) = xnnpack_misses(model)
    assert (miss.layer, miss.adaptable) == ("stem", bool(both_odd))
    adapted = quietly(model)
    assert bool(xnnpack_misses(adapted)) is not bool(both_odd)
    x = images((height, width))
    np.testing.assert_allclose(run(adapted, x), run(model, x), rtol=1e-4, atol=1e-5)
    assert xnnpack_misses(quietly(model, exact=False)) == ()


def branched(flavor_name):
    """A network with all that the rewriting must carry over."""
    keras = flavor.keras_module(flavor_name)
    layers = keras.layers
    inner = keras.Sequential(
        [layers.Input((16, 16, 8)), layers.DepthwiseConv2D(3, strides=2, padding="same", name="down")], name="inner"
    )
    shared = layers.Conv2D(8, 1, name="shared")
    image = layers.Input((31, 31, 3), name="image")
    x = layers.Rescaling(0.5)(image)
    x = layers.Conv2D(8, 3, strides=2, padding="same", name="stem")(x)
    x = shared(x) + shared(layers.ReLU()(x))
    x = inner(x)
    gate = layers.GlobalAveragePooling2D(name="squeeze")(x)
    gate = layers.Conv2D(8, 1, activation="sigmoid", name="excite")(layers.Reshape((1, 1, 8))(gate))
    x = layers.Multiply()([x, gate])
    x = layers.AveragePooling2D(8, name="pool")(x)
    x = layers.Flatten()(x)
    return keras.Model(
        image, {"score": layers.Dense(3, name="score")(x), "features": layers.ReLU(name="features")(x)}, name="net"
    )


@pytest.mark.parametrize("flavor_name", FLAVORS)
def test_shared_and_nested_layers_squeeze_and_excitation_several_outputs(flavor_name, tmp_path):
    keras = flavor.keras_module(flavor_name)
    model = branched(flavor_name)
    assert all(miss.adaptable for miss in xnnpack_misses(model))
    adapted = adapt_for_xnnpack(model)
    assert xnnpack_misses(adapted) == ()
    assert (adapted.name, adapted.input_names if flavor_name == "tf_keras" else ["image"]) == ("net", ["image"])
    x = images(31)
    expected, result = model(x), adapted(x)
    assert set(result) == {"score", "features"}
    for name in expected:
        np.testing.assert_allclose(result[name], expected[name], rtol=1e-4, atol=1e-5)
    assert adapted.get_layer("inner").get_layer("down").kernel_size == (5, 5)
    assert adapted.count_params() == model.count_params() + 8 * (25 - 9)  # a 3x3 kernel became 5x5

    adapted.save(tmp_path / "adapted.keras")
    again = keras.models.load_model(tmp_path / "adapted.keras")
    np.testing.assert_allclose(again(x)["score"], result["score"], rtol=1e-6)
    again.compile("sgd", {"score": "mse", "features": None} if flavor_name == "keras" else {"score": "mse"})
    again.fit(x, {"score": np.zeros((3, 3), "float32")}, verbose=0)


@pytest.mark.parametrize("flavor_name", FLAVORS)
def test_keeps_the_number_type_and_the_state_of_preprocessing(flavor_name):
    keras = flavor.keras_module(flavor_name)
    layers = keras.layers
    normalization = layers.Normalization(axis=-1)
    normalization.adapt(images(31) * 3 + 2)
    model = keras.Sequential(
        [
            layers.Input((31, 31, 3)),
            normalization,
            layers.Conv2D(4, 3, strides=2, padding="same", dtype="mixed_float16"),
            layers.GlobalAveragePooling2D(dtype="mixed_float16"),
        ]
    )
    adapted = adapt_for_xnnpack(model)
    result, expected = adapted(images(31)), model(images(31))
    assert result.dtype == expected.dtype == "float16"
    np.testing.assert_allclose(result, expected, atol=2e-3)


@pytest.mark.parametrize("flavor_name", FLAVORS)
def test_names_do_not_collide_and_a_fit_model_is_only_copied(flavor_name):
    keras = flavor.keras_module(flavor_name)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((31, 31, 3)),
            layers.Conv2D(4, 3, strides=2, padding="same", name="stem"),
            layers.ReLU(name="stem_pad"),
            layers.GlobalAveragePooling2D(name="gap"),
        ]
    )
    adapted = adapt_for_xnnpack(model)
    names = [layer.name for layer in adapted.layers]
    assert names[1:] == ["stem_row", "stem_pad_1", "stem", "stem_pad", "gap", "gap_reshape"]
    again = adapt_for_xnnpack(adapted)
    assert [layer.name for layer in again.layers] == names


@pytest.mark.parametrize("flavor_name", FLAVORS)
def test_two_readers_of_one_padding(flavor_name):
    keras = flavor.keras_module(flavor_name)
    layers = keras.layers
    image = layers.Input((32, 32, 3))
    padded = layers.ZeroPadding2D(1, name="pad")(image)
    x = layers.Add()([layers.Conv2D(4, 3, strides=2, name=name)(padded) for name in "ab"])
    model = keras.Model(image, layers.GlobalAveragePooling2D(keepdims=True)(x))
    assert [miss.layer for miss in xnnpack_misses(model)] == ["a", "b"]
    assert not any(miss.adaptable for miss in xnnpack_misses(model))


@pytest.mark.parametrize("flavor_name", FLAVORS)
def test_sizes_that_are_not_fixed(flavor_name):
    keras = flavor.keras_module(flavor_name)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((None, None, 3)),
            layers.Conv2D(4, 3, strides=2, padding="same", name="stem"),
            layers.GlobalAveragePooling2D(keepdims=True),
        ]
    )
    with pytest.warns(UserWarning, match="fixed size"):
        adapt_for_xnnpack(model)
    assert xnnpack_misses(adapt_for_xnnpack(model, exact=False)) == ()


@pytest.mark.parametrize("flavor_name", FLAVORS)
def test_a_network_without_convolutions(flavor_name):
    layers = flavor.keras_module(flavor_name).layers
    model = flavor.keras_module(flavor_name).Sequential([layers.Input((4, 4, 3)), layers.Flatten(name="flat")])
    assert [miss.problem.split()[0:2] for miss in xnnpack_misses(model)] == [
        ["no", "convolution"],
        ["no", "GlobalAveragePooling2D"],
    ]


def test_what_is_no_model_or_carries_wrappers_is_refused():
    with pytest.raises(TypeError, match="Keras model, got str"):
        adapt_for_xnnpack("model.keras")
    keras = flavor.keras_module("tf_keras")
    sparsity = flavor.import_tfmot().sparsity.keras
    model = keras.Sequential([keras.layers.Input((8, 8, 3)), keras.layers.Conv2D(4, 1, name="conv")])
    pruned = sparsity.prune_low_magnitude(model, sparsity.ConstantSparsity(0.5, 0))
    with pytest.raises(ValueError, match="'prune_low_magnitude_conv' carries a pruning wrapper.*strip_pruning"):
        adapt_for_xnnpack(pruned)


@pytest.mark.parametrize("flavor_name", FLAVORS)
def test_subclassed_models_are_refused(flavor_name):
    class Subclassed(flavor.keras_module(flavor_name).Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="subclassed"):
        adapt_for_xnnpack(Subclassed())


def convert(model, optimizations=()):
    """The content of the `.tflite` file of a model, for a batch of one."""
    import tensorflow as tf

    keras = flavor.keras_of(model)
    image = keras.Input(batch_shape=(1, *model.input_shape[1:]))
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, model(image)))
    converter.optimizations = list(optimizations)
    with contextlib.redirect_stdout(io.StringIO()):
        return converter.convert()


def strided_operators(content):
    """The stride-2 operators of a file: name, padding and the operator that feeds each."""
    from ai_edge_litert import schema_py_generated as schema

    file = schema.ModelT.InitFromPackedBuf(content, 0)
    codes = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    made_by, found = {}, []
    for op in file.subgraphs[0].operators:
        name = codes[file.operatorCodes[op.opcodeIndex].builtinCode]
        made_by[op.outputs[0]] = name
        if getattr(op.builtinOptions, "strideH", 1) == 2:
            padding = "VALID" if op.builtinOptions.padding == schema.Padding.VALID else "SAME"
            found.append((name, padding, made_by.get(op.inputs[0])))
    return found


@pytest.mark.parametrize("flavor_name", FLAVORS)
def test_the_padding_survives_the_converter(flavor_name):
    adapted = adapt_for_xnnpack(branched(flavor_name))
    assert strided_operators(convert(adapted)) == [
        ("CONV_2D", "VALID", "PAD"),
        ("DEPTHWISE_CONV_2D", "VALID", "PAD"),
    ]


def test_why_odd_maps_are_refused():
    layers = flavor.keras_module("keras").layers
    for size, padding in ((15, "SAME"), (16, "VALID")):
        image = layers.Input((size, size, 4))
        x = layers.DepthwiseConv2D(3, strides=2)(layers.ZeroPadding2D(1)(image))
        ((_, found, _),) = strided_operators(convert(flavor.keras_module("keras").Model(image, x)))
        assert found == padding


def test_an_adapted_and_pruned_model_gives_the_same_from_a_sparse_file():
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    adapted = adapt_for_xnnpack(application("keras", "MobileNet", 63, 0.25))
    for layer in adapted.layers:
        if type(layer).__name__ == "Conv2D" and layer.kernel_size == (1, 1):
            kernel, *rest = layer.get_weights()
            kernel[np.abs(kernel) <= np.quantile(np.abs(kernel), 0.85)] = 0
            layer.set_weights([kernel, *rest])
    content = convert(adapted, [tf.lite.Optimize.EXPERIMENTAL_SPARSITY])
    assert len(content) < 0.5 * 4 * adapted.count_params()
    assert strided_operators(content) == [
        ("CONV_2D", "VALID", "PAD"),
        *[("DEPTHWISE_CONV_2D", "VALID", "PAD")] * 4,
    ]
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    x = images(63, batch=1)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    result, expected = interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), run(adapted, x)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
