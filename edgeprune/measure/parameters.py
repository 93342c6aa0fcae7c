"""How many parameters a Keras model has, how many are not zero, and how many are trained."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.text_table import text_table
from edgeprune.types import Model


@dataclass(frozen=True)
class LayerParameters:
    """The parameters of one layer.

    Attributes:
        total: their number.
        nonzero: how many are not exactly zero.
        trainable: how many training changes.
    """

    total: int
    nonzero: int
    trainable: int


@dataclass(frozen=True)
class ParameterCount:
    """The parameters of a model, each weight once however often its layer is called.

    Attributes:
        total: their number.
        nonzero: how many are not exactly zero.
        trainable: how many training changes.
        per_layer: layer name to its own parameters, only layers that have any.
    """

    total: int
    nonzero: int
    trainable: int
    per_layer: dict[str, LayerParameters]

    def __str__(self) -> str:
        """A table of the layers, one a line."""
        counted: dict[str, LayerParameters | ParameterCount] = {**self.per_layer, "total": self}
        rows = [(name, f"{row.total:,}", f"{row.nonzero:,}", f"{row.trainable:,}") for name, row in counted.items()]
        return text_table(("layer", "parameters", "non-zero", "trainable"), rows)

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values, for JSON."""
        return asdict(self)


def count_parameters(model: Model) -> ParameterCount:
    """Count the parameters of a Keras model.

    Args:
        model: a built model or layer of `keras` 3 or `tf_keras`. Strip pruning wrappers first: their masks
            are weights too.

    Returns:
        The totals, and each layer's own under its name (`"block/conv"` for a layer of a nested model).

    Raises:
        TypeError: `model` is no Keras model or layer.
        ValueError: the model is not built.

    Example:
        >>> import keras
        >>> count_parameters(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])).total
        15
    """
    if not flavor.is_layer(model):
        raise TypeError(f"Expected a Keras model or layer, got {type(model).__name__}: {str(model)[:80]}")
    flavor.check_built(model)
    totals: dict[str, Counter[str]] = {}
    trainable = {id(weight) for weight in model.trainable_weights}
    for weight, name in weights_by_layer(model):
        values = np.asarray(weight)
        counter = totals.setdefault(name, Counter())
        counter["total"] += values.size
        counter["nonzero"] += int(np.count_nonzero(values))
        counter["trainable"] += values.size if id(weight) in trainable else 0
    kinds = ("total", "nonzero", "trainable")
    per_layer = {name: LayerParameters(*(row[kind] for kind in kinds)) for name, row in totals.items()}
    total, nonzero, trained = (sum(row[kind] for row in totals.values()) for kind in kinds)
    return ParameterCount(total, nonzero, trained, per_layer)


def weights_by_layer(model: Model) -> list[tuple[Any, str]]:
    """Each weight of a model once, with the name of the innermost layer that holds it."""
    names = flavor.layer_names(model)
    owners: dict[int, str] = {}
    for layer in flavor.layers_of(model):  # parents come before their parts, so the innermost layer remains
        for weight in flavor.weights_of(layer):
            owners[id(weight)] = names[id(layer)]
    return [(weight, owners.get(id(weight), model.name)) for weight in flavor.weights_of(model)]
