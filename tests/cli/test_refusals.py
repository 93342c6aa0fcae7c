"""What commands refuse: one line on stderr, exit code 2, and nothing is written."""

from __future__ import annotations

import errno
import functools
import shutil

import numpy as np
import pytest
from cli.invoked import refused, run

from edgeprune import flavor as flavors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one or more of --pruning-ratio, --target-macs, --target-params, --target-latency"),
        (["--target-macs", "0.0001", "--pruning-ratio", "0.5"], "--target-macs cannot be held"),
        (["--target-macs", "0.5", "--epochs", "1", "--data", "unlabelled.npz"], "has no labels"),
        (["--target-macs", "1.5"], "macs"),
        (["--target-macs", "0.5", "--scope", "near"], "near"),
        (["--target-macs", "0.5", "--reduction", "median"], "median"),
        (["--target-macs", "0.5", "--attention", "tails"], "tails"),
        (["--target-macs", "0.5", "--round-to", "x"], "x"),
        (["--target-macs", "0.5", "--importance", "guess"], "guess"),
        (["--target-macs", "0.5", "--ignore", "nothing*"], "nothing*"),
        (["--target-macs", "0.5", "--epochs", "1"], "name them with --data"),
        (["--target-macs", "0.5", "--importance", "reconstruction"], "is measured on data: pass --data"),
        (
            ["--target-macs", "0.5", "--reconstruct", "wide.npz"],
            "expects samples of shape (6,); got (8, 7)",
        ),
        (["--target-macs", "0.5", "--reconstruct", "absent.npz"], "No data file at absent.npz"),
        (["--target-macs", "0.5", "-o", "keras.h5"], "another name. --overwrite replaces it"),
        (["--target-macs", "0.5", "--plan", "plan.txt"], "must end in .json"),
        (["--target-macs", "0.5", "-o", f"{'x' * 300}/new.keras"], "File name too long"),
        (
            ["--target-macs", "0.5", "--plan", "keras.h5/plan.json"],
            "keras.h5 is a file, so that nothing can be written below",
        ),
        (["--target-macs", "0.5", "--learning-rate", "0"], "'--learning-rate': must be a positive number, got 0"),
    ],
)
def test_channels_refuses(folder, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    assert message in refused("channels", "keras.keras", *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sparsity", "1.5"], "sparsity"),
        (["--epochs", "0"], "'--epochs'"),
        (["--batch-size", "0"], "'--batch-size'"),
        (["--schedule", "sudden"], "'--schedule': 'sudden' is not one of 'polynomial', 'constant'"),
        (["--layers", "nothing*"], "nothing*"),
        (["--frequency", "0"], "frequency"),
        (["--data", "wide.npz"], "has inputs of shape (None, 6), and the data have (8, 7)"),
        (["--data", "unlabelled.npz"], "no labels"),
        (["--data", "keras.keras"], "keras.keras is no data file: name a .npz, .npy or .csv file, a folder"),
        (["--data", "damaged.npz"], "damaged.npz is not a .npz file"),
        (["--data", "absent.npz"], "No data file at absent.npz"),
        (["--output", "model.tflite"], "must end in .keras or .h5"),
        (["--output", "folder.keras"], "is a folder"),
        (["--output", "data.npz/new.keras"], "data.npz is a file, so that nothing can be written below it"),
        (["--learning-rate", "-1"], "'--learning-rate': must be a positive number, got -1"),
        (["--learning-rate", "nan"], "'--learning-rate': must be a positive number, got nan"),
        (["--output", "keras.h5"], "another name. --overwrite replaces it"),
    ],
)
def test_prune_refuses(folder, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    (folder / "folder.keras").mkdir(exist_ok=True)
    before = (folder / "keras.h5").read_bytes()
    # The last of two equal options counts.
    assert message in refused("prune", "keras.keras", "--data", "data.npz", "-o", "new.keras", *arguments)
    assert not (folder / "new.keras").exists() and not list(folder.glob(".unfinished*"))
    assert (folder / "keras.h5").read_bytes() == before


def test_prune_refuses_several_inputs(folder, tmp_path):
    line = refused("prune", folder / "pair.h5", "--data", folder / "data.npz", "-o", tmp_path / "p.keras")
    assert "data.npz: model 'pair' has 2 inputs ('left', 'right'), got 1. Name an array for each" in line


def test_nothing_is_left_when_saving_fails(tmp_path):
    from edgeprune.cli.files import save_model, write_files

    def broken_save(path):
        path.write_bytes(b"half a model")
        raise OSError(errno.ENOSPC, "No space left on device")

    model = type("Model", (), {"save": staticmethod(broken_save)})
    (tmp_path / "plan.json").write_text("old")
    writers = {
        tmp_path / "plan.json": lambda path: path.write_text("new"),
        tmp_path / "pruned.keras": functools.partial(save_model, model),
    }
    with pytest.raises(OSError, match="No space left on device: .*pruned.keras"):
        write_files(writers, overwrite=True)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("plan.json", "old")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["keras.keras", "--quantization", "int3"], "'int3' is not one of 'none', 'dynamic'"),
        (["keras.keras", "--quantization", "int8"], "--quantization 'int8' needs --data: about 100 samples"),
        (["keras.keras", "--quantization", "int8", "--data", "wide.npz"], "7"),
        (["damaged.keras"], "could not be read as a Keras model"),
        (["absent.keras"], "does not exist"),
        (["keras.keras", "-o", "model.onnx"], "must end in .tflite"),
        (["keras.keras", "-o", "taken.tflite"], "another name. --overwrite replaces it"),
        (["keras.keras", "--unknown"], "--unknown"),
    ],
)
def test_convert_refuses(folder, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    (folder / "taken.tflite").write_bytes(b"taken")
    assert message in refused("convert", "-o", "new.tflite", *arguments)
    assert not (folder / "new.tflite").exists() and not list(folder.glob(".unfinished*"))
    assert (folder / "taken.tflite").read_bytes() == b"taken"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "damaged.keras"], "not a .tflite file"),
        (["verify", "float.tflite", "--data", "wide.npz"], "6"),
        (["inspect", "bad.tflite"], "not a .tflite file"),
        (["inspect", "damaged.keras"], "could not be read as a Keras model"),
        (["benchmark"], "Missing argument"),
        (["benchmark", "damaged.keras"], "damaged.keras"),
        (["benchmark", "float.tflite", "--num-runs", "0"], "'--num-runs'"),
        (["benchmark", "float.tflite", "--num-runs", "many"], "--num-runs"),
        (["nonsense"], "No such command 'nonsense'"),
        (["demo", "--flavor", "torch"], "'--flavor': 'torch' is not one of 'keras', 'tf_keras'"),
        (["demo", "--sparsity", "1"], "must be a fraction from 0 to below 1, got 1"),
        (["demo", "--epochs", "0"], "'--epochs'"),
        (["demo", "-o", "data.npz"], "data.npz is a file, so that nothing can be written below it"),
        (["demo", "-o", "data.npz/x"], "data.npz is a file, so that nothing can be written below it"),
        (["bundle", "keras.keras", "-o", "data.npz/x/y"], "data.npz is a file, so that nothing can be written below"),
        (["bundle", "keras.keras", "-o", "b", "--labels", "latin.txt"], "latin.txt is not a text file in UTF-8"),
        (
            ["bundle", "keras.keras", "--target", "cortex-m", "-o", "b", "--labels", "none.txt", "--data", "data.npz"],
            "Got 0",
        ),
    ],
)
def test_other_refusals(folder, tflite, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    (folder / "bad.tflite").write_bytes(b"bad")
    (folder / "latin.txt").write_bytes("größe\n".encode("latin-1"))
    (folder / "none.txt").write_bytes(b"")
    assert message in refused(*arguments)


NUMBERS = {
    "prune": ("--sparsity", "--epochs", "--frequency", "--batch-size", "--learning-rate"),
    "channels": ("--target-macs", "--target-params", "--pruning-ratio", "--epochs", "--batch-size", "--learning-rate"),
    "demo": ("--sparsity", "--epochs", "--seed"),
    "benchmark": ("--num-runs", "--warmup-runs", "--num-threads"),
    "verify": ("--num-threads",),
}


@pytest.mark.parametrize(("command", "option"), [(c, option) for c, options in NUMBERS.items() for option in options])
@pytest.mark.parametrize("value", ["nan", "-inf", "inf", "-1", "1e40", "9" * 41, "", "x"])
def test_numbers_out_of_any_range_are_refused_before_anything_is_read(folder, command, option, value):
    arguments = {"prune": ("--data", folder / "data.npz", "-o", "p.keras"), "demo": ("-o", folder / "demo")}
    model = () if command == "demo" else (folder / "damaged.keras",)  # not read
    assert f"'{option}'" in refused(command, *model, *arguments.get(command, ()), option, value)


def test_weights_that_training_loses_are_not_saved(folder, tmp_path):
    arguments = ("--data", folder / "data.npz", "--epochs", 2, "--learning-rate", 1e38, "-o", tmp_path / "p.keras")
    assert "lower the learning rate" in refused("prune", folder / "keras.keras", *arguments)
    assert "lower the learning rate" in refused("channels", folder / "tf_keras.h5", "--pruning-ratio", 0.5, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (lambda y: y - 1, "-1"),
        (lambda y: y + 1, "3"),
        (lambda y: y + 0.5, "abels must be"),
    ],
)
def test_labels_that_the_loss_cannot_take(folder, tmp_path, tflite, labels, message):
    x, y = (np.load(folder / "data.npz")[name] for name in "xy")
    data, model, output = tmp_path / "d.npz", folder / "keras.keras", tmp_path / "out"
    np.savez(data, x=x, y=labels(y))
    for command in (
        ("prune", model, "-o", f"{output}.keras"),
        ("channels", model, "--pruning-ratio", 0.5, "--importance", "taylor", "-o", f"{output}.keras"),
        ("channels", model, "--pruning-ratio", 0.5, "--epochs", 1, "-o", f"{output}.keras"),
        ("verify", tflite, "--model", model),
        ("bundle", model, "-o", output),
    ):
        assert message in refused(*command, "--data", data)
    assert list(tmp_path.iterdir()) == [data]


@pytest.mark.parametrize("shape", [(240,), (240, 1), (240, 2), (240, 3, 1)])
def test_targets_of_another_shape_than_the_output(folder, tmp_path, shape):
    np.savez(tmp_path / "d.npz", x=np.load(folder / "data.npz")["x"], y=np.zeros(shape, np.float32))
    for name in ("keras_uncompiled.keras", "tf_keras_uncompiled.keras"):
        line = refused(
            "prune", folder / name, "--data", tmp_path / "d.npz", "--loss", "mse", "-o", tmp_path / "p.keras"
        )
        assert f"outputs of shape (None, 3), and the targets have {shape}" in line


def test_what_stops_tensorflow_is_one_line(tmp_path, flavor):
    keras = flavors.keras_module(flavor)
    keras.Sequential(
        [keras.Input((4,)), keras.layers.Embedding(9, 2), keras.layers.Flatten(), keras.layers.Dense(2)]
    ).save(tmp_path / "m.keras")
    np.savez(tmp_path / "d.npz", x=np.full((8, 4), 9), y=np.zeros((8, 2), np.float32))
    arguments = ("--data", tmp_path / "d.npz", "--loss", "mse", "-o", tmp_path / "p.keras")
    assert "9 is not in [0, 9)" in refused("prune", tmp_path / "m.keras", *arguments)
    assert not (tmp_path / "p.keras").exists()


def test_bundle_refuses_an_input_inside_its_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "release").mkdir()
    shutil.copy(folder / "keras.keras", tmp_path / "release" / "m.keras")
    (tmp_path / "link").symlink_to("release")
    arguments = ("--target", "phone", "--data", folder / "data.npz", "--overwrite")
    for model, output in (("release/m.keras", "release"), ("link/m.keras", "release"), ("release/m.keras", "link")):
        assert f"{model} is inside {output}" in refused("bundle", model, "-o", output, *arguments)
    assert [path.name for path in (tmp_path / "release").iterdir()] == ["m.keras"]


def test_a_bug_keeps_its_traceback(monkeypatch, tflite):
    from edgeprune.measure import latency

    def broken(*_, **__):
        raise AssertionError("a bug")

    monkeypatch.setattr(latency, "benchmark", broken)
    assert isinstance(run("benchmark", tflite).exception, AssertionError)


def test_notes_of_an_error_are_printed(monkeypatch, tflite):
    from edgeprune.measure import latency

    def refused_with_a_note(*_, **__):
        error = ValueError("The file is odd.")
        error.add_note("Convert it again.")
        raise error

    monkeypatch.setattr(latency, "benchmark", refused_with_a_note)
    assert refused("benchmark", tflite) == "error: The file is odd. Convert it again."


def test_debugging_shows_the_traceback_of_an_error(monkeypatch):
    monkeypatch.setenv("EDGEPRUNE_DEBUG", "1")
    assert isinstance(run("demo", "-o", __file__).exception, OSError)


def test_data_with_python_objects_is_refused(folder, tmp_path):
    np.savez(tmp_path / "objects.npz", x=np.array([{}], object))
    assert "holds Python objects" in refused("verify", folder / "damaged.keras", "--data", tmp_path / "objects.npz")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((3, 2)), "y": np.zeros(2)}, "3 train inputs, but labels of shape (2,)"),
        ({"x": np.zeros((0, 2))}, "the train inputs are empty"),
        ({"x_test": np.zeros((3, 2)), "y_test": np.float32(1)}, "labels of shape ()"),
    ],
)
def test_data_of_unequal_length_is_refused(folder, tmp_path, arrays, message):
    np.savez(tmp_path / "data.npz", **arrays)
    assert message in refused("verify", folder / "damaged.keras", "--data", tmp_path / "data.npz")
