"""The inputs of a model or of a .tflite file by their names, whatever structure they were passed in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.data.named_arrays import listed, named_arrays
from edgeprune.data.ports import input_shapes
from edgeprune.tflite.runtime import Runtime, in_number_order
from edgeprune.types import Arrays, Model


def named_inputs(model: Model, x: Arrays) -> dict[str, Any]:
    """The array of each of a model's inputs by its name, in the model's order.

    Args:
        model: a built model of either Keras.
        x: an array for one input; for several a dict by their names, or arrays structured as in the model's call. The
            inputs of a subclassed model have names only where it is called on a dict: elsewhere a dict is read in the
            order of its own names.

    Raises:
        ValueError: an input is missing, or there are not as many arrays as inputs.
    """
    owner, shapes = f"Model {model.name!r}", input_shapes(model)
    structure = flavor.packed_as_called(model, list(shapes))  # of the names
    if isinstance(x, Mapping):
        if not flavor.is_graph_model(model) and not isinstance(structure, Mapping):
            x = [x[name] for name in in_number_order(x)]
        elif isinstance(structure, Mapping) and not x.keys() >= shapes.keys() and x.keys() >= structure.keys():
            x = {name: x[key] for key, name in structure.items()}
    elif isinstance(structure, list | tuple) and not all(isinstance(part, str) for part in structure):
        x = flavor.flatten(x, model)  # lists or dicts inside each other
    return named_arrays(owner, shapes, x)


def named_samples(runtime: Runtime, samples: Arrays, order: list[str] | None = None) -> dict[str, np.ndarray]:
    """Samples for a .tflite file by the names of its inputs, checked.

    Args:
        runtime: the opened file.
        samples: an array for one input; for several a list or tuple of arrays in the order of `order`, or a dict by
            name. Each has a leading axis over the samples and holds real values: where the file has integers for
            them, they are quantized when it is run.
        order: the names of the inputs in the order of a list; by default the file's.

    Returns:
        Input name to array, all of the same length.

    Raises:
        ValueError: an input is missing or empty, has the wrong shape, holds no numbers, NaN, infinity, or fractions
            where the file expects whole numbers, or the inputs differ in length.
    """
    names = order or list(runtime.inputs)
    if set(names) != set(runtime.inputs):
        raise ValueError(f"{runtime.path} has the inputs {listed(runtime.inputs)}, got {listed(names)}.")
    shapes = {name: tuple(runtime.inputs[name].shape)[1:] for name in names}
    arrays = {name: np.asarray(array) for name, array in named_arrays(str(runtime.path), shapes, samples).items()}
    runtime.check_samples(arrays)
    return arrays
