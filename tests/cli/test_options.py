"""Options in errors, in `--help` and in completion: nothing here converts or trains."""

from __future__ import annotations

import shlex
from typing import get_args

import numpy as np
import pytest
import typer
from typer.core import TyperOption
from typer.testing import CliRunner

from edgeprune import flavor, types
from edgeprune.channels.plan import importance, reduction, selection, solver
from edgeprune.cli import app, options
from edgeprune.cli.commands import COMMANDS
from edgeprune.fit import SCHEDULES
from edgeprune.search.recipe import Recipe
from edgeprune.search.trial.record import Candidate
from edgeprune.targets import TARGETS

EXAMPLES = {name: example for name, (_, example) in COMMANDS.items()}
# What is taken as it is written; a metric that no score can be made with is reported, and the command goes on.
ANYTHING_GOES = {"--address", "--author", "--description", "--metric", "--model-version", "--custom"}
TARGETS_OF_PLANS = (
    *("--pruning-ratio", "--target-macs", "--target-params"),
    *("--target-latency", "--max-ram", "--max-flash", "--latency-table"),
)
# A wrong value of each option, and what has to stand beside it.
WRONG = {
    "--attention": ["legs"],
    "--batch-size": ["0"],
    "--calibration": ["guess"],
    "--converted-from": ["nothing.keras"],
    "--cache": ["broken.npz/below"],
    "--curves": ["broken.npz"],
    "--data": ["broken.npz"],
    "--test-data": ["broken.npz"],
    "--engine": ["cloud"],
    "--epochs": ["-1"],
    "--flavor": ["torch"],
    "--frequency": ["0"],
    "--ignore": ["nothing*"],
    "--importance": ["guess"],
    "--input-shape": ["x"],
    "--keras-output": ["plan.txt"],
    "--kind": ["layers"],
    "--label-column": ["no_such_column", "--data", "table.csv"],
    "--labels": ["broken.npz"],
    "--latency-table": ["broken.npz", "--target-latency", "0.5"],
    "--layers": ["nothing*"],
    "--learning-rate": ["0"],
    "--level": ["1"],
    "--max-drop": ["-1"],
    "--num-samples": ["0"],
    "--plot": ["plan.txt"],
    "--log": ["mail"],
    "--loss": ["no_such_loss", "--epochs", "1"],
    "--max-flash": ["much"],
    "--max-gzip-size": ["wide"],
    "--max-ram": ["0"],
    "--target-latency": ["soon"],
    "--target-macs": ["2"],
    "--mean": ["nan"],
    "--model": ["broken.npz"],
    "--name": [" "],
    "--output": ["broken.npz/below.keras"],
    "--target-params": ["0"],
    "--plan": ["plan.txt"],
    "--quantization": ["int3"],
    "--pruning-ratio": ["1"],
    "--reconstruct": ["broken.npz"],
    "--reduction": ["median"],
    "--round-to": ["x"],
    "--max-latency": ["1%"],
    "--max-size": ["wide"],
    "--num-finalists": ["0"],
    "--num-runs": ["0"],
    "--num-trials": ["0"],
    "--num-workers": ["0"],
    "--cpus-per-trial": ["0"],
    "--gpus-per-trial": ["-1"],
    "--min-channels": ["0"],
    "--max-ratio": ["1.5"],
    "--recipe": ["broken.npz"],
    "--schedule": ["sudden"],
    "--scheme": ["float16"],
    "--scope": ["near"],
    "--search": ["luck"],
    "--seed": ["-1"],
    "--sparsity": ["1"],
    "--sparsity-m-by-n": ["24"],
    "--std": ["nan", "--mean", "1"],
    "--target": ["toaster"],
    "--num-threads": ["0"],
    "--time-budget": ["0"],
    "--warmup-runs": ["-1"],
}


def command_of(name):
    return typer.main.get_command(app).commands[name]


def valued_options(name):
    return [
        max(parameter.opts, key=len)
        for parameter in command_of(name).params
        if isinstance(parameter, TyperOption) and not parameter.is_flag and not ANYTHING_GOES & set(parameter.opts)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, data, and a file that is none."""
    folder = tmp_path_factory.mktemp("options")
    keras = flavor.keras_module(flavor.KERAS_3)
    layers = [keras.Input((4,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3, activation="softmax")]
    model = keras.Sequential(layers)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.save(folder / "model.keras")
    (folder / "table.csv").write_text("a,b,c,d,y\n1,2,3,4,0\n5,6,7,8,1\n")
    (folder / "model.tflite").write_bytes(b"no model")
    (folder / "broken.npz").write_bytes(b"\xff\xfe no archive")
    generator = np.random.default_rng(0)
    settings = {"target": "phone", "epochs": 0, "batch_size": 8, "learning_rate": None, "seed": 0}
    Recipe(settings, Candidate(), "train", "", "", 0).save(folder / "recipe.json")
    np.savez(folder / "data.npz", x=generator.random((16, 4), np.float32), y=generator.integers(0, 3, 16))
    return folder


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in COMMANDS for option in valued_options(name)])
def test_a_wrong_value_is_an_error_that_names_the_option(folder, monkeypatch, name, option):
    monkeypatch.chdir(folder)
    model = "model.tflite" if name in ("verify", "benchmark") else "." if name == "latency-table" else "model.keras"
    model = "recipe.json" if name == "apply" else model
    needed = {
        "apply": ["model.keras", "--data", "data.npz", "-o", "new.tflite"],
        "demo": [],
        "prune": ["--data", "data.npz", "-o", "new.keras"],
        "quantize-aware": ["--data", "data.npz", "-o", "new.tflite"],
        "channels": ["--data", "data.npz", *([] if option in TARGETS_OF_PLANS else ["--pruning-ratio", "0.5"])],
        "convert": ["-o", "new.tflite"],
        "latency-files": ["-o", "new"],
        "latency-table": [],
        "debug": ["model.tflite", "--data", "data.npz"],
        "report": ["model.tflite", "--data", "data.npz"],
        "bundle": ["-o", "new"],
        "compress": ["--data", "data.npz", "-o", "new", *([] if option == "--max-size" else ["--max-size", "1 MB"])],
        "sensitivity": ["--data", "data.npz"],
    }.get(name, [])
    arguments = [name, *([model] if name != "demo" else []), *needed, option, *WRONG[option]]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2 and done.stdout == "", done.output
    (line,) = done.stderr.splitlines()
    assert option in line, line


@pytest.mark.parametrize("name", ["verify", "bundle", "channels"])
def test_a_metric_needs_data(name, tmp_path):
    (tmp_path / "m").touch()
    needed = {"channels": ["--pruning-ratio", "0.5"], "bundle": ["-o", str(tmp_path / "new")]}.get(name, [])
    done = CliRunner().invoke(app, [name, str(tmp_path / "m"), *needed, "--metric", "mae"])
    assert done.exit_code == 2 and "--metric is computed on data: name them with --data" in done.stderr


def test_arguments_of_the_library_become_options():
    from edgeprune.cli.option_names import in_options

    context = command_of("channels").make_context(
        "channels", ["m.keras", "--pruning-ratio", "0.5", "--data", __file__], resilient_parsing=True
    )
    for message, expected in (
        ("scope='x' is unknown.", "--scope 'x' is unknown."),
        (
            "Pass exactly one of pruning_ratio=, target_macs= and target_params=.",
            "Pass exactly one of --pruning-ratio, --target-macs and --target-params.",
        ),
        ("round_to must be 1 or more.", "--round-to must be 1 or more."),
        ("input_shape=(1, 4, 3) does not fit 'image'.", "--input-shape (1, 4, 3) does not fit 'image'."),
        ("pass a shape that it accepts as input_shape=.", "pass a shape that it accepts as --input-shape."),
        ("input_shape= names 'picture'.", "--input-shape names 'picture'."),
        ("max_depth=0.9 is not an option.", "max_depth=0.9 is not an option."),
    ):
        assert in_options(message, context) == expected


def test_an_error_has_the_option_in_front_that_it_speaks_of(tmp_path):
    from edgeprune.cli.option_names import in_options

    labels, folder = tmp_path / "out.txt", tmp_path / "out"
    labels.touch()
    arguments = ["m.keras", "--labels", str(labels), "-o", str(folder)]
    context = command_of("bundle").make_context("bundle", arguments, resilient_parsing=True)
    for message, expected in (
        ("3 labels for one output.", "--labels: 3 labels for one output."),
        ("The output has 3 classes, and labels none.", "--output: The output has 3 classes, and labels none."),
        (f"{labels} is empty.", f"--labels: {labels} is empty."),
        (f"{folder}/model.tflite is there.", f"--output: {folder}/model.tflite is there."),
    ):
        assert in_options(message, context) == expected


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_with_options_that_exist_and_cuts_no_name(name):
    text = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "80"}).stdout
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    assert EXAMPLES[name] in " ".join(text.split())
    words = shlex.split(EXAMPLES[name].partition("|")[0])
    assert words[:2] == ["edgeprune", name]
    command_of(name).make_context(name, words[2:], resilient_parsing=True)
    assert all(option in text for option in valued_options(name))


def test_the_list_of_commands_is_whole():
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).stdout.partition("Commands:")[2]
    assert max(map(len, text.splitlines())) <= 80 and "..." not in text
    words = " ".join(text.split())
    assert all(f"{name} {command_of(name).help.splitlines()[0].split('. ')[0]}" in words for name in COMMANDS)


def test_choices_are_those_of_the_library():
    assert set(get_args(types.Scope)) == set(solver.RANKING_SCOPES)
    assert set(get_args(options.ScheduleChoice)) == set(SCHEDULES)
    assert set(get_args(types.Reduction)) == set(reduction.REDUCTIONS)
    assert set(get_args(types.Attention)) == set(selection.ATTENTION)
    of_data = {*importance.ON_DATA, "reconstruction"}
    assert set(get_args(types.Importance)) == {*importance._MAGNITUDES, *of_data, "random"}
    assert set(get_args(types.Flavor)) == {flavor.KERAS_3, flavor.TF_KERAS}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("bundle --target ethos-u55", [name for name in TARGETS if name.startswith("ethos-u55")]),
        ("convert --quantization int", ["int8", "int16x8", "int4"]),
        ("channels --importance l", ["l2", "l1", "lamp"]),
        ("channels --round-to t", ["tile", "tile-int8"]),
    ],
)
def test_completion(words, expected):
    count = len(words.split())
    environment = {
        "_EDGEPRUNE_COMPLETE": "complete_bash",
        "COMP_WORDS": f"edgeprune {words}",
        "COMP_CWORD": str(count),
    }
    done = CliRunner().invoke(app, [], env=environment, prog_name="edgeprune")
    assert done.stdout.split() == expected
