"""The command line, in this process: what each command writes, prints and refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from cli.invoked import refused, run, run_ok, tiny_model
from report.page_reader import PageReader

import edgeprune as ep
from edgeprune import __version__, flavor
from edgeprune.measure.accuracy import accuracy
from edgeprune.search.budget import amount_text
from edgeprune.tflite.file import read_tflite


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


@pytest.mark.parametrize(("flavor", "suffix"), [("keras", ".keras"), ("tf_keras", ".h5")])
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


@pytest.mark.parametrize("amount", [["--sparsity", 0.5], ["--sparsity-m-by-n", "2:4"]], ids=str)
def test_prune_in_one_shot_needs_no_labels_and_no_training(folder, tmp_path, monkeypatch, amount):
    from edgeprune.cli import prune
    from edgeprune.flavor import load_model

    x = np.load(folder / "data.npz")["x"]
    np.savez(tmp_path / "unlabelled.npz", x=x)
    arguments = ("prune", folder / "keras.keras", "--one-shot", "--data", tmp_path / "unlabelled.npz", *amount)
    content = json.loads(run_ok(*arguments, "-o", tmp_path / "p.keras", "--json").stdout)
    kernels = [np.asarray(load_model(tmp_path / "p.keras").get_layer(name).kernel) for name in ("hidden", "classes")]
    assert content["sparsity"] == pytest.approx(
        sum((one == 0).sum() for one in kernels) / sum(one.size for one in kernels)
    )
    assert content["error"]["after"] < content["error"]["before"]
    monkeypatch.setattr(prune, "_SAMPLES", 10)
    text = run_ok(*arguments, "-o", tmp_path / "few.keras").stdout
    assert re.search(r"^output +\d+\.\d% +\d+\.\d% +10$", text, re.M), text


def test_prune_refuses_n_by_m_that_it_cannot_read(folder, tmp_path):
    arguments = ("prune", folder / "keras.keras", "--data", folder / "data.npz", "-o", tmp_path / "p.keras")
    assert "such as 2:4; got '24'" in refused(*arguments, "--one-shot", "--sparsity-m-by-n", "24")
    assert "is for --one-shot" in refused(*arguments, "--sparsity-m-by-n", "2:4")


def test_prune_knows_the_loss_of_an_uncompiled_classifier(folder, tmp_path):
    arguments = ("--epochs", 1, "--frequency", 1, "-o", tmp_path / "p.keras", "--overwrite")
    model = folder / "keras_uncompiled.keras"
    run_ok("prune", model, "--data", folder / "data.npz", *arguments)
    assert "pass --loss, a Keras loss" in refused("prune", model, "--data", folder / "targets.npz", *arguments)
    result = run_ok("prune", model, "--data", folder / "targets.npz", "--loss", "mse", *arguments)
    assert "accuracy" not in result.stdout


@pytest.mark.parametrize("name", ["keras.keras", pytest.param("tf_keras.h5", marks=pytest.mark.slow)])
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


@pytest.mark.parametrize("name", ["keras.keras", pytest.param("tf_keras.h5", marks=pytest.mark.slow)])
def test_channels_are_made_up_for_on_unlabelled_data(folder, tmp_path, name):
    output = (tmp_path / name).with_stem("small")
    arguments = (
        "channels",
        folder / name,
        "--target-macs",
        0.5,
        "--reconstruct",
        folder / "unlabelled.npz",
        "-o",
        output,
    )
    content = json.loads(run_ok(*arguments, "--importance", "reconstruction", "--json").stdout)
    found, ranking = content["reconstruction"], content["ranking"]
    assert found["num_samples"] == 240 and found["after"] <= found["before"]
    assert [layer["name"] for layer in found["layers"]] == ["classes"] and ranking["importance"] == "reconstruction"
    model, x = flavor.load_model(folder / name), np.load(folder / "unlabelled.npz")["x"]
    plan = ep.plan_channels(model, target_macs=0.5, importance="reconstruction", data=x)
    expected = plan.reconstruct(x)
    assert found["after"] == pytest.approx(expected.after, rel=1e-3)
    smaller = flavor.load_model(output)
    np.testing.assert_allclose(smaller.predict(x, verbose=0), expected.model.predict(x, verbose=0), atol=1e-4)
    text = run_ok(*arguments, "--data", folder / "split.npz", "--overwrite").stdout
    (line,) = (line for line in text.splitlines() if line.startswith("accuracy"))
    assert "cut" in line and "reconstructed" in line and "error before" in text


def test_channels_without_an_output_shows_the_plan(folder):
    choices = ("--reduction", "max", "--attention", "both")
    text = run_ok(
        "channels", folder / "keras.keras", "--target-macs", 0.5, "--data", folder / "split.npz", *choices
    ).stdout
    assert "hidden" in text and "nothing written" in text and "frozen: " in text
    assert "accuracy" in text and "fine-tuned" not in text


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


def test_debug_compares_layer_by_layer(folder, tflite):
    arguments = ("debug", folder / "keras.keras", tflite, "--data", folder / "split.npz", "--num-samples", "4")
    assert "No layer is below 10 dB" in run_ok(*arguments).stdout
    report = json.loads(run_ok(*arguments, "--json").stdout)
    assert report["samples"] == 4 and report["breaks_first"] is None
    assert [row["layer"] for row in report["layers"]] == ["hidden", "classes"]


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


def test_npz_names(folder):
    split, whole = (ep.load_data(folder / name) for name in ("split.npz", "data.npz"))
    assert len(split.x_train) == 160 and len(split.x_test) == 80
    np.testing.assert_array_equal(whole.x_train, whole.x_test)
    assert ep.load_data(folder / "unlabelled.npz").y_test is None
    with pytest.raises(FileNotFoundError, match="No data file at"):
        ep.load_data(folder / "absent.npz")


def test_report_writes_a_page(folder, tflite, tmp_path):
    page = tmp_path / "report.html"
    data = ("--data", folder / "split.npz", "--num-runs", 2, "-o", page)
    result = run_ok("report", folder / "keras.keras", tflite, *data, "--max-size", "1 KiB", "--max-gzip-size", "100 B")
    assert f"report: {page}" in result.output and "of the test samples" in result.output
    row = PageReader(page.read_text(encoding="utf-8")).tables["The model and its files"]
    said, size = {name[0]: value[0] for name, _, value in row[1:]}, ep.file_size(tflite)
    assert said["max_size of 1 KiB"] == f"{amount_text('max_size', size.bytes - 1024)} over"
    assert said["max_gzip_size of 100 B"] == f"{amount_text('max_gzip_size', size.gzip_bytes - 100)} over"
    assert "--overwrite replaces it" in refused("report", folder / "keras.keras", tflite, *data)
    missing = refused("report", folder / "keras.keras", "--data", folder / "split.npz", "-o", tmp_path / "r.html")
    assert "one or more .tflite files" in missing
    assert "pass --data" in refused("report", folder / "keras.keras", tflite, "-o", tmp_path / "r.html")
    assert "must end in .html" in refused("report", folder / "keras.keras", tflite, *data[:4], "-o", tmp_path / "r.txt")


def test_report_on_a_search(folder, tmp_path):
    search = ("compress", folder / "keras.keras", "--data", folder / "split.npz", "-o", tmp_path / "found")
    run_ok(*search, "--max-drop", 1, "--epochs", 0, "--num-trials", 2, "--num-finalists", 1)
    metric = ("--metric", "sparse_categorical_crossentropy")  # on the samples in the folder
    alone = run_ok("report", tmp_path / "found", *metric, "-o", tmp_path / "alone.html")
    assert f"report: {tmp_path / 'alone.html'}" in alone.output
    data = ("--model", folder / "keras.keras", "--data", folder / "split.npz", "--num-runs", 2)
    run_ok("report", tmp_path / "found", *data, "-o", tmp_path / "whole.html")
    parts = [(tmp_path / name).read_text(encoding="utf-8") for name in ("alone.html", "whole.html")]
    assert ['id="classes"' in text for text in parts] == [True, True]
    assert [f"{metric[1]} (lower is better)" in text for text in parts] == [True, False]
    page = ("-o", tmp_path / "other.html")
    assert "both --model and --data" in refused("report", tmp_path / "found", *data[:2], *page)
    assert "is a search" in refused("report", tmp_path / "found", "--max-size", "1 KiB", *page)
