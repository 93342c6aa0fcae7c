"""Models from files, and TF-MOT beside both Kerases."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from edgeprune.crash_guard import try_out
from edgeprune.flavor import legacy_h5
from edgeprune.flavor.deep_graphs import followed_by_recursion
from edgeprune.flavor.file_safety import check_model_file
from edgeprune.flavor.kinds import KERAS_3, TF_KERAS, keras_module
from edgeprune.types import Model

# How both Kerases say that they do not know a class or function.
_MISSING = re.compile(
    r"(Unknown (layer|object|activation function|initializer|regularizer|constraint)|Could not locate (class|function))"
    r":? ['\"](?P<name>[\w.>]+)['\"]"
)

# Where classes of edgeprune that a file may name are registered with a Keras, and how it names them.
_OWN = b"edgeprune>"
_REGISTERS_OWN = {
    KERAS_3: ("edgeprune.quantization.layers_keras",),
    TF_KERAS: ("edgeprune.quantization.layers_tf_keras", "edgeprune.sparsity.wrapper_masks"),
}


class NotCompiledWarning(UserWarning):
    """A model was loaded without its loss, metrics and optimizer."""


def load_model(path: str | Path, *, custom_objects: Mapping[str, Any] | None = None, safe_mode: bool = True) -> Model:
    """Load a model of either Keras: `.keras`, `.h5`, or a SavedModel folder that `tf_keras` wrote.

    The Keras that wrote the file is tried first, then the other. Where it cannot compile the model as its file says (a
    loss or a metric is not there), it is loaded without compiling, with a `NotCompiledWarning`. A `tf_keras` model
    that was saved under pruning comes back with its wrappers. An `.h5` file of Keras 1 or 2 becomes a `tf_keras` model.

    Args:
        path: the file or the folder.
        custom_objects: name to class or function, for custom layers, losses and metrics. What was registered with
            `keras.saving.register_keras_serializable` is known without it, and so are the layers of edgeprune.
        safe_mode: refuse a file that would run Python code (a Lambda layer), import a module or read another file
            while it is loaded, in all formats of both Kerases. Turn it off only for a file whose source you trust.

    Returns:
        A `keras.Model` or a `tf_keras.Model`.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: the file is refused by `safe_mode` (the message names the layer), it needs a class or function
            that is unknown (the message names it), or neither Keras can read it (the message holds both reasons).

    Example:
        >>> model.save("mine.keras")
        >>> load_model("mine.keras").name
        'net'
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"No model at {path}")
    with _known(custom_objects or {}), followed_by_recursion():
        model, missing = _first_loaded(path, safe_mode)
    if missing is not None:
        warnings.warn(
            f"{path} is loaded without compiling; its loss, metrics or optimizer are not there: {missing}",
            NotCompiledWarning,
            stacklevel=2,
        )
    return model


def _first_loaded(path: Path, safe_mode: bool) -> tuple[Any, str | None]:
    """The model, and why it is not compiled as its file says; `None` where it is."""
    if safe_mode and path.is_file():
        try_out(path)  # what ends or stops the HDF5 library does so in a process of its own
    refused: ValueError | None = None
    reasons: dict[str, str] = {}
    for flavor in _flavors(path):
        try:
            not_compiled = check_model_file(path, flavor) if safe_mode else None
        except ValueError as error:
            refused = refused or error
            continue
        for compiled in (False,) if not_compiled else (True, False):  # a custom loss may not be there
            try:
                model = _loaded(path, flavor, compiled, safe_mode)
            except legacy_h5.UntranslatableError as error:  # the other Keras knows even less of it
                raise ValueError(f"{path} could not be read: {error}") from error
            except Exception as error:  # each Keras raises many kinds; both reasons are reported below
                reasons.setdefault(flavor, " ".join(str(error).split()))
            else:
                return model, None if compiled else not_compiled or reasons[flavor][:300]
    raise refused or ValueError(_unread(path, reasons))


def _known(custom_objects: Mapping[str, Any]) -> contextlib.AbstractContextManager:
    """Both Kerases know these names while the body runs."""
    scopes = contextlib.ExitStack()
    for flavor in (KERAS_3, TF_KERAS) if custom_objects else ():
        scopes.enter_context(keras_module(flavor).utils.custom_object_scope(dict(custom_objects)))
    return scopes


def _flavors(path: Path) -> tuple[str, ...]:
    """The Kerases that may read a file, the one that wrote it first: functions of one name differ between them."""
    if path.is_dir():
        return (TF_KERAS,)
    version = legacy_h5.written_by(path)
    if version == "1":
        return (TF_KERAS,)
    return (TF_KERAS, KERAS_3) if version == "2" else (KERAS_3, TF_KERAS)


def _loaded(path: Path, flavor: str, compiled: bool, safe_mode: bool) -> Any:
    with contextlib.ExitStack() as stack:
        file: Any = path
        content = _naming_classes(path)
        if _OWN in content:
            for module in _REGISTERS_OWN[flavor]:
                importlib.import_module(module)
        if flavor == TF_KERAS:
            if b"PruneLowMagnitude" in content:
                stack.enter_context(import_tfmot().sparsity.keras.prune_scope())
            file = stack.enter_context(legacy_h5.translated(path)) or path
        model = keras_module(flavor).models.load_model(file, compile=compiled, safe_mode=safe_mode)
    if flavor == KERAS_3 and model.steps_per_execution is None:  # as tf_keras writes it into .keras files
        model.steps_per_execution = 1
    return model


def _unread(path: Path, reasons: Mapping[str, str]) -> str:
    """Why a file could not be loaded; of a class that is missing, its name."""
    missing = next(filter(None, map(_MISSING.search, reasons.values())), None)
    if missing:
        return (
            f"{path} needs {missing['name']!r}, which no Keras knows: pass the class or function in custom_objects "
            "(on the command line, --custom MODULE with the module that holds it)."
        )
    said = " | ".join(f"{flavor}: {reason[:300]}" for flavor, reason in reasons.items())
    return f"{path} could not be read as a Keras model. {said}"


def _naming_classes(path: Path) -> bytes:
    """The part of a file that names the classes of its layers."""
    if path.is_dir():
        written = path / "keras_metadata.pb"
        return written.read_bytes() if written.exists() else b""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return archive.read("config.json") if "config.json" in archive.namelist() else b""
    return path.read_bytes()


@functools.cache
def import_tfmot() -> ModuleType:
    """Import TensorFlow Model Optimization without changing what `tf.keras` means in this process.

    TF-MOT sets `TF_USE_LEGACY_KERAS=1` when it is imported, and `tf.keras` decides which Keras it is at
    its first use. So `tf.keras` is made to decide first, and the variable is put back afterwards.
    """
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    import tensorflow as tf

    _ = tf.keras.layers  # the first use
    try:
        return importlib.import_module("tensorflow_model_optimization")
    finally:
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = before
