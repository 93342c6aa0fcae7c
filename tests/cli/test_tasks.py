"""Every kind of task through every command, as a user types them: nothing assumes a classifier of one input.

Each task has a tiny net and a file of data in a form that people keep it in. The whole matrix is slow; the fast tests
take every task through pruning, removal of channels and an int8 file that is verified, inspected and timed.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from edgeprune import flavor
from edgeprune.cli import app

SAMPLES = 64


def dense(keras, x, *outputs):
    """A hidden layer and heads `(name, units, activation)` on it."""
    hidden = keras.layers.Dense(8, activation="relu", name="hidden")(x)
    return [keras.layers.Dense(units, activation=activation, name=name)(hidden) for name, units, activation in outputs]


def regression(keras, rng):
    x = rng.normal(size=(SAMPLES, 4)).astype(np.float32)
    features = keras.Input((4,), name="features")
    model = keras.Model(features, dense(keras, features, ("price", 1, None)), name="regression")
    return model, {"loss": "mse", "metrics": ["mae"]}, {"x": x, "y": 3 * x[:, 0] + x[:, 1]}


def two_inputs(keras, rng):
    left, right = rng.normal(size=(2, SAMPLES, 3)).astype(np.float32)
    inputs = [keras.Input((3,), name="left"), keras.Input((3,), name="right")]
    joined = keras.layers.Concatenate(name="joined")(inputs)
    model = keras.Model(inputs, dense(keras, joined, ("same", 2, "softmax")), name="two_inputs")
    data = {"x.left": left, "x.right": right, "y": (left[:, 0] > right[:, 0]).astype(np.int64)}
    return model, {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}, data


def two_outputs(keras, rng):
    x = rng.normal(size=(SAMPLES, 4)).astype(np.float32)
    features = keras.Input((4,), name="features")
    heads = dense(keras, features, ("kind", 3, "softmax"), ("size", 1, None))
    losses = {"kind": "sparse_categorical_crossentropy", "size": "mse"}
    kinds = (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0)
    return (
        keras.Model(features, heads, name="two_outputs"),
        {"loss": losses},
        {"x": x, "y.kind": kinds, "y.size": x[:, 2]},
    )


def segmentation(keras, rng):
    x = rng.uniform(size=(SAMPLES, 8, 8, 1)).astype(np.float32)
    image = keras.Input((8, 8, 1), name="image")
    hidden = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="hidden")(image)
    pixels = keras.layers.Conv2D(2, 1, activation="softmax", name="pixels")(hidden)
    data = {"x": x, "y": (x[..., 0] > 0.5).astype(np.int64)}
    return keras.Model(image, pixels, name="segmentation"), {"loss": "sparse_categorical_crossentropy"}, data


def multi_label(keras, rng):
    x = rng.normal(size=(SAMPLES, 4)).astype(np.float32)
    features = keras.Input((4,), name="features")
    model = keras.Model(features, dense(keras, features, ("tags", 3, "sigmoid")), name="multi_label")
    return model, {"loss": "binary_crossentropy"}, {"x": x, "y": (x[:, :3] > 0).astype(np.float32)}


def autoencoder(keras, rng):
    x = rng.normal(size=(SAMPLES, 6)).astype(np.float32)
    features = keras.Input((6,), name="features")
    model = keras.Model(features, dense(keras, features, ("restored", 6, None)), name="autoencoder")
    return model, {"loss": "mse"}, {"x": x, "y": x}


def detection(keras, rng):
    x = rng.uniform(size=(SAMPLES, 8, 8, 1)).astype(np.float32)
    image = keras.Input((8, 8, 1), name="image")
    hidden = keras.layers.Conv2D(8, 3, strides=4, padding="same", activation="relu", name="hidden")(image)
    flat = keras.layers.GlobalAveragePooling2D(name="pool")(hidden)
    boxes = keras.layers.Reshape((4, 4), name="boxes")(keras.layers.Conv2D(4, 1, name="corners")(hidden))
    objects = keras.layers.Reshape((4, 2), name="objects")(
        keras.layers.Conv2D(2, 1, activation="softmax", name="classes")(hidden)
    )
    score = keras.layers.Dense(1, activation="sigmoid", name="score")(flat)
    losses = {"boxes": "huber", "objects": "sparse_categorical_crossentropy", "score": "binary_crossentropy"}
    bright = x.mean((1, 2, 3)) > 0.5
    data = {"x": x, "y.boxes": rng.uniform(size=(SAMPLES, 4, 4)).astype(np.float32)}
    data |= {"y.objects": rng.integers(0, 2, (SAMPLES, 4)), "y.score": bright.astype(np.float32)}
    weights = {"boxes": 0.5, "objects": 1.0, "score": 1.0}
    return (
        keras.Model(image, [boxes, objects, score], name="detection"),
        {"loss": losses, "loss_weights": weights},
        data,
    )


def series(keras, rng):
    x = rng.normal(size=(SAMPLES, 12, 2)).astype(np.float32)
    steps = keras.Input((12, 2), name="steps")
    hidden = keras.layers.Conv1D(8, 3, activation="relu", padding="causal", name="hidden")(steps)
    pooled = keras.layers.GlobalAveragePooling1D(name="pool")(hidden)
    model = keras.Model(steps, keras.layers.Dense(2, name="next")(pooled), name="series")
    return model, {"loss": "mae"}, {"x": x, "y": x[:, -1]}


def table(keras, rng):
    return regression(keras, rng)


TASKS = {
    make.__name__: make
    for make in (
        regression, two_inputs, two_outputs, segmentation, multi_label, autoencoder, detection, series, table
    )
}  # fmt: skip
# The figures that each task is told in, with the better direction.
SCORES = {
    "regression": {"mae": False},
    "two_inputs": {"accuracy": True},
    "two_outputs": {"kind_accuracy": True, "size_mae": False},
    "segmentation": {"mean_iou": True},
    "multi_label": {"auc": True},
    "autoencoder": {},
    "detection": {"boxes_mae": False, "objects_accuracy": True, "score_accuracy": True},
    "series": {"mae": False},
    "table": {"mae": False},
}


# `table` is the model of `regression`, and `detection` has outputs with losses of their own, as `two_outputs`. What the
# others add are figures, which have tests in `tests/measure/test_score.py`, and layers, which every room tests.
COVERED = ("regression", "two_outputs", "multi_label", "autoencoder", "series")


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name in COVERED else ()) for name in TASKS],
)
def task(request, tmp_path_factory):
    """The name of a task, and a folder with its trained `model.keras` and its data."""
    folder = tmp_path_factory.mktemp(request.param)
    keras, rng = flavor.keras_module(flavor.KERAS_3), np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    model, compilation, data = TASKS[request.param](keras, rng)
    model.compile(keras.optimizers.SGD(0.01), **compilation)
    x = {key.removeprefix("x."): data[key] for key in data if key.startswith("x.")} or data["x"]
    y = {key.removeprefix("y."): data[key] for key in data if key.startswith("y.")} or data["y"]
    model.fit(x, y, epochs=2, verbose=0)
    model.save(folder / "model.keras")
    if request.param == "table":
        rows = np.column_stack([data["x"], data["y"]])
        np.savetxt(folder / "data.csv", rows, delimiter=",", header="a,b,c,d,price", comments="")
    else:
        np.savez(folder / "data.npz", **data)
    return request.param, folder


def run(task, *arguments):
    """Run a command with `--json` on a task's model and data; what it printed."""
    name, folder = task
    data = (
        ("--data", folder / "data.csv", "--label-column", "price")
        if name == "table"
        else ("--data", folder / "data.npz")
    )
    line = [str(part) for argument in arguments for part in (data if argument == "DATA" else (argument,))]
    result = CliRunner().invoke(app, [*line, "--json"])
    assert result.exit_code == 0, (line, result.stdout[-2000:], result.stderr, result.exception)
    return json.loads(result.stdout)


def check_scores(printed, task, *stages):
    """The figures of the task are there, of every stage, and the better direction is known."""
    assert printed["no_score"] is None
    for name, higher in SCORES[task[0]].items():
        figures = printed["scores"][name]
        assert figures["higher_is_better"] is higher
        assert all(math.isfinite(figures[stage]) for stage in stages)
    assert printed["scores"]


def test_training_commands(task):
    _, folder = task
    layers = {row["name"] for row in run(task, "inspect", folder / "model.keras")["layers"]}
    assert "hidden" in layers
    pruned = run(task, "prune", folder / "model.keras", "DATA", "-o", folder / "p.keras", "--epochs", 1, "--overwrite")
    check_scores(pruned, task, "before", "after")
    out = ("-o", folder / "q.keras", "--epochs", 1, "--overwrite")
    trained = run(task, "quantize-aware", folder / "model.keras", "DATA", *out)
    check_scores(trained, task, "before", "trained")
    assert "hidden" in {kernel["layer"] for kernel in trained["kernels"]}
    cut = run(
        task,
        "channels",
        folder / "model.keras",
        "DATA",
        "--pruning-ratio",
        0.5,
        "--epochs",
        1,
        "--overwrite",
        "-o",
        folder / "c.keras",
    )
    check_scores(cut, task, "before", "cut", "fine-tuned")
    keras = flavor.keras_module(flavor.KERAS_3)
    smaller = keras.models.load_model(folder / "c.keras")
    assert smaller.count_params() < keras.models.load_model(folder / "model.keras").count_params()


def test_int8_file(task):
    _, folder = task
    file = folder / "int8.tflite"
    assert run(task, "convert", folder / "model.keras", "DATA", "--quantization", "int8", "-o", file, "--overwrite")
    verified = run(task, "verify", file, "--model", folder / "model.keras", "DATA")
    assert verified["passed"]
    check_scores(verified, task, "file", "Keras")
    assert len(run(task, "inspect", file)["outputs"]) == {"two_outputs": 2, "detection": 3}.get(task[0], 1)
    (timed,) = run(task, "benchmark", file, "--num-runs", 1)["files"]
    assert timed["milliseconds"] > 0


@pytest.mark.slow
def test_channels_ranked_on_data(task):
    _, folder = task
    for importance in ("taylor", "activation", "fisher"):
        run(task, "channels", folder / "model.keras", "DATA", "--pruning-ratio", 0.5, "--importance", importance)


@pytest.mark.slow
def test_float_file(task):
    _, folder = task
    file = folder / "float.tflite"
    run(task, "convert", folder / "model.keras", "-o", file, "--overwrite")
    verified = run(task, "verify", file, "--model", folder / "model.keras", "DATA")
    check_scores(verified, task, "file", "Keras")
    for figures in verified["scores"].values():
        assert figures["file"] == pytest.approx(figures["Keras"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["phone", "cortex-m"])
def test_bundle(task, target):
    _, folder = task
    bundle = run(task, "bundle", folder / "model.keras", "DATA", "--target", target, "-o", folder / target)
    assert bundle and (folder / target / "SHA256SUMS").is_file()
