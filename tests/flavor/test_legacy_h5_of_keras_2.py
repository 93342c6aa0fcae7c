"""Files of Keras 2 in the layouts of its versions: loaded, and equal to their layers in NumPy."""

import numpy as np
import pytest
from flavor.legacy_files import (
    arrays,
    hard_sigmoid,
    layer,
    lstm_in_numpy,
    predicted,
    relu,
    sequential,
    valid_correlation,
    write,
)

import edgeprune as ep
from edgeprune.cli.commands import app


@pytest.fixture
def array():
    return arrays()


def test_gates_of_keras_2_0_have_the_sigmoid_and_the_reset_of_their_time(tmp_path, array):
    kernel, recurrent, bias = array(3, 15), array(5, 15), array(15)
    gru = layer(
        "GRU",
        "gru",
        batch_input_shape=[None, 4, 3],
        dtype="float32",
        return_sequences=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        implementation=0,
        units=5,
        activation="tanh",
        recurrent_activation="hard_sigmoid",
        use_bias=True,
        dropout=0.0,
        recurrent_dropout=0.0,
    )
    path = write(tmp_path / "gru.h5", sequential(gru, version="2.0.8"), {"gru": [kernel, recurrent, bias]}, "2.0.8")
    x = array(2, 4, 3)
    state = np.zeros((2, 5), "float32")
    for step in range(4):
        z, r, h = np.split(x[:, step] @ kernel + bias, 3, axis=1)
        recurrent_z, recurrent_r, recurrent_h = np.split(recurrent, 3, axis=1)
        z, r = hard_sigmoid(z + state @ recurrent_z), hard_sigmoid(r + state @ recurrent_r)
        state = z * state + (1 - z) * np.tanh(h + (r * state) @ recurrent_h)
    np.testing.assert_allclose(predicted(path, x), state, atol=1e-5)


def test_kernels_that_theano_trained_are_turned_around(tmp_path, array):
    kernel = array(3, 3, 2, 4)
    convolution = layer(
        "Conv2D",
        "stem",
        batch_input_shape=[None, 6, 6, 2],
        dtype="float32",
        filters=4,
        kernel_size=[3, 3],
        strides=[1, 1],
        padding="valid",
        data_format="channels_last",
        dilation_rate=[1, 1],
        activation="linear",
        use_bias=False,
    )
    config = sequential(convolution, version="2.0.8")
    x = array(1, 6, 6, 2)
    for backend, used in (("tensorflow", kernel), ("theano", kernel[::-1, ::-1])):
        path = write(tmp_path / f"{backend}.h5", config, {"stem": [kernel]}, "2.0.8", backend=backend)
        np.testing.assert_allclose(predicted(path, x)[0], valid_correlation(x[0], used), atol=1e-5)


def test_layers_as_tf_keras_2_12_wrote_them(tmp_path, array):
    kernel, recurrent, bias = array(4, 20), array(5, 20), array(20)
    depthwise, gamma, beta, mean, variance = array(1, 2, 4, 1), array(4), array(4), array(4), np.abs(array(4)) + 0.5
    config = sequential(
        layer("InputLayer", "x", batch_input_shape=[None, 1, 6, 4], dtype="float32", sparse=False, ragged=False),
        layer(
            "DepthwiseConv2D",
            "depthwise",
            kernel_size=[1, 2],
            strides=[1, 1],
            padding="valid",
            data_format="channels_last",
            dilation_rate=[1, 1],
            groups=1,
            activation="linear",
            use_bias=False,
            depth_multiplier=1,
        ),
        layer("BatchNormalization", "norm", axis=[3], momentum=0.99, epsilon=0.001, center=True, scale=True),
        layer("Dropout", "drop", rate=0.2, noise_shape=None, seed=None),
        layer("Reshape", "steps", target_shape=[5, 4]),
        layer(
            "LSTM",
            "lstm",
            return_sequences=False,
            return_state=False,
            go_backwards=False,
            stateful=False,
            unroll=False,
            time_major=False,
            units=5,
            activation="tanh",
            recurrent_activation="hard_sigmoid",
            use_bias=True,
            unit_forget_bias=True,
            implementation=2,
        ),
        version="2.12.0",
    )
    weights = {
        "depthwise": [depthwise],
        "norm": [gamma, beta, mean, variance],
        "lstm": [kernel, recurrent, bias],
    }
    path = write(tmp_path / "net.h5", config, weights, "2.12.0")
    x = array(2, 1, 6, 4)
    hidden = np.stack([x[:, 0, step : step + 5] * depthwise[0, step, :, 0] for step in range(2)]).sum(axis=0)
    hidden = (hidden - mean) / np.sqrt(variance + 0.001) * gamma + beta
    gates = [dict(zip("ifco", np.split(values, 4, axis=-1), strict=True)) for values in (kernel, recurrent, bias)]
    np.testing.assert_allclose(predicted(path, x), lstm_in_numpy(hidden, *gates), atol=1e-5)


@pytest.mark.parametrize("version", ["2.0.8", pytest.param("2.12.0", marks=pytest.mark.slow)])
def test_commands_take_files_of_keras_2(tmp_path, capsys, version, array):
    """The layouts differ in how a Sequential model is written, and in the arguments that layers have."""
    later = {} if version == "2.0.8" else {"groups": 1}
    shape = {"batch_input_shape": [None, 6, 6, 2], "dtype": "float32"}
    first = [] if version == "2.0.8" else [layer("InputLayer", "x", **shape, sparse=False, ragged=False)]
    convolution = layer(
        "Conv2D",
        "stem",
        **({} if first else shape),
        filters=4,
        kernel_size=[3, 3],
        strides=[1, 1],
        padding="valid",
        data_format="channels_last",
        dilation_rate=[1, 1],
        activation="relu",
        use_bias=True,
        kernel_initializer={"class_name": "VarianceScaling", "config": {"scale": 1.0, "mode": "fan_avg"}},
        **later,
    )
    pool = layer("GlobalAveragePooling2D", "pool")
    dense = layer("Dense", "out", units=3, activation="linear", use_bias=True)
    kernel, bias, out, out_bias = array(3, 3, 2, 4), array(4), array(4, 3), array(3)
    config = sequential(*first, convolution, pool, dense, version=version)
    path = write(tmp_path / "net.h5", config, {"stem": [kernel, bias], "pool": [], "out": [out, out_bias]}, version)
    smaller, file = tmp_path / "smaller.keras", tmp_path / "smaller.tflite"
    for arguments in (
        ["inspect", path],
        ["channels", path, "--pruning-ratio", "0.5", "-o", smaller],
        ["convert", smaller, "-o", file],
    ):
        with pytest.raises(SystemExit) as ended:
            app([*map(str, arguments)])
        assert ended.value.code == 0, capsys.readouterr().err
    x = array(2, 6, 6, 2)
    expected = [relu(valid_correlation(one, kernel) + bias).mean(axis=(0, 1)) @ out + out_bias for one in x]
    np.testing.assert_allclose(predicted(path, x), expected, atol=1e-5)
    assert ep.load_model(smaller).get_layer("stem").filters == 2
