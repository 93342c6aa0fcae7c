"""Data in every form become the same samples, checked against the model, and what is wrong is one error."""

from __future__ import annotations

import numpy as np
import pytest
from data.forms import X, Y, same
from hypothesis import given, settings
from hypothesis import strategies as st

import edgeprune as ep
from edgeprune import flavor
from edgeprune.data import npz
from edgeprune.data.ports import Ports

# Arrays


def test_arrays_by_name_go_to_inputs_and_outputs(folder, two):
    x, y = {"left": X[:, :3], "right": X[:, 3:]}, {"value": X[:, :1], "box": X[:, 1:3]}
    np.savez(folder / "d.npz", **{f"x.{name}": x[name] for name in x}, **{f"y.{name}": y[name] for name in y})
    data = ep.load_data(folder / "d.npz", two)
    same(data.x_train, x)
    same(data.y_test, y)
    assert not data.held_out and data.sample_weight_train is None
    assert list(data.x_train) == ["left", "right"]


def test_parts_with_weights_and_one_output_left_out(folder, two):
    arrays = {"x_train.left": X[:4, :3], "x_train.right": X[:4, 3:], "y_train.box": X[:4, :2]}
    arrays |= {"x_test.left": X[4:, :3], "x_test.right": X[4:, 3:], "sample_weight_train": Y[:4] + 1}
    np.savez(folder / "d.npz", **arrays)
    data = ep.load_data("d.npz", two)
    same(data.y_train, {"box": X[:4, :2]})
    same(data.sample_weight_train, Y[:4] + 1)
    assert data.held_out and data.y_test is None and len(data.x_test["left"]) == 2


def test_only_input_may_be_named(folder, one):
    np.savez(folder / "d.npz", **{"x.features": X, "y.kind": Y})
    data = ep.load_data("d.npz", one)
    same(data.x_train, X)
    same(data.y_train, Y)


def test_npy_is_inputs_alone(folder, one):
    np.save(folder / "d.npy", X)
    data = ep.load_data("d.npy", one)
    same(data.x_test, X)
    assert data.y_test is None


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"no array"], ids=["empty", "cut", "text"])
def test_damaged_npy(folder, content):
    (folder / "d.npy").write_bytes(content)
    with pytest.raises(ValueError, match="d.npy cannot be read"):
        ep.load_data("d.npy")


def test_npy_of_objects_is_refused(folder):
    np.save(folder / "d.npy", np.array([{}], object))
    with pytest.raises(ValueError, match="d.npy cannot be read: it holds Python objects"):
        ep.load_data("d.npy")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "model 'two' has 2 inputs .*'left', 'right'.*, got 1. Name an array .*: x.left, x.right"),
        ({"x.left": X, "x.rihgt": X}, "has x.rihgt, and model 'two' has the inputs 'left', 'right'"),
        ({"x.left": X}, "model 'two' has the inputs 'left', 'right', got 'left'. Name an array .*: x.left, x.right"),
        (
            {"x.left": X, "x.right": X, "y": Y},
            "has 2 outputs .*'value', 'box'.*, got 1. Name an array .*: y.value, y.box",
        ),
        ({"x.left": X, "x.right": X, "y.boxes": Y}, "has y.boxes, and model 'two' has the outputs 'value', 'box'"),
        ({"x.left": X, "x.right": X[:3]}, "train inputs have different numbers of samples"),
        ({"x.left": X, "x.right": X, "y.box": Y[:2]}, "6 train inputs, but labels box of shape"),
        ({"x.left": X, "x": X}, "has both x and x.NAME"),
        ({"x.left": X * np.nan, "x.right": X}, "24 of 24 values of x.left are NaN"),
        ({"x": X, "sample_weight": Y[:2]}, "6 train inputs, but weights of shape"),
        ({"x": X, "sample_weight_test": Y}, "has sample_weight_test without x_test"),
    ],
)
def test_arrays_that_do_not_fit(folder, two, arrays, message):
    np.savez(folder / "d.npz", **arrays)
    with pytest.raises(ValueError, match=f"d.npz.* {message}"):
        ep.load_data("d.npz", two)


# Tables


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_table(folder, one, delimiter):
    lines = ["a,b,y,c,d", "1,2,0,3,4", "5,6.5,2,-7,8e1", ""]
    (folder / "t.csv").write_text("\ufeff" + "\r\n".join(lines).replace(",", delimiter), encoding="utf-8")
    data = ep.load_data("t.csv", one)
    same(data.x_train, np.array([[1, 2, 3, 4], [5, 6.5, -7, 80]], np.float32))
    same(data.y_train, [0, 2])
    assert data.x_train.dtype == np.float32 and data.y_train.dtype == np.int64


def test_table_with_label_columns_and_weights(folder, one):
    (folder / "t.csv").write_text("price,a,b,sample_weight,c,d,area\n1.5,1,2,1,3,4,7\n2,5,6,3,7,8,9\n")
    data = ep.load_data("t.csv", one, label_columns=["price", "area"])
    same(data.x_test, [[1, 2, 3, 4], [5, 6, 7, 8]])
    same(data.y_test, [[1.5, 7], [2, 9]])
    same(data.sample_weight_test, [1, 3])


def test_table_of_several_inputs_and_outputs(folder, two):
    (folder / "t.csv").write_text(
        "y.box.0,left.x,left.y,right,x.left.z,y.box.1,y.value\n1,2,3,4,5,6,7\n11,12,13,14,15,16,17.5\n"
    )
    data = ep.load_data("t.csv", two)
    same(data.x_train, {"left": [[2, 3, 5], [12, 13, 15]], "right": [[4], [14]]})
    same(data.y_train, {"value": [7, 17.5], "box": [[1, 6], [11, 16]]})


def test_rows_take_the_shape_of_the_input(folder):
    (folder / "t.csv").write_text("y,a,b,c,d\n0,1,2,3,4\n")
    for shape in ((2, 2, 1), (None, 2), (4,)):
        model = Ports("model 'm'", {"image": shape}, ("y",))
        from edgeprune.data.tables import open_csv

        x = open_csv(folder / "t.csv")(model).x_train
        assert x.shape == (1, *(2 if size is None else size for size in shape))
        assert x.ravel().tolist() == [1, 2, 3, 4]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(-1e9, 1e9), min_size=3, max_size=3), min_size=1, max_size=5), st.booleans())
def test_numbers_come_back_as_they_were_written(tmp_path_factory, rows, quoted):
    path = tmp_path_factory.mktemp("table") / "t.csv"
    cell = '"{!r}"'.format if quoted else repr
    path.write_text("a,y,b\n" + "".join(",".join(map(cell, row)) + "\n" for row in rows))
    data = ep.load_data(path)
    values = np.array(rows)
    np.testing.assert_array_equal(data.x_train, values[:, [0, 2]].astype(np.float32))
    np.testing.assert_array_equal(data.y_train, values[:, 1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty: its first line must name the columns"),
        ("a,b,c,d,y\n", "has no rows"),
        ("1,2,3,4,0\n5,6,7,8,1\n", "line 1 holds numbers; it must name the columns"),
        (",a,b,c,d\n0,1,2,3,4\n", "column 1 has no name .pandas"),
        ("a,a,c,d,y\n1,2,3,4,0\n", "two columns are named 'a'"),
        ("a,b,c,d,y\n1,2,3,4,0\n1,2,3\n", "line 3 has 3 values for 5 columns"),
        ("a,b,c,d,y\n1,2,3,4,0\n1,2,cat,4,0\n", "line 3, column 'c' holds 'cat', which is no number"),
        ("a,b,c,d,y\n\n1,2,3,4,\n", "line 3, column 'y' is empty"),
        ("a,b,c,d,y\n1,2,nan,4,0\n", "line 2, column 'c' holds 'nan'"),
        ("a,b,c,y\n1,2,3,0\n", "has 3 columns of inputs, 'a', 'b', 'c', and model 'one' has inputs of shape"),
        ("a,b,c,d,e\n1,2,3,4,0\n", "has 5 columns of inputs"),
        ('a,b,c,d,y\n1,2,3,4,"0\n' + "x" * 200_000, "is no table: field larger than field limit"),
    ],
)
def test_tables_that_are_none(folder, one, content, message):
    (folder / "t.csv").write_text(content)
    with pytest.raises(ValueError, match=f"t.csv:? {message}"):
        ep.load_data("t.csv", one)


def test_table_is_text(folder):
    (folder / "t.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
    with pytest.raises(ValueError, match="t.csv is not a text file in UTF-8"):
        ep.load_data("t.csv")


def test_columns_that_are_not_there(folder, two, one):
    (folder / "t.csv").write_text("left.1,left.2,left.3,middle\n1,2,3,4\n")
    with pytest.raises(ValueError, match="has the columns 'left.1', .* and model 'two' the inputs 'left', 'right'"):
        ep.load_data("t.csv", two)
    with pytest.raises(ValueError, match="has no column 'price'; it has 'left.1'"):
        ep.load_data("t.csv", one, label_columns=["price"])
    np.save(folder / "d.npy", X)
    with pytest.raises(ValueError, match="Columns of labels are named for a .csv file, not for d.npy"):
        ep.load_data("d.npy", one, label_columns=["price"])


# Whatever the form


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("absent.npz", FileNotFoundError, "No data file at absent.npz"),
        ("absent", FileNotFoundError, "There are no data at absent: name a .npz, .npy or .csv file, a folder"),
        ("other.txt", ValueError, "other.txt is no data file: name a .npz"),
        ("json:nothing", ImportError, "json has no nothing"),
    ],
)
def test_sources_that_are_none(folder, source, kind, message):
    (folder / "other.txt").write_text("1 2 3")
    with pytest.raises(kind, match=message):
        ep.load_data(source)


def test_models_of_no_known_names(folder, keras):
    class Sum(keras.Model):
        def call(self, inputs):
            return inputs[0] + inputs[1]

    np.savez(folder / "d.npz", **{"x.input_0": X, "x.input_1": X, "y": X})
    model = Sum()
    model.build([(None, 4), (None, 4)])
    data = ep.load_data("d.npz", model)
    assert isinstance(data.x_train, list) and len(data.x_train) == 2
    same(data.y_train, X)


def test_memory_is_that_of_the_machine():
    assert 1 << 20 < npz.memory() < 1 << 50


@pytest.mark.parametrize("kind", [flavor.KERAS_3, flavor.TF_KERAS])
@pytest.mark.parametrize("outputs", ["list", "dict"])
def test_samples_of_no_weight_train_nothing(kind, outputs):
    from edgeprune.fit import fine_tune

    keras = flavor.keras_module(kind)
    left, right = keras.Input((3,), name="left"), keras.Input((1,), name="right")
    joined = keras.layers.Concatenate()([left, right])
    heads = {name: keras.layers.Dense(1, name=name)(joined) for name in ("value", "kind")}
    model = keras.Model([left, right], heads if outputs == "dict" else list(heads.values()))
    model.compile("sgd", dict.fromkeys(heads, "mse"))
    x, y = {"left": X[:, :3] / 24, "right": X[:, 3:] / 24}, {"kind": X[:, :1], "value": X[:, 1:2]}
    before = {name: model.get_layer(name).get_weights()[0] for name in heads}
    fine_tune(model, x, y, sample_weight={"value": np.zeros(6)}, epochs=1)
    changed = {name: not np.array_equal(before[name], model.get_layer(name).get_weights()[0]) for name in heads}
    assert changed == {"value": False, "kind": True}


@pytest.mark.parametrize("outputs", ["list", "dict"])
@pytest.mark.parametrize("kind", [flavor.KERAS_3, flavor.TF_KERAS])
def test_pruning_trains_outputs_by_name(kind, outputs):
    """TF-MOT's wrappers rename layers; the keys of the inputs are not their names."""
    from edgeprune.fit import prune_and_fit

    keras = flavor.keras_module(kind)
    left, right = keras.Input((3,), name="left"), keras.Input((1,), name="right")
    joined = keras.layers.Concatenate()([left, right])
    heads = {name: keras.layers.Dense(1, name=name) for name in ("value", "kind")}
    tensors = {name: head(joined) for name, head in heads.items()}
    model = keras.Model({"a": left, "b": right}, tensors if outputs == "dict" else list(tensors.values()))
    model.compile("sgd", dict.fromkeys(heads, "mse"))
    x, y = {"left": X[:, :3] / 24, "right": X[:, 3:] / 24}, {"kind": X[:, :1], "value": X[:, 1:2]}
    weights = {"value": np.zeros(6)}
    before = {name: head.get_weights()[0] for name, head in heads.items()}
    pruned = prune_and_fit(model, x, y, sample_weight=weights, sparsity=0.5, epochs=1)
    for name, trained in (("value", False), ("kind", True)):
        kernel = pruned.get_layer(name).get_weights()[0]
        assert np.count_nonzero(kernel) == 2
        assert np.array_equal(kernel[kernel != 0], before[name][kernel != 0]) is not trained
    if outputs == "list":
        with pytest.raises(ValueError, match="trained on its outputs .'value'., and there are no labels"):
            prune_and_fit(model, x, {"kind": y["kind"]}, epochs=1)
