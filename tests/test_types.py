"""Signatures as editors and type checkers see them, and the names that packages load when first used."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgeprune

REPOSITORY = Path(edgeprune.__file__).parents[1]
STUBS = REPOSITORY / "stubs"
# Packages whose names are loaded when first used.
LAZY = [
    "edgeprune",
    *(
        f"edgeprune.{file.parent.name}"
        for file in sorted(REPOSITORY.glob("edgeprune/*/__init__.py"))
        if "_HOME" in file.read_text()
    ),
]
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(edgeprune.__path__, "edgeprune.") if "__main__" not in module.name
)
# Raised and caught inside, or told apart from others by nobody.
INTERNAL_ERRORS = {
    "Broken",
    "CannotSolve",
    "LimitError",
    "NotWrittenError",
    "NothingFitsError",
    "NotUnfoldedError",
    "UnlikeFilesError",
    "UntranslatableError",
}


def imports_for_editors(package):
    """What stands under `if TYPE_CHECKING:`: each name and the module it is imported from."""
    tree = ast.parse(inspect.getsource(importlib.import_module(package)))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    return {
        alias.asname: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize("package", LAZY)
def test_editors_see_what_is_loaded(package):
    module = importlib.import_module(package)
    seen = {name: where for name, (where, _) in imports_for_editors(package).items()}
    modules = {name: package for name in getattr(module, "_MODULES", ())}
    assert seen == module._HOME | modules
    assert dir(module) == module.__all__
    for name, (where, there) in imports_for_editors(package).items():
        if name not in modules:
            assert getattr(module, name) is getattr(importlib.import_module(where), there)
    with pytest.raises(AttributeError, match="no attribute 'prune_everything'"):
        module.prune_everything  # noqa: B018


def own_classes():
    """The classes of edgeprune that no module keeps to itself."""
    return {
        thing
        for module in map(importlib.import_module, MODULES)
        for name, thing in vars(module).items()
        if inspect.isclass(thing) and thing.__module__.startswith("edgeprune.") and not thing.__name__.startswith("_")
    }


def test_what_public_functions_return_and_raise_is_public():
    public = {
        id(getattr(importlib.import_module(package), name)): name
        for package in LAZY
        for name in importlib.import_module(package).__all__
    }
    unnamed = {cls.__name__: cls for cls in own_classes() if id(cls) not in public}
    for package in LAZY:
        for name in importlib.import_module(package).__all__:
            function = getattr(importlib.import_module(package), name)
            if inspect.isfunction(function):
                returned = set(re.findall(r"\w+", str(function.__annotations__["return"])))
                assert not returned & set(unnamed), name
    assert {name for name, cls in unnamed.items() if issubclass(cls, Exception)} == INTERNAL_ERRORS


def stubbed():
    """Each class of a stub, as (module, class name, names of its attributes and methods)."""
    for file in sorted(STUBS.rglob("*.pyi")):
        module = ".".join(file.relative_to(STUBS).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                methods = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
                attributes = {part.target.id for part in node.body if isinstance(part, ast.AnnAssign)}
                yield module, node.name, (methods | attributes) - {"__getattr__", "__setattr__"}


def source_of(cls):
    """The source of a class and of those it derives from in the same package."""
    package = cls.__module__.partition(".")[0]
    return "".join(inspect.getsource(base) for base in cls.__mro__ if base.__module__.startswith(package))


def test_stubs_say_what_the_packages_have():
    import tensorflow as tf

    found = 0
    for module, name, attributes in stubbed():
        cls = getattr(importlib.import_module(module), name)
        if cls in (tf.Tensor, tf.Variable):  # abstract
            cls = type({tf.Tensor: tf.constant, tf.Variable: tf.Variable}[cls](0.0))
        for attribute in attributes:
            # What only instances have is set by a method of the class.
            assert hasattr(cls, attribute) or f"self.{attribute} =" in source_of(cls), f"{module}.{name}.{attribute}"
        found += len(attributes)
    assert found > 40


@pytest.mark.parametrize("function, planner", [("prune_channels", "plan_channels"), ("remove_blocks", "plan_blocks")])
def test_settings_that_are_handed_on_are_those_of_the_plan(function, planner):
    """`**settings` are typed by a dict with just the arguments of the function that gets them, and their types."""
    module = inspect.getmodule(getattr(edgeprune, function))
    (name,) = re.findall(
        r"Unpack\[(\w+)\]", inspect.signature(getattr(edgeprune, function)).parameters["settings"].annotation
    )
    settings = {key: hint.__forward_arg__ for key, hint in getattr(module, name).__annotations__.items()}
    arguments = inspect.signature(getattr(edgeprune, planner)).parameters
    assert settings == {key: argument.annotation for key, argument in arguments.items() if key != "model"}


def mypy(code, tmp_path):
    """What mypy reports of a program that uses edgeprune, with the settings of the repository."""
    file = tmp_path / "program.py"
    file.write_text(code)
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", str(file)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True).stdout


def test_mypy_reports_misspelt_names_and_wrong_values(tmp_path):
    argument = list(inspect.signature(edgeprune.plan_channels).parameters)[1]  # how much is removed
    wrong = {
        f"ep.plan_channels(model, {argument}x=0.5)": f'Unexpected keyword argument "{argument}x"',
        f'ep.plan_channels(model, {argument}="half")': 'incompatible type "str"; expected "float | None"',
        "ep.plan_channels(model, importance='l3')": "incompatible type \"Literal['l3']\"",
        "ep.plan_chanels(model)": 'has no attribute "plan_chanels"',
        "ep.export_tflite(model, 'm.tflite', quantization='int7')": "incompatible type \"Literal['int7']\"",
        f"ep.plan_channels('model.keras', {argument}=0.5)": 'incompatible type "str"',
        f"ep.plan_channels(model, {argument}=0.5).aply()": 'has no attribute "aply"',
        f"ep.prune_channels(model, {argument}x=0.5)": f'Unexpected keyword argument "{argument}x"',
        f"ep.ChannelPruning(schedule, {argument}=0.5, max_ration=0.9)": 'Unexpected keyword argument "max_ration"',
    }
    right = (
        "import keras\nimport edgeprune as ep\nmodel, schedule = keras.Sequential([]), ep.ConstantSparsity(0.5, 0)\n"
        f"ep.plan_channels(model, {argument}=0.5)\n"
    )
    lines = mypy(right + "\n".join(wrong), tmp_path).splitlines()
    reported = {int(line.split(":")[1]): line for line in lines if ": error:" in line}
    assert sorted(reported) == list(range(5, 5 + len(wrong)))
    for number, expected in enumerate(wrong.values(), 5):
        assert expected in reported[number]
