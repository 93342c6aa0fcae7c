"""`edgeprune quantize-aware`: trains, and writes the file and the model."""

from __future__ import annotations

import json

import numpy as np
import pytest
from cli.invoked import refused, run_ok

import edgeprune as ep


def test_it_writes_the_file_and_the_model(folder, tmp_path, flavor):
    file, model = tmp_path / "small.tflite", tmp_path / "aware.keras"
    arguments = ("quantize-aware", folder / f"{flavor}.h5", "--data", folder / "split.npz", "--epochs", 1, "--seed", 1)
    printed = json.loads(run_ok(*arguments, "--scheme", "int4", "-o", file, "-o", model, "--json").stdout)
    assert [(one["layer"], one["num_bits"]) for one in printed["kernels"]] == [("hidden", 4), ("classes", 4)]
    scores = printed["scores"]["accuracy"]
    with np.load(folder / "split.npz") as data:
        x, y = data["x_test"], data["y_test"]
    assert scores["file"] == ep.score(file, x, y)["accuracy"] and set(scores) >= {"before", "trained"}
    (written,) = printed["files"]
    assert written["file"] == str(file) and written["bytes"] == file.stat().st_size
    assert ep.read_tflite(file).quantization == "int4"
    # The model has its ranges: no data are needed to convert it.
    again = tmp_path / "again.tflite"
    run_ok("convert", model, "--quantization", "int4", "-o", again)
    wide = tmp_path / "wide.tflite"
    run_ok("convert", model, "--quantization", "int4", "--target", "ethos-u55-128", "-o", wide)  # reads 8 bits alone
    assert "int4" not in {tensor.dtype for tensor in ep.read_tflite(wide).weights}
    assert ep.score(again, x, y)["accuracy"] == scores["file"]


def test_it_trains_after_the_model_and_prints_tables(folder, tmp_path):
    model = tmp_path / "plain.keras"
    text = run_ok(
        "quantize-aware", folder / "keras.keras", "--data", folder / "data.npz", "--epochs", 1, "--distill", "--strip",
        "--ignore", "hidden", "-o", model,
    ).stdout  # fmt: skip
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert "(16, 3)" in text and "not rounded: hidden (left out by" in text and str(model) in lines["wrote"]
    assert "before" in lines["accuracy"] and "file" not in lines["accuracy"]
    assert [layer.name for layer in ep.load_model(model).layers] == ["hidden", "classes"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scheme", "float16"], "'float16' is not one of 'int8', 'int4', 'int16x8'"),
        (["--data", "unlabelled.npz"], "has no labels"),
        (["--data", "wide.npz"], "has inputs of shape (None, 6), and the data have (8, 7)"),
        (["--layers", "nothing*"], "--layers 'nothing*' matches no layer"),
        (["--ignore", "*"], "no kernel to quantize among the chosen layers"),
        (["-o", "model.onnx"], "must end in .tflite or .keras or .h5"),
    ],
)
def test_it_refuses(folder, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    assert message in refused("quantize-aware", "keras.keras", "--data", "data.npz", "-o", "new.tflite", *arguments)
    assert not (folder / "new.tflite").exists()
