"""Models of open length or size: their MACs are for a shape that is asked for or chosen, and it is named."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.channels.graph.trace import trace
from edgeprune.cli import app
from edgeprune.measure.macs import count_macs


@pytest.fixture
def keras(flavor):
    return flavors.keras_module(flavor)


def images(keras):
    L = keras.layers
    i = keras.Input((None, None, 3), name="image")
    x = L.MaxPooling2D()(L.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="conv")(i))
    x = L.GlobalAveragePooling2D()(L.Conv2D(6, 3, name="deep")(x))
    return keras.Model(i, L.Dense(2, name="head")(L.Dense(40, name="wide")(x)), name="images")


def words(keras):
    L = keras.layers
    i = keras.Input((None,), dtype="int32", name="words")
    x = L.GRU(6, return_sequences=True, name="gru")(L.Embedding(2, 8, name="table")(i))
    return keras.Model(i, L.Dense(2, name="head")(L.GlobalMaxPooling1D()(x)), name="words")


def nested(keras):
    """Open inside, and called on pictures of one size."""
    i = keras.Input((12, 12, 3), name="picture")
    return keras.Model(i, images(keras)(i), name="nested")


@pytest.mark.parametrize("build", [images, words, nested], ids=lambda build: build.__name__)
def test_the_macs_of_a_plan_are_those_that_are_counted(keras, build):
    model = build(keras)
    graph = trace(model)
    (shape,) = graph.example.shapes.values()
    assert graph.macs == count_macs(model, np.zeros(shape, "int32" if build is words else "float32")).total
    assert graph.macs == ep.inspect(model).macs and ep.inspect(model).example == graph.example
    assert graph.example.chosen == (build is not nested)
    plan = ep.plan_channels(model, target_macs=0.5)
    smaller = plan.apply()
    assert plan.macs.after == count_macs(smaller, np.zeros(shape, "int32" if build is words else "float32")).total
    assert [tensor.shape[1:] for tensor in smaller.inputs] == [tensor.shape[1:] for tensor in model.inputs]


def test_the_shape_that_is_asked_for(keras):
    keras.utils.set_random_seed(0)
    model = images(keras)
    for shape in ((32, 48, 3), (1, 32, 48, 3), {"image": (32, 48, 3)}, [4, 32, 48, 3]):
        found = ep.inspect(model, input_shape=shape)
        assert found.example.shapes == {"image": (1, 32, 48, 3)} and not found.example.chosen
        assert found.macs == ep.plan_channels(model, pruning_ratio=0.5, input_shape=shape).macs.before
        assert found.macs == count_macs(model, np.zeros((1, 32, 48, 3), "float32")).total
    assert "for an input of 32x48x3" in str(ep.plan_channels(model, pruning_ratio=0.5, input_shape=(32, 48, 3)))
    # A small picture leaves more of the work to the dense layers, so the same target is met in another way.
    large, small = (ep.plan_channels(model, target_macs=0.5, input_shape=(side, side, 3)) for side in (256, 16))
    assert large.to_json() != small.to_json() and large.target.met


def test_some_sizes_asked_for_and_the_others_chosen(keras):
    L = keras.layers
    a, b = keras.Input((None, 3), name="a"), keras.Input((None, None, None, 2), name="b")
    x = L.Concatenate()([L.GlobalMaxPooling1D()(L.Conv1D(4, 3)(a)), L.GlobalMaxPooling3D()(L.Conv3D(4, 2)(b))])
    model = keras.Model([a, b], L.Dense(2)(x))
    found = ep.inspect(model, input_shape={"a": (7, 3), "b": (None, 4, 4, 2)})
    assert dict(found.example.shapes) == {"a": (1, 7, 3), "b": (1, 8, 4, 4, 2)} and found.example.chosen
    assert str(found.example) == "a 7x3 and b 8x4x4x2"
    with pytest.raises(ValueError, match=r"has the inputs \['a', 'b'\]: pass input_shape= as a dict by name"):
        ep.inspect(model, input_shape=(7, 3))


def test_longer_inputs_are_chosen_where_short_ones_are_refused(keras):
    i = keras.Input((None, 4))
    x = keras.layers.Cropping1D(100)(keras.layers.Conv1D(8, 3, padding="same", name="conv")(i))
    found = ep.inspect(keras.Model(i, keras.layers.Conv1D(2, 1, name="head")(x)))
    assert str(found.example) == "256x4" and found.macs == 256 * 3 * 4 * 8 + 56 * 8 * 2


@pytest.mark.parametrize(
    ("shape", "error", "words"),
    [
        ((32, 48, 4), ValueError, "does not fit input 'image', whose shape is"),
        ((32, 48), ValueError, "does not fit input 'image'"),
        ((0, 32, 3), ValueError, "does not fit input 'image'"),
        ((2, 2, 3), ValueError, "cannot be called on inputs of 2x2x3: pass a shape that it accepts as input_shape="),
        ({"picture": (32, 48, 3)}, ValueError, r"has the inputs \['image'\]; input_shape= names 'picture'"),
        ("32x48x3", TypeError, r"accepts sizes such as \(1, 128, 128, 3\); got '32x48x3'"),
        ((32, 4.5, 3), TypeError, "accepts sizes such as"),
        (32, TypeError, "accepts sizes such as"),
    ],
    ids=str,
)
def test_shapes_that_do_not_fit(shape, error, words):
    model = images(flavors.keras_module("keras"))
    for look in (
        ep.inspect,
        lambda model, input_shape: ep.plan_channels(model, pruning_ratio=0.5, input_shape=input_shape),
    ):
        with pytest.raises(error, match=words):
            look(model, input_shape=shape)


def test_a_model_of_one_size(keras):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    assert not ep.inspect(model).example.chosen and "for an input" not in str(
        ep.plan_channels(model, pruning_ratio=0.5)
    )
    with pytest.raises(ValueError, match="does not fit"):
        ep.plan_channels(model, pruning_ratio=0.5, input_shape=(5,))


def test_a_subclassed_model():
    keras = flavors.keras_module("keras")

    class Tower(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.two = keras.layers.Conv1D(8, 3), keras.layers.Conv1D(2, 3)

        def call(self, x):
            return self.two(self.one(x))

    model = Tower()
    model.build((None, None, 3))
    found = ep.inspect(model)
    assert str(found.example) == "64x3" and found.example.chosen
    assert found.macs == ep.plan_channels(model, pruning_ratio=0.5).macs.before == 62 * 72 + 60 * 48


def test_the_proof_runs_at_several_sizes(keras):
    """Of which some are odd: strides and poolings then meet the border otherwise."""
    plan = ep.plan_channels(images(keras), pruning_ratio=0.5)
    proof = plan.verify()
    assert proof.passed and proof.sizes == 3 and "at 3 sizes of the input" in str(proof)
    assert ep.plan_channels(nested(keras), pruning_ratio=0.5).verify().sizes == 1

    class OnlyEven(keras.layers.Layer):
        def call(self, x):
            if x.shape[1] is not None and x.shape[1] % 2:
                raise ValueError("an even number of steps, please")
            return x

    i = keras.Input((None, 4))
    x = keras.layers.Dense(8, name="b")(OnlyEven()(keras.layers.Dense(6, name="a")(i)))
    plan = ep.plan_channels(keras.Model(i, keras.layers.Dense(2)(x)), pruning_ratio=0.5)
    assert plan.verify().passed and plan.verify().sizes == 1


def test_a_fault_that_only_odd_lengths_show(keras):
    """A smaller model that pads otherwise is equal at even lengths alone."""
    from edgeprune.channels.rebuild.proof import prove

    L = keras.layers

    def net(padding):
        i = keras.Input((None, 4))
        x = L.Conv1D(8, 1, name="a")(i)
        x = L.AveragePooling1D(2, padding=padding)(x)
        return keras.Model(i, L.Conv1D(2, 1, name="b")(L.GlobalAveragePooling1D(keepdims=True)(x)))

    model, other = net("valid"), net("same")
    other.set_weights(model.get_weights())
    graph = trace(model)
    assert prove(graph, graph.full_mask(), net("valid")).passed is False  # other weights
    copy = net("valid")
    copy.set_weights(model.get_weights())
    assert prove(graph, graph.full_mask(), copy).passed
    assert not prove(graph, graph.full_mask(), other).passed


def test_at_the_terminal(keras, tmp_path):
    path = tmp_path / "images.keras"
    images(keras).save(path)

    def run(*arguments):
        return CliRunner().invoke(app, [*map(str, arguments)])

    printed = " ".join(run("inspect", path).output.split())
    assert "MACs for one sample of 224x224x3" in printed and "leaves it open" in printed
    content = json.loads(run("inspect", path, "--input-shape", "1,32,48,3", "--json").stdout)
    assert content["example"] == {"shapes": {"image": [1, 32, 48, 3]}, "chosen": False}
    content_of_plan = json.loads(
        run("channels", path, "--pruning-ratio", 0.5, "--input-shape", "image=32,48,3", "--json").stdout
    )
    assert content_of_plan["macs"]["before"] == content["macs"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["32,x"], "--input-shape accepts sizes such as 1,128,128,3"),
        (["32,-4,3"], "--input-shape accepts sizes"),
        ([""], "--input-shape accepts sizes"),
        (["4,3", "5,3"], "passed twice"),
        (["a=4,3", "5,3"], "with a name and without one"),
    ],
    ids=str,
)
def test_what_the_option_does_not_take(given, words):
    from edgeprune.cli.options import parse_input_shapes

    with pytest.raises(ValueError, match=words):
        parse_input_shapes(given)
