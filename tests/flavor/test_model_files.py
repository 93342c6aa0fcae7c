"""Nothing that a model file carries runs, is imported or is read from elsewhere unless the user says so."""

import importlib
import json
import sys
import zipfile

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from edgeprune.cli import app
from edgeprune.flavor import NotCompiledWarning, load_model

FORMATS = [("keras", "m.keras"), ("keras", "m.h5"), ("tf_keras", "m.keras"), ("tf_keras", "m.h5"), ("tf_keras", "m")]


def net(keras, *middle):
    return keras.Sequential([keras.Input((4,)), *middle, keras.layers.Dense(2, name="head")])


def edited(path, change):
    """Put another configuration into a file of one of the three formats."""
    if path.is_dir():
        from tf_keras.protobuf import saved_metadata_pb2

        metadata = saved_metadata_pb2.SavedMetadata.FromString((path / "keras_metadata.pb").read_bytes())
        for node in metadata.nodes:
            node.metadata = json.dumps(change(json.loads(node.metadata)))
        (path / "keras_metadata.pb").write_bytes(metadata.SerializeToString())
    elif path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = json.dumps(change(json.loads(file.attrs["model_config"])))
    else:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        members["config.json"] = json.dumps(change(json.loads(members["config.json"]))).encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)


def with_layer(layer):
    """A change that puts the description of a layer behind the first one."""

    def change(configuration):
        configuration["config"]["layers"].insert(1, layer)
        return configuration

    return change


@pytest.mark.parametrize(("flavor", "name"), FORMATS)
@pytest.mark.parametrize("nested", ["plain", "model", "time_distributed"])
def test_a_lambda_does_not_run_unless_asked_for(tmp_path, flavor, name, nested):
    keras = importlib.import_module(flavor)
    mark, path = tmp_path / "ran", tmp_path / name
    code = eval(f"lambda x: (open({str(mark)!r}, 'a').close(), x)[1]")
    layer = keras.layers.Lambda(code, name="spy", output_shape=(4,))
    if nested == "model":
        layer = keras.Sequential([keras.Input((4,)), layer], name="inner")
    elif nested == "time_distributed":
        inside = keras.layers.TimeDistributed(layer, name="each")
        layer = keras.Sequential([keras.Input((4,)), keras.layers.Reshape((1, 4)), inside, keras.layers.Flatten()])
    model = net(keras, layer)
    x = np.ones((3, 4), "f4")
    expected = model.predict(x, verbose=0)
    model.save(path)
    mark.unlink()
    with pytest.raises(ValueError, match=r"'spy' holds Python code.*safe_mode=False"):
        load_model(path)
    assert not mark.exists()
    loaded = load_model(path, safe_mode=False)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, rtol=1e-5)
    assert mark.exists()


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
@pytest.mark.parametrize("kind", ["RNN", "Bidirectional"])
def test_code_in_a_wrapped_cell_is_refused(tmp_path, kind, name):
    keras = importlib.import_module("tf_keras")
    layers = keras.layers
    cell = importlib.import_module("tensorflow").nn.RNNCellResidualWrapper
    layer = layers.RNN(cell(layers.GRUCell(4), residual_fn=lambda i, o: i + o), name="recurrent")
    layer = layers.Bidirectional(layer) if kind == "Bidirectional" else layer
    path = tmp_path / name
    keras.Sequential([keras.Input((3, 4)), layer]).save(path)
    with pytest.raises(ValueError, match="holds Python code"):
        load_model(path)


DESCRIPTIONS = {
    "a function of a module": {
        "class_name": "Dense",
        "module": "keras.layers",
        "config": {
            "name": "bad",
            "units": 4,
            "activation": {"class_name": "function", "module": "os", "config": "system", "registered_name": "system"},
        },
    },
    "a class of a module": {"class_name": "Thing", "module": "strangers_layers", "config": {"name": "bad"}},
    "a builtin": {
        "class_name": "Lambda",
        "module": "keras.layers",
        "config": {
            "name": "bad",
            "function": {"class_name": "function", "module": "builtins", "config": "eval", "registered_name": "eval"},
        },
    },
    "a function of Keras that is no operation": {
        "class_name": "Lambda",
        "module": "keras.layers",
        "config": {
            "name": "bad",
            "function": {"class_name": "function", "module": "keras.utils", "config": "get_file"},
        },
    },
    "a function of Keras as a class": {"class_name": "get_file", "module": "keras.utils", "config": {"name": "bad"}},
    "a function of Keras that loads": {
        "class_name": "Lambda",
        "module": "keras.layers",
        "config": {
            "name": "bad",
            "function": {"class_name": "function", "module": "keras.models", "config": "load_model"},
        },
    },
    "safe mode turned off": {
        "class_name": "Lambda",
        "module": "keras.layers",
        "config": {
            "name": "bad",
            "function": {"class_name": "function", "module": "keras.config", "config": "enable_unsafe_deserialization"},
        },
    },
    "a function inside Keras": {
        "class_name": "Lambda",
        "module": "keras.layers",
        "config": {
            "name": "bad",
            "function": {"class_name": "function", "module": "keras.src.utils.generic_utils", "config": "func_load"},
        },
    },
    "code under another class": {"class_name": "__lambda__", "config": {"name": "bad", "value": ["4wAA", None, None]}},
    "a SavedModel elsewhere": {
        "class_name": "TFSMLayer",
        "module": "keras.layers",
        "config": {"name": "bad", "filepath": "/x"},
    },
    "a vocabulary elsewhere": {
        "class_name": "StringLookup",
        "module": "keras.layers",
        "config": {"name": "bad", "vocabulary": "/etc/passwd"},
    },
    "a function of TensorFlow": {"class_name": "TFOpLambda", "config": {"name": "bad", "function": "io.gfile.rmtree"}},
    "a raw operator": {"class_name": "TFOpLambda", "config": {"name": "bad", "function": "raw_ops.WriteFile"}},
    "Python through TensorFlow": {
        "class_name": "TFOpLambda",
        "config": {"name": "bad", "function": "compat.v1.py_func"},
    },
    "a method of a class": {
        "class_name": "ClassMethod",
        "config": {"name": "bad", "cls_symbol": "data.Dataset", "method_name": "load"},
    },
    "an attribute inside": {"class_name": "InstanceProperty", "config": {"name": "bad", "attr_name": "__class__"}},
    "an operator that writes": {
        "class_name": "TensorFlowOpLayer",
        "config": {"name": "bad", "node_def": {"name": "w", "op": "WriteFile", "input": ["a", "b"]}},
    },
}


@pytest.mark.parametrize("what", DESCRIPTIONS)
def test_what_a_configuration_must_not_name(tmp_path, flavor, what):
    keras = importlib.import_module(flavor)
    for name in ("m.keras", "m.h5"):
        path = tmp_path / name
        net(keras, keras.layers.Dense(4)).save(path)
        edited(path, with_layer(DESCRIPTIONS[what]))
        with pytest.raises(ValueError, match=r"layer 'bad' .*safe_mode=False"):
            load_model(path)


def test_what_a_saved_model_must_not_run(tmp_path):
    tf, keras = importlib.import_module("tensorflow"), importlib.import_module("tf_keras")

    class Writes(keras.layers.Layer):
        def call(self, x):
            tf.io.write_file(str(tmp_path / "written"), "content")
            return x

    class Prints(keras.layers.Layer):
        def call(self, x):
            tf.print(x)
            return x

    class Saves(keras.layers.Layer):
        """With an operator that every SavedModel has, but not in what it computes."""

        def call(self, x):
            tf.raw_ops.SaveV2(
                prefix=str(tmp_path / "written"), tensor_names=["x"], shape_and_slices=[""], tensors=[tf.reduce_sum(x)]
            )
            return x

    for name, layer in (("WriteFile", Writes()), ("SaveV2", Saves()), ("good", Prints())):
        net(keras, layer).save(tmp_path / name)
    for operator in ("WriteFile", "SaveV2"):
        with pytest.raises(ValueError, match=f"runs the operator {operator}"):
            load_model(tmp_path / operator)
    assert load_model(tmp_path / "good").layers


def test_weights_of_another_file_are_refused(tmp_path, flavor):
    keras = importlib.import_module(flavor)
    net(keras).save(tmp_path / "other.h5")
    net(keras).save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        place = next(name for name in _names(file) if "kernel" in name)
        del file[place]
        file[place] = h5py.ExternalLink(str(tmp_path / "other.h5"), place)
    with pytest.raises(ValueError, match="read from another file"):
        load_model(tmp_path / "m.h5")


def _names(file):
    names = []
    file.visit(names.append)
    return names


def test_members_of_an_archive_stay_inside_it(tmp_path, flavor, monkeypatch):
    keras = importlib.import_module(flavor)
    path = tmp_path / "in" / "m.keras"
    path.parent.mkdir()
    net(keras).save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../escaped", "x")
        archive.writestr("assets/../../../escaped", "x")
    here = tmp_path / "deep" / "here"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    before = set(tmp_path.rglob("*"))
    load_model(path)
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("flavor", "name"), FORMATS)
def test_an_ordinary_model_loads(tmp_path, flavor, name):
    keras = importlib.import_module(flavor)
    layers = keras.layers
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu", kernel_regularizer=keras.regularizers.L2(1e-4))(image)
    x = layers.BatchNormalization()(x)
    x = layers.Activation(keras.activations.gelu)(x)
    if flavor == "tf_keras":  # its functional models hold calls of TensorFlow itself
        tf = importlib.import_module("tensorflow")
        x = tf.nn.relu6(tf.math.reduce_mean(x, axis=[1]) * 2.0 + 1.0)[:, 1:]
    else:
        x = layers.Flatten()(x) if name == "m.h5" else keras.ops.mean(x, axis=1)[:, 1:]
        x = layers.Reshape((-1, 4))(x)
    x = layers.Bidirectional(layers.SimpleRNN(3))(x) if name == "m.keras" else layers.Flatten()(x)
    model = keras.Model(image, layers.Dense(3, activation="softmax")(x))
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.save(tmp_path / name)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("f4")
    loaded = load_model(tmp_path / name)
    np.testing.assert_allclose(loaded.predict(images, verbose=0), model.predict(images, verbose=0), rtol=1e-4)


def test_a_class_must_be_registered_or_imported(tmp_path, flavor):
    keras = importlib.import_module(flavor)
    scope = keras.saving.register_keras_serializable(package=f"test_model_files_{flavor}")

    @scope
    class Registered(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    net(keras, Registered()).save(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras")
    assert type(loaded.layers[0]) is Registered


def my_loss(y, predicted):
    return ((y - predicted) ** 2)[..., 0]


@pytest.mark.parametrize(("flavor", "name"), FORMATS)
def test_a_loss_that_is_not_there_leaves_the_model_uncompiled(tmp_path, flavor, name):
    model = net(importlib.import_module(flavor))
    model.compile("adam", my_loss)
    x = np.ones((8, 4), "f4")
    model.fit(x, np.ones((8, 2)), verbose=0)
    model.save(tmp_path / name)
    with pytest.warns(NotCompiledWarning, match="loaded without compiling; its loss, metrics or"):
        loaded = load_model(tmp_path / name)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5)
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / name), "--json"])
    assert result.exit_code == 0 and "note: " in result.stderr and json.loads(result.stdout)


def test_the_command_line_asks_for_unsafe(tmp_path):
    keras = importlib.import_module("keras")
    path = tmp_path / "m.keras"
    net(keras, keras.layers.Lambda(eval("lambda x: 2 * x"), name="double", output_shape=(4,))).save(path)
    refused = CliRunner().invoke(app, ["inspect", str(path)])
    assert refused.exit_code == 2 and "'double'" in refused.stderr and "--unsafe" in refused.stderr
    assert CliRunner().invoke(app, ["inspect", str(path), "--unsafe"]).exit_code == 0


@pytest.mark.parametrize(
    "content", [b"", b"\x89HDF\r\n\x1a\n" + b"\0" * 90, b"PK\x05\x06" + b"\0" * 18, b"[" * 100_000]
)
@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_damaged_files_are_one_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="could not be read as a Keras model"):
        load_model(tmp_path / name)


def test_what_is_registered_with_the_other_keras_is_not_imported(tmp_path, flavor, monkeypatch):
    other = {"keras": "tf_keras", "tf_keras": "keras"}[flavor]
    (tmp_path / f"attacker_{flavor}.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    keras = importlib.import_module(flavor)
    path = tmp_path / "m.keras"
    net(keras, keras.layers.Flatten(name="own")).save(path)

    def own_class(config):
        (layer,) = (layer for layer in config["config"]["layers"] if layer["config"]["name"] == "own")
        layer |= {"module": f"attacker_{flavor}", "class_name": "Own", "registered_name": f"other_{flavor}>Own"}
        return config

    edited(path, own_class)
    keras_2 = importlib.import_module(other)
    keras_2.saving.register_keras_serializable(package=f"other_{flavor}", name="Own")(
        type("Own", (keras_2.layers.Layer,), {})
    )
    with pytest.raises(ValueError, match="attacker"):
        load_model(path)
    assert f"attacker_{flavor}" not in sys.modules


def test_a_file_stays_with_the_keras_that_wrote_it(tmp_path):
    keras, tf_keras = importlib.import_module("keras"), importlib.import_module("tf_keras")
    model = net(tf_keras)
    model.compile("adam", "mse")
    path, x = tmp_path / "m.keras", np.ones((2, 4), "f4")
    model.save(path)

    def only_in_keras_3(config):
        config["compile_config"]["loss"] = "dice"
        return config

    assert hasattr(keras.losses, "dice") and not hasattr(tf_keras.losses, "dice")
    edited(path, only_in_keras_3)
    with pytest.warns(NotCompiledWarning, match="'dice'"):
        assert isinstance(load_model(path), tf_keras.Model)
    # Where it says that another one wrote it, it loads as that and predicts.
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(tf_keras.__version__.encode(), b"3.0.0"))
    loaded = load_model(path)
    assert isinstance(loaded, keras.Model)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5)
