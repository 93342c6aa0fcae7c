"""`edgeprune.tfmot.quantization.keras`: TF-MOT's scripts run with another import, and quantize what TF-MOT does."""

import subprocess
import sys

import numpy as np
import pytest
from nets.quantized_nets import branched, chain, images, nested

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune import tfmot
from edgeprune.quantization.fake_quantize import fake_quantizers, quantized_layers

quantization = tfmot.quantization.keras


@pytest.fixture(scope="module")
def theirs():
    """TF-MOT itself."""
    return flavors.import_tfmot()


def public_names(module):
    return {name for name in dir(module) if not name.startswith("_")}


def test_every_name_is_one_of_tfmot(theirs):
    for ours, their in (
        (quantization, theirs.quantization.keras),
        (quantization.default_8bit, theirs.quantization.keras.default_8bit),
        (quantization.collab_opts, theirs.quantization.keras.collab_opts),
        (quantization.experimental.default_n_bit, theirs.quantization.keras.experimental.default_n_bit),
        (tfmot.experimental.combine, theirs.experimental.combine),
    ):
        assert set(ours.__all__) <= public_names(their)
    missing = public_names(theirs.quantization.keras) - set(dir(quantization))
    for name in missing:
        with pytest.raises(AttributeError, match=f"no counterpart of TF-MOT's {name}"):
            getattr(quantization, name)


def test_it_imports_no_tensorflow():
    script = (
        "import sys, edgeprune.tfmot as tfmot; dir(tfmot.quantization.keras); "
        "tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme().scheme; "
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


SCRIPTS = {
    "whole model": """
q_aware_model = tfmot.quantization.keras.quantize_model(model)
""",
    "some layers": """
def apply_quantization_to_dense(layer):
    if isinstance(layer, keras.layers.Dense):
        return tfmot.quantization.keras.quantize_annotate_layer(layer)
    return layer

annotated_model = keras.models.clone_model(model, clone_function=apply_quantization_to_dense)
q_aware_model = tfmot.quantization.keras.quantize_apply(annotated_model)
""",
    "a new model": """
quantize_annotate_layer = tfmot.quantization.keras.quantize_annotate_layer
i = keras.Input(shape=(12, 12, 3))
x = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(i)
x = keras.layers.Flatten()(x)
x = quantize_annotate_layer(keras.layers.Dense(10, activation="relu", name="hidden"))(x)
o = keras.layers.Dense(5, activation="softmax")(x)
annotated_model = keras.Model(inputs=i, outputs=o)
q_aware_model = tfmot.quantization.keras.quantize_apply(annotated_model)
""",
    "zeros of pruning": """
stem = model.get_layer("stem")
stem.set_weights([np.where(np.arange(stem.kernel.shape[-1]) % 2, 0, stem.get_weights()[0])])
quant_aware_annotate_model = tfmot.quantization.keras.quantize_annotate_model(model)
q_aware_model = tfmot.quantization.keras.quantize_apply(
    quant_aware_annotate_model, tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme())
""",
}
TRAINING = """
q_aware_model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
q_aware_model.fit(data, y, batch_size=16, epochs=1, validation_split=0.1, verbose=0)
q_aware_model.save(path)
with tfmot.quantization.keras.quantize_scope():
    loaded = keras.models.load_model(path)
before, after = q_aware_model.predict(data, verbose=0), loaded.predict(data, verbose=0)
"""


def run(script, library, flavor, **names):
    names |= dict(np=np, model=chain(flavor), tfmot=library, keras=flavors.keras_module(flavor))
    exec(script, names)
    return names


def kernels_of_tfmot(model):
    """The names of the layers whose kernels TF-MOT rounds."""
    wrappers = [layer for layer in model.layers if "QuantizeWrapper" in type(layer).__name__]
    return [one.layer.name for one in wrappers if list(one.quantize_config.get_weights_and_quantizers(one.layer))]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_with_only_its_import_changed(flavor, name, theirs, tmp_path):
    path = tmp_path / ("aware.h5" if flavor == "tf_keras" else "aware.keras")  # TF-MOT's own needs .h5
    script = SCRIPTS[name] + (TRAINING if name == "zeros of pruning" else "")
    given = run(script, tfmot, flavor, data=images(), y=np.arange(64) % 5, path=str(path))
    aware = given["q_aware_model"]
    rounded = [wrapper.layer.name for wrapper in quantized_layers(aware)]
    assert [wrapper.name for wrapper in quantized_layers(aware)] == [f"quant_{one}" for one in rounded]
    if flavor == "tf_keras":
        assert rounded == kernels_of_tfmot(run(SCRIPTS[name], theirs, flavor)["q_aware_model"])
    if name == "zeros of pruning":
        np.testing.assert_array_equal(given["before"], given["after"])
        kernel = np.array(ep.strip_quantization(aware).get_layer("stem").kernel)
        assert (kernel[..., 1::2] == 0).all() and kernel[..., ::2].all()


@pytest.fixture(scope="module")
def both(theirs):
    """A net that TF-MOT can quantize, quantized by it and by `edgeprune`."""
    keras = flavors.keras_module("tf_keras")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, use_bias=False, name="stem")(image)
    x = layers.ReLU(6.0, name="relu")(layers.BatchNormalization(name="norm")(x))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depth")(x)
    y = layers.Activation("relu", name="act")(layers.BatchNormalization(name="norm2")(y))
    y = layers.Conv2D(8, 1, name="point")(y)
    x = layers.GlobalAveragePooling2D(name="pool")(layers.Add(name="add")([x, y]))
    model = keras.Model(image, layers.Dense(5, activation="softmax", name="head")(x))
    return theirs.quantization.keras.quantize_model(model), quantization.quantize_model(model)


def test_the_kernels_that_tfmot_rounds_are_rounded_to_its_steps(both):
    their, ours = both
    wrappers = {one.layer.name: one for one in quantized_layers(ours)}
    assert list(wrappers) == kernels_of_tfmot(their)
    for name, wrapper in wrappers.items():
        their_layer = their.get_layer(f"quant_{name}")
        ((kernel, quantizer, variables),) = their_layer._weight_vars
        (own,) = wrapper.kernel_axes
        if name == "head":  # TF-MOT has one scale for a dense layer
            continue
        wanted = np.asarray(quantizer(kernel, True, weights=variables))
        if name == "depth":  # and, other than a file, one for a depthwise kernel too
            assert np.unique(wanted).size <= 255 < wanted.size * 255
            continue
        np.testing.assert_allclose(np.asarray(wrapper.rounded(own)), wanted, atol=1e-6)


@pytest.mark.above_flavor
def test_values_that_a_marked_layer_reads_are_rounded(flavor):
    """As TF-MOT does; left in floats, a file would compute the layer in floats."""
    model = chain(flavor)
    marked = flavors.keras_module(flavor).models.clone_model(
        model, clone_function=lambda one: quantization.quantize_annotate_layer(one) if one.name == "head" else one
    )
    aware = quantization.quantize_apply(marked)
    assert [layer.name for layer in fake_quantizers(aware)] == [
        "image_range",
        "pool_range",
        "before_activation",
        "head",
    ]
    np.testing.assert_array_equal(np.array(aware.get_layer("stem").kernel), np.array(model.get_layer("stem").kernel))


@pytest.mark.above_flavor
@pytest.mark.parametrize("make", [branched, nested])
def test_all_layers_marked_is_the_whole_model(flavor, make):
    model, x = make(flavor), images(8)
    marked = quantization.quantize_annotate_model(quantization.quantize_annotate_model(model))
    np.testing.assert_allclose(marked.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)
    whole, applied = quantization.quantize_model(model), quantization.quantize_apply(marked)
    assert [layer.name for layer in applied.layers] == [layer.name for layer in whole.layers]
    np.testing.assert_array_equal(applied.predict(x, verbose=0), whole.predict(x, verbose=0))


@pytest.mark.above_flavor
def test_a_scheme_names_bits(flavor):
    keras = flavors.keras_module(flavor)
    head = quantization.quantize_annotate_layer(keras.layers.Dense(2, name="head"))
    model = keras.Sequential([keras.Input((4,)), head])
    scheme = quantization.experimental.default_n_bit.DefaultNBitQuantizeScheme(num_bits_weight=4)
    assert quantization.quantize_apply(model, scheme, "").get_layer("quantized_head").num_bits == 4
    with pytest.raises(ValueError, match="Weights of 5 bits with activations of 8"):
        quantization.experimental.default_n_bit.DefaultNBitQuantizeScheme(num_bits_weight=5)
    with pytest.raises(ValueError, match="a scale for each channel"):
        quantization.default_8bit.Default8BitQuantizeScheme(disable_per_axis=True)
    with pytest.raises(TypeError, match="scheme must be Default8BitQuantizeScheme"):
        quantization.quantize_apply(model, "int8")


def test_bad_input_is_refused(flavor):
    keras = flavors.keras_module(flavor)
    model, layer = chain(flavor), keras.layers.Dense(2)
    for function, name in (
        (quantization.quantize_model, "to_quantize"),
        (quantization.quantize_annotate_model, "to_annotate"),
        (quantization.quantize_apply, "model"),
        (quantization.quantize_annotate_layer, "to_annotate"),
    ):
        with pytest.raises(ValueError, match=f"`{name}` cannot be None"):
            function(None)
        with pytest.raises(ValueError, match=f"`{name}` can only be a `keras"):
            function("model.keras")
    with pytest.raises(ValueError, match="can only be a `keras.layers.Layer` instance. .*: Sequential"):
        quantization.quantize_annotate_layer(model)
    with pytest.raises(ValueError, match="Leave it out, name the bits by the scheme"):
        quantization.quantize_annotate_layer(layer, object())
    with pytest.raises(ValueError, match="must contain at least one layer"):
        quantization.quantize_apply(model)
    with pytest.raises(ValueError, match="is not built"):
        quantization.quantize_model(keras.Sequential([layer]))


@pytest.mark.slow
def test_accuracy_is_that_of_tfmot(theirs, sample):
    keras = flavors.keras_module("tf_keras")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    (x, y), test = sample
    net = [layers.Conv2D(8, 3, strides=2, activation="relu"), layers.Conv2D(16, 3, strides=2), layers.ReLU()]
    net += [layers.GlobalAveragePooling2D(), layers.Dense(10, activation="softmax")]
    model = keras.Sequential([keras.Input((28, 28, 1)), *net])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=4, batch_size=32, verbose=0)
    found = []
    for library in (theirs, tfmot):
        keras.utils.set_random_seed(1)
        aware = library.quantization.keras.quantize_model(model)
        aware.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        aware.fit(x, y, epochs=2, batch_size=32, verbose=0)
        found.append(aware.evaluate(*test, verbose=0)[1])
    assert found[1] > found[0] - 0.02, found
    print(found, model.evaluate(*test, verbose=0)[1])
