"""The command line, in this process: what each command writes, prints and refuses."""

from __future__ import annotations

import errno
import functools
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import edgeprune as ep
from edgeprune import __version__, flavor
from edgeprune import flavor as flavors
from edgeprune.cli import app
from edgeprune.measure.accuracy import accuracy
from edgeprune.tflite.file import read_tflite


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_ok(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments):
    """Run, expect exit code 2 and one line on stderr, and return the line."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    return lines[0]


def tiny_model(keras, classes=3):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6,), name="features"),
            keras.layers.Dense(16, activation="relu", name="hidden"),
            keras.layers.Dense(classes, activation="softmax", name="classes"),
        ],
        name="tiny",
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data, a trained compiled model and an uncompiled one, in every format, of both Kerases."""
    folder = tmp_path_factory.mktemp("cli")
    generator = np.random.default_rng(0)
    x = generator.normal(size=(240, 6)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0)
    np.savez(folder / "data.npz", x=x, y=y)
    np.savez(folder / "split.npz", x_train=x[:160], y_train=y[:160], x_test=x[160:], y_test=y[160:])
    np.savez(folder / "targets.npz", x=x, y=x[:, :3])
    np.savez(folder / "unlabelled.npz", x=x)
    np.savez(folder / "wide.npz", x=np.zeros((8, 7), np.float32), y=np.zeros(8, np.int64))
    for name in (flavor.KERAS_3, flavor.TF_KERAS):
        keras = flavor.keras_module(name)
        model = tiny_model(keras)
        model.save(folder / f"{name}_uncompiled.keras")
        model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
        model.fit(x[:160], y[:160], epochs=10, verbose=0)
        model.save(folder / f"{name}.keras")
        model.save(folder / f"{name}.h5")
    model.save(folder / "saved_model")
    several = [keras.Input((2,), name="left"), keras.Input((2,), name="right")]
    keras.Model(several, keras.layers.Add()(several), name="pair").save(folder / "pair.h5")
    (folder / "damaged.keras").write_bytes(b"not a model")
    (folder / "damaged.npz").write_bytes(b"not an archive")
    return folder


@pytest.fixture(scope="module")
def tflite(folder):
    """The Keras 3 model as a float32 file."""
    run_ok("convert", folder / "keras.keras", "-o", folder / "float.tflite")
    return folder / "float.tflite"


def test_help_and_version_start_without_tensorflow():
    code = (
        "import sys; sys.argv = ['edgeprune', *sys.argv[1:]]; from edgeprune import cli\n"
        "try: cli.main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'tensorflow', 'keras', 'tf_keras', 'ai_edge_litert', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    for arguments in (["--help"], ["--version"], ["prune", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "prune" in run_ok("--help").stdout
    assert run_ok().stdout == run_ok("--help").stdout
    assert run_ok("--version").stdout == f"edgeprune {__version__}\n"


def test_command_itself_is_quiet(folder):
    done = subprocess.run(
        [sys.executable, "-m", "edgeprune", "inspect", str(folder / "keras.keras"), "--json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["model"] == "tiny"
    assert all(re.fullmatch(r".+ \.\.\. \d+ s", line) for line in done.stderr.splitlines()), "one line a stage"


@pytest.mark.parametrize("name", ["keras.keras", "keras.h5", "tf_keras.h5", "saved_model"])
def test_inspect_shows_layers(folder, name):
    content = json.loads(run_ok("inspect", folder / name, "--json").stdout)
    layers = {row["name"]: row for row in content["layers"]}
    assert layers["hidden"]["macs"] == 6 * 16 and layers["classes"]["parameters"] == 16 * 3 + 3
    assert content["macs"] == 6 * 16 + 16 * 3
    assert [group["channels"] for group in content["groups"]] == [16, 3]
    text = run_ok("inspect", folder / name).stdout
    assert "16 channels can be removed" in text and "output of the model" in " ".join(text.split())
    assert "hidden" in text and "144" in text


def test_inspect_shows_the_memory_and_the_layer_that_sets_it(folder):
    memory = json.loads(run_ok("inspect", folder / "keras.keras", "--json").stdout)["memory"]
    assert (memory["peak"], memory["layer"]) == (16 + 16, "hidden")  # 6 and 16 bytes, at places of 16
    text = run_ok("inspect", folder / "keras.keras").stdout
    assert (
        "at most 32 bytes of activations at once in int8, about four times that in float32, while hidden runs" in text
    )


def test_inspect_shows_what_a_file_holds(tflite):
    content = json.loads(run_ok("inspect", tflite, "--json").stdout)
    assert content["operators"]["FULLY_CONNECTED"] == 2 and content["metadata"] is None
    assert content["inputs"] == [
        {"name": "features", "shape": [1, 6], "dtype": "float32", "scale": None, "zero_point": 0}
    ]
    text = run_ok("inspect", tflite).stdout
    assert "passed" not in text  # nothing was run
    assert re.search(r"^FULLY_CONNECTED +2$", text, re.M) and re.search(r"^input +features +1x6 +float32$", text, re.M)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_prune_writes_a_plain_model_with_exact_zeros(folder, tmp_path, flavor, suffix):
    from edgeprune.flavor import load_model

    output = tmp_path / f"pruned{suffix}"
    content = json.loads(
        run_ok(
            "prune", folder / f"{flavor}.h5", "--data", folder / "split.npz", "-o", output,
            "--sparsity", 0.75, "--epochs", 20, "--frequency", 5, "--json",
        ).stdout
    )  # fmt: skip
    pruned = load_model(output)
    for layer in (pruned.get_layer("hidden"), pruned.get_layer("classes")):
        kernel = np.asarray(layer.kernel)
        assert np.count_nonzero(kernel == 0) == kernel.size * 0.75
    x, y = (np.load(folder / "split.npz")[name] for name in ("x_test", "y_test"))
    assert content["sparsity"] == 0.75
    before = accuracy(load_model(folder / f"{flavor}.h5"), x, y)
    assert content["scores"] == {
        "accuracy": {"higher_is_better": True, "before": before, "after": accuracy(pruned, x, y)}
    }
    assert content["no_score"] is None


def test_prune_tells_what_it_did(folder, tmp_path):
    result = run_ok(
        "prune", folder / "keras.keras", "--data", folder / "data.npz", "-o", tmp_path / "p.keras",
        "--epochs", 1, "--frequency", 1, "--schedule", "constant", "--layers", "hid*",
        "--learning-rate", 0.001,
    )  # fmt: skip
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "80.2%" in lines["hidden"] and " 0.0%" in lines["classes"]
    assert "before" in lines["accuracy"] and str(tmp_path / "p.keras") in lines["wrote"]


def test_prune_knows_the_loss_of_an_uncompiled_classifier(folder, tmp_path):
    arguments = ("--epochs", 1, "--frequency", 1, "-o", tmp_path / "p.keras", "--overwrite")
    model = folder / "keras_uncompiled.keras"
    run_ok("prune", model, "--data", folder / "data.npz", *arguments)
    assert "name a loss" in refused("prune", model, "--data", folder / "targets.npz", *arguments)
    result = run_ok("prune", model, "--data", folder / "targets.npz", "--loss", "mse", *arguments)
    assert "accuracy" not in result.stdout


@pytest.mark.parametrize("name", ["keras.keras", "tf_keras.h5"])
def test_channels_writes_a_smaller_plain_model_and_its_plan(folder, tmp_path, name):
    output, plan = (tmp_path / name).with_stem("small"), tmp_path / "plan.json"
    content = json.loads(
        run_ok(
            *("channels", folder / name, "--pruning-ratio", 0.5, "--round-to", 4, "--data", folder / "split.npz"),
            *("--epochs", 2, "-o", output, "--plan", plan, "--json"),
        ).stdout
    )
    assert content["channels"] == {"before": 16, "after": 8} and content["macs"]["after"] == 6 * 8 + 8 * 3
    smaller = flavor.load_model(output)
    assert smaller.get_layer("hidden").units == 8
    split = np.load(folder / "split.npz")
    scores = content["scores"]["accuracy"]
    assert scores["fine-tuned"] == pytest.approx(accuracy(smaller, split["x_test"], split["y_test"]))
    assert set(scores) == {"higher_is_better", "before", "cut", "fine-tuned"}
    again = ep.ChannelPlan.from_json(flavor.load_model(folder / name), plan.read_text())
    assert again.apply().count_params() == smaller.count_params()


def test_channels_without_an_output_shows_the_plan(folder):
    choices = ("--reduction", "max", "--attention", "both")
    text = run_ok(
        "channels", folder / "keras.keras", "--target-macs", 0.5, "--data", folder / "split.npz", *choices
    ).stdout
    assert "hidden" in text and "nothing written" in text and "frozen: " in text
    assert "accuracy" in text and "fine-tuned" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--pruning-ratio, --target-macs or --target-params"),
        (
            ["--target-macs", "0.5", "--pruning-ratio", "0.5"],
            "one of --pruning-ratio, --target-macs and --target-params; got --pruning-ratio 0.5 and --target-macs 0.5",
        ),
        (["--target-macs", "0.5", "--epochs", "1", "--data", "unlabelled.npz"], "has no labels"),
        (["--target-macs", "1.5"], "macs"),
        (["--target-macs", "0.5", "--scope", "near"], "near"),
        (["--target-macs", "0.5", "--reduction", "median"], "median"),
        (["--target-macs", "0.5", "--attention", "tails"], "tails"),
        (["--target-macs", "0.5", "--round-to", "x"], "x"),
        (["--target-macs", "0.5", "--importance", "guess"], "guess"),
        (["--target-macs", "0.5", "--ignore", "nothing*"], "nothing*"),
        (["--target-macs", "0.5", "--epochs", "1"], "name them with --data"),
        (["--target-macs", "0.5", "-o", "keras.h5"], "another name. --overwrite replaces it"),
        (["--target-macs", "0.5", "--plan", "plan.txt"], "must end in .json"),
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
    assert "has one array of x, and model 'pair' has the inputs 'left', 'right'" in line


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
    ("quantize", "weight_type"),
    [("none", "float32"), ("dynamic", "int8"), ("float16", "float16"), ("int8", "int8"), ("int16x8", "int8")],
)
def test_convert_writes_the_format(folder, tmp_path, quantize, weight_type):
    output = tmp_path / "model.tflite"
    content = json.loads(
        run_ok(
            "convert", folder / "keras.keras", "--quantization", quantize, "--data", folder / "data.npz",
            "-o", output, "--json",
        ).stdout
    )  # fmt: skip
    weights = {tensor.elements: tensor.dtype for tensor in read_tflite(output).weights}
    # The converter leaves weights of fewer than 1,024 values in float where it quantizes dynamically.
    assert weights[96] == ("float32" if quantize == "dynamic" else weight_type)
    assert content["bytes"] == output.stat().st_size
    assert content["verification"]["outputs"][0]["largest_error"] < 0.1


def test_convert_float_io_and_text(folder, tmp_path):
    from edgeprune.tflite.runtime import Runtime

    output = tmp_path / "model.tflite"
    result = run_ok(
        "convert", folder / "tf_keras.h5", "--quantization", "int8", "--float-io", "--data", folder / "data.npz",
        "-o", output,
    )  # fmt: skip
    assert f"{output.stat().st_size:,} bytes" in result.stdout
    assert {port.dtype for port in Runtime(output).inputs.values()} == {np.dtype("float32")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["keras.keras", "--quantization", "int3"], "'int3' is not one of 'none', 'dynamic'"),
        (["keras.keras", "--quantization", "int8"], "name them with --data"),
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


def test_force_replaces(folder, tmp_path):
    output = tmp_path / "model.tflite"
    output.write_bytes(b"old")
    run_ok("convert", folder / "keras.keras", "-o", output, "--overwrite")
    assert read_tflite(output).operators


def test_verify_measures_the_file(folder, tflite):
    arguments = ("verify", tflite, "--model", folder / "keras.keras", "--data", folder / "split.npz")
    content = json.loads(run_ok(*arguments, "--json").stdout)
    test = np.load(folder / "split.npz")
    assert content["passed"] and content["samples"] == len(test["x_test"])
    assert content["scores"]["accuracy"]["file"] == accuracy(tflite, test["x_test"], test["y_test"])
    assert "passed" in run_ok(*arguments, "--no-xnnpack", "--num-threads", 2).stdout
    assert "passed" in run_ok("verify", tflite).stdout


def test_verify_exits_with_1_for_a_file_of_another_model(folder, tflite, tmp_path):
    model = tiny_model(flavor.keras_module(flavor.KERAS_3))
    model.save(tmp_path / "other.keras")
    result = run("verify", tflite, "--model", tmp_path / "other.keras", "--data", folder / "data.npz")
    assert result.exit_code == 1
    assert "FAILED" in result.stdout


def test_benchmark_times_files(folder, tflite):
    content = json.loads(run_ok("benchmark", tflite, tflite, "--num-runs", 7, "--no-xnnpack", "--json").stdout)
    assert [row["file"] for row in content["files"]] == [str(tflite)] * 2
    assert (content["num_runs"], content["use_xnnpack"]) == (7, False)
    assert "7 runs interleaved, 2 threads" in run_ok("benchmark", tflite, "--num-runs", 7, "--num-threads", 2).stdout


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
    ],
)
def test_other_refusals(folder, tflite, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    (folder / "bad.tflite").write_bytes(b"bad")
    (folder / "latin.txt").write_bytes("größe\n".encode("latin-1"))
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


def test_npz_names(folder):
    split, whole = (ep.load_data(folder / name) for name in ("split.npz", "data.npz"))
    assert len(split.x_train) == 160 and len(split.x_test) == 80
    np.testing.assert_array_equal(whole.x_train, whole.x_test)
    assert ep.load_data(folder / "unlabelled.npz").y_test is None
    with pytest.raises(FileNotFoundError, match="No data file at"):
        ep.load_data(folder / "absent.npz")
