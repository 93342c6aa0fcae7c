"""A file that ends the process of LiteRT or HDF5 does not end this one."""

import contextlib
import importlib
import subprocess

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import ModelT
from nets.converted import convert

import edgeprune as ep
from edgeprune import crash_guard
from edgeprune.flavor import load_model
from edgeprune.report import file_errors
from edgeprune.search.trial.file_costs import file_outputs
from edgeprune.tflite import runtime


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file, and the same whose first operator lacks its weights, which ends a process that holds TensorFlow too."""
    folder = tmp_path_factory.mktemp("files")
    good = convert(convolution(), folder / "good.tflite")
    content = ModelT.InitFromPackedBuf(good.read_bytes())
    operator = content.subgraphs[0].operators[0]
    operator.inputs = np.array([operator.inputs[0], -1, operator.inputs[2]], np.int32)
    builder = flatbuffers.Builder()
    builder.Finish(content.Pack(builder), b"TFL3")
    (folder / "bad.tflite").write_bytes(builder.Output())
    return good, folder / "bad.tflite"


@pytest.fixture(autouse=True)
def nothing_was_tried(monkeypatch):
    monkeypatch.setattr(crash_guard, "_tried", set())


def convolution():
    """The model that the files are from."""
    keras = importlib.import_module("keras")
    return keras.Sequential([keras.Input(batch_shape=(1, 8, 8, 3), name="image"), keras.layers.Conv2D(4, 3)])


X = np.zeros((2, 8, 8, 3), "f4")


@pytest.mark.parametrize(
    "call",
    [
        ep.verify_tflite,
        lambda bad: ep.benchmark([bad.with_name("good.tflite"), bad], num_runs=1),
        lambda bad: ep.accuracy(bad, X, [0, 0]),
        lambda bad: ep.quantization_error(convolution(), bad, X),
        lambda bad: file_outputs(bad, convolution(), {"image": X}),
        lambda bad: ep.measure.Runtime(bad, use_xnnpack=False),
        lambda bad: ep.measure.Runtime(bad, reference=True),
    ],
    ids=["verify", "benchmark", "accuracy", "layers", "outputs", "plain kernels", "reference"],
)
def test_a_file_that_ends_the_interpreter_is_one_error(files, call):
    with pytest.raises(ValueError, match=r"bad.tflite (is damaged|does not load)"):
        call(files[1])


def test_a_file_that_is_made_to_be_compared_is_tried_first(files, monkeypatch):
    def export(model, path, *args, **options):
        path.write_bytes(files[1].read_bytes())

    monkeypatch.setattr(file_errors, "export_tflite", export)
    with pytest.raises(ValueError, match=r"model.tflite (is damaged|does not load)"):
        ep.quantization_error(convolution(), "int8", X)


def test_a_file_is_tried_on_the_kernels_that_it_is_opened_with(files, monkeypatch):
    tried = []
    monkeypatch.setattr(runtime, "try_out", lambda path, kernels: tried.append(kernels))
    for options in ({}, {"use_xnnpack": False}, {"keep_tensors": True}, {"reference": True}, {"isolated": False}):
        ep.measure.Runtime(files[0], **options)
    plain = "BUILTIN_WITHOUT_DEFAULT_DELEGATES"
    assert tried == ["AUTO", plain, plain, "BUILTIN_REF"]


def test_what_ends_that_process_is_one_error(files, monkeypatch):
    monkeypatch.setattr(crash_guard, "__file__", str(files[0].parent / "ends.py"))
    (files[0].parent / "ends.py").write_text("import os; os.abort()")
    with pytest.raises(ValueError, match=r"good.tflite is damaged: reading it ends the process \(exit code"):
        ep.verify_tflite(files[0])


def test_a_file_that_never_comes_to_an_end_is_one_error(files, monkeypatch):
    monkeypatch.setattr(crash_guard, "_SECONDS", 0.001)
    with pytest.raises(ValueError, match="good.tflite is damaged: reading it did not end within"):
        ep.verify_tflite(files[0])


def test_what_was_read_to_its_end_is_not_read_elsewhere_again(files, tmp_path, monkeypatch):
    started, run = [], subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: started.append(args) or run(*args, **options))
    changing = tmp_path / "changing.tflite"
    for content, processes in ((files[0], 1), (files[0], 1), (files[1], 2), (files[1], 3), (files[0], 3)):
        changing.write_bytes(content.read_bytes())
        with contextlib.suppress(ValueError):
            crash_guard.try_out(changing)
        assert len(started) == processes


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_models_are_read_elsewhere_first(tmp_path, monkeypatch, name):
    keras = importlib.import_module("keras")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save(tmp_path / name)
    assert load_model(tmp_path / name).count_params() == 15
    monkeypatch.setattr(crash_guard, "_SECONDS", 0.001)
    crash_guard._tried.clear()
    with pytest.raises(ValueError, match=f"{name} is damaged: reading it did not end within"):
        load_model(tmp_path / name)
    assert load_model(tmp_path / name, safe_mode=False).count_params() == 15
