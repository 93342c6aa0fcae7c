"""`metric=` while a model trains: what is watched beside the loss, without a trace of it in the model."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune import flavor as flavors
from edgeprune.fit import fine_tune, prune_and_fit
from edgeprune.fit.training import _figures
from edgeprune.measure.metrics import Metric

SAMPLES = 32


@pytest.fixture
def keras(flavor):
    return flavors.keras_module(flavor)


def largest(y_true, y_pred):
    return np.abs(y_true.reshape(y_pred.shape) - y_pred).max()


def net(keras, *heads):
    inputs = keras.Input((4,), name="features")
    outputs = [keras.layers.Dense(1, name=name)(inputs) for name in heads]
    model = keras.Model(inputs, outputs[0] if len(outputs) == 1 else outputs)
    model.compile("sgd", "mse", metrics=["mse"] if len(outputs) == 1 else [["mse"], ["mse"]])
    return model


def data(rng, *heads):
    x = rng.normal(size=(SAMPLES, 4)).astype("f4")
    y = {name: rng.normal(size=(SAMPLES, 1)).astype("f4") for name in heads}
    return x, y if len(heads) > 1 else y[heads[0]]


@pytest.mark.parametrize("metric", ["mae", largest, Metric(largest, name="worst")], ids=["name", "function", "Metric"])
def test_the_metric_is_in_the_history_and_not_in_the_model(keras, rng, metric):
    model, (x, y) = net(keras, "price"), data(rng, "price")
    before = model.predict(x, verbose=0)
    history = fine_tune(model, x, y, epochs=1, batch_size=SAMPLES, metric=metric).history
    expected = {"mae": np.abs(y - before).mean(), "largest": largest(y, before), "worst": largest(y, before)}
    name = metric if isinstance(metric, str) else Metric(metric).name if metric is largest else metric.name
    assert history[name][0] == pytest.approx(expected[name], rel=1e-4)  # of the step before its update
    assert "mse" not in history and flavors.compilation_of(model).metrics == ["mse"]
    assert "mse" in model.evaluate(x, y, verbose=0, return_dict=True)
    assert float(np.asarray(model.optimizer.iterations)) == 1


def test_each_output_has_its_own(keras, rng):
    model, (x, y) = net(keras, "price", "size"), data(rng, "price", "size")
    before = dict(zip(("price", "size"), model.predict(x, verbose=0), strict=True))
    metric = {"size": [largest, "mae"]}
    history = fine_tune(model, x, y, epochs=1, batch_size=SAMPLES, metric=metric).history
    assert history["size_largest"][0] == pytest.approx(largest(y["size"], before["size"]), rel=1e-4)
    assert "size_mae" in history and not any(name.startswith("price_la") for name in history)
    with pytest.raises(ValueError, match=r"metrics for \['weight'\]"):
        fine_tune(model, x, y, epochs=1, metric={"weight": "mae"})


def test_a_metric_that_raises_stops_no_training(keras, rng, monkeypatch):
    def broken(y_true, y_pred):
        raise RuntimeError

    model, (x, y) = net(keras, "price"), data(rng, "price")
    shown = []
    monkeypatch.setattr("edgeprune.fit.training._figures", lambda logs: shown.append(_figures(logs)) or shown[-1])
    pruned = prune_and_fit(model, x, y, sparsity=0.5, epochs=2, batch_size=SAMPLES, metric=broken)
    assert np.count_nonzero(np.asarray(pruned.get_layer("price").kernel)) == 2
    assert shown[-1].startswith("loss ") and shown[-1].endswith("broken nan")


def test_the_bar_shows_the_metric_rather_than_an_outputs_loss():
    assert _figures({"loss": 2.0, "kind_loss": 1.5, "size_loss": 0.5, "size_mae": 0.25}) == "loss 2 size_mae 0.25"
    assert _figures({"loss": 2.0, "kind_loss": 1.5}) == "loss 2 kind_loss 1.5"
    assert _figures({"loss": 2.0}) == "loss 2"
