"""`edgeprune compress`: its exit codes, its JSON."""

import json

import numpy as np
import pytest
from cli.invoked import refused, run, run_ok
from report.page_reader import PageReader

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
    small = ("--num-trials", 1, "--num-finalists", 1, "--epochs", 0, "--quantization", "none", "--no-bundle")
    return run("compress", folder / "model.keras", "--data", folder / "data.npz", *small, *arguments)


def test_exit_codes_tell_whether_the_budget_is_held(folder, tmp_path):
    recipe = tmp_path / "budget.yaml"
    recipe.write_text("max_accuracy_drop: 0.0001\nnum_trials: 9\nseed: 5\n")
    done = compress(folder, "--recipe", recipe, "--max-drop", "100%", "--json", "-o", tmp_path / "a")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["accepted"] and found["file"] == str(tmp_path / "a" / "model.tflite") and not found["held_out"]
    run_ok("report", tmp_path / "a", "-o", tmp_path / "a.html", "--num-runs", 1, "--num-samples", 4)
    page = PageReader((tmp_path / "a.html").read_text(encoding="utf-8"))
    assert {"trials", "file", "classes", "latency", "layers", "environment"} <= set(page.sections)
    settings = json.loads((tmp_path / "a" / "recipe.json").read_text())["settings"]
    assert settings["max_accuracy_drop"] == 1 and settings["num_trials"] == 1 and settings["seed"] == 5
    files = (tmp_path / "a" / "recipe.json", folder / "model.keras", "--data", folder / "data.npz")
    done = run("apply", *files, "-o", tmp_path / "again.tflite", "--keras-output", tmp_path / "again.keras")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "again.tflite").stat().st_size == (tmp_path / "a" / "model.tflite").stat().st_size
    assert "note" not in done.stdout and (tmp_path / "again.keras").exists()
    done = compress(folder, "--max-size", "10 B", "-o", tmp_path / "b")
    assert done.exit_code == 3 and "not accepted" in done.stdout and "max_size of 10 B" in done.stdout
    done = compress(folder, "--max-size", "10 B", "-o", tmp_path / "b", "--resume")
    assert done.exit_code == 3


def test_bad_limits_are_refused_before_anything_is_read(folder, tmp_path):
    files = ("compress", folder / "model.keras", "--data", folder / "data.npz", "-o", tmp_path / "c")
    assert "Nothing is limited" in refused(*files)
    assert "is no amount" in refused(*files, "--max-latency", "20 KB")
    recipe = tmp_path / "budget.json"
    recipe.write_text('{"max_drop": "1%"}')
    assert "there is no setting 'max_drop'" in refused(*files, "--recipe", recipe)
    assert not (tmp_path / "c").exists()


def test_a_stop_says_how_to_continue(folder, tmp_path, monkeypatch):
    import edgeprune.search.compress as compressing

    def stopped(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(compressing, "compress", stopped)
    done = compress(folder, "--max-drop", "1%", "-o", tmp_path / "out")
    assert done.exit_code != 0 and f"what was tried is kept in {tmp_path / 'out'}: --resume continues" in done.stderr


def test_the_verdict_on_other_data(folder, tmp_path):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 6)).astype("f4")
    np.savez(tmp_path / "test.npz", x=x, y=(x[:, 0] > 0).astype(int))
    done = compress(folder, "--max-drop", "100%", "--test-data", tmp_path / "test.npz", "--json", "-o", tmp_path / "a")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["held_out"] and found["verdict"]["num_samples"] == 30
    files = (
        "compress",
        folder / "model.keras",
        "--data",
        folder / "data.npz",
        "-o",
        tmp_path / "b",
        "--max-drop",
        "1%",
    )
    assert "absent.npz" in refused(*files, "--test-data", tmp_path / "absent.npz")
