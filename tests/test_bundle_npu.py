"""NPU bundles: compiled by Vela, with what stays on the CPU told, and refused where nothing runs on the NPU."""

import json
import shutil
import subprocess

import keras
import numpy as np
import pytest

from edgeprune.export.bundle import export_bundle
from edgeprune.measure import vela
from edgeprune.targets import TARGETS

pytest.importorskip("ethosu", reason="ethos-u-vela is not installed")


def _net(*layers):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((8, 8, 3), name="image"), *layers], name="tiny_net")


def _convolutional():
    layers = keras.layers
    return _net(
        layers.Conv2D(8, 3, activation="relu"), layers.GlobalAveragePooling2D(), layers.Dense(3, activation="softmax")
    )


def _samples():
    return np.random.default_rng(0).normal(size=(12, 8, 8, 3)).astype(np.float32)


@pytest.mark.parametrize("name", ["ethos-u55-32", "ethos-u55-128", "ethos-u65-256", "ethos-u85-256", "ethos-u85-1024"])
def test_a_network_runs_on_the_npu_alone(tmp_path, name):
    made = export_bundle(_convolutional(), tmp_path / "b", name, _samples(), labels=["a", "b", "c"])
    npu = made.figures["npu"]
    assert npu["accelerator"] == name and npu["cycles_estimate"] > 0 and npu["sram_bytes"] > 0
    assert made.figures["cpu_operators"] == [] and made.figures["cpu_share_of_macs"] == 0
    assert npu["milliseconds_estimate"] > 0
    assert {"model.tflite", "model_vela.tflite", "model_data.cc", "model_ops.h", "README.md"} <= set(made.files)
    assert "AddEthosU" in (tmp_path / "b" / "model_ops.h").read_text()
    card = json.loads((tmp_path / "b" / "model_card.json").read_text())
    assert card["figures"]["npu"] == npu


def test_every_npu_has_a_system():
    for entry in TARGETS.values():
        if entry.kind == "npu":
            assert vela._system(entry.accelerator)
    with pytest.raises(vela.VelaError, match="no accelerator 'ethos-n78'"):
        vela._system("ethos-n78")


def test_what_stays_on_the_cpu_is_told_with_its_layer(tmp_path):
    layers = keras.layers
    net = _net(
        layers.Conv2D(8, 3, activation="relu", name="first"),
        layers.Conv2D(8, 3, strides=4, padding="valid", name="wide_stride"),
        layers.Lambda(lambda x: keras.ops.floor(x), name="floor"),
        layers.Flatten(),
        layers.Dense(3, name="head"),
    )
    made = export_bundle(net, tmp_path / "b", "ethos-u55-128", _samples())
    assert any("FLOOR in layer 'floor'" in text for text in made.figures["cpu_operators"])
    assert "AddFloor" in (tmp_path / "b" / "model_ops.h").read_text()
    assert any("stay on the CPU" in note for note in made.notes)
    assert 0 <= made.figures["cpu_share_of_macs"] < 1


def test_a_model_of_which_nothing_runs_there_is_refused(tmp_path):
    net = _net(keras.layers.Lambda(lambda x: keras.ops.floor(x), name="floor"))
    with pytest.raises(ValueError, match="Nothing of model 'tiny_net' would run on ethos-u55-128"):
        export_bundle(net, tmp_path / "b", "ethos-u55-128", _samples())
    assert not list(tmp_path.iterdir())


def test_junk_is_told_before_vela(tmp_path):
    path = tmp_path / "junk.tflite"
    path.write_bytes(b"junk and more junk")
    with pytest.raises(ValueError, match="is not a .tflite file"):
        vela.compile_for_npu(path, "ethos-u55-128", tmp_path / "out.tflite")


def test_a_killed_vela_is_an_error(tmp_path, monkeypatch):
    from edgeprune.export.tflite import export_tflite

    export_tflite(_convolutional(), tmp_path / "m.tflite", "int8", _samples(), verify=False)
    done = subprocess.CompletedProcess([], -8, "", "")
    monkeypatch.setattr(vela.subprocess, "run", lambda *a, **k: done)
    with pytest.raises(vela.VelaError, match="ended by signal 8"):
        vela.compile_for_npu(tmp_path / "m.tflite", "ethos-u55-128", tmp_path / "out.tflite")


def test_a_missing_vela_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(vela.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'edgeprune\[npu\]'"):
        export_bundle(_convolutional(), tmp_path / "b", "ethos-u55-128", _samples())


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_the_code_compiles(tmp_path):
    from pathlib import Path

    made = export_bundle(_convolutional(), tmp_path / "b", "ethos-u55-128", _samples())
    main = tmp_path / "main.cc"
    main.write_text(
        '#include "model_data.h"\n#include "model_ops.h"\n'
        "int main() { tiny_net::OpResolver r; return tiny_net::RegisterOps(r) + (tiny_net::kModelData[4] != 'T'); }\n"
    )
    stub = Path(__file__).parent / "tflm_stub"
    command = ["g++", "-std=c++17", "-Wall", "-Werror", f"-I{made.directory}", f"-I{stub}", str(main)]
    command += [str(made.directory / "model_data.cc"), "-o", str(tmp_path / "main")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert subprocess.run([str(tmp_path / "main")]).returncode == 0
