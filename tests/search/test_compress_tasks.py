"""Searches of any task: several outputs of real numbers, and sequences without labels."""

import numpy as np
import pytest

import edgeprune as ep
from edgeprune import flavor as flavors

SETTINGS = {"num_trials": 2, "num_finalists": 1, "epochs": 1, "quantization": None, "bundle": False, "verbose": False}


@pytest.fixture(scope="module")
def keras():
    return flavors.keras_module("keras")


def test_two_outputs_of_real_numbers_are_judged_by_a_metric_of_the_users(keras, tmp_path):
    keras.utils.set_random_seed(0)
    layers, x = keras.layers, np.random.default_rng(0).normal(size=(120, 8)).astype("f4")
    y = {"sum": x.sum(axis=1, keepdims=True), "ends": x[:, [0, 7]]}
    inputs = keras.Input((8,), name="x")
    hidden = layers.Dense(24, "relu", name="hidden")(inputs)
    outputs = {"sum": layers.Dense(1, name="sum")(hidden), "ends": layers.Dense(2, name="ends")(hidden)}
    model = keras.Model(inputs, outputs, name="two")
    model.compile("adam", {"sum": "mse", "ends": "mae"})
    metric = {name: ep.Metric(error, f"{name}_error", higher_is_better=False) for name in y}
    result = ep.compress(model, (x, y), (x, y), metric=metric, max_accuracy_drop=50, output_dir=tmp_path, **SETTINGS)
    assert result.verdict.metric.endswith("_error") and result.accepted and not result.candidate.is_whole


def error(y_true, y_pred):
    return np.abs(np.asarray(y_true) - y_pred).mean(axis=-1)


@pytest.mark.slow
def test_sequences_without_labels_keep_their_classes(keras, tmp_path):
    keras.utils.set_random_seed(0)
    layers, x = keras.layers, np.random.default_rng(0).normal(size=(96, 20, 6)).astype("f4")
    model = keras.Sequential(
        [
            keras.Input((20, 6)),
            layers.Conv1D(16, 3, activation="relu", name="conv"),
            layers.LSTM(12, name="lstm"),
            layers.Dense(7, activation="softmax"),
        ],
        name="steps",
    )
    result = ep.compress(model, x, x, max_accuracy_drop=1.0, output_dir=tmp_path, **SETTINGS)
    assert result.verdict.metric == "agreement" and result.accepted and not result.candidate.is_whole
