"""`edgeprune.tfmot`: TF-MOT's layout, names and signatures, loaded when first used."""

import importlib
import inspect
import subprocess
import sys

import numpy as np
import pytest
from nets.pruned_nets import X, Y

import edgeprune
from edgeprune import flavor as flavors
from edgeprune import tfmot


def public_names(module):
    return {name for name in dir(module) if not name.startswith("_")}


def test_the_names_are_tfmots_and_edgeprunes_own():
    theirs = flavors.import_tfmot()
    ours = tfmot.sparsity.keras
    assert set(ours.__all__) == set(dir(ours)) == public_names(theirs.sparsity.keras)
    for name in ours.__all__:
        assert getattr(ours, name) is getattr(edgeprune, name)
    assert tfmot.__version__ == theirs.__version__
    assert edgeprune.tfmot is tfmot and "tfmot" in dir(edgeprune)


def test_every_argument_of_tfmot_is_taken_in_its_place():
    theirs = flavors.import_tfmot().sparsity.keras
    for name in tfmot.sparsity.keras.__all__:
        if name == "prune_low_magnitude":  # TF-MOT's is decorated, and shows (*args, **kwargs)
            wanted = list(inspect.signature(inspect.unwrap(theirs.prune_low_magnitude)).parameters)
        else:
            wanted = list(inspect.signature(getattr(theirs, name)).parameters)
        given = list(inspect.signature(getattr(tfmot.sparsity.keras, name)).parameters)
        positional = [one for one in wanted if one not in ("args", "kwargs")]
        assert given[: len(positional)] == positional, name


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="edgeprune.tfmot.sparsity.keras.* no attribute 'prune_everything'"):
        tfmot.sparsity.keras.prune_everything  # noqa: B018
    assert not hasattr(tfmot, "clustering")


def test_it_imports_no_tensorflow():
    script = (
        "import sys, edgeprune, edgeprune.tfmot as tfmot; from edgeprune.tfmot.sparsity import keras; "
        "dir(edgeprune.tfmot.sparsity.keras); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_editors_see_the_names_that_are_loaded():
    """The imports for type checkers name the same objects as the loading at first use."""
    source = inspect.getsource(tfmot.sparsity.keras).partition("if TYPE_CHECKING:")[2].partition("__all__")[0]
    seen = {}
    exec(inspect.cleandoc(source.partition("\n")[2]), seen)
    for name in tfmot.sparsity.keras.__all__:
        assert seen[name] is getattr(importlib.import_module("edgeprune"), name)


SCRIPT = """
keras.utils.set_random_seed(0)
layers, prune = keras.layers, tfmot.sparsity.keras.prune_low_magnitude

class Own(layers.Dense, tfmot.sparsity.keras.PrunableLayer):
    def get_prunable_weights(self):
        return [self.kernel]

class NoHead(tfmot.sparsity.keras.PruningPolicy):
    def allow_pruning(self, layer):
        return layer.name != "head"

    def ensure_model_supports_pruning(self, model):
        pass

schedule = tfmot.sparsity.keras.PolynomialDecay(0.5, 0.8, begin_step=1, end_step=6, frequency=1)
model = keras.Sequential([
    layers.Dense(16, activation="relu", input_shape=(12,)), Own(8),
    layers.Dense(3, name="head"),
])
model = prune(model, schedule, pruning_policy=NoHead())
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
callbacks = [tfmot.sparsity.keras.UpdatePruningStep(), tfmot.sparsity.keras.PruningSummaries(log_dir)]
model.fit(x, y, batch_size=16, shuffle=False, verbose=0, callbacks=callbacks)
model.save(half)
with tfmot.sparsity.keras.prune_scope():
    model = keras.models.load_model(half, custom_objects={"Own": Own})
model.fit(x, y, batch_size=16, shuffle=False, verbose=0, callbacks=[tfmot.sparsity.keras.UpdatePruningStep()])
weights = tfmot.sparsity.keras.strip_pruning(model).get_weights()
"""


def run(script, library, flavor, folder):
    """The weights a script ends with."""
    # Keras 3.15 itself cannot train on what it loads from .h5.
    half = folder / ("half.h5" if flavor == "tf_keras" else "half.keras")
    names = dict(x=X, y=Y, log_dir=str(folder / "logs"), half=str(half))
    names |= dict(tfmot=library, keras=flavors.keras_module(flavor))
    exec(script, names)
    return names["weights"]


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """The weights that TF-MOT itself ends with, on `tf_keras`."""
    return run(SCRIPT, flavors.import_tfmot(), "tf_keras", tmp_path_factory.mktemp("tfmot"))


def test_a_script_with_only_its_import_changed(flavor, wanted, tmp_path):
    """The same weights as TF-MOT's on `tf_keras`, as many zeros on Keras 3."""
    given = run(SCRIPT, tfmot, flavor, tmp_path)
    if flavor == "tf_keras":
        for ours, theirs in zip(given, wanted, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    zeros = [np.count_nonzero(weight == 0) for weight in given]
    assert zeros == [np.count_nonzero(weight == 0) for weight in wanted] and zeros[0] == round(0.8 * 12 * 16)
