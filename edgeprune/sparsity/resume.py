"""Pruning that continues from a Keras 3 file: inside `prune_scope`, `load_model` puts the model under pruning again."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from keras.src.legacy.saving import legacy_h5_format
from keras.src.saving import saving_lib
from keras.src.saving.keras_saveable import KerasSaveable

from edgeprune import flavor
from edgeprune.sparsity import constraint_masks
from edgeprune.sparsity.settings import PruningRun
from edgeprune.types import Layer, Model, PathLike


class PruningInFile(KerasSaveable):
    """Stands where a layer's pruning would, while a file is read.

    Args:
        take_up: called with what the file holds. The layer is in this function alone: Keras reads the state of every
            layer that it finds among the attributes here.
    """

    def __init__(self, take_up: Callable[[Any], None]):
        self.load_own_variables = take_up

    def _obj_type(self) -> str:
        return "Layer"


def _resume_layer(layer: Layer, runs: dict[int, PruningRun], store: dict[str, Any]) -> None:
    """Put a layer under the pruning in a file, if there is any; layers that were pruned in one call share `runs`."""
    if "settings" not in store:
        return
    settings = json.loads(np.asarray(store["settings"]).tobytes())
    if settings["call"] not in runs:
        try:
            runs[settings["call"]] = PruningRun.from_config(settings)
        except ValueError as error:
            warnings.warn(
                f"Layer {layer.name!r} does not continue to be pruned: {error} Call prune_low_magnitude with the "
                "schedule, then load_weights of the same file."
            )
            return
    constraint_masks.attach(layer, runs[settings["call"]])
    if (pruning := constraint_masks.pruning_of(layer)) is not None:
        pruning.load_own_variables(store)


def resume(model: Model, path: PathLike) -> None:
    """Put a Keras 3 model that was loaded from a file under the pruning it was saved with: settings, masks and step.

    Args:
        model: the model, as `keras.saving.load_model` returns it.
        path: the `.keras` file, or the folder of an unzipped one.
    """
    runs: dict[int, PruningRun] = {}
    layers = [layer for layer in flavor.layers_of(model) if layer.built]
    for layer in layers:
        constraint_masks.hold(layer, PruningInFile(functools.partial(_resume_layer, layer, runs)))
    try:
        model.load_weights(Path(path) / "model.weights.h5" if os.path.isdir(path) else path)
    finally:
        for layer in layers:
            if isinstance(constraint_masks.pruning_of(layer), PruningInFile):
                constraint_masks.forget_pruning(layer)


@contextlib.contextmanager
def loading_under_pruning() -> Iterator[None]:
    """While the body runs, Keras 3's `load_model` returns models that go on being pruned."""
    load_keras, load_h5 = saving_lib.load_model, legacy_h5_format.load_model_from_hdf5

    def load_and_resume(filepath: PathLike, *args: object, **kwargs: object) -> Any:
        model = load_keras(filepath, *args, **kwargs)
        if flavor.is_model(model) and model.built and os.path.exists(filepath):
            resume(model, filepath)
        return model

    def load_and_warn(filepath: PathLike, *args: object, **kwargs: object) -> Any:
        model = load_h5(filepath, *args, **kwargs)
        warnings.warn(
            f"{filepath}: model {model.name!r} is not under pruning, as Keras 3 writes neither masks nor step into an "
            ".h5 file: save it as .keras, or call prune_low_magnitude to begin again."
        )
        return model

    saving_lib.load_model, legacy_h5_format.load_model_from_hdf5 = load_and_resume, load_and_warn
    try:
        yield
    finally:
        saving_lib.load_model, legacy_h5_format.load_model_from_hdf5 = load_keras, load_h5
