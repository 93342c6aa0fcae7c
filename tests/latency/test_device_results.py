"""Files for a device: written, timed by a stand-in for its tool, read, and planned with."""

import csv
import os
import shutil
import subprocess

import numpy as np
import pytest
from typer.testing import CliRunner

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.cli import app
from edgeprune.latency.device_results import write_files_to_time
from edgeprune.tflite.runtime import Runtime

PRINTED = """INFO: Loaded model files/00000.tflite
Inference timings in us: Init: 812, First inference: 97, Warmup (avg): 31.5, Inference (avg): {time}
"""


def net():
    keras = flavors.keras_module("keras")
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(16, 3, padding="same", name="a")(x)
    x = keras.layers.Conv2D(16, 3, padding="same", name="b")(x)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files that were timed: a microsecond for each thousand of the products that a convolution makes."""
    folder = ep.write_latency_files(net(), tmp_path_factory.mktemp("device") / "files", max_ratio=0.75)
    (folder / "results").mkdir()
    with (folder / "operators.csv").open(newline="") as index:
        for row in csv.DictReader(index):
            words = row["operator"].split()
            time = 1.5
            if words[0] == "CONV_2D":
                time = 64 * np.prod([int(size) for size in words[2].partition(":")[0].split("x")]) / 1000
            elif words[0] == "MODEL":
                time = 64 * (16 * 27 + 16 * 16 * 9) / 1000
            (folder / "results" / f"{row['file']}.txt").write_text(PRINTED.format(time=time))
    return folder


def test_every_file_runs_and_a_plan_can_be_made(folder, tmp_path):
    files = sorted((folder / "files").iterdir())
    for path in files:
        Runtime(path).invoke()
    assert (folder / "run.sh").stat().st_mode & 0o100 and "--use_xnnpack=true" in (folder / "run.sh").read_text()
    table = ep.read_latency_results(folder, "Pixel")
    assert len(table.times) == len(files) and table.device == "Pixel"
    assert table.times["NOTHING"] == pytest.approx(1.5e-3)
    saved = table.save(tmp_path / "pixel.csv")
    plan = ep.plan_channels(net(), target_latency=0.5, max_ratio=0.75, latency_table=saved)
    assert plan.latency.before == pytest.approx(64 * (16 * 27 + 16 * 16 * 9) / 1e6)
    assert plan.latency.kept <= 0.5 and plan.latency.measured is None
    assert "predicted for phone in float32 (requested 0.5; measured on pixel)" in str(plan)
    assert plan.macs.kept == pytest.approx(plan.latency.kept, abs=0.06)


def test_folders_that_are_refused(folder, tmp_path):
    with pytest.raises(FileExistsError):
        ep.write_latency_files(net(), folder)
    with pytest.raises(FileNotFoundError, match=r"No operators.csv in .*: pass a folder that edgeprune latency-files"):
        ep.read_latency_results(tmp_path)
    (tmp_path / "operators.csv").write_text("file,operator\n00000,ADD\n")
    with pytest.raises(FileNotFoundError, match=r"No result in .*: run .*run.sh first"):
        ep.read_latency_results(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "00000.txt").write_text("killed")
    with pytest.raises(ValueError, match=r"has an 'Inference \(avg\)': benchmark_model ran no file to its end"):
        ep.read_latency_results(tmp_path)


def test_files_that_do_not_run_take_no_part(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "files")
    with (copy / "operators.csv").open(newline="") as index:
        refused = {row["operator"]: row["file"] for row in csv.DictReader(index) if row["operator"].startswith("MEAN")}
    assert refused
    for name in refused.values():
        (copy / "results" / f"{name}.txt").write_text("ERROR: failed to build the interpreter")
    table = tmp_path / "pixel.csv"
    done = CliRunner().invoke(app, ["latency-table", str(copy), "-o", str(table)])
    assert done.exit_code == 0, done.output
    assert f"note: {len(refused)} files did not run to their end, and take no part: 'MEAN" in done.output
    assert set(ep.read_latency_table(table).not_run) == set(refused)
    plan = ep.plan_channels(net(), target_latency=0.5, max_ratio=0.75, latency_table=table)
    assert plan.latency.kept <= 0.5


def test_the_command_writes_the_widths_that_a_plan_may_choose(folder, tmp_path):
    net().save(tmp_path / "model.keras")
    options = ["--round-to", "4", "--min-channels", "8", "--max-ratio", "0.5"]
    words = ["latency-files", str(tmp_path / "model.keras"), "-o", str(tmp_path / "new"), *options]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    wanted = ep.write_latency_files(net(), tmp_path / "same", round_to=4, min_channels=8, max_ratio=0.5)
    assert (tmp_path / "new" / "operators.csv").read_text() == (wanted / "operators.csv").read_text()
    assert (wanted / "operators.csv").read_text() != (folder / "operators.csv").read_text()


TOOL = """#!/bin/sh
for word; do case "$word" in --graph=*1.tflite) echo refused; exit 1;; esac; done
echo "$@"; echo "Inference (avg): 240.5"
"""
ADB = """#!/bin/sh
# Stands in for a phone: a folder of this machine.
case "$1" in
    get-state) [ -d "$PHONE" ];;
    shell) sh -c "$(echo "$2" | sed "s#/data/local/tmp#$PHONE#g")";;
    push) cp -r "$2" "$(echo "$3" | sed "s#/data/local/tmp#$PHONE#")";;
    pull) cp -r "$(echo "$2" | sed "s#/data/local/tmp#$PHONE#")" "$3";;
esac
"""


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
@pytest.mark.parametrize("where", ["phone", "local", "no phone"])
def test_the_script_times_on_a_phone_or_where_it_runs(tmp_path, where):
    folder = write_files_to_time(tmp_path / "some files", {f"ADD {number}": lambda: b"" for number in range(3)})
    (tmp_path / "phone").mkdir()
    for name, content in (("tool", TOOL), ("adb", ADB)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    phone = tmp_path / ("nowhere" if where == "no phone" else "phone")
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PHONE": str(phone)}
    words = ["sh", str(folder / "run.sh"), "tool", *(["local"] if where == "local" else []), "2"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    if where == "no phone":
        assert done.returncode == 1 and "adb sees no phone; to time on this machine pass local" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert "files/00001.tflite does not run" in done.stdout
    assert "--num_threads=2 " in (folder / "results" / "00000.txt").read_text()
    table = ep.read_latency_results(folder)
    assert table.not_run == ["ADD 1"] and table.times["ADD 2"] == 0.2405


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_the_script_says_how_it_is_used(tmp_path):
    folder = write_files_to_time(tmp_path / "files", {"ADD": lambda: b""})
    done = subprocess.run([str(folder / "run.sh")], capture_output=True, text=True)
    assert done.returncode == 2 and "usage: run.sh path/to/benchmark_model [local] [threads]" in done.stderr
