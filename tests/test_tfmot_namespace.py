"""`edgeprune.tfmot`: TF-MOT's layout, names and signatures, loaded when first used."""

import importlib
import inspect
import subprocess
import sys

import pytest

import edgeprune
from edgeprune import flavor, tfmot


def public_names(module):
    return {name for name in dir(module) if not name.startswith("_")}


def test_the_names_are_tfmots_and_edgeprunes_own():
    theirs = flavor.import_tfmot()
    ours = tfmot.sparsity.keras
    assert set(ours.__all__) == set(dir(ours)) == public_names(theirs.sparsity.keras)
    for name in ours.__all__:
        assert getattr(ours, name) is getattr(edgeprune, name)
    assert tfmot.__version__ == theirs.__version__
    assert edgeprune.tfmot is tfmot and "tfmot" in dir(edgeprune)


def test_every_argument_of_tfmot_is_taken_in_its_place():
    theirs = flavor.import_tfmot().sparsity.keras
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
        "dir(edgeprune.tfmot.sparsity.keras); assert 'tensorflow' not in sys.modules; "
        "from edgeprune.tfmot.sparsity.keras import prune_scope"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_editors_see_the_names_that_are_loaded():
    """The imports for type checkers name the same objects as the loading at first use."""
    source = inspect.getsource(tfmot.sparsity.keras).partition("if TYPE_CHECKING:")[2].partition("__all__")[0]
    seen = {}
    exec(inspect.cleandoc(source.partition("\n")[2]), seen)
    for name in tfmot.sparsity.keras.__all__:
        assert seen[name] is getattr(importlib.import_module("edgeprune"), name)
