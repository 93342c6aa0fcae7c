"""Files of Keras 1 and 2, written by hand as those versions laid them out; NumPy computes what they should predict."""

import json

import h5py
import numpy as np
import pytest
import tf_keras
from flavor.legacy_files import (
    DENSE_1,
    arrays,
    layer,
    lstm_in_numpy,
    predicted,
    relu,
    sequential,
    sigmoid,
    valid_correlation,
    write,
)

import edgeprune as ep
from edgeprune.cli.commands import app
from edgeprune.flavor import NotCompiledWarning


@pytest.fixture
def array():
    return arrays()


@pytest.fixture(scope="module")
def image_net(tmp_path_factory):
    """Convolution, normalisation, pooling and dense layers as Keras 1.2.2 wrote them, with what they should predict."""
    array = arrays()
    kernel, bias = array(3, 3, 2, 4), array(4)
    gamma, beta, mean, variance = array(4), array(4), array(4), np.abs(array(4)) + 0.5
    dense, dense_bias = array(16, 3), array(3)
    config = sequential(
        layer(
            "Convolution2D",
            "stem",
            batch_input_shape=[None, 6, 6, 2],
            input_dtype="float32",
            nb_filter=4,
            nb_row=3,
            nb_col=3,
            border_mode="valid",
            subsample=[1, 1],
            dim_ordering="tf",
            **{**DENSE_1, "activation": "relu", "W_regularizer": {"name": "L1L2Regularizer", "l1": 0.0, "l2": 0.01}},
        ),
        layer(
            "BatchNormalization",
            "norm",
            epsilon=0.001,
            mode=0,
            axis=-1,
            momentum=0.99,
            gamma_init="one",
            beta_init="zero",
            gamma_regularizer=None,
            beta_regularizer=None,
        ),
        layer("MaxPooling2D", "pool", pool_size=[2, 2], strides=[2, 2], border_mode="valid", dim_ordering="tf"),
        layer("Dropout", "drop", p=0.5),
        layer("Flatten", "flat"),
        layer("Dense", "out", output_dim=3, **{**DENSE_1, "W_constraint": {"name": "maxnorm", "m": 2, "axis": 0}}),
        version="1.2.2",
    )
    weights = {
        "stem": [kernel, bias],
        "norm": [gamma, beta, mean, variance],
        "pool": [],
        "drop": [],
        "flat": [],
        "out": [dense, dense_bias],
    }
    training = {
        "optimizer_config": {
            "class_name": "Adam",
            "config": {"lr": 0.02, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8, "decay": 0.0},
        },
        "loss": "mse",
        "metrics": ["mae"],
        "sample_weight_mode": None,
        "loss_weights": None,
    }
    path = write(tmp_path_factory.mktemp("keras_1") / "images.h5", config, weights, "1.2.2", training)
    x = array(2, 6, 6, 2)
    expected = []
    for image in x:
        hidden = relu(valid_correlation(image, kernel) + bias)
        hidden = (hidden - mean) / np.sqrt(variance + 0.001) * gamma + beta
        pooled = hidden.reshape(2, 2, 2, 2, 4).max(axis=(1, 3))
        expected.append(pooled.reshape(-1) @ dense + dense_bias)
    return path, x, np.array(expected)


def test_an_image_model_of_keras_1(image_net):
    path, x, expected = image_net
    model = ep.load_model(path)
    np.testing.assert_allclose(model(x), expected, atol=1e-5)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.02)
    assert model.loss is tf_keras.losses.mean_squared_error
    assert model.get_layer("stem").kernel_regularizer.l2 == pytest.approx(0.01)
    assert model.get_layer("out").kernel_constraint.max_value == 2


def test_commands_take_a_file_of_keras_1(image_net, tmp_path, capsys):
    path, x, _ = image_net
    smaller, file = tmp_path / "smaller.keras", tmp_path / "smaller.tflite"
    for arguments in (
        ["inspect", path],
        ["channels", path, "--pruning-ratio", "0.5", "-o", smaller],
        ["convert", smaller, "-o", file],
        ["verify", file, "--model", smaller],
    ):
        with pytest.raises(SystemExit) as ended:
            app([*map(str, arguments)])
        assert ended.value.code == 0, capsys.readouterr().err
    assert ep.load_model(smaller).get_layer("stem").filters == 2
    # What was removed reads as zero in the model that it came from.
    plan = ep.plan_channels(ep.load_model(path), pruning_ratio=0.5)
    np.testing.assert_allclose(ep.load_model(smaller)(x), plan.apply()(x), atol=1e-5)


@pytest.mark.parametrize("version", [None, "1.2.2"])
def test_kernels_of_the_channels_first_order(tmp_path, version, array):
    kernel = array(4, 2, 3, 3)  # filters, channels, rows, columns
    convolution = layer(
        "Convolution2D",
        "stem",
        batch_input_shape=[None, 2, 6, 6],
        nb_filter=4,
        nb_row=3,
        nb_col=3,
        border_mode="valid",
        subsample=[1, 1],
        dim_ordering="th",
        **{**DENSE_1, "bias": False},
    )
    path = write(tmp_path / "th.h5", sequential(convolution, version="1"), {"stem": [kernel]}, version)
    model = ep.load_model(path)
    assert model.get_layer("stem").data_format == "channels_first"
    np.testing.assert_array_equal(model.get_layer("stem").get_weights()[0], kernel.transpose(2, 3, 1, 0))


def test_an_lstm_of_keras_1_holds_twelve_arrays(tmp_path, array):
    kernels, recurrents, biases = ({gate: array(*shape) for gate in "icfo"} for shape in ((3, 5), (5, 5), (5,)))
    lstm = layer(
        "LSTM",
        "lstm",
        batch_input_shape=[None, 4, 3],
        return_sequences=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        consume_less="cpu",
        input_dim=3,
        input_length=4,
        output_dim=5,
        init="glorot_uniform",
        inner_init="orthogonal",
        forget_bias_init="one",
        activation="tanh",
        inner_activation="hard_sigmoid",
        W_regularizer=None,
        U_regularizer=None,
        b_regularizer=None,
        dropout_W=0.1,
        dropout_U=0.0,
    )
    stored = [values[gate] for gate in "icfo" for values in (kernels, recurrents, biases)]
    path = write(tmp_path / "lstm.h5", sequential(lstm, version="1"), {"lstm": stored}, "1.2.2")
    x = array(2, 4, 3)
    np.testing.assert_allclose(predicted(path, x), lstm_in_numpy(x, kernels, recurrents, biases), atol=1e-5)


def test_words_and_a_merge_of_keras_1(tmp_path, array):
    table, left = array(7, 3), array(6, 2)

    def node(*names):
        return [[[name, 0, 0] for name in names]] if names else []

    layers = [
        layer("InputLayer", "words", batch_input_shape=[None, 2], input_dtype="int32", sparse=False),
        layer(
            "Embedding",
            "table",
            batch_input_shape=[None, 2],
            input_dtype="int32",
            input_dim=7,
            output_dim=3,
            input_length=2,
            init="uniform",
            mask_zero=False,
            dropout=0.2,
            W_regularizer=None,
            W_constraint=None,
            activity_regularizer=None,
        ),
        layer("Flatten", "flat"),
        layer("Dense", "a", output_dim=2, **{**DENSE_1, "bias": False}),
        layer("Activation", "b", activation="tanh"),
        layer(
            "Merge",
            "both",
            mode="concat",
            concat_axis=-1,
            dot_axes=-1,
            mode_type="raw",
            output_shape=None,
            output_shape_type="raw",
            output_mask=None,
            output_mask_type="raw",
            arguments={},
        ),
        layer("Merge", "sum", mode="sum", concat_axis=-1, dot_axes=-1, mode_type="raw"),
    ]
    inbound = {"table": ["words"], "flat": ["table"], "a": ["flat"], "b": ["a"], "both": ["a", "b"], "sum": ["a", "b"]}
    config = {
        "class_name": "Model",
        "config": {
            "name": "model_1",
            "layers": [
                {**one, "name": name_of(one), "inbound_nodes": node(*inbound.get(name_of(one), ()))} for one in layers
            ],
            "input_layers": [["words", 0, 0]],
            "output_layers": [["both", 0, 0], ["sum", 0, 0]],
        },
    }
    weights = {name_of(one): [] for one in layers} | {"table": [table], "a": [left]}
    path = write(tmp_path / "words.h5", config, weights, "1.2.0")
    words = np.array([[1, 6], [0, 3]], "int32")
    hidden = table[words].reshape(2, 6) @ left
    both, total = ep.load_model(path)(words)
    np.testing.assert_allclose(both, np.concatenate([hidden, np.tanh(hidden)], axis=-1), atol=1e-6)
    np.testing.assert_allclose(total, hidden + np.tanh(hidden), atol=1e-6)


def name_of(description):
    return description["config"]["name"]


def test_maxout_and_highway_of_keras_1_are_built_of_layers_of_today(tmp_path, array):
    kernels, biases = array(4, 3, 2), array(4, 2)
    kernel, gate_kernel, bias, gate_bias = array(2, 2), array(2, 2), array(2), array(2)
    regularizer = {"name": "WeightRegularizer", "l1": 0.0, "l2": 0.5}
    config = sequential(
        layer(
            "MaxoutDense",
            "maxout",
            batch_input_shape=[None, 3],
            output_dim=2,
            nb_feature=4,
            **{**DENSE_1, "W_regularizer": regularizer},
        ),
        layer("Highway", "highway", **{**DENSE_1, "activation": "tanh", "transform_bias": -2}),
        layer("Dense", "out", output_dim=2, **{**DENSE_1, "bias": False}),
        version="1",
    )
    out = array(2, 2)
    weights = {"maxout": [kernels, biases], "highway": [kernel, gate_kernel, bias, gate_bias], "out": [out]}
    path = write(tmp_path / "old.h5", config, weights, "1.2.2")
    x = array(5, 3)
    hidden = (np.einsum("ni,kio->nko", x, kernels) + biases).max(axis=1)
    gate = sigmoid(hidden @ gate_kernel + gate_bias)
    expected = (gate * np.tanh(hidden @ kernel + bias) + (1 - gate) * hidden) @ out
    np.testing.assert_allclose(predicted(path, x), expected, atol=1e-5)
    model = ep.load_model(path)
    assert float(sum(model.losses)) == pytest.approx(0.5 * np.sum(kernels**2), rel=1e-5)
    plan = ep.plan_channels(model, pruning_ratio=0.5)
    np.testing.assert_allclose(ep.load_model(path)(x), expected, atol=1e-5)
    assert plan.apply()(x).shape == (5, 2)


UNTRANSLATABLE = {
    "rectifier": (layer("SReLU", "odd", t_left_init="zero"), "'odd' is a SReLU"),
    "sample_wise": (layer("BatchNormalization", "odd", mode=1, axis=-1), "'odd' is a BatchNormalization with mode=1"),
    "branches": (layer("Merge", "odd", mode="sum", layers=[{"class_name": "Sequential"}]), "'odd' is a Merge of whole"),
    "eigenvalues": (
        layer("Dense", "odd", output_dim=2, W_regularizer={"name": "EigenvalueRegularizer", "k": 0.1}),
        "'odd' has the regularizer 'EigenvalueRegularizer'",
    ),
}


@pytest.mark.parametrize("kind", UNTRANSLATABLE)
def test_what_has_no_counterpart_is_named(tmp_path, kind):
    odd, message = UNTRANSLATABLE[kind]
    odd = {**odd, "config": {**odd["config"], "batch_input_shape": [None, 3]}}
    path = write(tmp_path / "odd.h5", sequential(odd, version="1"), {"odd": []}, "1.2.2")
    with pytest.raises(ValueError, match=message):
        ep.load_model(path)


def test_code_in_an_old_file_is_refused(tmp_path):
    merge = layer("Merge", "code", mode="4wEAAAA=", mode_type="lambda", batch_input_shape=[None, 3])
    path = write(tmp_path / "code.h5", sequential(merge, version="1"), {}, "1.2.2")
    with pytest.raises(ValueError, match="'code' holds Python code"):
        ep.load_model(path)


def test_a_loss_of_ones_own_in_an_old_file(image_net, tmp_path):
    path = tmp_path / "own.h5"
    path.write_bytes(image_net[0].read_bytes())
    with h5py.File(path, "r+") as file:
        training = json.loads(file.attrs["training_config"])
        file.attrs["training_config"] = json.dumps({**training, "loss": "own_loss"})
    with pytest.warns(NotCompiledWarning, match="own_loss"):
        assert isinstance(ep.load_model(path), tf_keras.Model)


def test_weights_that_do_not_fit_are_one_error(tmp_path, array):
    dense = layer("Dense", "out", output_dim=3, batch_input_shape=[None, 4], **DENSE_1)
    path = write(tmp_path / "short.h5", sequential(dense, version="1"), {"out": [array(4, 2), array(2)]}, "1.2.2")
    with pytest.raises(ValueError, match="could not be read as a Keras model"):
        ep.load_model(path)
