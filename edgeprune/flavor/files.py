"""Models from files, and TF-MOT beside both Kerases."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import warnings
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

from edgeprune.flavor.file_safety import check_model_file
from edgeprune.flavor.kinds import KERAS_3, TF_KERAS, keras_module


class NotCompiledWarning(UserWarning):
    """A model was loaded without its loss, metrics and optimizer."""


def load_model(path: str | Path, *, safe_mode: bool = True) -> Any:
    """Load a model of either Keras: `.keras`, `.h5`, or a SavedModel folder that `tf_keras` wrote.

    Keras 3 is tried first, then `tf_keras`. Where neither can compile the model as its file says (a loss or a metric is
    not there), it is loaded without compiling, with a `NotCompiledWarning`. A `tf_keras` model that was saved under
    pruning comes back with its wrappers.

    Args:
        path: the file or the folder.
        safe_mode: refuse a file that would run Python code (a Lambda layer), import a module or read another file
            while it is loaded, in all formats of both Kerases. Turn it off only for a file whose source you trust.

    Returns:
        A `keras.Model` or a `tf_keras.Model`.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: the file is refused by `safe_mode` (the message names the layer), or neither Keras can read it
            (the message holds both reasons).
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"No model at {path}")
    not_compiled = check_model_file(path) if safe_mode else None
    reasons: dict[str, str] = {}
    for compiled in (False,) if not_compiled else (True, False):  # a loss of the user's own may not be there
        for flavor in (TF_KERAS,) if path.is_dir() else (KERAS_3, TF_KERAS):
            try:
                with _wrappers_known(path) if flavor == TF_KERAS else contextlib.nullcontext():
                    model = keras_module(flavor).models.load_model(path, compile=compiled, safe_mode=safe_mode)
            except Exception as error:  # each Keras raises many kinds; both reasons are reported below
                reasons.setdefault(flavor, " ".join(str(error).split())[:300])
            else:
                if not compiled:
                    reason = not_compiled or reasons[flavor]
                    note = f"{path} is loaded without compiling; its loss, metrics or optimizer are not there: {reason}"
                    warnings.warn(note, NotCompiledWarning, stacklevel=2)
                return model
    raise ValueError(f"{path} could not be read as a Keras model. " + " | ".join(map(": ".join, reasons.items())))


def _wrappers_known(path: Path) -> contextlib.AbstractContextManager:
    """What `tf_keras` needs to load a file: TF-MOT's scope where the model was saved under pruning."""
    if path.is_dir():
        written = path / "keras_metadata.pb"
        content = written.read_bytes() if written.exists() else b""
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            content = archive.read("config.json") if "config.json" in archive.namelist() else b""
    else:
        content = path.read_bytes()
    return import_tfmot().sparsity.keras.prune_scope() if b"PruneLowMagnitude" in content else contextlib.nullcontext()


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
