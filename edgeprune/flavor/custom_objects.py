"""Custom classes and functions that a model file names, from the modules that hold them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from types import ModuleType
from typing import Any, cast

from edgeprune.flavor.kinds import KERAS_3, TF_KERAS, flavor_of_class
from edgeprune.module_names import import_named, object_named


def custom_objects_of(names: Iterable[str]) -> dict[str, Any]:
    """Import modules, which runs their code, and collect what a model file may name of them.

    Args:
        names: `"package.module"` or `"path/to/file.py"`, of which the classes that derive from a Keras class and the
            functions are taken; or one object of it, `"package.module:Name"`. What registers itself with Keras when
            it is imported is known under its registered name, too.

    Returns:
        Name to class or function, as `load_model(custom_objects=...)` accepts them. A later module comes before an
        earlier one.

    Raises:
        FileNotFoundError: there is no file at a path.
        ImportError: there is no such module, it has nothing of that name, or its import stopped with an error.
        ValueError: a name is empty, or its module holds neither a class of Keras nor a function.

    Example:
        >>> custom_objects_of(["keras.layers:Dense"])
        {'Dense': <class 'keras.src.layers.core.dense.Dense'>}
    """
    found: dict[str, Any] = {}
    for name in names:
        module, colon, own_name = name.rpartition(":")
        if colon and not name.endswith(".py"):
            found[own_name.rpartition(".")[2]] = object_named(f"{module}:{own_name}")
            continue
        objects = _objects_in(import_named(name))
        if not objects:
            raise ValueError(f"{name} holds no layer, model, loss or other class of Keras, and no function.")
        found |= objects
    return found


def _objects_in(module: ModuleType) -> dict[str, Any]:
    """The functions of a module's own package, and the classes that are built on one of Keras."""
    package = module.__name__.partition(".")[0]
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and flavor_of_class(cast(Any, value))
        and _package(value) not in (KERAS_3, TF_KERAS)
        or inspect.isfunction(value)
        and _package(value) == package
    }


def _package(value: object) -> str:
    return str(value.__module__).partition(".")[0]
