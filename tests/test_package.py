"""The public names: all there, documented, typed, and each example runs."""

import contextlib
import doctest
import importlib
import inspect
import pkgutil
import re
import shutil
from pathlib import Path

import docs_pages
import pytest

import edgeprune

REFERENCE = Path(__file__).parents[1] / "docs" / "api" / "index.md"
USES_NAMES = re.compile(r">>> .*\b(?:ep|keras|layers|model|np|x)\b")
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


@pytest.fixture(scope="module")
def names_and_files(tmp_path_factory):
    """The code that makes the model and data of the reference's examples, and a folder with their files."""
    (_, names), (_, files) = docs_pages.blocks_of(REFERENCE)
    folder = tmp_path_factory.mktemp("files")
    with contextlib.chdir(folder):
        exec(names + files, {})
    return names, folder


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_run(module, names_and_files, tmp_path, monkeypatch):
    """Each in names of its own: those of the module, and those that the reference's first page makes."""
    names, folder = names_and_files
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(module)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        if any(not example.options.get(doctest.SKIP) for example in test.examples):
            shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
            if USES_NAMES.search(test.docstring):
                exec(names, test.globs)
            runner.run(test)
    assert not runner.summarize().failed


def test_examples_of_public_names_are_not_skipped():
    """Those of functions and classes, and of the public methods of classes."""
    skipped = []
    for name in set(edgeprune.__all__) - {"__version__"}:
        thing = getattr(edgeprune, name)
        if inspect.isfunction(thing) or inspect.isclass(thing):
            tests = doctest.DocTestFinder().find(thing, name, module=inspect.getmodule(thing))
            skipped += [test.name for test in tests for example in test.examples if example.options.get(doctest.SKIP)]
    assert not skipped
