"""Files for a device: written, timed by a stand-in for its tool, read, and planned with."""

import csv

import numpy as np
import pytest

import edgeprune as ep
from edgeprune import flavor as flavors
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
    with pytest.raises(ValueError, match=r"has no 'Inference \(avg\)': benchmark_model did not run 00000.tflite"):
        ep.read_latency_results(tmp_path)
