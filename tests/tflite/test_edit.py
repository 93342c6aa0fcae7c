"""A .tflite file is walked as the reader and the interpreter see it, and a changed one computes what it should."""

import keras
import numpy as np
import pytest

from edgeprune.export import export_tflite
from edgeprune.tflite.edit import edited, in_order, new_operator, prefix, segment, with_names
from edgeprune.tflite.file import read_tflite
from edgeprune.tflite.graph import has_unit_scales, operators, scales, tensors, type_name, unpacked
from edgeprune.tflite.runtime import Runtime

X = np.random.default_rng(0).normal(size=(1, 6)).astype("float32")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Two inputs, two outputs, and a dense layer in the middle."""
    keras.utils.set_random_seed(0)
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    hidden = keras.layers.Dense(4, activation="tanh", name="hidden")(left - right)
    model = keras.Model(
        [left, right], [keras.layers.Dense(3, name="a")(hidden), keras.layers.Dense(2, name="b")(hidden)]
    )
    path = tmp_path_factory.mktemp("edit") / "m.tflite"
    export_tflite(model, path, verify=False)
    return path


def run(content, folder, inputs):
    (folder / "edited.tflite").write_bytes(content)
    return Runtime(folder / "edited.tflite", use_xnnpack=False).run(inputs)


def test_the_walk_finds_what_the_reader_reports(path):
    model, file = unpacked(path.read_bytes()), read_tflite(path)
    calls = list(operators(model))
    assert [call.name for call in calls] == [operator.name for operator in file.operators]
    assert [tuple(call.output(0).shape) for call in calls] == [operator.output_shapes[0] for operator in file.operators]
    assert {type_name(tensor) for tensor in tensors(model)} == {"float32"}
    dense = list(operators(model, "FULLY_CONNECTED"))
    assert len(dense) == file.operator_counts["FULLY_CONNECTED"] == 3
    assert "hidden" in dense[0].location
    assert dense[0].input(7) is None and scales(dense[0].input(1)) is None
    assert not has_unit_scales(path.read_bytes())


def test_a_change_that_changes_nothing_leaves_the_bytes(path):
    content = path.read_bytes()
    assert edited(content, lambda model: False) is content
    repacked = edited(content, lambda model: True)
    assert [call.name for call in operators(unpacked(repacked))] == [call.name for call in operators(unpacked(content))]


def test_an_operator_is_added(path, tmp_path):
    def negate_last_output(model):
        graph = model.subgraphs[0]
        last = graph.outputs[-1]
        graph.tensors.append(type(graph.tensors[last])())
        vars(graph.tensors[-1]).update({**vars(graph.tensors[last]), "name": b"negated"})
        graph.operators.append(new_operator(model, "NEG", [last], [len(graph.tensors) - 1]))
        graph.outputs = [*graph.outputs[:-1], len(graph.tensors) - 1]
        model.signatureDefs = None
        return True

    before = run(path.read_bytes(), tmp_path, [X, -X])
    after = run(edited(path.read_bytes(), negate_last_output), tmp_path, [X, -X])
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[1], -before[1])


def test_a_prefix_ends_with_its_last_operator(path, tmp_path):
    count = next(number for number, one in enumerate(read_tflite(path).operators, 1) if one.name == "SUB")
    (difference,) = run(prefix(path.read_bytes(), count), tmp_path, [X, 2 * X])
    np.testing.assert_allclose(difference, -X, rtol=1e-6)


def test_inputs_and_outputs_change_places_and_names(path, tmp_path):
    content = path.read_bytes()
    straight = run(content, tmp_path, [X, 3 * X])
    names = [[port.name for port in ports] for ports in (read_tflite(path).inputs, read_tflite(path).outputs)]
    swapped = in_order(content, *(each[::-1] for each in names))
    for one, other in zip(run(swapped, tmp_path, [3 * X, X]), straight[::-1], strict=True):
        np.testing.assert_array_equal(one, other)
    (tmp_path / "named.tflite").write_bytes(with_names(content, {"left": "left", "weiß": "right"}))
    assert {port.name for port in read_tflite(tmp_path / "named.tflite").inputs} == {"left", "weiß"}


def test_a_segment_computes_one_tensor_from_others(path, tmp_path):
    content = path.read_bytes()
    whole = Runtime(path, keep_tensors=True)
    whole.run([X, X + 1])
    calls = list(operators(unpacked(content)))
    hidden = next(call for call in calls if call.name == "TANH" or "hidden" in call.location)
    number, last = int(hidden.operator.outputs[0]), int(calls[-1].operator.outputs[0])
    ports = whole.tensors()
    cut, inputs = segment(content, {number}, last)
    assert inputs == [number]
    (tmp_path / "cut.tflite").write_bytes(cut)
    (made,) = Runtime(tmp_path / "cut.tflite", use_xnnpack=False).run([whole.output(ports[number])])
    np.testing.assert_allclose(made, whole.output(ports[last]), rtol=1e-6)
    everything, inputs = segment(content, set(), last)
    assert sorted(inputs) == sorted(port.index for port in whole.inputs.values())
    assert len(list(operators(unpacked(everything)))) < len(calls)
