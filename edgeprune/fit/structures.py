"""Inputs, labels and weights as a model's own structure has them, and the check that they fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.data.labels import by_output, shape_fits
from edgeprune.data.named_inputs import named_inputs
from edgeprune.data.ports import input_shapes
from edgeprune.types import Arrays, Model


def check_inputs(model: Model, x: Arrays) -> None:
    """Refuse data that do not fit, in fewer words than Keras."""
    if not flavor.is_graph_model(model):
        return
    shapes = input_shapes(model)
    for name, array in named_inputs(model, x).items():
        expected = (None, *shapes[name])
        if not shape_fits(np.shape(array), expected):
            of_input = f" for {name!r}" if len(shapes) > 1 else ""
            raise ValueError(
                f"Model {model.name!r} has inputs of shape {expected}{of_input}, and the data have {np.shape(array)}."
            )


def structured(model: Model, x: Arrays, y: Arrays | None, sample_weight: Arrays | None) -> tuple[Any, Any, Any]:
    """Data by name in the structure of the model's inputs and outputs, which Keras accepts whatever its names."""
    if not flavor.is_graph_model(model):
        return x, y, sample_weight
    x = flavor.packed_as_called(model, list(named_inputs(model, x).values()))
    if not isinstance(y, Mapping):
        return x, y, sample_weight
    count = len(np.asarray(next(iter(y.values()))))
    if sample_weight is not None:
        weights = by_output(y, sample_weight, "sample weights")
        sample_weight = {name: np.ones(count, np.float32) if one is None else one for name, one in weights.items()}
    outputs = list(flavor.output_tensors(model))
    if returns_dict(model):
        return x, y, sample_weight
    compiled = flavor.compilation_of(model)
    assert compiled is not None, "check_and_compile comes first"
    losses = by_output(outputs, compiled.loss, "losses")
    if missing := [name for name in outputs if name not in y and losses[name] is not None]:
        raise ValueError(f"Model {model.name!r} is trained on its outputs {missing}, and there are no labels for them.")
    unused = np.zeros(count, np.float32)  # labels of outputs without a loss
    parts: tuple[Any, Any] = y, sample_weight
    return x, *(part and flavor.pack_outputs(model, [part.get(name, unused) for name in outputs]) for part in parts)


def returns_dict(model: Model) -> bool:
    """Whether a model's outputs are a dict."""
    return isinstance(flavor.graph_nodes(model)[2], Mapping)
