"""The README's Python runs as it stands, and the commands of the guide to the command line run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import edgeprune as ep
from edgeprune import flavor
from edgeprune.cli import app
from edgeprune.measure.macs import count_macs
from edgeprune.models import small_cnn

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMAND_LINE = (ROOT / "docs" / "guides" / "command_line.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
# The first is a search, the second a script of its own, the others need a model and data.
BUDGET, FIT, *_ = BLOCKS
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", README + COMMAND_LINE, re.DOTALL))
COMMANDS = re.findall(r"^(?:\S*/)?edgeprune (\w+)(.*)$", SHELL, re.M)


def test_the_fit_block_on_a_part_of_its_images(sample, tmp_path, monkeypatch, capsys):
    """Its words are not changed; with all the images it runs in the slow test below."""
    (x, y), test = sample
    part = (np.uint8(x[:320, ..., 0] * 255), y[:320]), test
    monkeypatch.setattr(ep, "load_fashion_mnist", lambda: part)
    monkeypatch.chdir(tmp_path)
    exec(compile(FIT, "README block 1", "exec"), {})
    printed = capsys.readouterr().out
    assert "80.0%" in printed and "passed" in printed and (tmp_path / "model.tflite").exists()


@pytest.mark.slow
def test_the_search_runs(sample, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (x, y), (x_test, y_test) = sample
    model = small_cnn()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x[:2000], y[:2000], epochs=2, verbose=0)
    names = {"model": model, "x": x[:500], "y": y[:500], "x_test": x_test[:400], "y_test": y_test[:400]}
    exec(compile(BUDGET, "README block 0", "exec"), names)
    assert names["result"].path.exists() and (tmp_path / "compressed" / "bundle").exists()


@pytest.mark.slow
def test_the_fit_block_runs_as_it_is(tmp_path):
    """In a process that has nothing of this one, from an empty folder."""
    (tmp_path / "pasted.py").write_text(FIT)
    done = subprocess.run(
        [sys.executable, "pasted.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "80.0%" in done.stdout and "passed" in done.stdout and (tmp_path / "model.tflite").exists()


# A block that imports keras is for Keras 3; the others hold for both.
@pytest.mark.parametrize(
    ("number", "flavor"),
    [
        (number, name)
        for number, block in list(enumerate(BLOCKS))[2:]
        for name in (flavor.KERAS_3, flavor.TF_KERAS)
        if name == flavor.KERAS_3 or "import keras\n" not in block
    ],
)
def test_python_block_does_what_it_says(number, flavor, sample, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (x, y), _ = sample
    names = {"model": small_cnn(flavor=flavor), "x": x[:100], "y": y[:100]}
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), names)
    if "smaller" in names:
        assert count_macs(names["smaller"]).total == pytest.approx(0.5 * count_macs(names["model"]).total, rel=0.1)
    else:
        assert (tmp_path / "bundle" / "model.tflite").exists() and names["bundle"].verification.passed


def test_the_fit_example_has_twelve_lines_at_most():
    assert len([line for line in FIT.splitlines() if line.strip()]) <= 12


def test_commands_exist_with_the_options_shown():
    assert {name for name, _ in COMMANDS} == {
        "demo",
        "inspect",
        "prune",
        "channels",
        "sensitivity",
        "convert",
        "bundle",
        "verify",
        "benchmark",
    }
    for name, rest in COMMANDS:
        text = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).stdout
        assert all(option in text for option in re.findall(r"(?<=\s)--?[a-z]+", rest)), (name, rest)


def test_commands_run_one_after_the_other(sample, tmp_path, monkeypatch):
    """The block of the guide to the command line, on a small model of the reader's."""
    monkeypatch.chdir(tmp_path)
    (x, y), (x_test, y_test) = sample
    np.savez("data.npz", x_train=x[:100], y_train=y[:100], x_test=x_test[:50], y_test=y_test[:50])
    model = small_cnn(flavor=flavor.KERAS_3)
    model.save("model.keras")
    assert CliRunner().invoke(app, ["convert", "model.keras", "-o", "dense.tflite"]).exit_code == 0
    for name, rest in [command for command in COMMANDS if command[0] != "demo"]:
        done = CliRunner().invoke(app, [name, *rest.split()])
        assert done.exit_code == 0, (name, done.output)


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^\s*make (\w+)", README + (ROOT / "CONTRIBUTING.md").read_text(), re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target
