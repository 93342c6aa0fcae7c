"""The public names: all there, documented, typed, and each example runs."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import edgeprune

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(edgeprune.__path__, "edgeprune.") if "__main__" not in module.name
)


@pytest.mark.parametrize("name", [name for name in edgeprune.__all__ if name != "__version__"])
def test_every_public_name_is_documented_and_typed(name):
    thing = getattr(edgeprune, name)
    assert inspect.getdoc(thing), f"{name} has no docstring"
    if inspect.isfunction(thing):
        signature = inspect.signature(thing)
        assert signature.return_annotation is not inspect.Signature.empty
        untyped = [p.name for p in signature.parameters.values() if p.annotation is inspect.Parameter.empty]
        assert not untyped
        assert ">>>" in thing.__doc__, f"{name} shows no example"


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'prune_everything'"):
        edgeprune.prune_everything  # noqa: B018
    assert set(edgeprune.__all__) <= set(dir(edgeprune))


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testmod(importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert not failed
