"""A file is written in fewer bytes, computes the same, and its names say the same layers."""

import keras
import numpy as np
import pytest

from edgeprune import flavor as flavors
from edgeprune.conversion.plain import converted
from edgeprune.export import export_tflite
from edgeprune.export.diagnosis import paths_behind
from edgeprune.tflite.compact import compact
from edgeprune.tflite.edit import edited
from edgeprune.tflite.graph import operators, tensor_numbers, tensors, unpacked
from edgeprune.tflite.runtime import Runtime


def run(content, folder, inputs):
    (folder / "run.tflite").write_bytes(content)
    return Runtime(folder / "run.tflite", use_xnnpack=False).run(inputs)


def test_equal_scales_are_written_once_and_read_the_same(tmp_path):
    keras.utils.set_random_seed(0)
    convolutions = [keras.layers.Conv2D(16, 3, padding="same") for _ in range(3)]
    model = keras.Sequential([keras.Input((6, 6, 3)), *convolutions])
    x = np.random.default_rng(0).normal(size=(20, 6, 6, 3)).astype("float32")
    export_tflite(model, tmp_path / "m.tflite", "int8", x, verify=False)
    shared = (tmp_path / "m.tflite").read_bytes()  # as every file is written
    apart = edited(shared, lambda model: True)
    assert compact(apart, model.name) == shared
    # Of six equal lists of zero points one is left.
    assert len(apart) - len(shared) > 5 * (16 * 8)
    for one, other in zip(tensors(unpacked(apart)), tensors(unpacked(shared)), strict=True):
        np.testing.assert_array_equal(one.quantization.scale, other.quantization.scale)
        np.testing.assert_array_equal(one.quantization.zeroPoint, other.quantization.zeroPoint)
    codes = (100 * x[:1]).astype("int8")
    for one, other in zip(run(apart, tmp_path, [codes]), run(shared, tmp_path, [codes]), strict=True):
        np.testing.assert_array_equal(one, other)


def folded_net(flavor):
    """Layers that the converter fuses, a nested model, and a layer that is used twice."""
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inner = keras.Sequential(
        [
            keras.Input((8, 8, 6)),
            layers.DepthwiseConv2D(3, padding="same", name="depthwise"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
        ],
        name="inner",
    )
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(6, 3, padding="same", name="stem")(inputs)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_norm")(x))
    x = layers.Add(name="sum")([x, inner(x)])
    twice = layers.Conv2D(6, 1, name="twice")
    x = twice(twice(x))
    return keras.Model(
        inputs, layers.Dense(4, name="logits")(layers.GlobalAveragePooling2D(name="pool")(x)), name="net"
    )


@pytest.fixture
def as_the_converter_writes_it(monkeypatch):
    for module in ("edgeprune.export.convert", "edgeprune.conversion.plain"):
        monkeypatch.setattr(f"{module}.compact", lambda content, model_name: content)


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_names_say_the_same_layers_in_fewer_bytes(flavor, quantization, tmp_path, as_the_converter_writes_it):
    model = folded_net(flavor)
    x = np.random.default_rng(0).normal(size=(20, 8, 8, 3)).astype("float32")
    export_tflite(model, tmp_path / "m.tflite", quantization, x if quantization else None, verify=False)
    content = (tmp_path / "m.tflite").read_bytes()
    small = compact(content, model.name)
    before, after = unpacked(content), unpacked(small)
    for one, other in zip(operators(before), operators(after), strict=True):
        assert one.name == other.name and paths_behind(one.location, model) == paths_behind(other.location, model)
    names, short = ([tensor.name for tensor in tensors(one)] for one in (before, after))
    assert len(set(short)) == len(short) and sum(map(len, short)) < 0.75 * sum(map(len, names))
    assert len(small) < len(content) - (sum(map(len, names)) - sum(map(len, short))) + 4 * len(names)
    graph = before.subgraphs[0]
    for number in (*tensor_numbers(graph.inputs), *tensor_numbers(graph.outputs)):
        assert short[number] == names[number]
    given = [port.encode(x[:1]) for port in Runtime(tmp_path / "m.tflite").inputs.values()]
    for one, other in zip(run(content, tmp_path, given), run(small, tmp_path, given), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_file_that_was_written_so_stays_as_it_is(flavor):
    # The name of its only layer is the one that all names begin with, once that of the model is left out.
    keras = flavors.keras_module(flavor)
    layer = keras.layers.Conv2D(3, 2, activation="tanh", name="only")
    model = keras.Sequential([keras.Input((4, 4, 2)), layer], name="net")
    small = converted(model, None)
    assert compact(small, model.name) == small
    assert any(b"only" in tensor.name for tensor in tensors(unpacked(small)))


def test_a_name_that_is_taken_gets_a_number(flavor):
    model = folded_net(flavor)
    content = converted(model, "int8")

    def named_alike(unpacked):
        for tensor in unpacked.subgraphs[0].tensors:
            tensor.name = b"net/sum/Add"
        return True

    names = [tensor.name for tensor in tensors(unpacked(compact(edited(content, named_alike), "net")))]
    inside = [name for name in names if name != b"net/sum/Add"]
    assert len(set(inside)) == len(inside) > 10
