"""Layers, losses and metrics of one's own, in files and on the command line."""

import sys
import warnings

import keras
import numpy as np
import pytest
import tf_keras

import edgeprune as ep
from edgeprune.cli.commands import app
from edgeprune.flavor import NotCompiledWarning
from edgeprune.flavor.custom_objects import custom_objects_of

KERASES = {"keras": keras, "tf_keras": tf_keras}
FORMATS = [("keras", "m.keras"), ("keras", "m.h5"), ("tf_keras", "m.keras"), ("tf_keras", "m.h5"), ("tf_keras", "m")]

SOURCE = """
import {keras} as k

class Scale(k.layers.Layer):
    def __init__(self, factor=2.0, **options):
        super().__init__(**options)
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return {{**super().get_config(), "factor": self.factor}}

class Share(k.metrics.MeanMetricWrapper):
    def __init__(self, name="share", **options):
        super().__init__(lambda y, p: p, name=name)

def squares(y, p):
    return (y - p) ** 2

def halved(x):
    return x * 0.5
"""


@pytest.fixture(params=FORMATS, ids=["-".join(one) for one in FORMATS])
def saved(request, tmp_path):
    """A file with a layer, an activation and a loss of one's own, the module that holds them, and its predictions."""
    flavor, name = request.param
    module = tmp_path / "own.py"
    module.write_text(SOURCE.format(keras=flavor))
    own, k = custom_objects_of([str(module)]), KERASES[flavor]
    hidden = k.layers.Dense(4, activation=own["halved"], name="hidden")
    model = k.Sequential([k.Input((3,)), hidden, own["Scale"](3.0), k.layers.Dense(2, name="out")])
    model.compile("sgd", own["squares"])
    model.save(tmp_path / name)
    x = np.ones((1, 3), "float32")
    return tmp_path / name, module, own, x, np.asarray(model(x))


def test_a_file_of_ones_own_classes_is_loaded_and_compiled(saved):
    path, _, own, x, expected = saved
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotCompiledWarning)
        model = ep.load_model(path, custom_objects=own)
    np.testing.assert_allclose(model(x), expected, rtol=1e-6)


@pytest.mark.parametrize("loss", ["mse", "mean_squared_error", "kld"])
def test_a_loss_by_any_of_its_names_is_known(tmp_path, loss, flavor):
    k = KERASES[flavor]
    model = k.Sequential([k.Input((3,)), k.layers.Dense(2)])
    model.compile("sgd", loss)
    path = tmp_path / ("m.keras" if flavor == "keras" else "m.h5")
    model.save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotCompiledWarning)
        assert ep.load_model(path).optimizer is not None


def test_a_missing_class_is_named_with_the_way_out(saved):
    path = saved[0]
    if path.is_dir():  # the graph of a SavedModel needs no class
        with pytest.warns(NotCompiledWarning, match="squares"):
            np.testing.assert_allclose(ep.load_model(path)(saved[3]), saved[4], rtol=1e-6)
        return
    with pytest.raises(ValueError, match=r"needs '(Scale|halved)'.*custom_objects.*--custom"):
        ep.load_model(path)


@pytest.mark.parametrize("flavor", KERASES)
@pytest.mark.parametrize("what", ["loss", "dict of losses", "metric", "metric class", "optimizer"])
@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m"])
def test_what_compiling_needs_may_be_missing(tmp_path, flavor, what, name):
    if name == "m" and flavor == "keras":
        return  # Keras 3 writes no such folder
    k = KERASES[flavor]
    module = tmp_path / "own.py"
    module.write_text(SOURCE.format(keras=flavor) + "\nclass Slow(k.optimizers.SGD):\n    pass\n")
    own = custom_objects_of([str(module)])
    settings = {
        "loss": {"loss": own["squares"]},
        "dict of losses": {"loss": {"out": own["squares"]}},
        "metric": {"loss": "mse", "metrics": [own["squares"]]},
        "metric class": {"loss": "mse", "metrics": [own["Share"]()]},
        "optimizer": {"loss": "mse", "optimizer": own["Slow"]()},
    }[what]
    x = k.Input((3,))
    model = k.Model(x, k.layers.Dense(2, name="out")(x))
    model.compile(**settings)
    model.fit(np.ones((2, 3)), np.ones((2, 2)), verbose=0)
    model.save(tmp_path / name)
    sys.modules.pop(own["Scale"].__module__)  # as in another process
    with pytest.warns(NotCompiledWarning, match="without compiling"):
        loaded = ep.load_model(tmp_path / name)
    np.testing.assert_allclose(loaded(np.ones((1, 3))), model(np.ones((1, 3))), rtol=1e-6)


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        app([*map(str, arguments)])
    return ended.value.code


@pytest.mark.parametrize("flavor", KERASES)
@pytest.mark.above_flavor
def test_every_command_takes_custom(tmp_path, flavor, capsys):
    module, k = tmp_path / "own.py", KERASES[flavor]
    module.write_text(SOURCE.format(keras=flavor))
    own = custom_objects_of([str(module)])
    x = k.Input((3,), name="x")
    hidden = k.layers.Dense(8, activation="relu")(own["Scale"](3.0)(x))
    model = k.Model(x, k.layers.Dense(2, name="out")(hidden))
    model.compile("sgd", own["squares"])
    path, pruned, file, data = (tmp_path / name for name in ("m.keras", "pruned.keras", "m.tflite", "data.npz"))
    model.save(path)
    np.savez(data, x=np.random.default_rng(0).random((40, 3), "float32"), y=np.ones((40, 2), "float32"))
    assert run("inspect", path) == 2
    assert "--custom" in capsys.readouterr().err
    custom = ("--custom", module)
    for arguments in (
        ("inspect", path),
        ("prune", path, "--data", data, "-o", pruned, "--epochs", 1),
        ("channels", pruned, "--pruning-ratio", 0.5),
        ("convert", pruned, "-o", file),
        ("verify", file, "--model", pruned),
        ("bundle", path, "--data", data, "-o", tmp_path / "bundle"),
    ):
        assert run(*arguments, *custom) == 0, (arguments[0], capsys.readouterr().err)
    assert "without compiling" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("custom", "message"),
    [
        ("nowhere.py", "no Python file at nowhere.py"),
        ("no_such_module", "no module 'no_such_module'"),
        ("json:nothing", "json has no nothing"),
        ("string:", "names nothing in a module"),
        ("", "is empty"),
        ("this", "no layer, model, loss or other class of Keras"),
    ],
)
def test_a_bad_custom_is_one_line(tmp_path, capsys, custom, message):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "m.keras")
    assert run("inspect", tmp_path / "m.keras", "--custom", custom) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
