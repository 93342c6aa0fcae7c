"""Scores on the command line, for a net that is no classifier: what is printed before and after, and by which seed."""

import importlib
import json

import numpy as np
import pytest
from typer.testing import CliRunner

import edgeprune as ep
from edgeprune.cli import app

FILES = {"keras": ".keras", "tf_keras": ".h5"}


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def regression(tmp_path_factory):
    """For each Keras the file of a compiled regression net with dropout; data; and a metric in a module."""
    folder = tmp_path_factory.mktemp("regression")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(96, 6)).astype("float32")
    np.savez(folder / "data.npz", x=x, y=(3 * x[:, 0] + x[:, 1]).astype("float32"))
    (folder / "figures.py").write_text("def largest(y_true, y_pred):\n    return abs(y_true - y_pred).max()\n")
    for name, suffix in FILES.items():
        keras = importlib.import_module(name)
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((6,)), keras.layers.Dense(16, "relu"), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
        )
        model.compile("sgd", "mse")
        model.save(folder / f"{name}{suffix}")
    return folder


@pytest.mark.above_flavor
def test_the_same_seed_gives_the_same_figures(regression, tmp_path, flavor):
    def pruned(seed):
        return json.loads(
            run(
                *("prune", regression / f"{flavor}{FILES[flavor]}", "--data", regression / "data.npz", "--epochs", 1),
                *("-o", tmp_path / "p.keras", "--overwrite", "--json", "--seed", seed),
            )
        )["scores"]["mae"]

    first, again, other = pruned(1), pruned(1), pruned(2)
    assert first == again and first["after"] != other["after"] and first["before"] == other["before"]
    assert first["higher_is_better"] is False
    data = np.load(regression / "data.npz")
    model = importlib.import_module(flavor).models.load_model(regression / f"{flavor}{FILES[flavor]}")
    assert first["before"] == pytest.approx(np.abs(model.predict(data["x"], verbose=0)[:, 0] - data["y"]).mean())


def test_channels_repeats_its_figures_too(regression):
    arguments = (
        "channels",
        regression / "keras.keras",
        "--pruning-ratio",
        0.5,
        "--data",
        regression / "data.npz",
        "--seed",
        3,
    )
    first, again = (run(*arguments, "--epochs", 1) for _ in range(2))
    assert first == again
    (line,) = [line for line in first.splitlines() if line.startswith("mae ")]
    assert all(word in line for word in (" before", " cut", " fine-tuned", "lower is better", "96 samples"))


def test_verify_and_bundle_score_by_the_metric_that_is_named(regression, tmp_path):
    model, data = regression / "keras.keras", regression / "data.npz"
    path = tmp_path / "m.tflite"
    loaded = importlib.import_module("keras").models.load_model(model)
    ep.export_tflite(loaded, path, verify=False)
    assert "mae " in run("verify", path, "--model", model, "--data", data)
    metric = f"{regression / 'figures.py'}:largest"
    content = json.loads(run("verify", path, "--model", model, "--data", data, "--metric", metric, "--json"))
    arrays = np.load(data)
    error = np.abs(loaded.predict(arrays["x"], verbose=0)[:, 0] - arrays["y"]).max()
    assert content["scores"]["largest"]["file"] == pytest.approx(error, rel=1e-4)
    assert content["scores"]["largest"]["higher_is_better"] is None
    run("bundle", model, "-o", tmp_path / "b", "--data", data, "--metric", "RootMeanSquaredError")
    card = (tmp_path / "b" / "MODEL_CARD.md").read_text()
    assert "RootMeanSquaredError" in card and "lower is better" in card and "accuracy" not in card


@pytest.mark.parametrize("flavor", ["tf_keras", pytest.param("keras", marks=pytest.mark.slow)])
def test_prune_and_channels_score_by_the_metric_that_is_named(regression, tmp_path, flavor):
    """A function of a module: the same on the model and in what is printed, and no trace of it in the file."""
    model, data = regression / f"{flavor}{FILES[flavor]}", regression / "data.npz"
    output, metric = tmp_path / f"smaller{FILES[flavor]}", f"{regression / 'figures.py'}:largest"
    arrays, keras = np.load(data), importlib.import_module(flavor)
    for command in (("prune",), ("channels", "--pruning-ratio", 0.5)):
        printed = run(
            *(*command, model, "--data", data, "--metric", metric, "--epochs", 1, "-o", output, "--overwrite", "--json")
        )
        figures = json.loads(printed)["scores"]["largest"]
        trained = keras.models.load_model(output)
        error = np.abs(trained.predict(arrays["x"], verbose=0)[:, 0] - arrays["y"]).max()
        assert figures["after" if command == ("prune",) else "fine-tuned"] == pytest.approx(error, rel=1e-4)
    text = run("prune", model, "--data", data, "--metric", "no_such", "--epochs", 1, "-o", output, "--overwrite")
    assert "no score: Keras has no metric 'no_such'" in text and "wrote " in text
