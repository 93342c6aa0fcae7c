"""A file as a function of its widths, compared with what the converter makes of a model at other widths."""

import numpy as np
import pytest

from edgeprune import flavor as flavors
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.plan.lines import Lines, probe_masks
from edgeprune.channels.rebuild.slicing import rebuild
from edgeprune.conversion.plain import converted
from edgeprune.latency.cost import total
from edgeprune.latency.footprint import file_terms
from edgeprune.latency.sizes import Size, SizeFinder, UnlikeFilesError
from edgeprune.latency.template import FileTemplate
from edgeprune.tflite.compact import compact
from edgeprune.tflite.file import read_tflite
from edgeprune.tflite.four_bits import with_four_bit_weights
from edgeprune.tflite.runtime import Runtime


def net(flavor):
    """A bit of everything: a residual, two branches, a gate, a flattened end."""
    layers = flavors.keras_module(flavor).layers
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(12, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.Conv2D(12, 1)(layers.DepthwiseConv2D(3, padding="same", activation="relu")(x))
    x = layers.Add()([x, y])
    gate = layers.Dense(12, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 12))(gate)])
    x = layers.Concatenate()([layers.Conv2D(6, 3, strides=2, padding="same")(x), layers.MaxPooling2D()(x)])
    x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(5, activation="softmax")(layers.Dense(10, activation="relu")(x)))


def template_of(model, quantization):
    graph = trace(model)
    lines = Lines.of(graph)
    masks = [graph.full_mask(), *probe_masks(graph, lines, [group for group in graph.groups if not group.frozen])]
    contents = [converted(rebuild(graph, mask), quantization) for mask in masks]
    return graph, lines, FileTemplate(contents, np.stack([lines.counts(mask) for mask in masks])), contents


def another_mask(graph, share=0.5):
    mask = graph.full_mask()
    for number, group in enumerate(group for group in graph.groups if not group.frozen):
        mask[group.classes[max(1, round(group.size * share) - number % 2) :]] = False
    return mask


def operators_of(path, content):
    path.write_bytes(content)
    return [(op.name, op.input_shapes, op.output_shapes, op.output_dtypes) for op in read_tflite(path).operators]


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_a_resized_file_has_the_operators_of_a_converted_one(flavor, quantization, tmp_path):
    graph, lines, template, contents = template_of(net(flavor), quantization)
    mask = another_mask(graph)
    expected = operators_of(tmp_path / "real.tflite", converted(rebuild(graph, mask), quantization))
    resized = template.resized(lines.counts(mask))
    assert operators_of(tmp_path / "resized.tflite", resized) == expected
    assert abs(len(resized) / (tmp_path / "real.tflite").stat().st_size - 1) < 0.2
    runtime = Runtime(tmp_path / "resized.tflite")
    runtime.invoke()
    # At its own widths a file is the same again, to the values it computes.
    same = tmp_path / "same.tflite"
    same.write_bytes(template.resized(template.counts))
    original = tmp_path / "original.tflite"
    original.write_bytes(contents[0])
    values = [np.ones(next(iter(Runtime(same).inputs.values())).shape, next(iter(Runtime(same).inputs.values())).dtype)]
    for a, b in zip(Runtime(same).run(values), Runtime(original).run(values), strict=True):
        np.testing.assert_array_equal(a, b)


def test_files_of_one_operator_compute_what_they_say(tmp_path):
    graph, lines, template, _ = template_of(net("keras"), None)
    counts = lines.counts(another_mask(graph))
    rng = np.random.default_rng(0)
    checked = set()
    for place, operator in enumerate(template.operators):
        assert operator.alone
        path = tmp_path / f"{place}.tflite"
        path.write_bytes(template.alone(place, counts))
        runtime, file = Runtime(path), read_tflite(path)
        assert [op.name for op in file.operators] == [operator.name]
        given = [rng.standard_normal(port.shape).astype(np.float32) for port in runtime.inputs.values()]
        made = runtime.run(given)[0]
        weights = [tensor.values() for tensor in file.tensors if tensor.is_weight]
        if operator.name == "FULLY_CONNECTED":
            kernel = next(weight for weight in weights if weight.ndim == 2)
            bias = next((weight for weight in weights if weight.ndim == 1), 0)
            plain = given[0].reshape(-1, kernel.shape[1]) @ kernel.T + bias
            fused = file.operators[0].options.fusedActivationFunction
            np.testing.assert_allclose(made, np.maximum(plain, 0) if fused else plain, rtol=1e-4, atol=1e-5)
            checked.add(operator.name)
        elif operator.name == "ADD" and len(given) == 2:
            np.testing.assert_allclose(made, given[0] + given[1], rtol=1e-6)
            checked.add(operator.name)
        elif operator.name == "CONV_2D" and weights[0].shape[1:3] == (1, 1):
            kernel = next(weight for weight in weights if weight.ndim == 4)
            bias = next(weight for weight in weights if weight.ndim == 1)
            np.testing.assert_allclose(made, given[0] @ kernel[:, 0, 0].T + bias, rtol=1e-4, atol=1e-5)
            checked.add(operator.name)
    assert checked == {"FULLY_CONNECTED", "ADD", "CONV_2D"}


def test_the_text_of_an_operator_names_what_its_time_depends_on():
    _, lines, template, _ = template_of(net("keras"), None)
    keys = [template.key(place, template.counts) for place in range(len(template.operators))]
    assert keys[0].startswith("CONV_2D 1x8x8x3:float32 12x3x3x3:float32* 12:float32* -> 1x8x8x12:float32 ")
    assert "strideH=1" in keys[0] and "padding" not in keys[0]  # SAME is the schema's 0
    narrower = template.counts.copy()
    narrower[list(template.operators[0].lines)] = 8
    assert template.key(0, narrower).startswith("CONV_2D 1x8x8x3:float32 8x3x3x3:float32*")


def test_sizes_are_told_apart_by_several_files():
    sizes = SizeFinder(np.array([[8, 8, 16], [5, 6, 12], [4, 4, 9]]))
    assert sizes.explaining([8, 5, 4]) == Size(1, (0,))
    assert sizes.explaining([8, 6, 4]) == Size(1, (1,))
    assert sizes.explaining([8 * 49, 6 * 49, 4 * 49]) == Size(49, (1,))
    assert sizes.explaining([8 * 16, 5 * 12, 4 * 9]) == Size(1, (0, 2))
    assert sizes.explaining([7, 7, 7]) == Size(7)
    assert Size(3, (0, 2)).at(np.array([2, 5, 7])) == 42
    with pytest.raises(UnlikeFilesError, match=r"no axis of the model has the sizes \[8, 7, 6\]"):
        sizes.explaining([8, 7, 6])


def test_files_of_other_operators_are_refused():
    keras = flavors.keras_module("keras")
    contents = []
    for activation in ("relu", "tanh"):
        inputs = keras.Input((4,))
        outputs = keras.layers.Dense(3, activation=activation)(inputs)
        contents.append(converted(keras.Model(inputs, outputs), None))
    with pytest.raises(UnlikeFilesError, match="other operators at other widths"):
        FileTemplate(contents, np.array([[3], [3]]))


@pytest.mark.parametrize(
    "readers", [("CONV_2D", "DEPTHWISE_CONV_2D"), ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")]
)
def test_bytes_of_weights_of_four_bits(readers):
    graph, lines, template, contents = template_of(net("keras"), "int8")
    mask = another_mask(graph)
    terms = file_terms(template, four_bit_operators=readers)
    for content, kept in ((contents[0], graph.full_mask()), (converted(rebuild(graph, mask), "int8"), mask)):
        narrow = len(compact(with_four_bit_weights(content, readers, nearest=True)[0], model_name="net"))
        assert total(terms, lines.counts(kept)) == pytest.approx(narrow, rel=0.02) and narrow < len(content)
