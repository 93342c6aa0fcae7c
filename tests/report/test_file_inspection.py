"""What a .tflite file holds, against the interpreter's own description of it and the metadata that were written."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from nets.converted import convert, images, small_cnn

import edgeprune as ep
from edgeprune import flavor
from edgeprune.report.file_inspection import inspect_tflite


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("inspected") / "int8.tflite"
    return convert(small_cnn(flavor.keras_module(flavor.KERAS_3)), path, "int8", images())


def test_inputs_and_outputs_are_those_the_interpreter_names(file):
    interpreter = Interpreter(str(file))
    found = inspect_tflite(file)
    for ports, details in (
        (found.inputs, interpreter.get_input_details()),
        (found.outputs, interpreter.get_output_details()),
    ):
        assert len(ports) == len(details)
        for port, detail in zip(ports, details, strict=True):
            scale, zero_point = detail["quantization"]
            assert port.shape == tuple(detail["shape_signature"]) and np.dtype(port.dtype) == detail["dtype"]
            assert (port.scale or 0.0, port.zero_point) == pytest.approx((scale, zero_point))
            assert f"{scale:.6g}" in str(found) or not scale
    (signature,) = interpreter.get_signature_list().values()
    assert sorted(port.name for port in found.inputs) == sorted(signature["inputs"])


def test_sizes_operators_and_weights(file):
    found, content = inspect_tflite(file), ep.read_tflite(file)
    assert found.size.bytes == file.stat().st_size and found.macs.total == ep.count_macs_of_file(file).total
    assert found.parameters == sum(weight.elements for weight in content.weights)
    assert sum(found.operators.values()) == len(content.operators)
    text = str(found)
    assert "passed" not in text
    for name, count in found.operators.items():
        assert [name, str(count)] in [line.split() for line in text.splitlines()]
    for weight in found.weights:
        assert any(line.startswith(f"{weight.name} ") for line in text.splitlines()), "whole and on one line"
    assert json.loads(json.dumps(found.to_dict()))["quantization"] == "int8"


def test_metadata_and_files_behind_the_model(file, tmp_path):
    path = tmp_path / "named.tflite"
    path.write_bytes(file.read_bytes())
    classes = inspect_tflite(file).outputs[0].shape[-1]
    output = ep.TensorMetadata("score", labels=tuple(f"class {number}" for number in range(classes)))
    image = ep.TensorMetadata("picture", mean=(127.5,), std=(127.5,))
    ep.write_metadata(path, ep.ModelMetadata("Digits", author="A. Person", inputs=(image,), outputs=(output,)))
    found = inspect_tflite(path)
    assert found.metadata == ep.read_metadata(path)
    assert found.associated_files == {entry.filename: entry.file_size for entry in zipfile.ZipFile(path).infolist()}
    text = str(found)
    assert "Digits" in text and "A. Person" in text and f"score, {classes} labels" in text
    assert all(name in text for name in found.associated_files) and "mean 127.5" in text
    assert "metadata      none" in str(inspect_tflite(file))


def test_a_file_cut_short_is_one_error(file, tmp_path):
    path = tmp_path / "cut.tflite"
    path.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ValueError, match="damaged or cut short"):
        inspect_tflite(path)


def test_a_float_island_is_listed(rng, tmp_path):
    keras = flavor.keras_module(flavor.KERAS_3)
    layers = [keras.layers.Conv3D(3, 2, name="cube"), keras.layers.Flatten(), keras.layers.Dense(2, name="head")]
    model = keras.Sequential([keras.Input((4, 4, 4, 2)), *layers])
    result = ep.export_tflite(model, tmp_path / "m.tflite", "int8", rng.normal(size=(8, 4, 4, 4, 2)), verify=False)
    found = inspect_tflite(result.path)
    assert [island.operators for island in found.float_islands] == [("CONV_3D",)]
    assert "float island  CONV_3D (" in str(found) and "cube" in str(found.float_islands[0])
    assert json.loads(json.dumps(found.to_dict()))["float_islands"][0]["operators"] == ["CONV_3D"]
