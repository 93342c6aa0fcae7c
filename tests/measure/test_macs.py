"""Counts against hand-computed figures, Keras's own parameter count, and a count from the .tflite operators."""

import importlib

import numpy as np
import pytest
from nets.converted import convert, set_zeros, small_cnn

from edgeprune.measure.macs import count_macs, count_macs_of_file
from edgeprune.measure.parameters import count_parameters


@pytest.fixture
def keras(flavor):
    return importlib.import_module(flavor)


def sequential(keras, shape, *layers):
    return keras.Sequential([keras.Input(batch_shape=(1, *shape)), *layers])


# Each case: input shape, a function that makes the layers, and the MACs worked out by hand.
CASES = {
    "dense": ((4,), lambda k: [k.Dense(3)], 4 * 3),
    "dense on a sequence": ((5, 4), lambda k: [k.Dense(3)], 5 * 4 * 3),
    "einsum dense": ((5, 4), lambda k: [k.EinsumDense("abc,cde->abde", (5, 2, 3))], 5 * 4 * 2 * 3),
    "conv1d causal": ((7, 2), lambda k: [k.Conv1D(3, 4, padding="causal")], 7 * 4 * 2 * 3),
    "conv2d stride 2": ((9, 9, 2), lambda k: [k.Conv2D(3, 3, strides=2, padding="same")], 25 * 9 * 2 * 3),
    "conv2d dilated, odd": ((9, 9, 2), lambda k: [k.Conv2D(3, 3, dilation_rate=2)], 25 * 9 * 2 * 3),
    "conv2d grouped": ((6, 6, 4), lambda k: [k.Conv2D(8, 3, groups=2)], 16 * 9 * 2 * 8),
    "conv3d": ((4, 5, 6, 2), lambda k: [k.Conv3D(3, 2)], 3 * 4 * 5 * 8 * 2 * 3),
    "conv1d transposed": ((5, 2), lambda k: [k.Conv1DTranspose(3, 4, strides=2)], 5 * 4 * 2 * 3),
    "conv2d transposed": ((4, 4, 2), lambda k: [k.Conv2DTranspose(3, 3, strides=2)], 16 * 9 * 2 * 3),
    "conv3d transposed": ((2, 3, 4, 2), lambda k: [k.Conv3DTranspose(3, 2)], 24 * 8 * 2 * 3),
    "depthwise": ((6, 6, 4), lambda k: [k.DepthwiseConv2D(3, depth_multiplier=2)], 16 * 9 * 8),
    "depthwise 1d": ((6, 4), lambda k: [k.DepthwiseConv1D(3)], 4 * 3 * 4),
    "separable": ((6, 6, 4), lambda k: [k.SeparableConv2D(5, 3)], 16 * (9 * 4 + 4 * 5)),
    "separable 1d": ((6, 4), lambda k: [k.SeparableConv1D(5, 3)], 4 * (3 * 4 + 4 * 5)),
    "simple rnn": ((7, 2), lambda k: [k.SimpleRNN(3)], 7 * 3 * (2 + 3)),
    "gru": ((7, 2), lambda k: [k.GRU(3)], 7 * 3 * 3 * (2 + 3)),
    "lstm": ((7, 2), lambda k: [k.LSTM(3, return_sequences=True)], 7 * 4 * 3 * (2 + 3)),
    "lstm unrolled": ((7, 2), lambda k: [k.LSTM(3, unroll=True)], 7 * 4 * 3 * (2 + 3)),
    "bidirectional": ((7, 2), lambda k: [k.Bidirectional(k.LSTM(3))], 2 * 7 * 4 * 3 * (2 + 3)),
    "two stacked": ((7, 2), lambda k: [k.LSTM(3, return_sequences=True), k.LSTM(5)], 7 * 4 * (3 * 5 + 5 * 8)),
    "time distributed": ((5, 4), lambda k: [k.TimeDistributed(k.Dense(3))], 5 * 4 * 3),
    "embedding": ((5,), lambda k: [k.Embedding(10, 4)], 0),
    "no products": ((8, 8, 2), lambda k: [k.BatchNormalization(), k.MaxPooling2D(), k.ReLU()], 0),
}


@pytest.mark.parametrize("case", CASES)
def test_layer_macs_are_those_worked_out_by_hand(keras, case):
    shape, layers, expected = CASES[case]
    count = count_macs(sequential(keras, shape, *layers(keras.layers)))
    assert (count.total, count.uncounted) == (expected, ())
    assert sum(count.per_layer.values()) == expected


def test_attention_counts_projections_and_both_products(keras):
    tokens, width, heads, key = 6, 8, 2, 3
    x = keras.Input((tokens, width))
    count = count_macs(keras.Model(x, keras.layers.MultiHeadAttention(heads, key, name="mha")(x, x)))
    assert count.per_layer == {
        "mha": 2 * heads * tokens * tokens * key,
        "mha/query": tokens * width * heads * key,
        "mha/key": tokens * width * heads * key,
        "mha/value": tokens * width * heads * key,
        "mha/attention_output": tokens * width * heads * key,
    }


def test_shared_layers_count_per_call_and_nested_ones_have_their_path(keras):
    x = keras.Input((4,), name="x")
    shared = keras.layers.Dense(4, name="shared")
    block = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, name="inner")], name="block")
    count = count_macs(keras.Model(x, block(shared(shared(x)))))
    assert count.per_layer == {"shared": 2 * 16, "block/inner": 20}


def subclassed(keras):
    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="net")
            self.first = keras.layers.Dense(4, name="first")

        def call(self, x):
            return self.first(self.first(x)) @ np.ones((4, 2), "float32")

    return Net()


def test_subclassed_model_and_products_outside_layers(keras):
    model = subclassed(keras)
    model(np.ones((2, 4), "float32"))
    count = count_macs(model)
    assert count.per_layer == {"net": 8, "first": 32}
    assert count_macs(model, inputs=np.ones((1, 4), "float32")).total == count.total


def test_counting_leaves_the_model_as_it_was(keras):
    model = small_cnn(keras)
    layers = [layer for layer in model.layers]
    image = np.ones((1, 12, 12, 3), "float32")
    before = np.asarray(model(image))
    count_macs(model)
    assert not any("call" in vars(layer) for layer in layers)
    np.testing.assert_array_equal(before, np.asarray(model(image)))


def test_unknown_side_needs_an_example(keras):
    model = keras.Sequential([keras.Input((None, 4), name="x"), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="unknown length"):
        count_macs(model)
    assert count_macs(model, inputs=np.ones((2, 5, 4), "float32")).total == 5 * 12


def test_loop_of_unknown_length_is_told(keras):
    import tensorflow as tf

    class Loop(keras.layers.Layer):
        def call(self, x):
            body = lambda i, y: (i + 1, tf.matmul(y, tf.ones((4, 4))))  # noqa: E731
            return tf.while_loop(lambda i, y: tf.reduce_sum(y) < 100, body, (0, x))[1]

        def compute_output_shape(self, shape):
            return shape

    count = count_macs(keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), Loop(name="loop")]))
    assert count.total == 16
    assert count.uncounted == ("loop (a loop of unknown length)",)
    assert "not counted: loop" in str(count)


def test_unbuilt_subclassed_model_is_refused(keras):
    with pytest.raises(ValueError, match="'net' is subclassed"):
        count_macs(subclassed(keras))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.ones((2, 3), "f4"), r"inputs= of float32 \(1, 3\)"),
        (np.float32(1), "cannot be called"),
        (np.full((2, 4), None), "must hold arrays"),
        (iter([1]), "must hold arrays"),
    ],
)
def test_inputs_that_are_not_the_models_are_refused(keras, inputs, message):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=message):
        count_macs(model, inputs)


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="Keras model, got str"):
        count_macs("model.keras")


def test_count_prints_and_serialises(keras):
    count = count_macs(sequential(keras, (4,), keras.layers.Dense(3, name="a"), keras.layers.Dense(1, name="b")))
    assert str(count).splitlines()[1].split() == ["a", "12", "80.0%"]
    assert count.to_dict() == {"total": 15, "per_layer": {"a": 12, "b": 3}, "uncounted": []}


# The file's operators as a second, independent count.

NETS = {
    "cnn": small_cnn,
    "convolutions": lambda keras: sequential(
        keras,
        (9, 9, 4),
        keras.layers.Conv2D(6, 3, dilation_rate=2),
        keras.layers.Conv2D(6, 3, groups=2, padding="same"),
        keras.layers.Reshape((-1, 6)),
        keras.layers.Conv1D(4, 3),
        keras.layers.Dense(3),
    ),
    "attention": lambda keras: attention(keras),
    "conv3d": lambda keras: sequential(keras, (4, 5, 6, 2), keras.layers.Conv3D(3, 2)),
}


def attention(keras):
    x = keras.Input(batch_shape=(1, 6, 8))
    return keras.Model(x, keras.layers.Dense(4)(keras.layers.MultiHeadAttention(2, 4)(x, x)))


@pytest.mark.parametrize("net", NETS)
def test_model_and_file_agree(keras, net, tmp_path):
    model = NETS[net](keras)
    file_count = count_macs_of_file(convert(model, tmp_path / "m.tflite"))
    assert file_count.total == count_macs(model).total > 0
    assert file_count.uncounted == ()


def test_fused_lstm_agrees_and_loops_are_told(tmp_path):
    import keras
    import tf_keras

    fused = sequential(tf_keras, (7, 2), tf_keras.layers.LSTM(3))
    assert count_macs_of_file(convert(fused, tmp_path / "fused.tflite")).total == count_macs(fused).total
    looped = convert(sequential(keras, (7, 2), keras.layers.LSTM(3)), tmp_path / "looped.tflite")
    assert count_macs_of_file(looped).uncounted == ("WHILE",)


@pytest.mark.slow
def test_mobilenet_v2_has_the_published_macs(keras):
    """300 million multiply-adds, 3.4 million parameters (Sandler et al. 2018, table 4)."""
    model = keras.applications.MobileNetV2(weights=None)
    assert round(count_macs(model).total / 1e6) == 301
    assert round(count_parameters(model).total / 1e6, 1) == 3.5


# Parameters.


def test_parameters_are_kerass_own_count_and_the_zeros_set(keras):
    model = set_zeros(small_cnn(keras), 0.75)
    model.get_layer("stem").trainable = False
    count = count_parameters(model)
    kernels = (216, 72, 72, 96, 540, 4050)
    assert count.total == model.count_params()
    assert count.nonzero == count.total - sum(round(0.75 * size) for size in kernels)
    assert count.trainable == sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert count.per_layer["stem"].total == 216
    assert count.per_layer["stem"].nonzero == 54
    assert count.per_layer["stem"].trainable == 0
    assert sum(layer.total for layer in count.per_layer.values()) == count.total


def test_shared_and_nested_parameters_count_once(keras):
    x = keras.Input((4,))
    shared = keras.layers.Dense(4, name="shared")
    block = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, name="inner")], name="block")
    count = count_parameters(keras.Model(x, block(shared(shared(x)))))
    assert {name: layer.total for name, layer in count.per_layer.items()} == {"shared": 20, "block/inner": 25}
    assert count.to_dict()["per_layer"]["shared"]["total"] == 20
    assert str(count).splitlines()[-1].split()[:2] == ["total", "45"]


def test_layer_alone_can_be_counted(keras):
    layer = keras.layers.Dense(3, name="d")
    layer.build((None, 4))
    assert count_parameters(layer).per_layer["d"].total == 15


def test_unbuilt_model_and_no_model_are_refused(keras):
    with pytest.raises(ValueError, match="'net' is not built"):
        count_parameters(keras.Sequential([keras.layers.Dense(3)], name="net"))
    with pytest.raises(TypeError, match="got int"):
        count_parameters(3)
