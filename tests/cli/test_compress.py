"""`edgeprune compress`: its exit codes, its JSON."""

import json

import numpy as np
import pytest
from cli.invoked import refused, run

import edgeprune.flavor as flavors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, keras = tmp_path_factory.mktemp("compress"), flavors.keras_module("keras")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 6)).astype("f4")
    np.savez(folder / "data.npz", x=x, y=(x[:, 0] > 0).astype(int))
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(2, activation="softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save(folder / "model.keras")
    return folder


def compress(folder, *arguments):
    small = ("--num-trials", 1, "--num-finalists", 1, "--epochs", 0, "--quantization", "none")
    return run("compress", folder / "model.keras", "--data", folder / "data.npz", *small, *arguments)


def test_exit_codes_tell_whether_the_budget_is_held(folder, tmp_path):
    done = compress(folder, "--max-drop", "100%", "--json", "-o", tmp_path / "a")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["accepted"] and found["file"] == str(tmp_path / "a" / "model.tflite") and not found["held_out"]
    done = compress(folder, "--max-size", "10 B", "-o", tmp_path / "b")
    assert done.exit_code == 3 and "not accepted" in done.stdout and "max_size of 10 B" in done.stdout
    done = compress(folder, "--max-size", "10 B", "-o", tmp_path / "b", "--resume")
    assert done.exit_code == 3


def test_bad_limits_are_refused_before_anything_is_read(folder, tmp_path):
    files = ("compress", folder / "model.keras", "--data", folder / "data.npz", "-o", tmp_path / "c")
    assert "Nothing is limited" in refused(*files)
    assert "is no amount" in refused(*files, "--max-latency", "20 KB")
    assert not (tmp_path / "c").exists()
