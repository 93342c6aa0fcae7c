"""NPU bundles: compiled by Vela, with what stays on the CPU told, and refused where nothing runs on the NPU."""

import dataclasses
import json
import re
import subprocess

import keras
import numpy as np
import pytest
from bundle.firmware_host import compile_program, follow_readme, needs_cmake, needs_compiler, run_program

from edgeprune.bundle.bundle import export_bundle
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


@needs_compiler
def test_inputs_and_outputs_in_uint8(tmp_path):
    made = export_bundle(_convolutional(), tmp_path / "b", "ethos-u55-128", _samples()[:2], integer_io="uint8")
    assert "uint8_t" in (made.directory / "model_config.h").read_text()
    program = compile_program(made.directory, "test_main.cc", tmp_path / "test")
    done = run_program(program, tmp_path, made.directory / "model.tflite")
    assert done.returncode == 0 and "2 samples, 0 values differ" in done.stdout, done.stdout


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
    assert any("run on the CPU" in note for note in made.notes)
    assert 0 <= made.figures["cpu_share_of_macs"] < 1


def test_what_neither_the_npu_nor_its_cpu_computes_is_refused(tmp_path):
    layers = keras.layers
    root = layers.Lambda(lambda x: keras.ops.sqrt(1 + x), name="root")
    net = _net(layers.Conv2D(8, 3, activation="relu", name="first"), root, layers.Flatten(), layers.Dense(3))
    with pytest.raises(ValueError, match="neither the NPU nor its CPU has a kernel for SQRT in layer 'root'"):
        export_bundle(net, tmp_path / "b", "ethos-u55-128", _samples())


def test_a_model_of_which_nothing_runs_there_is_refused(tmp_path):
    net = _net(keras.layers.Lambda(lambda x: keras.ops.floor(x), name="floor"))
    with pytest.raises(ValueError, match="Nothing of model 'tiny_net' would run on ethos-u55-128"):
        export_bundle(net, tmp_path / "b", "ethos-u55-128", _samples())
    assert not list(tmp_path.iterdir())


def test_where_the_reference_kernels_lack_an_operator_the_fast_ones_give_the_golden_vectors(tmp_path):
    layers = keras.layers
    net = _net(
        layers.Conv2D(4, 3, name="stem"),
        layers.Lambda(lambda x: keras.ops.tile(x, (1, 2, 1, 1)), name="twice"),
        layers.Flatten(),
        layers.Dense(3, name="head"),
    )
    made = export_bundle(net, tmp_path / "b", "ethos-u55-128", _samples())
    assert made.verification.operators["TILE"] == 1 and made.figures["cpu_operators"] == []
    assert any("no reference kernel for TILE in layer 'twice'" in note for note in made.notes)
    readme = (tmp_path / "b" / "README.md").read_text()
    assert "what LiteRT's fast kernels make of" in readme and "a difference of 2 steps" in readme
    golden = re.findall(
        r"kGoldenOutput_head\[kGoldenCount\]\[3\] = \{(.*?)\};", (tmp_path / "b/golden_vectors.h").read_text(), re.S
    )
    assert len(re.findall(r"-?\d+", golden[0])) == 3 * 8


@pytest.mark.parametrize("kind", ["upsampled", "lstm"])
def test_layers_of_keras_3_reach_the_npu(tmp_path, rng, kind):
    layers = keras.layers
    keras.utils.set_random_seed(0)
    stack = {
        "upsampled": [keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.UpSampling2D(), layers.Flatten()],
        "lstm": [keras.Input((8, 8)), layers.LSTM(4)],
    }[kind]
    net = keras.Sequential([*stack, layers.Dense(2, name="head")], name=kind)
    made = export_bundle(net, tmp_path / "b", "ethos-u55-128", rng.random((5, *net.input_shape[1:])).astype(np.float32))
    assert made.figures["cpu_operators"] == [] and "TILE" not in made.verification.operators
    assert ("interpreter.Reset()" in (tmp_path / "b" / "README.md").read_text()) == (kind == "lstm")


def test_junk_is_told_before_vela(tmp_path):
    path = tmp_path / "junk.tflite"
    path.write_bytes(b"junk and more junk")
    with pytest.raises(ValueError, match="is not a .tflite file"):
        vela.compile_for_npu(path, "ethos-u55-128", tmp_path / "out.tflite")


def test_a_killed_vela_is_an_error(tmp_path, monkeypatch):
    from edgeprune.export.convert import export_tflite

    export_tflite(_convolutional(), tmp_path / "m.tflite", "int8", _samples(), verify=False)
    done = subprocess.CompletedProcess([], -8, "", "")
    monkeypatch.setattr(vela.subprocess, "run", lambda *a, **k: done)
    with pytest.raises(vela.VelaError, match="ended by signal 8"):
        vela.compile_for_npu(tmp_path / "m.tflite", "ethos-u55-128", tmp_path / "out.tflite")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    labels = ["a", "größe", "c"]
    return export_bundle(
        _convolutional(), tmp_path_factory.mktemp("npu") / "b", "ethos-u55-128", _samples(), labels=labels
    )


def test_the_array_is_the_compiled_file_aligned(bundle):
    from ai_edge_litert.schema_py_generated import Model

    text = (bundle.directory / "model_data.cc").read_text()
    values = re.search(r"= \{(.*)\};", text, re.DOTALL)[1]
    content = (bundle.directory / "model_vela.tflite").read_bytes()
    assert bytes(int(value) for value in values.split(",") if value.strip()) == content
    model = Model.GetRootAs(content)
    graph = model.Subgraphs(0)
    numbers = {graph.Tensors(number).Buffer() for number in range(graph.TensorsLength())}
    buffers = [model.Buffers(number) for number in numbers]
    starts = [buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in buffers if buffer.DataLength() > 16]
    assert len(starts) >= 2 and all(start % 16 == 0 for start in starts), "commands and weights, as the NPU reads them"


def test_the_compiled_file_has_the_inputs_and_outputs_of_the_other(bundle):
    from ai_edge_litert.schema_py_generated import Model

    def ports(name):
        graph = Model.GetRootAs((bundle.directory / name).read_bytes()).Subgraphs(0)
        numbers = [*graph.InputsAsNumpy(), *graph.OutputsAsNumpy()]
        tensors = [graph.Tensors(number) for number in numbers]
        return [(t.ShapeAsNumpy().tolist(), t.Type(), t.Quantization().Scale(0)) for t in tensors]

    assert ports("model_vela.tflite") == ports("model.tflite")


def test_the_arena_is_vela_s_plan_and_a_margin(bundle):
    arena, npu = bundle.figures["arena"], bundle.figures["npu"]
    assert arena["head"] == npu["sram_bytes"], "the SRAM is shared, so it holds the tensors and nothing else"
    assert arena["bytes"] == arena["head"] + arena["tail"] < arena["with_margin"]
    config = (bundle.directory / "model_config.h").read_text()
    assert f"kArenaBytes = {arena['with_margin']};" in config and "kFastMemoryBytes = 0;" in config


def test_a_dedicated_sram_is_told(tmp_path):
    made = export_bundle(_convolutional(), tmp_path / "b", "ethos-u65-256", _samples())
    config = (tmp_path / "b" / "model_config.h").read_text()
    assert f"kFastMemoryBytes = {made.figures['npu']['sram_bytes']};" in config
    assert "kFastMemoryBytes" in (tmp_path / "b" / "README.md").read_text()


@needs_compiler
def test_the_example_compiles_and_runs(bundle, tmp_path):
    program = compile_program(bundle.directory, "example_main.cc", tmp_path / "example")
    done = run_program(program, tmp_path, bundle.directory / "model.tflite")
    assert done.returncode == 0 and re.search("dense.*: (a|größe|c)", done.stdout), done.stdout
    assert (tmp_path / "model").read_bytes() == (bundle.directory / "model_vela.tflite").read_bytes()


@needs_cmake
def test_the_readme_is_all_a_firmware_developer_needs(bundle, tmp_path):
    _, build = follow_readme(bundle.directory, tmp_path)
    done = run_program(build / "tiny_net_model_test", tmp_path, bundle.directory / "model.tflite")
    assert done.returncode == 0 and "8 samples, 0 values differ" in done.stdout


def test_a_model_too_big_for_its_board_names_the_layer(tmp_path):
    small_ram = dataclasses.replace(TARGETS["ethos-u55-128"], name="small", ram_bytes=4000)
    with pytest.raises(ValueError, match=r"does not fit small: .* 4,000 bytes of RAM\. Layer 'conv2d.*' sets it"):
        export_bundle(_convolutional(), tmp_path / "b", small_ram, _samples())
    small_flash = dataclasses.replace(TARGETS["ethos-u55-128"], name="small", flash_bytes=2000)
    with pytest.raises(ValueError, match="bytes of flash .* the rest an estimate"):
        export_bundle(_convolutional(), tmp_path / "b", small_flash, _samples())
    assert not list(tmp_path.iterdir())


def _recurrent(layers):
    return (6, 4), layers.Bidirectional(layers.GRU(3))


def _enlarging(layers):
    return (4, 4, 2), layers.UpSampling2D()


@pytest.mark.parametrize("flavor", ["tf_keras", "keras"])
@pytest.mark.parametrize("net", [_recurrent, _enlarging])
def test_layers_that_are_converted_for_devices_reach_the_npu(tmp_path, net, flavor):
    chosen = pytest.importorskip(flavor)
    shape, layer = net(chosen.layers)
    model = chosen.Sequential([chosen.Input(shape), layer, chosen.layers.Flatten(), chosen.layers.Dense(2)], name="net")
    samples = np.random.default_rng(0).normal(size=(12, *shape)).astype(np.float32)
    made = export_bundle(model, tmp_path / "b", "ethos-u55-128", samples)
    assert made.figures["npu"]["cycles_estimate"] > 0 and made.figures["arena"]["bytes"] > 0
