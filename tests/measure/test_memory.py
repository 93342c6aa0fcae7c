"""Activation memory: by hand on small graphs, and against the interpreter for microcontrollers."""

import keras
import numpy as np
import pytest

from edgeprune import flavor as flavors
from edgeprune.measure.memory import activation_memory
from edgeprune.models import autoencoder, ds_cnn, mobilenet_v1, resnet8, small_cnn


def test_a_chain_needs_its_two_largest_neighbours(flavor):
    layers = flavors.keras_module(flavor).layers
    net = flavors.keras_module(flavor).Sequential(
        [
            flavors.keras_module(flavor).Input((8, 8, 4)),
            layers.Conv2D(16, 1, name="wide", use_bias=False),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.Conv2D(32, 1, strides=2, name="narrow"),
            layers.Flatten(name="flat"),
        ]
    )
    memory = activation_memory(net)
    assert memory.layer == "narrow" and memory.peak == 8 * 8 * 16 + 4 * 4 * 32
    assert [row.layer for row in memory.layers] == ["wide", "narrow", "flat"], "the others are fused"
    assert activation_memory(net, "float32").peak == 4 * memory.peak
    assert "<- peak" in str(memory) and memory.to_dict()["peak"] == memory.peak


def test_a_shortcut_stays_alive_until_it_is_added(flavor):
    keras_module = flavors.keras_module(flavor)
    layers = keras_module.layers
    inputs = keras_module.Input((16, 16, 1))
    x = layers.Conv2D(8, 1, name="stem")(inputs)
    y = layers.Conv2D(8, 1, name="a")(x)
    y = layers.Conv2D(8, 1, name="b")(y)
    memory = activation_memory(keras_module.Model(inputs, layers.Add(name="sum")([x, y])))
    assert {row.layer: row.bytes for row in memory.layers} == {
        "stem": 16 * 16 * 9,
        "a": 2 * 2048,
        "b": 3 * 2048,
        "sum": 3 * 2048,
    }
    assert memory.layer == "b"


def test_relu_after_a_tensor_that_another_reads_is_not_fused():
    inputs = keras.Input((4, 4, 4))
    x = keras.layers.Conv2D(4, 1, name="conv")(inputs)
    memory = activation_memory(keras.Model(inputs, [x, keras.layers.ReLU(name="relu")(x)]))
    assert [row.layer for row in memory.layers] == ["conv", "relu"]


def test_gaps_that_are_too_small_are_counted(flavor):
    keras_module = flavors.keras_module(flavor)
    layers = keras_module.layers
    net = keras_module.Sequential(
        [
            keras_module.Input((16, 16, 3)),  # 768 bytes
            layers.Conv2D(8, 1, 2, name="a"),  # 512
            layers.DepthwiseConv2D(3, padding="same", name="b"),  # 512
            layers.Conv2D(16, 1, name="c"),  # 1,024
        ]
    )
    memory = activation_memory(net)
    # The output of c lies at 0, so that of b at 1,024; the input lies at 0 too, and between them are 256 bytes, too
    # few for the output of a, which comes to lie behind.
    assert (memory.peak, memory.planned) == (512 + 1024, 1024 + 512 + 512)
    assert "planned" in str(memory)


def test_a_nested_model_is_looked_into():
    inner = keras.Sequential([keras.Input((4, 4, 4)), keras.layers.Conv2D(64, 1, name="conv")], name="block")
    outer = keras.Sequential([keras.Input((4, 4, 4)), inner, keras.layers.GlobalAveragePooling2D(name="pool")])
    assert activation_memory(outer).layer == "block/conv"


def test_errors():
    with pytest.raises(TypeError, match="Expected a Keras model"):
        activation_memory("model")
    with pytest.raises(ValueError, match="dtype must be one of"):
        activation_memory(small_cnn(), "int4")
    with pytest.raises(ValueError, match="not built"):
        activation_memory(keras.Sequential([keras.layers.Dense(1)]))
    with pytest.raises(ValueError, match="fix every size"):
        activation_memory(keras.Sequential([keras.Input((None, 4)), keras.layers.Dense(1)]))


def test_it_is_drawn_with_the_layer_that_sets_it():
    from edgeprune.report import plots

    memory = activation_memory(resnet8())
    ax = plots.plot_memory(memory)
    alive, made = ([bar.get_width() * 1000 for bar in bars] for bars in ax.containers)
    assert alive == pytest.approx([row.bytes for row in memory.layers])
    assert made == pytest.approx([row.output_bytes for row in memory.layers])
    colours = [bar.get_facecolor() for bar in ax.containers[0]]
    marked = {row.layer for row, colour in zip(memory.layers, colours, strict=True) if colour != colours[0]}
    assert marked == {row.layer for row in memory.layers if row.bytes == memory.peak}
    assert memory.layer in ax.get_title()


def _gated():
    layers = keras.layers
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(16, 3, 2, padding="same", activation="relu")(inputs)
    gate = layers.Conv2D(16, 1, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.SeparableConv2D(32, 3, padding="same")(layers.Multiply()([x, gate]))
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Concatenate()([x, layers.MaxPooling2D(3, 1, padding="same")(x)])
    return keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x)), name="gated")


def _swish():
    layers = keras.layers
    inputs = x = keras.Input((16, 16, 3))
    for filters in (12, 20):
        x = layers.Conv2D(filters, 3, 2, padding="same", activation="silu")(x)
        x = layers.Activation("silu")(layers.DepthwiseConv2D(3, padding="same")(x))
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x), name="swish")


def _one_dimension():
    layers = keras.layers
    inputs = keras.Input((64, 6))
    x = layers.MaxPooling1D()(layers.Conv1D(16, 5, activation="relu")(inputs))
    x = layers.ReLU()(layers.BatchNormalization()(layers.SeparableConv1D(24, 3)(x)))
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(6, activation="softmax")(x), name="sensor")


def _wide():
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((16,)), layers.Dense(1000, "relu", name="broad"), layers.Dense(2)], name="wide"
    )


@pytest.mark.parametrize(
    ("make", "quantization", "per_channel_dense"),
    [
        *(
            (make, "int8", True)
            for make in (resnet8, ds_cnn, mobilenet_v1, autoencoder, _gated, _swish, _one_dimension)
        ),
        *((small_cnn, quantization, True) for quantization in ("int8", "int16x8", None)),
        (_wide, "int8", False),
        (_one_dimension, "int16x8", True),
        (_wide, "int8", True),
    ],
)
def test_it_is_what_the_interpreter_allocates(make, quantization, per_channel_dense, tmp_path, rng):
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")
    from edgeprune.export.convert import export_tflite
    from edgeprune.measure.tflm import measure_arena

    keras.utils.set_random_seed(0)
    model = make()
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):  # or the values of a deep net vanish
            layer.set_weights([np.full(layer.gamma.shape, value) for value in (1.0, 0.1, 0.0, 0.5)])
    samples = rng.normal(size=(8, *model.input_shape[1:])).astype(np.float32)
    export_tflite(
        model,
        tmp_path / "m.tflite",
        quantization,
        samples,
        per_channel_dense=per_channel_dense,
        verify=False,
        verbose=False,
    )
    arena = measure_arena(tmp_path / "m.tflite")
    dtype = {"int8": "int8", "int16x8": "int16", None: "float32"}[quantization]
    memory = activation_memory(model, dtype, per_channel_dense=per_channel_dense)
    assert memory.planned == arena.head, "the planner's own placing, to the byte"
    assert 0.65 * arena.head <= memory.peak <= arena.head
    assert memory.kept == pytest.approx(arena.tail, rel=0.1)
    assert memory.arena == pytest.approx(arena.bytes, rel=0.05)


def test_a_layer_that_most_is_kept_for_sets_the_arena():
    memory = activation_memory(_wide())
    assert (
        memory.arena_layer == "broad"
        and activation_memory(_wide(), per_channel_dense=False).arena_layer == memory.layer
    )
    assert memory.kept - activation_memory(_wide(), per_channel_dense=False).kept == 8 * 1002
    assert f"{memory.arena:,}" in str(memory)


def _film(keras, steps, deep=False):
    """A model on each step, inside a second wrapper where asked for."""
    layers = keras.layers
    each = keras.Sequential(
        [keras.Input((16,)), layers.Dense(64, name="wide"), layers.Dense(8, name="thin")], name="each"
    )
    film = keras.Input((2, steps, 16) if deep else (steps, 16))
    wrapped = (
        layers.TimeDistributed(layers.TimeDistributed(each), name="films") if deep else layers.TimeDistributed(each)
    )
    return keras.Model(film, layers.Dense(2, name="head")(layers.Flatten()(wrapped(film))))


def test_a_model_on_each_step_is_looked_into(flavor):
    """Keras 3 runs it on one step after the other, tf_keras on all as one batch."""
    keras = flavors.keras_module(flavor)
    memory = activation_memory(_film(keras, 5))
    at = {row.layer.rpartition("/")[2]: row.bytes for row in memory.layers}
    if flavor == "keras":  # the film, what the three steps before have made (8 bytes take 16), the step, what is made
        assert at["wide"] == 5 * 16 + 3 * 16 + 16 + 64
        assert at["thin"] == 5 * 16 + 3 * 16 + 64 + 16 == memory.peak
    else:
        assert at["wide"] == 5 * (16 + 64) and memory.peak == 5 * (64 + 16)
    deep = activation_memory(_film(keras, 5, deep=True))
    assert deep.peak > memory.peak and deep.layer.endswith(("wide", "thin"))
    for steps in (1, 2):
        assert activation_memory(_film(keras, steps)).peak < memory.peak


def test_steps_of_open_number_are_refused(flavor):
    keras = flavors.keras_module(flavor)
    each = keras.Sequential([keras.Input((16,)), keras.layers.Dense(4)])
    film = keras.Input((None, 16))
    model = keras.Model(film, keras.layers.LSTM(3)(keras.layers.TimeDistributed(each)(film)))
    with pytest.raises(ValueError, match="fix every size|open number"):
        activation_memory(model)
